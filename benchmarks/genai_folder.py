"""Writes a Stable Diffusion folder in openvino-genai's form, for engines.py to time its pipeline on the same weights.

    python3 benchmarks/genai_folder.py MODEL FOLDER

Each network is traced by torch, which is what that program asks of a model. What an earlier run took is said again
where the folder is there.
"""  # fmt: skip

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from torch import nn


def write(model: Path, folder: Path) -> float:
    """The folder, unless it is there already, whole; seconds that it took."""
    begun = time.perf_counter()
    done = folder / "seconds.json"
    if done.is_file():
        return float(json.loads(done.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model / "model_index.json", folder / "model_index.json")
    shutil.copytree(model / "scheduler", folder / "scheduler", dirs_exist_ok=True)
    write_networks(model, folder)
    write_tokenizer(model, folder)
    seconds = time.perf_counter() - begun
    done.write_text(json.dumps(seconds))
    return seconds


def write_networks(model: Path, folder: Path) -> None:
    """Text encoder, UNet and decoder as openvino graphs beside their configurations."""
    import openvino as ov
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32).eval()
    vae = AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32).eval()
    text = CLIPTextModel.from_pretrained(model / "text_encoder", torch_dtype=torch.float32).eval()
    decoder = vae.decoder if vae.post_quant_conv is None else nn.Sequential(vae.post_quant_conv, vae.decoder)
    window = text.config.max_position_embeddings
    sample = torch.zeros(2, unet.config.in_channels, 16, 16)
    states = torch.zeros(2, window, unet.config.cross_attention_dim)
    traced: dict[str, tuple[nn.Module, dict[str, torch.Tensor], dict[str, Any]]] = {
        "unet": (
            Called(unet, "sample"),
            {"sample": sample, "timestep": torch.tensor([1]), "encoder_hidden_states": states},
            dict(unet.config),
        ),
        "vae_decoder": (
            Called(decoder, ""),
            {"latent_sample": sample[:1, : vae.config.latent_channels]},
            dict(vae.config),
        ),
        "text_encoder": (
            Called(text, "last_hidden_state"),
            {"input_ids": torch.zeros(1, window, dtype=torch.long)},
            text.config.to_dict(),
        ),
    }
    for name, (network, example, config) in traced.items():
        with torch.inference_mode():
            graph = ov.convert_model(network, example_input=tuple(example.values()))
        for given, (key, value) in zip(graph.inputs, example.items(), strict=True):
            given.get_tensor().set_names({key})
            given.get_node().set_friendly_name(key)
            given.get_node().set_partial_shape(ov.PartialShape([-1] * value.ndim))
        graph.validate_nodes_and_infer_types()
        (folder / name).mkdir(parents=True, exist_ok=True)
        ov.save_model(graph, folder / name / "openvino_model.xml", compress_to_fp16=False)
        (folder / name / "config.json").write_text(json.dumps(config, default=str))


class Called(nn.Module):
    """A network that gives one of its outputs, or its only one."""

    def __init__(self, network: nn.Module, output: str) -> None:
        super().__init__()
        self.network, self.output = network, output

    def forward(self, *given: Any) -> Any:
        found = self.network(*given)
        return getattr(found, self.output) if self.output else found


def write_tokenizer(model: Path, folder: Path) -> None:
    import openvino as ov
    from openvino_tokenizers import convert_tokenizer
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    ov.save_model(convert_tokenizer(tokenizer), folder / "tokenizer" / "openvino_tokenizer.xml")


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]), Path(sys.argv[2])):.0f} s")
