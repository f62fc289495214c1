"""Original Stable Diffusion files of a few thousand random weights, named as ldm's modules name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from noisette.ldm_keys import CLIP, OPEN_CLIP, UNET, VAE, XL_CLIP, XL_OPEN_CLIP

Shapes = dict[str, tuple[int, ...]]
CHANNELS, MULTIPLES, TEXT, VOCABULARY = 64, (1, 2), 64, 1002
XL_TEXT, XL_PROJECTED, XL_SIZES = 128, 40, 6 * 16  # of the second encoder; of the six numbers' sinusoids


def affine(name: str, *shape: int) -> Shapes:
    """A weight and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def resnet(name: str, inside: int, outside: int) -> Shapes:
    shapes = affine(f"{name}.in_layers.0", inside) | affine(f"{name}.in_layers.2", outside, inside, 3, 3)
    shapes |= affine(f"{name}.emb_layers.1", outside, CHANNELS * 4) | affine(f"{name}.out_layers.0", outside)
    shapes |= affine(f"{name}.out_layers.3", outside, outside, 3, 3)
    return shapes | (affine(f"{name}.skip_connection", outside, inside, 1, 1) if inside != outside else {})


def transformer(name: str, width: int, linear: bool, text: int = TEXT, depth: int = 1) -> Shapes:
    one = () if linear else (1, 1)
    shapes = affine(f"{name}.norm", width) | affine(f"{name}.proj_in", width, width, *one)
    shapes |= affine(f"{name}.proj_out", width, width, *one)
    for block in (f"{name}.transformer_blocks.{index}" for index in range(depth)):
        for attention, context in (("attn1", width), ("attn2", text)):
            shapes |= {f"{block}.{attention}.to_{part}.weight": (width, context) for part in "kv"}
            shapes |= {f"{block}.{attention}.to_q.weight": (width, width)}
            shapes |= affine(f"{block}.{attention}.to_out.0", width, width)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= affine(f"{block}.{norm}", width)
        shapes |= affine(f"{block}.ff.net.0.proj", width * 8, width) | affine(f"{block}.ff.net.2", width, width * 4)
    return shapes


def unet(in_channels: int, linear: bool, xl: bool = False) -> Shapes:
    """ldm's UNetModel: two levels of two resnets, attention at the first (of XL at the second, two blocks deep)."""
    shapes = affine("time_embed.0", CHANNELS * 4, CHANNELS) | affine("time_embed.2", CHANNELS * 4, CHANNELS * 4)
    if xl:
        shapes |= affine("label_emb.0.0", CHANNELS * 4, XL_PROJECTED + XL_SIZES)
        shapes |= affine("label_emb.0.2", CHANNELS * 4, CHANNELS * 4)
    shapes |= affine("input_blocks.0.0", CHANNELS, in_channels, 3, 3)
    skips, width, index = [CHANNELS], CHANNELS, 1

    def attention(name: str, here: bool = True) -> Shapes:
        if not here:
            return {}
        return transformer(name, width, linear, TEXT + XL_TEXT, 2) if xl else transformer(name, width, linear)

    for level, multiple in enumerate(MULTIPLES):
        for _ in range(2):
            shapes |= resnet(f"input_blocks.{index}.0", width, CHANNELS * multiple)
            width = CHANNELS * multiple
            shapes |= attention(f"input_blocks.{index}.1", level == xl)
            skips.append(width)
            index += 1
        if level + 1 < len(MULTIPLES):
            shapes |= affine(f"input_blocks.{index}.0.op", width, width, 3, 3)
            skips.append(width)
            index += 1
    shapes |= resnet("middle_block.0", width, width) | attention("middle_block.1")
    shapes |= resnet("middle_block.2", width, width)
    index = 0
    for level, multiple in reversed(list(enumerate(MULTIPLES))):
        for layer in range(3):
            shapes |= resnet(f"output_blocks.{index}.0", width + skips.pop(), CHANNELS * multiple)
            width = CHANNELS * multiple
            shapes |= attention(f"output_blocks.{index}.1", level == xl)
            if level and layer == 2:
                shapes |= affine(f"output_blocks.{index}.{2 if level == xl else 1}.conv", width, width, 3, 3)
            index += 1
    return shapes | affine("out.0", width) | affine("out.2", 4, width, 3, 3)


def vae_resnet(name: str, inside: int, outside: int) -> Shapes:
    shapes = affine(f"{name}.norm1", inside) | affine(f"{name}.conv1", outside, inside, 3, 3)
    shapes |= affine(f"{name}.norm2", outside) | affine(f"{name}.conv2", outside, outside, 3, 3)
    return shapes | (affine(f"{name}.nin_shortcut", outside, inside, 1, 1) if inside != outside else {})


