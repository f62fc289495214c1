"""UNet2DConditionModel of the Stable Diffusion families as two openvino graphs.

What depends on the prompt alone (keys and values of every cross-attention, the pooled text embedding) is a
graph of its own, run once a picture; the graph of one denoising step takes its results as inputs.

Architecture: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", with the
names and configs of diffusers' `UNet2DConditionModel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from noisette.engines.openvino import graph as g
from noisette.engines.openvino.graph import Node, Weights
from noisette.engines.openvino.motion import Motion
from noisette.errors import UserError

DEFAULTS: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "center_input_sample": False, "flip_sin_to_cos": True,
    "freq_shift": 0, "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "only_cross_attention": False,
    "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "downsample_padding": 1,
    "mid_block_scale_factor": 1, "act_fn": "silu", "norm_num_groups": 32, "norm_eps": 1e-5,
    "cross_attention_dim": 1280, "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
    "attention_head_dim": 8, "use_linear_projection": False, "addition_embed_type": None,
    "addition_time_embed_dim": None, "resnet_time_scale_shift": "default", "time_embedding_dim": None,
    "time_embedding_act_fn": None, "timestep_post_act": None, "conv_in_kernel": 3, "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None, "addition_embed_type_num_heads": 64,
}  # fmt: skip
SUPPORTED: dict[str, tuple[Any, ...]] = {  # beyond these only the torch engine knows what to do
    "class_embed_type": (None,), "num_class_embeds": (None,), "time_embedding_type": (None, "positional"),
    "time_cond_proj_dim": (None,), "attention_type": (None, "default"), "dual_cross_attention": (None, False),
    "encoder_hid_dim_type": (None, "text_proj"), "addition_embed_type": (None, "text", "text_time"),
    "resnet_time_scale_shift": ("default", "scale_shift"), "class_embeddings_concat": (None, False),
    "mid_block_type": (None, "UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
}  # fmt: skip


@dataclass
class ContextGraph:
    """The part that depends on the prompt alone: inputs, and outputs which the step graph takes as inputs."""

    inputs: list[Node] = field(default_factory=list)
    outputs: dict[str, Node] = field(default_factory=dict)
    carried: list[Node] = field(default_factory=list)  # the same values as parameters of the step graph
    hidden: Node = None  # encoder_hidden_states as the cross-attentions see them

    def carry(self, name: str, node: Node, shape: list[int]) -> Node:
        """Compute `node` in this graph, and give the step graph's parameter for its value."""
        self.outputs[name] = node
        self.carried.append(g.parameter(name, shape))
        return self.carried[-1]


@dataclass(frozen=True)
class Blocks:
    """What the blocks of one UNet share."""

    context: ContextGraph
    temb: Node  # act(time embedding) [B, time_embed_dim]
    temb_width: int
    act: str
    groups: int
    eps: float
    scale_shift: bool
    text_width: int = 0
    heads: int = 1
    depth: tuple[int, ...] = ()
    only_cross: bool = False


