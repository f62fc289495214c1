"""The frozen text encoder: all-MiniLM-L6-v2, read once for all captions exactly as a pipeline will feed it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertModel


def model_folder(package: Path) -> Path:
    """Where the unpacked package keeps the model."""
    return next(package.rglob("model.safetensors")).parent


def load_text_encoder(package: Path, window: int) -> tuple[Tokenizer, BertModel]:
    """The tokenizer, cutting and padding to `window`, and the encoder at float32."""
    folder = model_folder(package)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(window)
    tokenizer.enable_padding(length=window)
    return tokenizer, BertModel.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def encode(tokenizer: Tokenizer, encoder: BertModel, texts: list[str]) -> torch.Tensor:
    """Texts to states [B, window, width], padding included: the UNet sees it too, as in StableDiffusionPipeline."""
    rows = tokenizer.encode_batch(texts)
    ids = torch.tensor([row.ids for row in rows])
    mask = torch.tensor([row.attention_mask for row in rows])
    return encoder(ids, mask).last_hidden_state


def lengths(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """How many tokens each text has, int [B], the two that enclose it included."""
    return np.array([sum(row.attention_mask) for row in tokenizer.encode_batch(texts)])


def pooled(states: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Unit vectors float32 [B, width]: the mean of each text's `count` first states, [B, T, width]."""
    inside = np.arange(states.shape[1]) < count[:, None]
    mean = (states.astype(np.float32) * inside[..., None]).sum(1) / count[:, None].astype(np.float32)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)
