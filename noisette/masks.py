"""Masks: what a mask picture means, and what is likely wrong with one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from noisette.errors import UserError
from noisette.pixels import Picture, rgb

THRESHOLD = 128


def values(picture: Picture) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The mask's values [H, W], 0 to 255: its grey, or its alpha where the colours say nothing."""
    grey = np.rint(rgb(Picture(picture.data, picture.mode)).astype(np.float32).mean(axis=-1)).astype(np.uint8)
    alpha = picture.alpha
    if alpha is None or alpha.min() == 255:
        return grey
    colour = picture.data[..., :-1]
    if (colour == colour[0, 0]).all():
        return alpha
    opaque = alpha == 255
    if (alpha[~opaque] == 0).all() and (colour[opaque] == colour[opaque][:1]).all():
        return alpha
    return grey


def repaint(picture: Picture, name: str | Path) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """True where the mask is white (128 and more): repainted. Raises UserError for a mask that is black all over."""
    mask = values(picture) >= THRESHOLD
    if not mask.any():
        raise UserError(f"the mask {name} is empty: paint white what should be repainted")
    return mask


def notes(picture: Picture, name: str | Path) -> list[str]:
    """What is likely not meant, a line each."""
    grey = values(picture)
    found = []
    if (grey >= THRESHOLD).all():
        found.append(f"the mask {name} is white all over: everything is repainted")
    between = float(((grey > 8) & (grey < 247)).mean())
    if between > 0.02:
        found.append(f"the mask {name} is grey in {between:.0%} of its pixels: 128 and more count as white")
    if picture.alpha is not None and picture.alpha.min() < 255 and np.array_equal(grey, picture.alpha):
        found.append(f"the mask {name} is carried in alpha: opaque is repainted")
    return found
