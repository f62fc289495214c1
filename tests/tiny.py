"""Stable Diffusion checkpoints of a few thousand weights, random, in every build that the family knows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from noisette.checkpoint import CLIP_MERGES
from noisette.plan import Plan, plan
from noisette.recipe import Recipe
from noisette.text import clip_vocabulary

MERGES = gzip.decompress(CLIP_MERGES.read_bytes()).decode().splitlines()[:489]
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,!?0123456789"]
BERT_WORDS += [
    "a",
    "the",
    "red",
    "green",
    "cat",
    "alien",
    "house",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]
BERT_WORDS = list(dict.fromkeys(BERT_WORDS))

XL_UNET = {
    "use_linear_projection": True,
    "attention_head_dim": [2, 4],
    "transformer_layers_per_block": [1, 2],
    "cross_attention_dim": 32 + 48,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 20 + 6 * 8,
}
STYLES: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sd1-v": {"scheduler": {"prediction_type": "v_prediction"}},
    "sd2": {
        "unet": {"use_linear_projection": True, "attention_head_dim": [2, 4]},
        "scheduler": {"prediction_type": "v_prediction"},
        "tokenizer": {"pad_token": "!"},
        "text": {"hidden_act": "gelu"},
    },
    "inpaint": {"unet": {"in_channels": 9}},
    "sdxl": {"unet": XL_UNET, "vae": {"scaling_factor": 0.13025}, "text": {"num_hidden_layers": 3}},
    "sdxl-inpaint": {"unet": XL_UNET | {"in_channels": 9}, "vae": {"scaling_factor": 0.13025}},
    "bert": {
        "unet": {
            "in_channels": 16,
            "out_channels": 16,
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 4,
        },
        "vae": {"latent_channels": 16, "block_out_channels": (32, 32, 32, 64, 64), "scaling_factor": 0.5},
        "scheduler": {
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
            "steps_offset": 0,
        },
    },
}


def clip_tokenizer(**config: Any) -> CLIPTokenizer:
    """CLIP's tokenizer with its 512 characters and 488 of its merges."""
    pairs = [tuple(line.split()) for line in MERGES[1:]]
    return CLIPTokenizer(vocab=clip_vocabulary(MERGES), merges=pairs, model_max_length=77, **config)


def bert_tokenizer() -> BertTokenizer:
    """BERT's with a few words, a window of 32."""
    return BertTokenizer(vocab={word: i for i, word in enumerate(BERT_WORDS)}, model_max_length=32)


def pipeline(style: str) -> Any:
    """A random pipeline of one of STYLES; seeded, the same at every call."""
    torch.manual_seed(7)
    build = STYLES[style]
    unet = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
    } | build.get("unet", {})
    vae = {"latent_channels": 4, "block_out_channels": (32, 32, 64, 64), "norm_num_groups": 8} | build.get("vae", {})
    blocks = len(vae["block_out_channels"])
    vae |= {
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
    }
    scheduler = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",  # said outright, or other schedulers would put their own default
    } | build.get("scheduler", {})
    text, tokenizer = text_model(style, build)
    parts = {
        "vae": AutoencoderKL(**vae).eval(),
        "text_encoder": text.eval(),
        "tokenizer": tokenizer,
        "unet": UNet2DConditionModel(**unet).eval(),
        "scheduler": DDIMScheduler(**scheduler),
    }
    if style.startswith("sdxl"):
        second = second_text_model(tokenizer).eval()
        parts |= {"text_encoder_2": second, "tokenizer_2": clip_tokenizer(pad_token="!")}
        return StableDiffusionXLPipeline(**parts, add_watermarker=False)
    return StableDiffusionPipeline(
        **parts,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def text_model(style: str, build: dict[str, Any]) -> tuple[Any, Any]:
    """The text encoder and its tokenizer."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
    if style == "bert":
        config = BertConfig(**sizes, vocab_size=len(BERT_WORDS), max_position_embeddings=64, use_attention_mask=True)
        return BertModel(config), bert_tokenizer()
    tokenizer = clip_tokenizer(**build.get("tokenizer", {}))
    config = CLIPTextConfig(**(sizes | build.get("text", {})), vocab_size=len(tokenizer))
    model = CLIPTextModel(config)
    torch.nn.init.normal_(model.final_layer_norm.bias, std=0.3)  # states whose mean is not 0, as trained ones have
    return model, tokenizer


def second_text_model(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Stable Diffusion XL's second text encoder: wider and deeper than the first, and it projects."""
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPTextConfig(**sizes, **ends, hidden_act="gelu", projection_dim=20, vocab_size=len(tokenizer))
    return CLIPTextModelWithProjection(config)


def save(style: str, folder: Path) -> Any:
    """Writes the pipeline as a diffusers folder and returns it."""
    made = pipeline(style)
    made.save_pretrained(folder)
    return made


def with_plain_vocabulary(folder: Path) -> Path:
    """Replaces tokenizer.json by vocab.json and merges.txt, as published Stable Diffusion folders have it."""
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(clip_vocabulary(MERGES)), encoding="utf-8")
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(MERGES) + "\n", encoding="utf-8")
    return folder


def planned(folder: Path, out: Path, **fields: Any) -> Plan:
    """A plan of four steps by the checkpoint in `folder`; `fields` of its recipe on top."""
    values = {"prompt": "alien", "seed": "3", "num_inference_steps": 4, "engine": "torch", "sampler": "dpmpp_2m"}
    return plan(Recipe(model=str(folder), **{**values, **fields}), out)
