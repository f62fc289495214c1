"""Networks made fast for this processor while they train."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn

COMPILERS = ("g++", "clang++", "cl")


def plain_attention(*networks: nn.Module) -> None:
    """Makes attention two plain products: the fused one's gradient is slow on short sequences."""
    for module in (module for network in networks for module in network.modules()):
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())


def quickened(network: nn.Module, compiled: bool) -> Callable[..., Any]:
    """The network as a function; its weights, their gradients and the optimizer stay float32.

    Where the processor multiplies bfloat16 (AMX, AVX-512), products are of that. Compiled, what stands between them
    is fused, at a minute or two for each shape it meets; without a C++ compiler it runs as it is.
    """
    if compiled and not any(map(shutil.which, COMPILERS)):
        print(f"no C++ compiler ({', '.join(COMPILERS)}) is here: uncompiled, at about half the speed", flush=True)
        compiled = False
    forward = torch.compile(network, dynamic=False) if compiled else network
    narrow = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()

    def call(*arguments: torch.Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            return forward(*arguments)

    return call
