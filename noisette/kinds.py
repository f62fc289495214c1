"""What kind of model a checkpoint is, told from its model_index.json and configurations. Standard library only."""

from __future__ import annotations

import re
from typing import Any

from noisette.errors import UserError

NETWORKS = ("unet", "vae", "text_encoder")
TEXT_2 = "text_encoder_2"  # of Stable Diffusion XL
SIZES = 6  # numbers that tell Stable Diffusion XL a picture's size and crop
VIDEO_NETWORKS = ("transformer", "transformer_2", "vae", "text_encoder", "image_encoder")
VIDEO_KINDS = {
    "WanPipeline": "wan",
    "WanImageToVideoPipeline": "wan",
    "LTXPipeline": "ltx-video",
    "LTXImageToVideoPipeline": "ltx-video",
    "LTXConditionPipeline": "ltx-video",
}
A_REFINER = "is a refiner, which finishes latents of Stable Diffusion XL: name the base model"
PIPELINE = re.compile(r"(StableDiffusion|StableDiffusionXL|AltDiffusion)(Inpaint|Img2Img)?Pipeline")


def check_known(model: str, pipeline: dict[str, Any]) -> None:
    """Raises UserError for a model_index.json of something that does not run here."""
    name = str(pipeline.get("_class_name"))
    if name not in VIDEO_KINDS and not PIPELINE.fullmatch(name):
        known = "Stable Diffusion 1.x, 2.x and XL, Wan and LTX-Video"
        raise UserError(f"{model} is a {pipeline.get('_class_name')}: {known} run here")
    if name.startswith("StableDiffusionXL") and not (pipeline.get("text_encoder") or [None])[0]:
        raise UserError(f"{model} {A_REFINER}")


def networks_of(pipeline: dict[str, Any]) -> tuple[str, ...]:
    """The networks that a model_index.json names."""
    if pipeline.get("_class_name") not in VIDEO_KINDS:
        return (*NETWORKS, TEXT_2) if "XL" in str(pipeline.get("_class_name")) else NETWORKS
    return tuple(name for name in VIDEO_NETWORKS if (pipeline.get(name) or [None])[0])


def kind_of(model: str, configs: dict[str, dict[str, Any]]) -> str:
    """The kind of a UNet, by its input channels and text encoders. Raises UserError for what needs more than text."""
    unet, is_xl = configs["unet"], TEXT_2 in configs
    latent, taken = configs["vae"].get("latent_channels", 4), unet["in_channels"]
    for key in ("class_embed_type", "num_class_embeds", "time_cond_proj_dim", "encoder_hid_dim"):
        if unet.get(key) is not None:
            raise UserError(f"{model}: a UNet with {key} {unet[key]} needs more than text, and does not run here")
    noise = str(configs["scheduler"].get("_class_name"))
    if noise.startswith("EDM"):
        raise UserError(f"{model}: a UNet for {noise}'s noise levels does not run here")
    if configs["vae"].get("latents_mean") is not None:
        raise UserError(f"{model}: a VAE whose latents are shifted by latents_mean does not run here")
    if unet.get("addition_embed_type") not in (("text_time",) if is_xl else (None, "text")):
        raise UserError(
            f"{model}: a UNet with addition_embed_type {unet.get('addition_embed_type')} does not run here"
        )
    if taken not in (latent, 2 * latent + 1):
        raise UserError(f"{model}: a UNet of {taken} input channels; known are {latent} and {2 * latent + 1}")
    if is_xl:
        check_widths(model, configs)
    return ("sdxl" if is_xl else "sd") + ("" if taken == latent else "-inpaint")


def check_widths(model: str, configs: dict[str, dict[str, Any]]) -> None:
    """Raises UserError when the text encoders of Stable Diffusion XL do not fill what the UNet takes."""
    unet, first, second = configs["unet"], configs["text_encoder"], configs[TEXT_2]
    states = first["hidden_size"] + second["hidden_size"]
    if states != unet["cross_attention_dim"]:
        raise UserError(f"{model}: text states {states} wide for a UNet that takes {unet['cross_attention_dim']}")
    added = second["projection_dim"] + SIZES * unet["addition_time_embed_dim"]
    if added != unet["projection_class_embeddings_input_dim"]:
        wanted = unet["projection_class_embeddings_input_dim"]
        raise UserError(f"{model}: pooled text and sizes {added} wide for a UNet that takes {wanted}")
