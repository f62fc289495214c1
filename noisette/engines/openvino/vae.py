"""AutoencoderKL and AutoencoderTiny as openvino graphs: one for encoding, one for decoding.

AutoencoderKL: Rombach et al. 2022, appendix E.2, in diffusers' names. AutoencoderTiny: TAESD.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openvino as ov
from openvino import opset13 as ops

from noisette.engines.openvino import graph as g
from noisette.engines.openvino.graph import Node, Weights
from noisette.errors import UserError

EPS = 1e-6
TINY: dict[str, Any] = {  # diffusers' defaults; latent_magnitude and latent_shift are for storing latents as bytes
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "act_fn": "relu", "upsample_fn": "nearest",
    "encoder_block_out_channels": [64] * 4, "decoder_block_out_channels": [64] * 4,
    "num_encoder_blocks": [1, 3, 3, 3], "num_decoder_blocks": [3, 3, 3, 1], "upsampling_scaling_factor": 2,
}  # fmt: skip


def build_encoder(config: Mapping[str, Any], w: Weights) -> ov.Model:
    """pixels [B, 3, H, W] in [-1, 1] -> moments: mean and logvar [B, 2 C, h, w] (Tiny: the latents alone)."""
    if kind(config) == "AutoencoderTiny":
        return build_tiny_encoder(config, w)
    pixels = g.parameter("pixels", [-1, config.get("in_channels", 3), -1, -1])
    channels, act, groups = (
        list(config["block_out_channels"]),
        config.get("act_fn", "silu"),
        norm_groups(config),
    )
    e = w / "encoder"
    x = g.conv(pixels, e / "conv_in", config.get("in_channels", 3), channels[0])
    width = channels[0]
    for i, block in enumerate(config["down_block_types"]):
        only(block, "DownEncoderBlock2D")
        for j in range(config.get("layers_per_block", 1)):
            x = resnet(x, e / "down_blocks" / i / "resnets" / j, width, channels[i], act, groups)
            width = channels[i]
        if i < len(channels) - 1:
            x = g.conv(x, e / "down_blocks" / i / "downsamplers" / 0 / "conv", width, width, stride=2, padding=(0, 1))
    x = mid_block(x, e / "mid_block", width, act, groups, config.get("mid_block_add_attention", True))
    x = g.silu(g.group_norm(x, e / "conv_norm_out", width, groups, EPS))
    moments = 2 * config.get("latent_channels", 4)
    x = g.conv(x, e / "conv_out", width, moments)
    if config.get("use_quant_conv", True):
        x = g.conv(x, w / "quant_conv", moments, moments, 1)
    return g.model({"moments": x}, [pixels], "vae_encoder")


def build_decoder(config: Mapping[str, Any], w: Weights) -> ov.Model:
    """latents [B, C, h, w] -> pixels [B, 3, H, W]."""
    if kind(config) == "AutoencoderTiny":
        return build_tiny_decoder(config, w)
    latent = config.get("latent_channels", 4)
    latents = g.parameter("latents", [-1, latent, -1, -1])
    channels, act, groups = (
        list(config["block_out_channels"])[::-1],
        config.get("act_fn", "silu"),
        norm_groups(config),
    )
    d = w / "decoder"
    x: Node = latents
    if config.get("use_post_quant_conv", True):
        x = g.conv(x, w / "post_quant_conv", latent, latent, 1)
    x = g.conv(x, d / "conv_in", latent, channels[0])
    width = channels[0]
    x = mid_block(x, d / "mid_block", width, act, groups, config.get("mid_block_add_attention", True))
    for i, block in enumerate(config["up_block_types"]):
        only(block, "UpDecoderBlock2D")
        for j in range(config.get("layers_per_block", 1) + 1):
            x = resnet(x, d / "up_blocks" / i / "resnets" / j, width, channels[i], act, groups)
            width = channels[i]
        if i < len(channels) - 1:
            x = g.conv(g.upsample(x), d / "up_blocks" / i / "upsamplers" / 0 / "conv", width, width)
    x = g.silu(g.group_norm(x, d / "conv_norm_out", width, groups, EPS))
    x = g.conv(x, d / "conv_out", width, config.get("out_channels", 3))
    return g.model({"pixels": x}, [latents], "vae_decoder")


def kind(config: Mapping[str, Any]) -> str:
    """AutoencoderKL or AutoencoderTiny; another class is a UserError."""
    name: str = config.get("_class_name", "AutoencoderKL")
    if name not in ("AutoencoderKL", "AutoencoderTiny"):
        raise UserError(f"vae: {name} is not supported by the openvino engine; use --engine torch")
    return name


def only(block: str, supported: str) -> None:
    """A block type of another family is a UserError."""
    if block != supported:
        raise UserError(f"vae: block type {block} is not supported by the openvino engine; use --engine torch")


def norm_groups(config: Mapping[str, Any]) -> int:
    """Groups of every GroupNorm."""
    return int(config.get("norm_num_groups", 32))


def resnet(x: Node, w: Weights, channels_in: int, channels_out: int, act: str, groups: int) -> Node:
    """diffusers `ResnetBlock2D` without a time embedding."""
    h = g.activation(act, g.group_norm(x, w / "norm1", channels_in, groups, EPS))
    h = g.conv(h, w / "conv1", channels_in, channels_out)
    h = g.activation(act, g.group_norm(h, w / "norm2", channels_out, groups, EPS))
    h = g.conv(h, w / "conv2", channels_out, channels_out)
    if channels_in != channels_out:
        x = g.conv(x, w / "conv_shortcut", channels_in, channels_out, 1)
    return ops.add(x, h)


def mid_block(x: Node, w: Weights, width: int, act: str, groups: int, attend: bool) -> Node:
    """diffusers `UNetMidBlock2D`: resnet, attention over all positions with one head (or none), resnet."""
    x = resnet(x, w / "resnets" / 0, width, width, act, groups)
    if attend:
        a = w / "attentions" / 0
        h = g.image_to_tokens(g.group_norm(x, a / "group_norm", width, groups, EPS), width)
        q, k, v = (g.split_heads(g.linear(h, a / name, width, width), 1, width) for name in ("to_q", "to_k", "to_v"))
        h = g.linear(g.attention(q, k, v, width), a / "to_out" / 0, width, width)
        x = ops.add(g.tokens_to_image(h, x, width), x)
    return resnet(x, w / "resnets" / 1, width, width, act, groups)


def build_tiny_encoder(config: Mapping[str, Any], w: Weights) -> ov.Model:
    """TAESD's encoder: pixels [B, 3, H, W] in [-1, 1] -> moments: the latents [B, C, h, w]."""
    c = {**TINY, **config}
    channels_in, channels = c["in_channels"], list(c["encoder_block_out_channels"])
    act, layers = c["act_fn"], w / "encoder" / "layers"
    pixels = g.parameter("pixels", [-1, channels_in, -1, -1])
    x = ops.multiply(ops.add(pixels, g.scalar(1.0)), g.scalar(0.5))
    x = g.conv(x, layers / 0, channels_in, channels[0])
    at = 1
    for i, blocks in enumerate(c["num_encoder_blocks"]):
        if i:
            x = g.conv(x, layers / at, channels[i], channels[i], stride=2, bias=False)
            at += 1
        for _ in range(blocks):
            x = tiny_block(x, layers / at, channels[i], act)
            at += 1
    x = g.conv(x, layers / at, channels[-1], c["latent_channels"])
    return g.model({"moments": x}, [pixels], "vae_encoder")


