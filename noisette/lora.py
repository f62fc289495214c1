"""LoRA files merged into weights as they are read: W + scale * alpha / rank * up @ down (Hu et al. 2021).

Understood are the names of diffusers (old and new), PEFT and kohya (linear layers and convolutions, with or
without a middle tensor). NumPy only: the merge happens once, in float32, whatever the engine.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError
from noisette.ldm_keys import unet_name
from noisette.mapped import MappedTensors, as_float32
from noisette.tensors import read_header

Array = NDArray[np.float32]
PARTS = {  # endings of all naming schemes -> part of one layer's update
    ".lora_A.weight": "down", ".lora_A.default.weight": "down", ".lora.down.weight": "down",
    "_lora.down.weight": "down", ".lora_down.weight": "down", ".lora_linear_layer.down.weight": "down",
    ".lora_B.weight": "up", ".lora_B.default.weight": "up", ".lora.up.weight": "up",
    "_lora.up.weight": "up", ".lora_up.weight": "up", ".lora_linear_layer.up.weight": "up",
    ".lora_mid.weight": "mid", ".alpha": "alpha",
}  # fmt: skip
KOHYA = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
ORIGINAL = re.compile(r"lora_unet_(middle_block_\d+|(?:input|output)_blocks_\d+_\d+)_(.+)")
DOTTED = ("unet", "text_encoder_2", "text_encoder")
REFUSED = ("use_dora", "use_rslora", "alpha_pattern")
OTHERS = ("hada_", "lokr_", "dora_scale", "lora_magnitude_vector", "oft_", "diff_b")


@dataclass
class Update:
    """The update of one weight: up [out, r, ...] times down [r, in, ...], `mid` [r, r, k, k] between them."""

    parts: dict[str, Array] = field(default_factory=dict)
    alpha: float | None = None

    def delta(self, shape: tuple[int, ...]) -> Array:
        """The update of a weight of this shape, at scale 1."""
        up, down = self.parts["up"], self.parts["down"]
        rank = down.shape[0]
        factor = np.float32(1.0 if self.alpha is None else self.alpha / rank)
        if "mid" in self.parts:  # a convolution in CP form: 1x1 down, k x k between, 1x1 up
            left, right = up.reshape(up.shape[0], -1), down.reshape(rank, -1)
            product = np.einsum("or,rskl,si->oikl", left, self.parts["mid"], right)
        else:
            product = up.reshape(up.shape[0], -1) @ down.reshape(rank, -1)
        if product.size != int(np.prod(shape)):
            raise ValueError(f"{up.shape} times {down.shape}")
        result: Array = factor * product.reshape(shape)
        return result


@dataclass(frozen=True)
class Lora:
    """The updates of one file by network ("unet", "text_encoder") and weight name."""

    path: Path
    scale: float
    updates: dict[str, dict[str, Update]]

    def merged(self, network: str, get: Callable[[str], NDArray[Any]]) -> Callable[[str], NDArray[Any]]:
        """`get` with this file's updates added, in float32, to the weights that it changes."""
        updates = self.updates.get(network, {})

        def merged_get(name: str) -> NDArray[Any]:
            weight = get(name)
            if name not in updates:
                return weight
            weight = as_float32(weight)
            try:
                return weight + np.float32(self.scale) * updates[name].delta(weight.shape)
            except ValueError as error:
                shape = list(weight.shape)
                raise UserError(
                    f"{self.path.name} does not fit: {network} {name} is {shape}, its update {error}"
                ) from None

        return merged_get


