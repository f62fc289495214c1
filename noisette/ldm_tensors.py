"""The tensors of an original Stable Diffusion file (ldm) under the names of diffusers and transformers."""

from __future__ import annotations

from typing import Any

from noisette import ldm_keys
from noisette.kinds import TEXT_2
from noisette.tensors import Tensor

TEXTS = {  # network -> prefixes of transformers' names, prefix of OpenCLIP's
    "text_encoder": ((ldm_keys.CLIP, ldm_keys.XL_CLIP), ldm_keys.OPEN_CLIP),
    TEXT_2: ((), ldm_keys.XL_OPEN_CLIP),
}


def of_network(stored: dict[str, Tensor], network: str, configs: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    """The tensors of one network in an original file under their present names."""
    found: dict[str, Tensor] = {}
    if network == "unet":
        layers = configs["unet"]["layers_per_block"]
        return {ldm_keys.unet_name(n, layers): t for n, t in under(stored, ldm_keys.UNET).items()}
    if network == "vae":
        blocks = len(configs["vae"]["block_out_channels"])
        for name, tensor in under(stored, ldm_keys.VAE).items():
            new = ldm_keys.vae_name(name, blocks)
            attention = ".attentions." in new and len(tensor.shape) == 4
            found[new] = tensor.squeezed() if attention else tensor
        return found
    clip, open_clip = TEXTS[network]
    for prefix in clip:
        for name, tensor in under(stored, prefix).items():
            found |= dict.fromkeys(ldm_keys.clip_names(name), tensor)
    for name, tensor in under(stored, open_clip).items():
        new_names = ldm_keys.open_clip_names(name, configs[network]["num_hidden_layers"])
        fused = len(new_names) == 3
        found |= {new: tensor.third(i) if fused else tensor for i, new in enumerate(new_names)}
    if network == TEXT_2:
        found["text_projection.weight"] = stored[open_clip + "text_projection"].transposed()
    return found


def under(stored: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, which is cut off."""
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
