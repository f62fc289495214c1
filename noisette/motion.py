"""What a clip adds to the loop: a frame axis, [B, C, F, h, w]; walks, changing prompts, windows over long clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette.noise import slerp
from noisette.sampling import Denoise, Level

Array = NDArray[np.float32]

GOLDEN = (math.sqrt(5) - 1) / 2

Stations = list[tuple[float, int, int]]  # for each frame: how far, from which, to which


def between(stops: Sequence[int], num_frames: int, loop: bool) -> Stations:
    """(share, a, b) for each frame: it stands at `share` of the way from stop a to stop b, given by their frames.

    Before the first stop and after the last a frame stands there; in a loop it goes on from the last to the first.
    """
    found: Stations = []
    for frame in range(num_frames):
        after = next((i for i, stop in enumerate(stops) if stop > frame), len(stops))
        a, b = max(after - 1, 0), after
        if after == 0:
            found.append((0.0, 0, 0))
        elif after < len(stops):
            found.append(((frame - stops[a]) / (stops[b] - stops[a]), a, b))
        elif loop and len(stops) > 1:
            found.append(((frame - stops[a]) / (num_frames + stops[0] - stops[a]), a, 0))
        else:
            found.append((0.0, a, a))
    return found


def even_stops(count: int, num_frames: int, loop: bool) -> list[float]:
    """The frames at which a walk over `count` stations reaches each: the last at the end, or before the return."""
    spans = count if loop else max(count - 1, 1)
    length = num_frames if loop else num_frames - 1
    return [i * length / spans for i in range(count)]


def along(stations: Array, stops: Sequence[float], num_frames: int, loop: bool) -> Array:
    """Stations [K, ...] at their frames to all frames [F, ...], by slerp between neighbours (Shoemake 1985)."""
    places = between(stops, num_frames, loop)  # type: ignore[arg-type]
    return np.stack([slerp(stations[a], stations[b], share) for share, a, b in places])


def windows(num_frames: int, length: int, overlap: int, loop: bool, step: int) -> Iterator[NDArray[np.int64]]:
    """The frames of each window that is denoised together, all frames covered, neighbours sharing `overlap`.

    In a loop windows go round, and begin elsewhere at each step, so that no seam stays (FreeNoise, Qiu et al. 2024,
    shares windows; the turn is ours).
    """
    length = min(length, num_frames)
    if loop:
        offset = int(step * GOLDEN % 1 * num_frames)
        stride = max(length - overlap, 1) if length < num_frames else num_frames
        for first in range(0, num_frames, stride):
            yield (np.arange(first, first + length) + offset) % num_frames
        return
    stride = max(length - overlap, 1)
    count = 1 if length == num_frames else -(-(num_frames - length) // stride) + 1
    for i in range(count):
        first = min(i * stride, num_frames - length)
        yield np.arange(first, first + length)


def windowed(denoiser_for: Callable[[NDArray[np.int64]], Denoise], num_frames: int, length: int,
             overlap: int, loop: bool) -> Denoise:  # fmt: skip
    """One denoise(x, level) for x [B, C, F, h, w] from one for each window; shared frames are averaged.

    The average is weighted by the distance from a window's ends, where frames have no neighbours on one side.
    """
    steps = iter(range(1 << 62))

    def denoise(x: Any, level: Level) -> Any:
        total, weights = np.zeros_like(x), np.zeros(num_frames, np.float32)
        for window in windows(num_frames, length, overlap, loop, next(steps)):
            x0 = denoiser_for(window)(np.ascontiguousarray(x[:, :, window]), level)
            inner = np.minimum(np.arange(1, len(window) + 1), np.arange(len(window), 0, -1)).astype(np.float32)
            np.add.at(weights, window, inner)
            total[:, :, window] += x0 * inner[:, None, None]
        return total / weights[:, None, None]

    return denoise