def build_unet(config: Mapping[str, Any], w: Weights, motion: Motion | None = None) -> tuple[ov.Model, ov.Model]:
    """(context model, step model) of a UNet2DConditionModel config, with motion modules after its layers.

    Context model: context [B, T, width] (SDXL also text_embeds [B, P], time_ids [B, 6]) -> named tensors.
    Step model: sample [B, C_in, h, w], time_features [1, block_out_channels[0]] (`time_features`) and those
    named tensors -> the prediction [B, C_out, h, w], and `deep`, which `shallow` can start from.
    """
    c = with_defaults(config)
    channels: list[int] = list(c["block_out_channels"])
    levels = len(channels)
    heads = per_level(c["attention_head_dim"], levels)  # diffusers' naming: this is the number of heads
    widths = per_level(c["cross_attention_dim"], levels)
    layers = per_level(c["layers_per_block"], levels)
    depths = per_level(c["transformer_layers_per_block"], levels)
    up_depths = c["reverse_transformer_layers_per_block"] or depths[::-1]
    only_cross = per_level(c["only_cross_attention"], levels)
    temb_width = c["time_embedding_dim"] or channels[0] * 4

    sample = g.parameter("sample", [-1, c["in_channels"], -1, -1])
    features = g.parameter("time_features", [1, channels[0]])
    context = context_graph(c, w, widths[0], temb_width)
    temb = time_embedding(c, w, features, channels[0], temb_width)
    if "added" in context.outputs:
        temb = ops.add(temb, context.carried[0])
    if c["time_embedding_act_fn"]:
        temb = g.activation(c["time_embedding_act_fn"], temb)
    shared = Blocks(
        context,
        g.activation(c["act_fn"], temb),
        temb_width,
        c["act_fn"],
        c["norm_num_groups"],
        c["norm_eps"],
        c["resnet_time_scale_shift"] == "scale_shift",
    )

    x: Node = sample
    if c["center_input_sample"]:
        x = ops.subtract(ops.multiply(x, g.scalar(2.0)), g.scalar(1.0))
    x = g.conv(x, w / "conv_in", c["in_channels"], channels[0], c["conv_in_kernel"])
    skips: list[tuple[Node, int]] = [(x, channels[0])]
    width = channels[0]
    for i, kind in enumerate(c["down_block_types"]):
        block = at_level(shared, widths[i], heads[i], depths[i], layers[i], only_cross[i])
        for j in range(layers[i]):
            x = resnet(x, w / "down_blocks" / i / "resnets" / j, block, width, channels[i])
            if attends(kind, "DownBlock2D"):
                x = transformer(x, w / "down_blocks" / i / "attentions" / j, block, j, channels[i])
            width = channels[i]
            x = motion.after(x, "down_blocks", i, j, width) if motion else x
            skips.append((x, width))
        if i < levels - 1:
            pad = c["downsample_padding"]
            x = g.conv(
                x,
                w / "down_blocks" / i / "downsamplers" / 0 / "conv",
                width,
                width,
                stride=2,
                padding=(pad, pad) if pad else (0, 1),
            )
            skips.append((x, width))

    if c["mid_block_type"]:
        mid = w / "mid_block"
        block = at_level(shared, widths[-1], heads[-1], depths[-1], 1, False)
        scale = float(c["mid_block_scale_factor"])
        x = resnet(x, mid / "resnets" / 0, block, width, width, scale)
        if c["mid_block_type"] == "UNetMidBlock2DCrossAttn":
            x = transformer(x, mid / "attentions" / 0, block, 0, width)
            x = motion.after(x, "mid_block", levels - 1, 0, width) if motion else x
            x = resnet(x, mid / "resnets" / 1, block, width, width, scale)

    for i, kind in enumerate(c["up_block_types"]):
        k = levels - 1 - i
        block = at_level(shared, widths[k], heads[k], up_depths[i], layers[k] + 1, only_cross[k])
        for j in range(layers[k] + 1):
            skip, skip_width = skips.pop()
            deep = x  # at last, what the last layer takes from below
            x = resnet(
                ops.concat([x, skip], 1),
                w / "up_blocks" / i / "resnets" / j,
                block,
                width + skip_width,
                channels[k],
            )
            if attends(kind, "UpBlock2D"):
                x = transformer(x, w / "up_blocks" / i / "attentions" / j, block, j, channels[k])
            width = channels[k]
            x = motion.after(x, "up_blocks", k, j, width) if motion else x
        if i < levels - 1:
            x = g.upsample(x, size_of=skips[-1][0])
            x = g.conv(x, w / "up_blocks" / i / "upsamplers" / 0 / "conv", width, width)

    x = g.group_norm(x, w / "conv_norm_out", width, c["norm_num_groups"], c["norm_eps"])
    x = g.conv(g.activation(c["act_fn"], x), w / "conv_out", width, c["out_channels"], c["conv_out_kernel"])
    step = g.model({"prediction": x, "deep": deep}, [sample, features, *context.carried], "unet")
    return g.model(context.outputs, context.inputs, "unet_context"), step


def shallow(step: ov.Model) -> ov.Model:
    """The step model from `deep` on: the first convolution and the last layer alone, `deep` being an input.

    DeepCache (Ma et al. 2024): what lies below changes slowly from step to step, and can be kept for a few.
    """
    graph = step.clone()
    source = graph.output("deep").get_node().input_value(0)
    deep = g.parameter("deep", [-1, source.get_partial_shape()[1].get_length(), -1, -1])
    for taken in source.get_target_inputs():
        if taken.get_node().get_type_name() != "Result":
            taken.replace_source_output(deep.output(0))
    result = graph.output("prediction").get_node()
    needed, left = {deep.get_friendly_name()}, [result]
    while left:
        node = left.pop()
        if node.get_friendly_name() not in needed:
            needed.add(node.get_friendly_name())
            left += [value.get_node() for value in node.input_values()]
    inputs = [parameter for parameter in graph.get_parameters() if parameter.get_friendly_name() in needed]
    return ov.Model([result], [*inputs, deep], "unet_shallow")


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with diffusers' defaults; an unsupported value is a UserError that offers torch."""
    for key, allowed in SUPPORTED.items():
        if config.get(key, DEFAULTS.get(key)) not in allowed:
            raise UserError(
                f"unet: {key} {config[key]!r} is not supported by the openvino engine; use --engine torch"
            )
    c = {**DEFAULTS, **config}
    if c["encoder_hid_dim"] is not None:
        c["encoder_hid_dim_type"] = "text_proj"
    return c


