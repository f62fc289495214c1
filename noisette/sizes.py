"""Sizes: what is written, and what the model composes on the way. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from noisette.recipe import Recipe

DEFAULT_SIDE = 512


@dataclass(frozen=True)
class Size:
    """What is written, and what the model composes on the way (pixels; canvas a multiple of the model's grid)."""

    width: int
    height: int
    canvas_width: int
    canvas_height: int
    hires: bool


def written_size(recipe: Recipe, base: tuple[int, int] | None, native_side: int) -> tuple[int, int]:
    """The size to write: what is given; else the base's, or its aspect for one missing side; else native."""
    width, height = recipe.img_w, recipe.img_h
    if base is None:
        side = max(DEFAULT_SIDE, native_side)
        return width or side, height or side
    if width is None and height is None:
        return base
    if width is None:
        width = max(8, round(base[0] * height / base[1] / 8) * 8)
    if height is None:
        height = max(8, round(base[1] * width / base[0] / 8) * 8)
    return width, height


def size_for(width: int, height: int, native_side: int, grid: int, max_aspect: float | None) -> Size:
    """What the model composes for a picture of width x height.

    Within the model's reach: the same size, up to the next multiple of `grid`. Beyond it (both sides over
    `native_side`, or an aspect over `max_aspect`; DESIGN's hires rule): native area in the asked aspect.
    """
    aspect = max(width, height) / min(width, height)
    hires = min(width, height) > native_side or (max_aspect is not None and aspect > max_aspect)
    scale = native_side / math.sqrt(width * height) if hires else 1.0
    nearest = round if hires else math.ceil
    across, down = (max(1, nearest(side * scale / grid)) * grid for side in (width, height))
    return Size(width, height, across, down, hires)