def vae_middle(name: str, width: int) -> Shapes:
    shapes = vae_resnet(f"{name}.mid.block_1", width, width) | vae_resnet(f"{name}.mid.block_2", width, width)
    shapes |= affine(f"{name}.mid.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= affine(f"{name}.mid.attn_1.{part}", width, width, 1, 1)
    return shapes


def vae() -> Shapes:
    """ldm's AutoencoderKL: four levels, two resnets each in the encoder, three in the decoder."""
    widths = (32, 32, 64, 64)
    shapes = affine("encoder.conv_in", 32, 3, 3, 3)
    width = 32
    for level, wide in enumerate(widths):
        for layer in range(2):
            shapes |= vae_resnet(f"encoder.down.{level}.block.{layer}", width, wide)
            width = wide
        if level < 3:
            shapes |= affine(f"encoder.down.{level}.downsample.conv", wide, wide, 3, 3)
    shapes |= vae_middle("encoder", width) | affine("encoder.norm_out", width)
    shapes |= affine("encoder.conv_out", 8, width, 3, 3) | affine("quant_conv", 8, 8, 1, 1)
    shapes |= affine("post_quant_conv", 4, 4, 1, 1) | affine("decoder.conv_in", width, 4, 3, 3)
    shapes |= vae_middle("decoder", width)
    for level in (3, 2, 1, 0):
        for layer in range(3):
            shapes |= vae_resnet(f"decoder.up.{level}.block.{layer}", width, widths[level])
            width = widths[level]
        if level:
            shapes |= affine(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    return shapes | affine("decoder.norm_out", width) | affine("decoder.conv_out", 3, width, 3, 3)


def clip() -> Shapes:
    """transformers' CLIPTextModel, as 1.x files carry it."""
    shapes = {
        "text_model.embeddings.token_embedding.weight": (VOCABULARY, TEXT),
        "text_model.embeddings.position_embedding.weight": (77, TEXT),
    }
    for layer in ("text_model.encoder.layers.0", "text_model.encoder.layers.1"):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= affine(f"{layer}.self_attn.{part}", TEXT, TEXT)
        shapes |= affine(f"{layer}.layer_norm1", TEXT) | affine(f"{layer}.layer_norm2", TEXT)
        shapes |= affine(f"{layer}.mlp.fc1", 96, TEXT) | affine(f"{layer}.mlp.fc2", TEXT, 96)
    return shapes | affine("text_model.final_layer_norm", TEXT)


def open_clip(width: int = TEXT, blocks: int = 24, projected: int = TEXT) -> Shapes:
    """open_clip's text tower, as 2.x files carry it: 24 blocks, the last unused; XL's projects."""
    shapes: Shapes = {"positional_embedding": (77, width), "token_embedding.weight": (VOCABULARY, width)}
    for index in range(blocks):
        layer = f"transformer.resblocks.{index}"
        shapes |= {
            f"{layer}.attn.in_proj_weight": (width * 3, width),
            f"{layer}.attn.in_proj_bias": (width * 3,),
        }
        shapes |= affine(f"{layer}.attn.out_proj", width, width)
        shapes |= affine(f"{layer}.ln_1", width) | affine(f"{layer}.ln_2", width)
        shapes |= affine(f"{layer}.mlp.c_fc", 96, width) | affine(f"{layer}.mlp.c_proj", width, 96)
    return shapes | affine("ln_final", width) | {"text_projection": (width, projected), "logit_scale": ()}


def write(path: Path, second: bool, in_channels: int = 4) -> dict[str, Any]:
    """Writes a file of 1.x or (`second`) 2.x and returns its tensors."""
    parts = {
        UNET: unet(in_channels, second),
        VAE: vae(),
        OPEN_CLIP if second else CLIP: open_clip() if second else clip(),
    }
    more = {} if second else {CLIP + "text_model.embeddings.position_ids": torch.arange(77)[None]}
    return write_parts(path, parts, more)


def write_xl(path: Path, in_channels: int = 4, **more: torch.Tensor) -> dict[str, Any]:
    """Writes a file of XL with `more` tensors in it and returns all."""
    parts = {UNET: unet(in_channels, True, xl=True), VAE: vae(), XL_CLIP: clip()}
    parts |= {XL_OPEN_CLIP: open_clip(XL_TEXT, 3, XL_PROJECTED)}
    return write_parts(path, parts, more)


def write_parts(path: Path, parts: dict[str, Shapes], more: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Random tensors of these shapes, and what else such files hold."""
    generator = torch.Generator().manual_seed(3)
    tensors = {
        prefix + name: torch.randn(shape, generator=generator) * 0.05
        for prefix, shapes in parts.items()
        for name, shape in shapes.items()
    }
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    tensors["model_ema.decay"] = torch.tensor(0.999)
    save_file(tensors | more, path)
    return tensors | more
