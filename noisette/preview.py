"""Previews: the model's guess at the finished picture, in a file beside it that is gone when the picture is there.

Decoded by the model's own VAE, or by a small decoder (TAESD and its kind, diffusers' AutoencoderTiny), which takes
the latents as the sampler has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from noisette import names, pixels
from noisette.adapters import OWN_VAE
from noisette.checkpoint import read_json

if TYPE_CHECKING:
    from noisette.engines import Array
    from noisette.plan import Plan


def previews_of(plan: Plan) -> Previews | None:
    """What a plan asks to be shown, if anything. Raises UserError."""
    return Previews(plan) if plan.recipe.preview_every else None


class Previews:
    """What `generate` shows its guesses to: each `preview_every`-th becomes a file.

    A small decoder is loaded at once: UserError for weights that don't fit its config. Left as a context, also by
    Ctrl-C, it takes all of the plan's previews away.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.every = plan, plan.recipe.preview_every
        where = str(plan.recipe.preview_decoder)
        self.decode = None if where == OWN_VAE else tiny(Path(where))

    def __enter__(self) -> Previews:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove(self.plan.seeds)

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
        painted = (self.decode or decode)(x0)
        for seed, picture in zip(seeds, painted, strict=True):
            path = self.path(seed)
            part = names.part_of(path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.from_model(picture)).save(part, "PNG", compress_level=1)
                part.replace(path)  # who looks never sees half a picture
            except OSError as error:
                names.release(path)
                raise names.cannot_write(path, error) from None

    def remove(self, seeds: Sequence[int]) -> None:
        """Their pictures are there, or will never be: their previews go."""
        for seed in seeds:
            self.path(seed).unlink(missing_ok=True)


def tiny(weights: Path) -> Callable[[Array], Array]:
    """An AutoencoderTiny, through openvino: latents [B, C, h, w] to pixels [B, 3, H, W] in about [-1, 1]."""
    from noisette.engines.openvino import alone, vae
    from noisette.engines.openvino.engine import run

    model, _ = alone.load(weights, "preview", vae.build_tiny_decoder)
    scale = np.float32(read_json(weights.with_name("config.json")).get("scaling_factor", 1.0))
    return lambda latents: run(model, {"latents": latents / scale})["pixels"]
