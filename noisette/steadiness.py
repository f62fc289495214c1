"""How steady a clip is, from frames uint8 [F, H, W, 3] alone: for the bench and the judge. Needs SciPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def shift_between(before: Frames, after: Frames) -> tuple[float, float]:
    """The way (x, y) in pixels that two frames have moved, by phase correlation (Kuglin and Hines 1975)."""
    one, other = (frame.astype(np.float64).mean(2) for frame in (before, after))
    window = np.hanning(one.shape[0])[:, None] * np.hanning(one.shape[1])
    cross = np.fft.fft2((other - other.mean()) * window) * np.conj(np.fft.fft2((one - one.mean()) * window))
    peak = np.fft.ifft2(cross / (np.abs(cross) + 1e-9)).real
    y, x = np.unravel_index(int(peak.argmax()), peak.shape)
    height, width = peak.shape
    return float((x + width // 2) % width - width // 2), float((y + height // 2) % height - height // 2)


def flicker(frames: Frames) -> float:
    """Mean absolute difference, 0 to 255, of each frame from the one before it, which is moved to meet it."""
    from scipy import ndimage

    errors = []
    for before, after in itertools.pairwise(frames):
        x, y = shift_between(before, after)
        moved: NDArray[Any] = ndimage.shift(before.astype(np.float32), (y, x, 0), order=1, mode="nearest")
        errors.append(np.abs(moved - after).mean())
    return float(np.mean(errors))


def first_frame_error(frames: Frames, base: Frames) -> float:
    """Mean absolute difference, 0 to 255, of the first frame from the picture the clip should begin with."""
    return float(np.abs(frames[0].astype(np.float32) - base).mean())