def per_level(value: Any, levels: int) -> list[Any]:
    """One value for every resolution level, or the list as it is."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * levels


def at_level(shared: Blocks, text_width: int, heads: int, depth: Any, layers: int, only_cross: bool) -> Blocks:
    """The shared settings with those of one level."""
    return Blocks(
        shared.context,
        shared.temb,
        shared.temb_width,
        shared.act,
        shared.groups,
        shared.eps,
        shared.scale_shift,
        text_width,
        heads,
        tuple(per_level(depth, layers)),
        only_cross,
    )


def attends(kind: str, plain: str) -> bool:
    """Whether a block type has cross-attention; a type of another family is a UserError."""
    if kind not in (plain, "CrossAttn" + plain):
        raise UserError(f"unet: block type {kind} is not supported by the openvino engine; use --engine torch")
    return kind != plain


def time_features(config: Mapping[str, Any], timestep: float) -> NDArray[np.float32]:
    """Sinusoidal features of one timestep, [1, block_out_channels[0]] (diffusers `Timesteps`)."""
    c = {**DEFAULTS, **config}
    return sinusoid(
        np.array([timestep], np.float32), c["block_out_channels"][0], c["flip_sin_to_cos"], c["freq_shift"]
    )


def sinusoid(values: NDArray[np.float32], width: int, flip: bool, shift: float) -> NDArray[np.float32]:
    """[N] -> [N, width]: sines and cosines of values at geometric frequencies from 1 to 1/10000."""
    half = width // 2
    frequencies = np.exp(np.float32(-np.log(10000.0)) * np.arange(half, dtype=np.float32) / np.float32(half - shift))
    phase = values[:, None] * frequencies[None].astype(np.float32)
    parts = [np.cos(phase), np.sin(phase)] if flip else [np.sin(phase), np.cos(phase)]
    return np.concatenate(parts, 1).astype(np.float32)


def time_embedding(c: Mapping[str, Any], w: Weights, features: Node, width: int, temb_width: int) -> Node:
    """diffusers `TimestepEmbedding`: [1, width] -> [1, temb_width]."""
    x = g.linear(features, w / "time_embedding" / "linear_1", width, temb_width)
    x = g.linear(g.activation(c["act_fn"], x), w / "time_embedding" / "linear_2", temb_width, temb_width)
    return g.activation(c["timestep_post_act"], x) if c["timestep_post_act"] else x


def context_graph(c: Mapping[str, Any], w: Weights, text_width: int, temb_width: int) -> ContextGraph:
    """The prompt's graph with the added embedding; cross-attentions will add their keys and values."""
    width = c["encoder_hid_dim"] or text_width
    hidden = g.parameter("context", [-1, -1, width])
    context = ContextGraph([hidden], hidden=hidden)
    if c["addition_embed_type"] == "text":
        pooled = pooled_text(hidden, w / "add_embedding", width, temb_width, c["addition_embed_type_num_heads"])
        context.carry("added", pooled, [-1, temb_width])
    if c["addition_embed_type"] == "text_time":
        total = c["projection_class_embeddings_input_dim"]
        features = g.parameter("added_features", [-1, total])  # text_embeds and sinusoids of time_ids, side by side
        context.inputs.append(features)
        x = g.linear(features, w / "add_embedding" / "linear_1", total, temb_width)
        x = g.linear(g.silu(x), w / "add_embedding" / "linear_2", temb_width, temb_width)
        context.carry("added", x, [-1, temb_width])
    if c["encoder_hid_dim_type"] == "text_proj":
        context.hidden = g.linear(hidden, w / "encoder_hid_proj", width, text_width)
    return context


def added_features(
    config: Mapping[str, Any], text_embeds: NDArray[np.float32], time_ids: NDArray[np.float32]
) -> NDArray[np.float32]:
    """SDXL's condition: text_embeds [B, P] and time_ids [B, 6] -> [B, P + 6 * addition_time_embed_dim]."""
    c = {**DEFAULTS, **config}
    ids = sinusoid(
        time_ids.astype(np.float32).reshape(-1),
        c["addition_time_embed_dim"],
        c["flip_sin_to_cos"],
        c["freq_shift"],
    )
    return np.concatenate([text_embeds, ids.reshape(len(text_embeds), -1)], 1).astype(np.float32)


