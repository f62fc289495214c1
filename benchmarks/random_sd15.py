"""Writes a Stable Diffusion 1.5 of random weights as a diffusers folder; speed does not depend on them.

    python3 benchmarks/random_sd15.py FOLDER [--dtype F16|F32]

Needs neither torch nor a network connection: the shapes are those that the openvino graphs ask for. The tokenizer
is CLIP's own.
"""  # fmt: skip

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from noisette.checkpoint import CLIP_MERGES
from noisette.engines.openvino import text, unet, vae
from noisette.engines.openvino.graph import Weights
from noisette.text import clip_vocabulary

UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "sample_size": 64,
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
TEXT: dict[str, Any] = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


class RandomWeights(Weights):
    """Makes each tensor up when a graph asks for it: normal with the deviation that keeps a layer's scale."""

    made: dict[str, NDArray[Any]]
    dtype: type

    def array(self, name: str, shape: tuple[int, ...], also: tuple[int, ...] | None = None) -> NDArray[Any]:
        full = self.prefix + name
        if also and self.prefix.endswith(("proj_in.", "proj_out.")):
            shape = also  # Stable Diffusion 1.x has 1x1 convolutions there
        if full not in self.made:
            rng = np.random.default_rng(len(self.made))
            deviation = 0.02 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
            mean = 1.0 if len(shape) == 1 and name == "weight" else 0.0
            self.made[full] = (mean + deviation * rng.standard_normal(shape, np.float32)).astype(self.dtype)
        return self.made[full]

    def __truediv__(self, part: str | int) -> RandomWeights:
        return child(self, f"{self.prefix}{part}.")

    def has(self, name: str) -> bool:
        return name.startswith("text_model.")


def child(parent: RandomWeights, prefix: str) -> RandomWeights:
    """The weights under a longer prefix."""
    weights = RandomWeights(parent.made.__getitem__, "random", prefix)
    weights.made, weights.dtype = parent.made, parent.dtype
    return weights


def write(folder: Path, dtype: str = "F16") -> Path:
    """The checkpoint, unless it is there already."""
    if (folder / "model_index.json").is_file():
        return folder
    networks = {
        "unet": (UNET, "diffusion_pytorch_model", (unet.build_unet,)),
        "vae": (VAE, "diffusion_pytorch_model", (vae.build_encoder, vae.build_decoder)),
        "text_encoder": (TEXT, "model", (text.build_text_encoder,)),
    }
    for name, (config, stem, builders) in networks.items():
        weights = RandomWeights({}.__getitem__, name)
        weights.made, weights.dtype = {}, np.float16 if dtype == "F16" else np.float32
        for build in builders:
            build(config, weights)
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(config))
        save_file(weights.made, folder / name / f"{stem}.safetensors")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (folder / "tokenizer").mkdir()
    merges = gzip.decompress(CLIP_MERGES.read_bytes()).decode().splitlines()
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(clip_vocabulary(merges)), encoding="utf-8")
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    parts: dict[str, Any] = {
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "image_encoder": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"} | parts))
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("F16", "F32"), default="F16")
    arguments = parser.parse_args()
    print(write(arguments.folder, arguments.dtype))