def read_lora(path: Path, scale: float, names: Mapping[str, Iterable[str]]) -> Lora:
    """A LoRA file for a model whose networks hold tensors of these names.

    Raises UserError: an unknown kind of adapter, a layer that the model does not have, half an update.
    """
    known = {network: set(every) for network, every in names.items()}
    flat = {
        network: {name.removesuffix(".weight").replace(".", "_"): name for name in every}
        for network, every in known.items()
    }
    header = read_header(path)
    get, alphas = MappedTensors(header), peft_alphas(path)
    updates: dict[str, dict[str, Update]] = {}
    for key in header:
        network, name, part = place(path, key, known, flat)
        update = updates.setdefault(network, {}).setdefault(name, Update(alpha=alphas.get(network)))
        if part == "alpha":
            update.alpha = float(as_float32(get(key)))
        else:
            update.parts[part] = as_float32(get(key))
    for network, layers in updates.items():
        for name, update in layers.items():
            if not {"up", "down"} <= update.parts.keys():
                held = ", ".join(update.parts) or "alpha"
                raise UserError(f"{path.name}: {network} {name} has half an update, {held} alone")
    if not updates:
        raise UserError(f"{path.name} holds no LoRA layers")
    return Lora(path, scale, updates)


def place(
    path: Path, key: str, known: Mapping[str, set[str]], flat: Mapping[str, Mapping[str, str]]
) -> tuple[str, str, str]:
    """(network, weight name, part) of one key of a LoRA file."""
    if any(other in key for other in OTHERS):
        raise UserError(f"{path.name}: {key} is of another kind than LoRA, and can't be merged here")
    layer, part = layer_of(key)
    for network, name in candidates(layer, flat):
        if part and name in known.get(network, ()):
            return network, name, part
    raise UserError(f"{path.name}: {key} is for a layer that this model does not have, or not a LoRA")


def candidates(layer: str, flat: Mapping[str, Mapping[str, str]]) -> Iterable[tuple[str, str]]:
    """(network, weight name) that a layer's name may stand for, in each naming scheme."""
    for prefix, network in KOHYA.items():
        if layer.startswith(prefix):
            yield network, flat.get(network, {}).get(layer.removeprefix(prefix), "")
    yield "unet", flat.get("unet", {}).get(original(layer, flat.get("unet", {})), "")
    layer = layer.removeprefix("base_model.model.")
    for network in DOTTED:
        if layer.startswith(network + "."):
            short = modern(layer.removeprefix(network + "."))
            yield network, f"{short}.weight"
            yield network, f"text_model.{short}.weight"
    yield "unet", f"{modern(layer)}.weight"  # PEFT's own file of a UNet names no network


def original(layer: str, flat: Iterable[str]) -> str:
    """The flat name of a UNet's layer that is named as in original files, as kohya does for SDXL; "" for others."""
    match = ORIGINAL.fullmatch(layer)
    if not match:
        return ""
    depth = sum(bool(re.fullmatch(r"down_blocks_0_resnets_\d+_conv1", name)) for name in flat)
    where, inside = re.sub(r"_(\d+)", r".\1", match[1]), re.sub(r"_(\d+)$", r".\1", match[2])
    try:
        return unet_name(f"{where}.{inside}.weight", depth).removesuffix(".weight").replace(".", "_")
    except KeyError:  # no layer of a resnet
        return ""


def layer_of(key: str) -> tuple[str, str]:
    """A key without its ending, and the part which the ending names ("" for none known)."""
    for ending in sorted(PARTS, key=len, reverse=True):
        if key.endswith(ending):
            return key.removesuffix(ending), PARTS[ending]
    return key, ""


def modern(layer: str) -> str:
    """A layer's name by today's modules: old diffusers' attention processors held the LoRA themselves."""
    layer = re.sub(r"\.processor\.to_(q|k|v)$", r".to_\1", layer)
    return re.sub(r"(\.processor)?\.to_out$", ".to_out.0", layer)


def peft_alphas(path: Path) -> dict[str, float]:
    """Alpha by network, where diffusers wrote its settings into the file."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        metadata = json.loads(file.read(length)).get("__metadata__") or {}
    settings = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    for name, value in settings.items():
        if value and name.rpartition(".")[2] in REFUSED:
            raise UserError(f"{path.name}: {name} is set, which can't be merged here; a plain LoRA can")
    return {n: float(settings[f"{n}.lora_alpha"]) for n in DOTTED if f"{n}.lora_alpha" in settings}
