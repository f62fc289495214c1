"""IP-Adapters on the torch engine: a picture's tokens, and a UNet that attends to them apart from the text's."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import ImageProjection
from torch import Tensor, nn

from noisette.errors import UserError


class Given(nn.Module):
    """Hands on tokens that were projected once, where diffusers would project them at each step."""

    def forward(self, tokens: list[Tensor]) -> list[Tensor]:
        """As they come."""
        return tokens


class ImagePrompter:
    """A CLIP vision model and the adapter's projection: pixels to tokens."""

    def __init__(self, unet: Any, encoder: nn.Module, weights: dict[str, Tensor]) -> None:
        """Puts the adapter's layers into `unet`, a UNet2DConditionModel. Raises UserError when they don't fit it."""
        parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in weights.items():
            part, _, rest = name.partition(".")
            if part in parts:
                parts[part][rest] = tensor
        try:
            unet._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"the IP-Adapter does not fit this model: {reason}") from None
        self.encoder, self.unet = encoder, unet
        (self.projection,) = unet.encoder_hid_proj.image_projection_layers
        unet.encoder_hid_proj = Given()
        self.count = 0

    def __call__(self, pixels: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """CLIP pixels [1, 3, H, W] to tokens [1, N, width] of the picture and of none; sets the tokens' weight."""
        for processor in self.unet.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = [scale]
        if isinstance(self.projection, ImageProjection):
            seen = self.encoder(pixels).image_embeds
            unseen = torch.zeros_like(seen)
        else:  # the "plus" kind looks at all patches, of a black picture too
            both = torch.cat([pixels, torch.zeros_like(pixels)])
            seen, unseen = self.encoder(both, output_hidden_states=True).hidden_states[-2].chunk(2)
        tokens, none = self.projection(seen), self.projection(unseen)
        self.count = tokens.shape[1]
        return tokens, none

    def split(self, states: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """States [B, T + N, width] to the text's, and the picture's as diffusers' UNet takes them."""
        return states[:, : -self.count], {"image_embeds": [states[:, -self.count :]]}