def pooled_text(hidden: Node, w: Weights, width: int, temb_width: int, heads: int) -> Node:
    """diffusers `TextTimeEmbedding`: text [B, T, width] pooled by attention from its mean -> [B, temb]."""
    x = g.layer_norm(hidden, w / "norm1", width)
    token = ops.add(ops.reduce_mean(x, g.index(1), True), (w / "pool").float("positional_embedding", (1, width)))
    x = ops.concat([token, x], 1)
    q = g.split_heads(g.linear(token, w / "pool" / "q_proj", width, width), heads, width)
    k = g.split_heads(g.linear(x, w / "pool" / "k_proj", width, width), heads, width)
    v = g.split_heads(g.linear(x, w / "pool" / "v_proj", width, width), heads, width)
    pooled = g.reshape(g.attention(q, k, v, width), (0, width))
    return g.layer_norm(g.linear(pooled, w / "proj", width, temb_width), w / "norm2", temb_width)


def resnet(x: Node, w: Weights, b: Blocks, channels_in: int, channels_out: int, scale: float = 1.0) -> Node:
    """diffusers `ResnetBlock2D`: two convolutions under the time embedding, around a skip."""
    h = g.activation(b.act, g.group_norm(x, w / "norm1", channels_in, b.groups, b.eps))
    h = g.conv(h, w / "conv1", channels_in, channels_out)
    width = channels_out * (2 if b.scale_shift else 1)
    temb = g.reshape(g.linear(b.temb, w / "time_emb_proj", b.temb_width, width), (0, width, 1, 1))
    if b.scale_shift:
        gain, shift = g.chunk(temb, 2, 1)
        h = g.group_norm(h, w / "norm2", channels_out, b.groups, b.eps)
        h = ops.add(ops.multiply(h, ops.add(gain, g.scalar(1.0))), shift)
    else:
        h = g.group_norm(ops.add(h, temb), w / "norm2", channels_out, b.groups, b.eps)
    h = g.conv(g.activation(b.act, h), w / "conv2", channels_out, channels_out)
    if channels_in != channels_out:
        x = g.conv(x, w / "conv_shortcut", channels_in, channels_out, 1)
    y = ops.add(x, h)
    return y if scale == 1.0 else ops.divide(y, g.scalar(scale))


def transformer(x: Node, w: Weights, b: Blocks, layer: int, channels: int) -> Node:
    """diffusers `Transformer2DModel`: attention of an image's positions, to each other and to the text."""
    h = g.image_to_tokens(g.group_norm(x, w / "norm", channels, b.groups, 1e-6), channels)
    h = g.linear(h, w / "proj_in", channels, channels)
    for i in range(b.depth[layer]):
        h = transformer_block(h, w / "transformer_blocks" / i, b, channels)
    h = g.linear(h, w / "proj_out", channels, channels)
    return ops.add(g.tokens_to_image(h, x, channels), x)


def transformer_block(x: Node, w: Weights, b: Blocks, width: int) -> Node:
    """diffusers `BasicTransformerBlock`: self-attention, cross-attention, GEGLU, each on a LayerNorm."""
    h = g.layer_norm(x, w / "norm1", width)
    x = ops.add(
        x,
        cross_attention(h, w / "attn1", b, width) if b.only_cross else self_attention(h, w / "attn1", b, width),
    )
    x = ops.add(x, cross_attention(g.layer_norm(x, w / "norm2", width), w / "attn2", b, width))
    h = g.linear(g.layer_norm(x, w / "norm3", width), w / "ff" / "net" / 0 / "proj", width, width * 8)
    value, gate = g.chunk(h, 2, 2)
    h = ops.multiply(value, ops.gelu(gate, "erf"))
    return ops.add(x, g.linear(h, w / "ff" / "net" / 2, width * 4, width))


def self_attention(x: Node, w: Weights, b: Blocks, width: int) -> Node:
    """Attention of positions to each other, x [B, T, width]."""
    q, k, v = (
        g.split_heads(g.linear(x, w / name, width, width, bias=False), b.heads, width)
        for name in ("to_q", "to_k", "to_v")
    )
    return g.linear(g.attention(q, k, v, width), w / "to_out" / 0, width, width)


def cross_attention(x: Node, w: Weights, b: Blocks, width: int) -> Node:
    """Attention of positions x [B, T, width] to the text; its keys and values come from the context graph."""
    q = g.split_heads(g.linear(x, w / "to_q", width, width, bias=False), b.heads, width)
    k, v = (
        b.context.carry(
            (w / name).prefix.rstrip("."),
            g.split_heads(g.linear(b.context.hidden, w / name, b.text_width, width, bias=False), b.heads, width),
            [-1, b.heads, -1, width // b.heads],
        )
        for name in ("to_k", "to_v")
    )
    return g.linear(g.attention(q, k, v, width), w / "to_out" / 0, width, width)