def build_tiny_decoder(config: Mapping[str, Any], w: Weights) -> ov.Model:
    """TAESD's decoder: latents [B, C, h, w] -> pixels [B, 3, H, W]."""
    c = {**TINY, **config}
    latent, channels = c["latent_channels"], list(c["decoder_block_out_channels"])
    act, layers = c["act_fn"], w / "decoder" / "layers"
    if c["upsample_fn"] != "nearest":
        raise UserError(
            f"vae: upsample_fn {c['upsample_fn']} is not supported by the openvino engine; use --engine torch"
        )
    latents = g.parameter("latents", [-1, latent, -1, -1])
    x = ops.multiply(ops.tanh(ops.divide(latents, g.scalar(3.0))), g.scalar(3.0))
    x = g.activation(act, g.conv(x, layers / 0, latent, channels[0]))
    at = 2
    for i, blocks in enumerate(c["num_decoder_blocks"]):
        final = i == len(channels) - 1
        for _ in range(blocks):
            x = tiny_block(x, layers / at, channels[i], act)
            at += 1
        if not final:
            x, at = g.upsample(x, times=c["upsampling_scaling_factor"]), at + 1
        x = g.conv(x, layers / at, channels[i], c["out_channels"] if final else channels[i], bias=final)
        at += 1
    x = ops.subtract(ops.multiply(x, g.scalar(2.0)), g.scalar(1.0))
    return g.model({"pixels": x}, [latents], "vae_decoder")


def tiny_block(x: Node, w: Weights, channels: int, act: str) -> Node:
    """diffusers `AutoencoderTinyBlock`: three convolutions around a skip."""
    h = x
    for i in (0, 2, 4):
        h = g.conv(h, w / "conv" / i, channels, channels)
        h = h if i == 4 else g.activation(act, h)
    return ops.relu(ops.add(h, x))
