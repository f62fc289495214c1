"""Tiles: a picture larger than the model's own size, denoised in overlapping parts that agree at each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette.sampling import Denoise, Level


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin so that they cover `length`, each sharing at least `overlap` with the next."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def ramp(length: int) -> NDArray[np.float32]:
    """Weights along a tile's side: falling evenly towards its ends, never to nothing."""
    return np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)


def tiled(denoise: Denoise, tile: int, overlap: int) -> Denoise:
    """One denoise(x, level) for x [B, C, h, w] of any size from one for h, w of at most `tile`.

    Each step averages the tiles' predictions where they overlap (MultiDiffusion, Bar-Tal et al. 2023, eq. 5).
    """

    def whole(x: Any, level: Level) -> Any:
        height, width = x.shape[-2:]
        total, weights = np.zeros_like(x), np.zeros((height, width), np.float32)
        for top in starts(height, tile, overlap):
            for left in starts(width, tile, overlap):
                place = np.s_[..., top : top + tile, left : left + tile]
                x0 = denoise(np.ascontiguousarray(x[place]), level)
                weight = np.outer(ramp(x0.shape[-2]), ramp(x0.shape[-1]))
                total[place] += x0 * weight
                weights[place] += weight
        return total / weights

    return whole
