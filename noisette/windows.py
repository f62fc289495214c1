"""Only-masked inpainting: where the masked regions are, and the windows in which each is composed by itself."""

from __future__ import annotations

import math
import re
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError
from noisette.sizes import Size, Window, native_area

Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are outside
Cells = NDArray[np.intp]

FINEST = 64  # cells along the longer side of the grid on which regions are told apart
LEAST_CONTEXT = 32  # pixels around a masked region that the model sees, at least, by auto
RIM = 2  # latent cells around it by any number: in less no paint meets the base, and no colours can be compared
SMALL = 0.5  # auto crops when all windows together are at most this share of the picture


def check_crop(crop: str) -> None:
    """Raises UserError for what is neither auto nor off nor a number of pixels."""
    if crop not in ("auto", "off") and not re.fullmatch(r"\d{1,5}", crop):
        raise UserError(f"--crop {crop!r} is neither auto nor off nor a number of pixels around the mask, as 64")


def windows_for(
    repaint: NDArray[np.bool_], crop: str, whole: Size, native_side: int, grid: int
) -> tuple[Window, ...]:
    """The windows in which what `repaint` [H, W] says is composed; they never overlap.

    `crop` off: the whole picture. Pixels: a box for each region, with so many around it and RIM latent cells at
    least, composed at the model's native area. auto: such boxes with half the region's own size around it, where the
    picture is larger than the native area and the boxes are together at most half of it; else the whole picture.
    """
    everything = (Window(0, 0, whole),)
    if crop == "off":
        return everything
    height, width = repaint.shape
    cells = native_side / grid
    found = boxes(repaint, None if crop == "auto" else int(crop), RIM / (cells - 2 * RIM))
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in found)
    if crop == "auto" and (width * height <= native_side**2 or covered > SMALL * width * height):
        return everything
    return tuple(
        Window(left, top, native_area(right - left, bottom - top, native_side, grid))
        for left, top, right, bottom in found
    )


def boxes(repaint: NDArray[np.bool_], context: int | None, rim: float) -> list[Box]:
    """A box with context around each region; regions whose boxes would meet share one."""
    height, width = repaint.shape
    tight = regions(repaint)
    while True:
        grown = [grow(box, context, rim, width, height) for box in tight]
        met = next(((i, j) for i, j in combinations(range(len(grown)), 2) if overlap(grown[i], grown[j])), None)
        if met is None:
            return grown
        i, j = met
        tight = [*(box for k, box in enumerate(tight) if k not in met), union(tight[i], tight[j])]


def grow(box: Box, context: int | None, rim: float, width: int, height: int) -> Box:
    """The box with `context` pixels around it (None: half its longer side), square where the picture has room.

    At least `rim` of its longer side.
    """
    left, top, right, bottom = box
    longer = max(right - left, bottom - top)
    around = max(LEAST_CONTEXT, longer // 2) if context is None else max(context, math.ceil(rim * longer))
    left, right = max(0, left - around), min(width, right + around)
    top, bottom = max(0, top - around), min(height, bottom + around)
    side = max(right - left, bottom - top)
    left, right = widen(left, right, min(side, width), width)
    top, bottom = widen(top, bottom, min(side, height), height)
    return left, top, right, bottom


def widen(first: int, last: int, length: int, limit: int) -> tuple[int, int]:
    """[first, last) grown on both sides to `length`, moved to stay within [0, limit)."""
    start = min(max(0, first - (length - (last - first)) // 2), limit - length)
    return start, start + length


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share a pixel."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def union(a: Box, b: Box) -> Box:
    """The box around both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def regions(repaint: NDArray[np.bool_]) -> list[Box]:
    """The box of each separate region, from the top."""
    cell = -(-max(repaint.shape) // FINEST)
    labels = label(any_in_cells(repaint, cell))
    return [tight_box(repaint, labels == k + 1, cell) for k in range(labels.max())]


def any_in_cells(repaint: NDArray[np.bool_], cell: int) -> NDArray[np.bool_]:
    """[ceil(H / cell), ceil(W / cell)]: whether any pixel of a cell is to be repainted."""
    height, width = repaint.shape
    down, across = -(-height // cell), -(-width // cell)
    padded = np.zeros((down * cell, across * cell), np.bool_)
    padded[:height, :width] = repaint
    return np.asarray(padded.reshape(down, cell, across, cell).any(axis=(1, 3)))


def label(cells: NDArray[np.bool_]) -> Cells:
    """Numbers from 1 for cells that touch, corners too; 0 where nothing is."""
    labels = np.zeros(cells.shape, np.intp)
    left = {(int(y), int(x)) for y, x in np.argwhere(cells)}
    number = 0
    while left:
        number += 1
        front = [min(left)]
        left.discard(front[0])
        while front:
            y, x = front.pop()
            labels[y, x] = number
            fresh = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= fresh
            front += fresh
    return labels


def tight_box(repaint: NDArray[np.bool_], cells: NDArray[np.bool_], cell: int) -> Box:
    """The box around the pixels that are to be repainted in the cells that are True."""
    rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    part = cells[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].repeat(cell, axis=0).repeat(cell, axis=1)
    top, left = rows[0] * cell, columns[0] * cell
    inside = repaint[top : top + len(part), left : left + part.shape[1]]
    inside = inside & part[: inside.shape[0], : inside.shape[1]]
    ys, xs = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return int(left + xs[0]), int(top + ys[0]), int(left + xs[-1] + 1), int(top + ys[-1] + 1)
