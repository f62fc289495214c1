"""Numbers about a clip: each named, with its unit and where it is from. The frames pass by two at a time.

Need SciPy and scikit-image and are left out where they are not installed: `pip3 install -r requirements-bench.txt`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette.bench import measures
from noisette.bench.measures import Numbers
from noisette.clips import Frame
from noisette.errors import UserError
from noisette.masks import LUMA
from noisette.pixels import rounded, shown
from noisette.reading import Picture
from noisette.steadiness import first_frame_error, flicker

ABOUT = {
    "flicker": "mean absolute difference of each frame from the one before, moved to meet it, 0 to 255"
    " (phase correlation, Kuglin and Hines 1975)",
    "flow": "mean length of the optical flow, pixels a frame, weighted by the gradient: what is flat has none"
    " (iterative Lucas-Kanade, Le Besnerais and Champagnat 2005)",
    "drift": "mean CIEDE2000 of the frames to the first one, motion and change of colour alike",
    "first_frame": "mean absolute difference of the first frame from the base picture, 0 to 255",
}  # fmt: skip
FLOW_SIDE = 128  # pixels of the longer side at which flow is found
RADIUS = 7  # pixels around each within which flow is one

Array = NDArray[Any]


def of_clip(frames: Iterable[Frame], base: Picture | None) -> Numbers:
    """Colour and sharpness, the mean over the frames; what moves and flickers; the first frame beside its base."""
    first, before = None, None
    rows: list[Numbers] = []
    for frame in frames:
        row = measures.of_picture(Picture(frame))
        if first is None or before is None:
            first = before = frame
            start = {} if base is None or base.data.shape[:2] != frame.shape[:2] else of_start(frame, base)
        elif measures.has_skimage():
            row |= {"flicker": flicker(np.stack([before, frame])), "flow": flow(before, frame)}
            row["drift"] = float(measures.delta_e(frame.astype(np.float32), first.astype(np.float32)).mean())
        before = frame
        rows.append(row)
    means = {name: fmean(row[name] for row in rows if name in row) for name in rows[-1]}
    return means | start


def of_start(frame: Frame, base: Picture) -> Numbers:
    """How far the first frame is from the picture the clip should begin with."""
    return {"first_frame": first_frame_error(frame[None], rounded(shown(base)))}


def flow(before: Frame, after: Frame) -> float:
    """Mean length of the optical flow between two frames [H, W, 3], in their pixels, weighted by the gradient."""
    from skimage.registration import optical_flow_ilk

    one, other = small(before), small(after)
    down, across = optical_flow_ilk(one, other, radius=RADIUS)  # type: ignore[no-untyped-call]
    rows, columns = np.gradient(one)
    weight = np.hypot(rows, columns)
    if not weight.any():
        return 0.0
    scale = before.shape[1] / one.shape[1]
    return float((np.hypot(down, across) * weight).sum() / weight.sum() * scale)


def small(frame: Frame) -> NDArray[np.float32]:
    """Luma, 0 to 1, at most FLOW_SIDE pixels a side."""
    from PIL import Image

    luma = Image.fromarray(frame.astype(np.float32) @ LUMA / np.float32(255))
    share = FLOW_SIDE / max(luma.size)
    if share < 1:
        width, height = (max(1, round(side * share)) for side in luma.size)
        luma = luma.resize((width, height), Image.Resampling.BOX)
    return np.asarray(luma, np.float32)


def of_pair(frames: Iterable[Frame], reference: Iterable[Frame]) -> Numbers:
    """`measures.of_pair` over all frames. Raises UserError for another size or length."""
    pairs = alongside(map(Picture, frames), map(Picture, reference))
    return over_frames([measures.of_pair(one, other) for one, other in pairs])


def alongside(pictures: Iterable[Picture], reference: Iterable[Picture]) -> Iterator[tuple[Picture, Picture]]:
    """Frames of the same number, two at a time. Raises UserError for another length."""
    for one, other in zip_longest(pictures, reference):
        if one is None or other is None:
            raise UserError(
                "clips of different length can't be compared frame by frame: cut them to one length first"
            )
        yield one, other


def over_frames(rows: Sequence[Numbers]) -> Numbers:
    """The means of pairs' numbers; PSNR that of the mean squared error: a frame that is equal has none."""
    error = fmean(10 ** (-row["psnr"] / 10) for row in rows)  # over the square of the peak
    means = {name: fmean(row[name] for row in rows) for name in rows[0]}
    return means | {"psnr": -10 * math.log10(error) if error else math.inf}
