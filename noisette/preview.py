"""Previews: the model's guess at the finished picture, in a file beside it that is gone when the picture is there.

Decoded by the model's own VAE, or by a small decoder (TAESD and its kind, diffusers' AutoencoderTiny), which takes
the latents as the sampler has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from noisette import names, pixels
from noisette.adapters import OWN_VAE

if TYPE_CHECKING:
    from noisette.engines import Array
    from noisette.plan import Plan


class Previews:
    """What `generate` shows its guesses to: each `preview_every`-th becomes a file."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.every, self.decoder = plan.recipe.preview_every, str(plan.recipe.preview_decoder)

    def path(self, seed: int) -> Path:
        """Where the preview of a seed's picture is."""
        recipe = self.plan.recipe
        assert recipe.num_inference_steps is not None
        name = names.file_name(recipe.prompt, self.plan.mode, seed, recipe.num_inference_steps, "preview")
        return self.plan.out / name

    def __call__(self, seeds: Sequence[int], decode: Callable[[Array], Array], i: int, x0: Array) -> None:
        """Writes the guesses x0 [B, C, h, w] of step i, one for each seed, when it is time. Raises UserError."""
        if (i + 1) % self.every:
            return
        painted = decode(x0) if self.decoder == OWN_VAE else tiny(Path(self.decoder), x0)
        for seed, picture in zip(seeds, painted, strict=True):
            path = self.path(seed)
            part = names.part_of(path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.from_model(picture)).save(part, "PNG", compress_level=1)
                part.replace(path)  # who looks never sees half a picture
            except OSError as error:
                raise names.cannot_write(path, error) from None

    def remove(self, seed: int) -> None:
        """The picture is there: its preview goes."""
        self.path(seed).unlink(missing_ok=True)


def tiny(weights: Path, latents: Array) -> Array:
    """Latents [B, C, h, w] to pixels [B, 3, H, W] in about [-1, 1] by an AutoencoderTiny, through openvino."""
    from noisette.engines.openvino import alone, vae
    from noisette.engines.openvino.engine import run

    model, _ = alone.load(weights, "preview", vae.build_tiny_decoder)
    return run(model, {"latents": latents})["pixels"]
