"""What the judge measures of clips, each from frames uint8 [F, H, W, 3] of a thing on a plain ground alone."""

from __future__ import annotations

import itertools

import numpy as np
from skimage.registration import optical_flow_ilk

SLIDES = {"slide left": (-1, 0), "slide right": (1, 0), "slide up": (0, -1), "slide down": (0, 1)}
MOVES = 0.12  # of the side: the least way that counts as a slide
GROWS = 0.2  # the least change of the logarithm of its size that counts as a zoom
MOTIONS = (*SLIDES, "zoom in", "zoom out")  # those that are told apart
SIDE = 64  # pixels at which flow is measured


def way_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What moved between two frames: (right, down) in shares of the side, growth (log), turn (radians, clockwise).

    Optical flow at SIDE pixels (iterative Lucas-Kanade), fitted by least squares where the picture has edges.
    """
    one, other = (small(frame) for frame in (before, after))
    down, right = optical_flow_ilk(one, other, radius=5)  # type: ignore[no-untyped-call]
    edges = np.hypot(*np.gradient(one)).ravel()
    y, x = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE] / SIDE - 0.5)
    zero, ones = np.zeros_like(x), np.ones_like(x)
    rows = np.concatenate([np.stack([ones, zero, x, -y], 1), np.stack([zero, ones, y, x], 1)])
    flow = np.concatenate([right.ravel(), down.ravel()]) / SIDE
    weights = np.sqrt(np.tile(edges, 2))
    found: np.ndarray = np.linalg.lstsq(rows * weights[:, None], flow * weights, rcond=None)[0]
    return found


def small(frame: np.ndarray) -> np.ndarray:
    """A frame in grey, float32 [SIDE, SIDE], 0 to 1."""
    from PIL import Image

    image = Image.fromarray(frame).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image, np.float32) / 255


def motion_of(frames: np.ndarray) -> str:
    """'zoom in', 'zoom out', one of SLIDES or 'still': what the flow from first to last frame adds up to."""
    right, down, growth, _ = np.sum([way_between(a, b) for a, b in itertools.pairwise(frames)], axis=0)
    found = {name: (right * x + down * y) / MOVES for name, (x, y) in SLIDES.items()}
    found |= {"zoom in": growth / GROWS, "zoom out": -growth / GROWS}
    name = max(found, key=lambda key: found[key])
    return name if found[name] > 1 else "still"
