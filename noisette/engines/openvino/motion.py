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
    """The motion modules of one UNet graph: their weights, the frames of a clip, how much is added."""

    config: Mapping[str, Any]
    weights: Weights
    frames: int
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
        last = (w / "proj_out").array("weight", (channels, channels)), (w / "proj_out").array("bias", (channels,))
        y = self._module(x, w, channels, heads, depth, c)
        if not any(array.any() for array in last):
            return x  # nothing was learned here, as in the first half of a UNet that `noisette train motion` teaches
        return y

    def _module(self, x: Node, w: Weights, channels: int, heads: int, depth: int, c: Mapping[str, Any]) -> Node:
        """diffusers `AnimateDiffTransformer3D`: each position's frames attend to each other.

        Frames stay where they are, [B, F, h * w, C]: as `attend` sees it, a position is a head.
        """
        tokens = g.transpose(x, (0, 2, 3, 1))
        positions = ops.reduce_prod(sides(x), g.index(0), True)
        by_clip = ops.concat([whole(-1, self.frames), positions, whole(channels)], 0)
        skip = ops.reshape(tokens, by_clip, False)
        y = clip_norm(skip, w / "norm", channels, c["motion_norm_num_groups"])
        y = g.linear(y, w / "proj_in", channels, channels)
        for i in range(depth):
            y = self._block(y, w / "transformer_blocks" / i, channels, heads, c["motion_max_seq_length"])
        y = g.linear(y, w / "proj_out", channels, channels)
        if self.scale != 1.0:
            y = ops.multiply(y, g.scalar(self.scale))
        by_frame = ops.concat([whole(-1), sides(x), whole(channels)], 0)
        return g.transpose(ops.reshape(ops.add(skip, y), by_frame, False), (0, 3, 1, 2))

    def _block(self, x: Node, w: Weights, width: int, heads: int, places: int) -> Node:
        """diffusers `BasicTransformerBlock` with two self-attentions, each told where in time it looks."""
        table = w.float("pos_embed.pe", (1, places, width))
        time = ops.unsqueeze(ops.slice(table, whole(0), whole(self.frames), whole(1), whole(1)), g.index(2))
        for norm, name in (("norm1", "attn1"), ("norm2", "attn2")):
            h = ops.add(g.layer_norm(x, w / norm, width), time)
            x = ops.add(x, attend(h, w / name, width, heads))
        return ops.add(x, geglu(g.layer_norm(x, w / "norm3", width), w / "ff" / "net", width))


def attend(x: Node, w: Weights, width: int, heads: int) -> Node:
    """Self-attention of the frames of x [B, F, S, width] at each of S positions, without biases but at the end."""
    by_head = (0, 0, -1, width // heads)
    q, k, v = (
        g.transpose(g.reshape(g.linear(x, w / name, width, width, bias=False), by_head), (0, 2, 1, 3))
        for name in ("to_q", "to_k", "to_v")
    )
    y = g.transpose(ops.scaled_dot_product_attention(q, k, v), (0, 2, 1, 3))
    return g.linear(g.reshape(y, (0, 0, -1, width)), w / "to_out" / 0, width, width)


def geglu(x: Node, w: Weights, width: int) -> Node:
    """diffusers `FeedForward`: to four times the width, gated, and back.

    What is gated and its gate are products of their own: taking one apart was slower.
    """
    inner, proj = width * 4, w / 0 / "proj"
    value, gate = (g.linear(x, proj, width, inner * 2, rows=slice(i * inner, (i + 1) * inner)) for i in range(2))
    return g.linear(ops.multiply(value, ops.gelu(gate, "erf")), w / 2, inner, width)


def clip_norm(x: Node, w: Weights, channels: int, groups: int, eps: float = 1e-6) -> Node:
    """torch.nn.GroupNorm over all frames and positions of x [B, F, S, C]: first for each channel, then each group."""
    size = channels // groups
    among = ops.constant(np.kron(np.eye(groups), np.full((size, size), 1 / size)).astype(np.float32))

    def mean(y: Node) -> Node:
        return ops.matmul(ops.reduce_mean(y, whole(1, 2), True), among, False, False)

    middle = mean(x)
    off = ops.subtract(x, middle)
    spread = ops.sqrt(ops.add(mean(ops.multiply(off, off)), g.scalar(eps)))
    gain, shift = (w.float(name, (channels,)) for name in ("weight", "bias"))
    scale = ops.divide(gain, spread)
    return ops.add(ops.multiply(x, scale), ops.subtract(shift, ops.multiply(middle, scale)))


def sides(x: Node) -> Node:
    """Height and width of x [B, C, h, w]."""
    return ops.gather(ops.shape_of(x), whole(2, 3), g.index(0))


def per(value: Any, i: int) -> Any:
    """One value for all, or the i-th."""
    return value if isinstance(value, int) else value[i]


def whole(*values: int) -> Node:
    """An int64 constant of rank 1."""
    return ops.constant(np.array(values, np.int64))
