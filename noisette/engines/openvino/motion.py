"""Motion modules as openvino graphs: temporal transformers after each layer of a UNet (AnimateDiff, Guo et al. 2024).

diffusers' `MotionAdapter` by its names and configs. A batch holds B clips of F frames, [B * F, C, h, w]; F is an
input of the graph, so that one graph serves every window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from openvino import opset13 as ops

from noisette.engines.openvino import graph as g
from noisette.engines.openvino.graph import Node, Weights

DEFAULTS: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280], "motion_layers_per_block": 2, "motion_norm_num_groups": 32,
    "motion_transformer_layers_per_block": 1, "motion_num_attention_heads": 8, "motion_max_seq_length": 32,
    "use_motion_mid_block": True, "motion_mid_block_layers_per_block": 1,
    "motion_transformer_layers_per_mid_block": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Motion:
    """The motion modules of one UNet graph: their weights, the number of frames as a node [1], how much is added."""

    config: Mapping[str, Any]
    weights: Weights
    frames: Node
    scale: float

    def after(self, x: Node, block: str, level: int, layer: int, channels: int) -> Node:
        """x as it leaves layer `layer` of "down_blocks", "mid_block" or "up_blocks" `level` (0 is the finest)."""
        c = {**DEFAULTS, **self.config}
        levels = len(c["block_out_channels"])
        if block == "mid_block":
            if not c["use_motion_mid_block"]:
                return x
            w, depth = self.weights / block / "motion_modules" / layer, c["motion_transformer_layers_per_mid_block"]
            depth = depth if isinstance(depth, int) else depth[layer]
        else:
            i = level if block == "down_blocks" else levels - 1 - level
            w = self.weights / block / i / "motion_modules" / layer
            depth = per(per(c["motion_transformer_layers_per_block"], level), layer)
        heads = per(c["motion_num_attention_heads"], level)
        moved = self._module(x, w, channels, heads, depth, c)
        last = (w / "proj_out").array("weight", (channels, channels)), (w / "proj_out").array("bias", (channels,))
        if not any(array.any() for array in last):
            return x  # nothing was learned here, as in the first half of a UNet that `noisette train motion` teaches
        if self.scale != 1.0:
            moved = ops.multiply(moved, g.scalar(self.scale))
        return ops.add(x, moved)

    def _module(self, x: Node, w: Weights, channels: int, heads: int, depth: int, c: Mapping[str, Any]) -> Node:
        """diffusers `AnimateDiffTransformer3D` without its residual: each position's frames attend to each other."""
        shape = ops.shape_of(x)
        area = ops.reduce_prod(ops.gather(shape, whole(2, 3), g.index(0)), g.index(0), True)
        by_clip = ops.concat([whole(-1), self.frames, whole(channels), area], 0)
        y = g.transpose(ops.reshape(x, by_clip, False), (0, 2, 1, 3))  # [B, C, F, h * w]
        y = g.group_norm(y, w / "norm", channels, c["motion_norm_num_groups"], 1e-6)  # over all frames of a clip
        y = g.transpose(y, (0, 3, 2, 1))  # [B, h * w, F, C]
        split = ops.shape_of(y)
        y = ops.reshape(y, ops.concat([whole(-1), self.frames, whole(channels)], 0), False)
        y = g.linear(y, w / "proj_in", channels, channels)
        for i in range(depth):
            y = self._block(y, w / "transformer_blocks" / i, channels, heads, c["motion_max_seq_length"])
        y = g.linear(y, w / "proj_out", channels, channels)
        y = g.transpose(ops.reshape(y, split, False), (0, 2, 3, 1))  # [B, F, C, h * w]
        return ops.reshape(y, shape, False)

    def _block(self, x: Node, w: Weights, width: int, heads: int, places: int) -> Node:
        """diffusers `BasicTransformerBlock` with two self-attentions, each told where in time it looks."""
        table = w.float("pos_embed.pe", (1, places, width))
        time = ops.slice(table, whole(0), self.frames, whole(1), whole(1))
        for norm, name in (("norm1", "attn1"), ("norm2", "attn2")):
            h = ops.add(g.layer_norm(x, w / norm, width), time)
            x = ops.add(x, attend(h, w / name, width, heads))
        h = g.linear(g.layer_norm(x, w / "norm3", width), w / "ff" / "net" / 0 / "proj", width, width * 8)
        value, gate = g.chunk(h, 2, 2)
        h = ops.multiply(value, ops.gelu(gate, "erf"))
        return ops.add(x, g.linear(h, w / "ff" / "net" / 2, width * 4, width))


def attend(x: Node, w: Weights, width: int, heads: int) -> Node:
    """Self-attention without biases but at the end, x [N, F, width]."""
    q, k, v = (
        g.split_heads(g.linear(x, w / name, width, width, bias=False), heads, width)
        for name in ("to_q", "to_k", "to_v")
    )
    return g.linear(g.attention(q, k, v, width), w / "to_out" / 0, width, width)


def per(value: Any, i: int) -> Any:
    """One value for all, or the i-th."""
    return value if isinstance(value, int) else value[i]


def whole(*values: int) -> Node:
    """An int64 constant of rank 1."""
    return ops.constant(np.array(values, np.int64))
