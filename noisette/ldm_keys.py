"""Names in original Stable Diffusion files (ldm, 1.x, 2.x and XL) as diffusers and transformers call them.

Strings only, so that every engine can share it. A fused projection maps to three names: equal thirds of its
rows. Names that inference does not need map to none.
"""

from __future__ import annotations

import re

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer."
OPEN_CLIP = "cond_stage_model.model."
XL_CLIP = "conditioner.embedders.0.transformer."
XL_OPEN_CLIP = "conditioner.embedders.1.model."
REFINER = "conditioner.embedders.0.model."

RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OPEN_CLIP_ENDS = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def unet_name(name: str, layers_per_block: int) -> str:
    """A UNet name without its prefix: 'out.2.bias' -> 'conv_out.bias'."""
    stem, _, leaf = name.rpartition(".")
    if stem in UNET_ENDS:
        return f"{UNET_ENDS[stem]}.{leaf}"
    match = re.match(r"(input_blocks|middle_block|output_blocks)\.(\d+)(?:\.(\d+))?\.(.+)", name)
    if not match:
        return name
    kind, index, part, rest = match[1], int(match[2]), int(match[3] or 0), match[4]
    if kind == "middle_block":
        return (
            f"mid_block.attentions.0.{rest}" if index == 1 else f"mid_block.resnets.{index // 2}.{resnet_name(rest)}"
        )
    block, layer = divmod(index - (kind == "input_blocks"), layers_per_block + 1)
    side = "down_blocks" if kind == "input_blocks" else "up_blocks"
    if rest.startswith("op."):
        return f"{side}.{block}.downsamplers.0.conv.{leaf}"
    if rest.startswith("conv.") and part > 0:
        return f"{side}.{block}.upsamplers.0.conv.{leaf}"
    if part == 0:
        return f"{side}.{block}.resnets.{layer}.{resnet_name(rest)}"
    return f"{side}.{block}.attentions.{layer}.{rest}"


def resnet_name(name: str) -> str:
    """'in_layers.0.weight' -> 'norm1.weight'."""
    stem, _, leaf = name.rpartition(".")
    return f"{RESNET[stem]}.{leaf}"


def vae_name(name: str, blocks: int) -> str:
    """A VAE name without its prefix: 'encoder.down.0.block.1.x' -> 'encoder.down_blocks.0.resnets.1.x'."""
    name = name.replace(".norm_out.", ".conv_norm_out.").replace("nin_shortcut", "conv_shortcut")
    if mid := re.match(r"(encoder|decoder)\.mid\.(block|attn)_(\d)\.(.+)", name):
        side, kind, number, rest = mid.groups()
        if kind == "block":
            return f"{side}.mid_block.resnets.{int(number) - 1}.{rest}"
        stem, _, leaf = rest.rpartition(".")
        return f"{side}.mid_block.attentions.0.{VAE_ATTENTION[stem]}.{leaf}"
    if level := re.match(r"(encoder|decoder)\.(down|up)\.(\d+)\.(.+)", name):
        side, way, number, rest = level.groups()
        block = int(number) if way == "down" else blocks - 1 - int(number)
        rest = rest.replace("block.", "resnets.").replace(f"{way}sample.", f"{way}samplers.0.")
        return f"{side}.{way}_blocks.{block}.{rest}"
    return name


def new_vae_name(name: str) -> str:
    """A name from a VAE saved by an early diffusers (Stable Diffusion 1.5's own) as it is called today."""
    where, _, rest = name.partition(".attentions.0.")
    stem, _, leaf = rest.rpartition(".")
    return f"{where}.attentions.0.{OLD_VAE_ATTENTION[stem]}.{leaf}" if stem in OLD_VAE_ATTENTION else name


def clip_names(name: str) -> tuple[str, ...]:
    """A CLIP name without its prefix; some files leave out 'text_model.'."""
    name = "text_model." + name.removeprefix("text_model.")
    return () if name.endswith("position_ids") else (name,)


def open_clip_names(name: str, layers: int) -> tuple[str, ...]:
    """An OpenCLIP name without its prefix; blocks from `layers` up (in 2.x, the last one) are not used."""
    if name in OPEN_CLIP_ENDS:
        return (f"text_model.{OPEN_CLIP_ENDS[name]}",)
    block = re.match(r"transformer\.resblocks\.(\d+)\.(.+)", name)
    if not block or int(block[1]) >= layers:
        return ()
    where = f"text_model.encoder.layers.{block[1]}"
    if fused := re.match(r"attn\.in_proj_(weight|bias)", block[2]):
        return tuple(f"{where}.self_attn.{part}_proj.{fused[1]}" for part in "qkv")
    stem, _, leaf = block[2].rpartition(".")
    return (f"{where}.{OPEN_CLIP_LAYER[stem]}.{leaf}",)
