"""Sizes: what is written, and what the model composes on the way. Standard library only."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noisette.errors import UserError
from noisette.recipe import MAX_PIXELS, Recipe

if TYPE_CHECKING:
    from noisette.checkpoint import Checkpoint

DEFAULT_SIDE = 512
SHARED = 2  # latents that the neighbours of a scene share


@dataclass(frozen=True)
class Size:
    """What is written, and what the model composes on the way (pixels; canvas a multiple of the model's grid).

    `continued`: the canvas lies in the middle, as large as it fits, and its ground goes on around it.
    """

    width: int
    height: int
    canvas_width: int
    canvas_height: int
    hires: bool
    continued: bool = False

    @property
    def scale(self) -> float:
        """Pixels of the written picture for one of the canvas, the same across and down."""
        scales = self.width / self.canvas_width, self.height / self.canvas_height
        if self.continued:
            return min(scales)
        return max(scales) if self.hires else 1.0

    @property
    def inner(self) -> tuple[int, int]:
        """(width, height) of what stands for the whole picture on the canvas; right and below of it is padding."""
        return max(1, round(self.width / self.scale)), max(1, round(self.height / self.scale))


@dataclass(frozen=True)
class Window:
    """A part of the written picture, at (left, top), and the canvas it is composed on."""

    left: int
    top: int
    size: Size

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns, to index [H, W, ...] arrays of the written picture."""
        size = self.size
        return slice(self.top, self.top + size.height), slice(self.left, self.left + size.width)

    def describe(self) -> dict[str, list[int]]:
        """As JSON values: `box` [left, top, width, height] of the picture, `canvas` [width, height]."""
        size = self.size
        box = [self.left, self.top, size.width, size.height]
        return {"box": box, "canvas": [size.canvas_width, size.canvas_height]}


@dataclass(frozen=True)
class Margins:
    """Pixels that outpainting adds on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


def margins(outpaint: str, base: tuple[int, int]) -> Margins:
    """The margins that sides (left=128,top=64) or a size (1024x768, the base in its middle) mean.

    Raises UserError.
    """
    size = re.fullmatch(r"(\d{1,6})x(\d{1,6})", outpaint)
    sides = dict(re.findall(r"(left|top|right|bottom)=(\d{1,6})", outpaint))
    if size:
        across, down = int(size[1]) - base[0], int(size[2]) - base[1]
        if min(across, down) < 0:
            raise UserError(f"--outpaint {outpaint} is smaller than the base, {base[0]}x{base[1]}")
        around = Margins(across // 2, down // 2, across - across // 2, down - down // 2)
    elif ",".join(f"{side}={pixels}" for side, pixels in sides.items()) == outpaint.replace(" ", "") != "":
        around = Margins(**{side: int(pixels) for side, pixels in sides.items()})
    else:
        raise UserError(f"--outpaint {outpaint!r} is neither sides as left=128,top=64 nor a size as 1024x768")
    width, height = base[0] + around.left + around.right, base[1] + around.top + around.bottom
    if (width, height) == base:
        raise UserError(f"--outpaint {outpaint} adds nothing to the base, {width}x{height}")
    if width * height > MAX_PIXELS:
        raise UserError(f"--outpaint {outpaint} makes {width * height:,} pixels: at most {MAX_PIXELS:,}")
    return around


def written_size(recipe: Recipe, base: tuple[int, int] | None, native: tuple[int, int]) -> tuple[int, int]:
    """The size to write: what is given; else the base's, or its aspect for one missing side; else native."""
    width, height = recipe.img_w, recipe.img_h
    if recipe.upscale is not None and base is not None:
        return base[0] * recipe.upscale, base[1] * recipe.upscale
    if base is None:
        across, down = native if native[0] != native[1] else (max(DEFAULT_SIDE, native[0]),) * 2
        return width or across, height or down
    if width is None and height is None:
        return base
    if width is None:
        width = max(8, round(base[0] * height / base[1] / 8) * 8)
    if height is None:
        height = max(8, round(base[1] * width / base[0] / 8) * 8)
    return width, height


def composed_size(
    recipe: Recipe, mode: str, width: int, height: int, checkpoint: Checkpoint, max_aspect: float | None
) -> Size:
    """What the model composes for a picture of width x height in this mode: by the hires rule unless refused."""
    grid = checkpoint.vae_scale_factor
    if mode == "upscale" or recipe.hires == "off":
        return padded(width, height, grid)
    if mode == "text2img" and width != height and checkpoint.squares_only:
        return square_for(width, height, checkpoint.native_side)
    return size_for(width, height, checkpoint.native_side, grid, max_aspect)


def size_for(width: int, height: int, native_side: int, grid: int, max_aspect: float | None) -> Size:
    """What the model composes for a picture of width x height.

    Within the model's reach: the same size, up to the next multiple of `grid`. Beyond it (both sides over
    `native_side`, or an aspect over `max_aspect`; DESIGN's hires rule): native area in the asked aspect.
    """
    aspect = max(width, height) / min(width, height)
    if min(width, height) > native_side or (max_aspect is not None and aspect > max_aspect):
        return native_area(width, height, native_side, grid)
    return padded(width, height, grid)


def square_for(width: int, height: int, native_side: int) -> Size:
    """width x height by a model that knows squares only: one of its native side, whose ground goes on."""
    return Size(width, height, native_side, native_side, hires=True, continued=True)


def scene_for(width: int, height: int, native_side: int, grid: int, count: int, down: bool) -> Size:
    """width x height for `count` things, each in a square of the native side, in a row or (`down`) a column."""
    along = count * native_side - (count - 1) * SHARED * grid
    canvas = (native_side, along) if down else (along, native_side)
    return Size(width, height, *canvas, hires=True, continued=True)


def padded(width: int, height: int, grid: int) -> Size:
    """width x height on a canvas up to the next multiples of `grid`."""
    across, down = (math.ceil(side / grid) * grid for side in (width, height))
    return Size(width, height, across, down, hires=False)


def native_area(width: int, height: int, native_side: int, grid: int) -> Size:
    """width x height, composed at the model's native area in that aspect and scaled from there."""
    scale = native_side / math.sqrt(width * height)
    across, down = (max(1, round(side * scale / grid)) * grid for side in (width, height))
    return Size(width, height, across, down, hires=True)
