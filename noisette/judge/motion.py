"""What the judge measures of clips, each from frames uint8 [F, H, W, 3] of a thing on a plain ground alone."""

from __future__ import annotations

import numpy as np

from noisette.judge.measures import foreground

SLIDES = {"slide left": (-1, 0), "slide right": (1, 0), "slide up": (0, -1), "slide down": (0, 1)}
MOVES = 0.12  # of the side: the least way that counts as a slide
GROWS = 0.2  # the least change of the logarithm of both sides of the thing's box that counts as a zoom


def box(frame: np.ndarray) -> tuple[float, float, float, float]:
    """Middle (x, y) and sides (width, height) of the thing, as shares of the picture. A blank one: its middle, 0."""
    thing = foreground(frame)
    if not thing.any():
        return 0.5, 0.5, 0.0, 0.0
    rows, columns = (np.flatnonzero(thing.any(axis)) for axis in (1, 0))
    height, width = thing.shape
    (top, bottom), (left, right) = (rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)
    across, down = (right - left) / width, (bottom - top) / height
    return (left + right) / 2 / width, (top + bottom) / 2 / height, across, down


def motion_of(frames: np.ndarray) -> str:
    """'zoom in', 'zoom out', one of SLIDES or 'still': what the thing's box does from first to last frame.

    A box that shrinks on one side only leaves the picture there: that is a slide.
    """
    x0, y0, w0, h0 = box(frames[0])
    x1, y1, w1, h1 = box(frames[-1])
    if not min(w0, h0, w1, h1):
        return "still"
    growth = np.log([w1 / w0, h1 / h0])
    if growth.min() > GROWS:
        return "zoom in"
    if growth.max() < -GROWS:
        return "zoom out"
    way = np.array([x1 - x0, y1 - y0])
    if np.abs(way).max() < MOVES:
        return "still"
    return max(SLIDES, key=lambda name: float(way @ SLIDES[name]))
