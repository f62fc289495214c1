"""Parts: a picture larger than the model's own size, denoised in overlapping parts that agree at each step.

Each step averages the parts' predictions where they overlap (MultiDiffusion, Bar-Tal et al. 2023, eq. 5). Tiles show
one prompt all over; the parts of a scene have a prompt each (their section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette.sampling import Denoise, Level

Place = tuple[Any, ...]  # of the latents [..., h, w] of a picture: `...`, rows, columns


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
    """One denoise(x, level) for x [B, C, h, w] of any size from one for h, w of at most `tile`, tile by tile."""

    def whole(x: Any, level: Level) -> Any:
        height, width = x.shape[-2:]
        places = [
            np.s_[..., top : top + tile, left : left + tile]
            for top in starts(height, tile, overlap)
            for left in starts(width, tile, overlap)
        ]
        return averaged(x, ((place, denoise(np.ascontiguousarray(x[place]), level)) for place in places))

    return whole


def together(denoise: Denoise, places: Sequence[Place]) -> Denoise:
    """One denoise(x, level) for x [B, C, h, w] whose parts, all of one size, `denoise` takes in one batch.

    The batch holds the first part of each picture, then the second, …: the order of the model's prompts.
    """

    def whole(x: Any, level: Level) -> Any:
        found = denoise(np.concatenate([x[place] for place in places]), level)
        return averaged(x, zip(places, np.split(found, len(places)), strict=True))

    return whole


def averaged(x: Any, parts: Iterable[tuple[Place, Any]]) -> Any:
    """Predictions of parts of x in one array like x: where they overlap the mean, by how near their middles are."""
    total, weights = np.zeros_like(x), np.zeros(x.shape[-2:], np.float32)
    for place, x0 in parts:
        weight = np.outer(ramp(x0.shape[-2]), ramp(x0.shape[-1]))
        total[place] += x0 * weight
        weights[place] += weight
    return total / weights
