#!/usr/bin/env python3
"""Draws the base and the mask of the inpainting study: two things on a shaded ground, 512x512, one of them masked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
SIDE, FINER = 512, 4


def base() -> Image.Image:
    """An apple and a ball on a ground that grows darker to the right and below, with the grain of paper."""
    y, x = np.mgrid[0 : SIDE * FINER, 0 : SIDE * FINER] / (SIDE * FINER)
    ground = np.stack([250 - 50 * x, 244 - 40 * y, 225 - 30 * x - 30 * y], axis=-1)
    picture = Image.fromarray(ground.astype(np.uint8))
    pen = ImageDraw.Draw(picture)

    def at(*box: float) -> list[float]:
        return [value * FINER for value in box]

    pen.ellipse(at(84, 150, 212, 282), fill=(206, 46, 40))
    pen.ellipse(at(132, 150, 260, 282), fill=(206, 46, 40))
    pen.ellipse(at(112, 178, 150, 214), fill=(240, 132, 118))
    pen.line(at(172, 162, 184, 112), fill=(96, 66, 40), width=9 * FINER)
    pen.ellipse(at(186, 108, 246, 138), fill=(92, 158, 64))
    pen.ellipse(at(330, 300, 440, 410), fill=(66, 116, 198))
    pen.ellipse(at(354, 322, 386, 350), fill=(140, 176, 230))
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    grain = np.random.default_rng(0).normal(0, 2, (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def mask() -> Image.Image:
    """White over the lower two thirds of the apple: the edge runs through it and through the ground."""
    picture = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(picture).ellipse((70, 170, 274, 300), fill=255)
    return picture


if __name__ == "__main__":
    base().save(HERE / "base.png", optimize=True)
    mask().save(HERE / "mask.png", optimize=True)
