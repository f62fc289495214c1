"""A picture in the place of a text: the built-in model's image encoder, run by NumPy, or an IP-Adapter.

MODEL-image-encoder beside a model's folder is made by `noisette train image_encoder`: four convolutions over the
latents of a picture, a hidden layer and two heads. `states` are what the text encoder would say of a caption of the
picture, so an image prompt is a mixture of two conditions (linear, token by token); `embedding` is a unit vector
that can be laid beside pooled texts.

An IP-Adapter (Ye et al. 2023) adds tokens of the picture behind those of the text, for attention layers of their
own; `image_prompt` is their weight.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from noisette import pixels
from noisette.checkpoint import IMAGE_ENCODER, IP_ADAPTER
from noisette.errors import UserError

if TYPE_CHECKING:
    from noisette.checkpoint import Checkpoint
    from noisette.engines import Networks
    from noisette.families.stable_diffusion import Conditions
    from noisette.plan import Plan
    from noisette.reading import Picture

Array = NDArray[np.float32]
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_SPREAD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@dataclass(frozen=True)
class ImageEncoder:
    """Weights by name, the convolutions' strides, latents along each side of what it sees, the states' shape."""

    weights: dict[str, Array]
    strides: tuple[int, ...]
    side: int
    tokens: int
    width: int
    hash: str

    def encode(self, latents: Array) -> tuple[Array, Array]:
        """Scaled latents [B, C, 16, 16] to states [B, T, width] and unit vectors [B, width]."""
        x = latents
        for i, stride in enumerate(self.strides):
            x = silu(convolve(x, self.weights[f"convs.{i}.weight"], self.weights[f"convs.{i}.bias"], stride))
        x = silu(self.linear("hidden", x.reshape(len(x), -1)))
        states = self.linear("states", self.linear("rank", x)).reshape(len(x), self.tokens, self.width)
        vectors = self.linear("embedding", x)
        return states, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def linear(self, name: str, x: Array) -> Array:
        """A dense layer."""
        result: Array = x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return result


def silu(x: Array) -> Array:
    """x times its sigmoid."""
    result: Array = x / (1 + np.exp(-x))
    return result


def convolve(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    """A 3x3 convolution of [B, C, h, w] with a border of one zero."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    result: Array = np.einsum("bchwij,ocij->bohw", windows, weight, optimize=True) + bias[:, None, None]
    return result.astype(np.float32)


@cache
def load(folder: Path) -> ImageEncoder:
    """The encoder in a folder of `noisette train export`. Raises UserError when it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = folder / "model.safetensors"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = {name: value.astype(np.float32) for name, value in load_file(file).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} holds no image encoder that can be read: {error}") from None
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return ImageEncoder(weights, tuple(config["strides"]), config["side"], config["tokens"], config["width"], digest)


def latents(encoder: ImageEncoder, checkpoint: Checkpoint, networks: Networks, picture: Picture) -> Array:
    """Scaled latents [1, C, side, side] of a picture brought into a square, its edges repeated."""
    side = encoder.side * checkpoint.vae_scale_factor
    mean, _ = networks.encode_image(pixels.to_model(pixels.fit(picture, side, side, "pad")))
    scaled: Array = mean * np.float32(checkpoint.configs["vae"].get("scaling_factor", 1.0))
    return scaled


def prompted(conditions: Conditions, plan: Plan, networks: Any) -> tuple[Conditions, dict[str, Any]]:
    """The conditions turned from what was said to what the base shows, by `image_prompt`, and what the file says."""
    assert plan.base is not None
    scale = np.float32(plan.recipe.image_prompt)
    if IP_ADAPTER in plan.checkpoint.weights:
        side = plan.checkpoint.configs[IMAGE_ENCODER].get("image_size", 224)
        seen, unseen = networks.encode_image_prompt(clip_pixels(plan.base, side), float(scale))
        both = [(conditions.positive, seen), (conditions.negative, unseen)]
        positive, negative = (
            np.concatenate([states, np.repeat(tokens, len(states), axis=0)], axis=1) for states, tokens in both
        )
        return replace(conditions, positive=positive, negative=negative), {}
    assert plan.checkpoint.image_encoder is not None
    encoder = load(plan.checkpoint.image_encoder)
    states, _ = encoder.encode(latents(encoder, plan.checkpoint, networks, plan.base))
    positive = (1 - scale) * conditions.positive + scale * states
    said = {"image_encoder": f"{plan.checkpoint.image_encoder.name} {encoder.hash[:12]}"}
    return replace(conditions, positive=positive.astype(np.float32)), said


def clip_pixels(picture: Picture, side: int) -> Array:
    """A picture as CLIP's vision models take it, [1, 3, side, side]: its middle, in CLIP's units."""
    from PIL import Image

    shown = Image.fromarray(pixels.rounded(pixels.shown(picture)))
    scale = side / min(shown.size)
    width, height = (max(side, int(length * scale)) for length in shown.size)
    resized = np.asarray(shown.resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - side) // 2, (width - side) // 2
    middle = resized[top : top + side, left : left + side].astype(np.float32) / 255
    return ((middle - CLIP_MEAN) / CLIP_SPREAD).transpose(2, 0, 1)[None].astype(np.float32)
