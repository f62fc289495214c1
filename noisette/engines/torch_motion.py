"""Motion modules in a UNet on torch: temporal transformers after each layer (AnimateDiff, Guo et al. 2024).

diffusers' UNetMotionModel rebuilds the UNet and knows no `addition_embed_type="text"`, which it drops in silence.
Here the UNet stays whole, and the modules of diffusers' MotionAdapter act as hooks on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import MotionAdapter
from torch import nn

from noisette.errors import UserError


@dataclass
class Tie:
    """How many frames of a batch belong together, one clip after another, and how much of the motion is added."""

    num_frames: int = 1
    scale: float = 1.0


def insert(unet: nn.Module, adapter: MotionAdapter, scale: float = 1.0) -> Tie:
    """Hooks the adapter's modules into the UNet; they act while the tie's num_frames is more than 1.

    Frozen modules whose last layer is zero add nothing and are left out. Raises UserError when the two do not fit.
    """
    tie = Tie(scale=scale)
    for layer, module in places(unet, adapter):
        last: Any = module.proj_out
        if last.weight.requires_grad or last.weight.any() or last.bias.any():
            layer.register_forward_hook(hook(module, tie))
    return tie


def places(unet: Any, adapter: Any) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Each module with the layer whose output it acts on: a block's attentions, or its ResNets where it has none."""
    pairs = [*zip(unet.down_blocks, adapter.down_blocks, strict=True)]
    if adapter.mid_block is not None:
        pairs.append((unet.mid_block, adapter.mid_block))
    pairs += zip(unet.up_blocks, adapter.up_blocks, strict=True)
    for block, modules in pairs:
        layers = getattr(block, "attentions", None) or block.resnets
        if len(layers) != len(modules.motion_modules):
            raise UserError(
                f"--motion_adapter has {len(modules.motion_modules)} modules for a block of {len(layers)} layers"
            )
        yield from zip(layers, modules.motion_modules, strict=True)


def hook(module: nn.Module, tie: Tie) -> Any:
    """x -> x + scale · (module(x) - x) on [B * F, C, h, w]; the module mixes a position's frames."""

    def after(layer: nn.Module, arguments: Any, output: Any) -> Any:
        if tie.num_frames == 1:
            return output
        x = output[0] if isinstance(output, tuple) else output
        moved = module(x, num_frames=tie.num_frames)
        moved = moved if tie.scale == 1.0 else torch.lerp(x, moved, tie.scale)
        return (moved,) if isinstance(output, tuple) else moved

    return after
