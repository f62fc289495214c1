"""Large pictures through the VAE in overlapping tiles, so that memory stays bounded. NumPy only.

The tiles and their blending are diffusers' (`AutoencoderKL.enable_tiling`), so both engines give the same picture.
Tiles change it a little, since normalization sees a tile at a time: they are for pictures above WHOLE_AREA only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

WHOLE_AREA = 1024 * 1024  # pixels: whole, 1024x1024 takes 8 GB
OVERLAP = 0.25  # of a tile


def whole_or_tiled(run: Callable[[Array], Array], x: Array, tile: int, made: int) -> Array:
    """`run` over [B, C, H, W] at once, or in tiles where the picture on either side is above WHOLE_AREA pixels."""
    area = x.shape[2] * x.shape[3] * max(1, made // tile) ** 2
    return run(x) if area <= WHOLE_AREA or max(x.shape[2:]) <= tile else tiled(run, x, tile, made)


def tiled(run: Callable[[Array], Array], x: Array, tile: int, made: int) -> Array:
    """`run` over tiles of [B, C, H, W]: `tile` wide and high as they go in, `made` as they come out.

    Neighbours share a quarter, faded from one into the other. Two rows of tiles are held at a time.
    """
    step, fade = int(tile * (1 - OVERLAP)), int(made * OVERLAP)
    keep = made - fade
    rows: list[Array] = []
    above: list[Array] = []
    for top in range(0, x.shape[2], step):
        row: list[Array] = []
        for column, left in enumerate(range(0, x.shape[3], step)):
            done = run(np.ascontiguousarray(x[:, :, top : top + tile, left : left + tile])).copy()
            if above:
                fade_in(above[column], done, fade, axis=2)
            if row:
                fade_in(row[-1], done, fade, axis=3)
            row.append(done)
        rows.append(np.concatenate([done[:, :, :keep, :keep] for done in row], axis=3))
        above = row
    return np.concatenate(rows, axis=2)


def fade_in(before: Array, after: Array, length: int, axis: int) -> None:
    """Turns the beginning of `after` into the end of `before` along an axis, linearly, in place."""
    length = min(before.shape[axis], after.shape[axis], length)
    before, after = np.moveaxis(before, axis, -1), np.moveaxis(after, axis, -1)
    share = np.arange(length, dtype=np.float32) / np.float32(length)
    after[..., :length] = before[..., -length:] * (1 - share) + after[..., :length] * share
