"""Clips from stills: each motion as a rule that moves a picture on its ground, and the words that name it.

At the first frame every picture stands as it is in the still, so that a clip can begin from one. What turns or
swings ends where it begins: those clips loop. Training makes its clips so, and a model without motion modules
starts from such a clip and redraws it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from noisette.recipe import MOTIONS

REACH = 0.25  # of the side: how far a slide goes, so that what fills a picture stays recognizable

Affine = tuple[float, float, float, float, float]  # scale x, scale y, angle (radians), shift x, shift y (of the side)


def place(motion: str, t: float) -> Affine:
    """Where a picture is at time t, 0 to 1."""
    swing = abs(math.sin(2 * math.pi * t))
    rules: dict[str, Callable[[], Affine]] = {
        "bounce": lambda: (1.0, 1.0, 0.0, 0.0, -0.2 * swing),
        "spin": lambda: (1.0, 1.0, 2 * math.pi * t, 0.0, 0.0),
        "zoom in": lambda: (1 + 0.5 * t, 1 + 0.5 * t, 0.0, 0.0, 0.0),
        "zoom out": lambda: (1 - 0.45 * t, 1 - 0.45 * t, 0.0, 0.0, 0.0),
        "slide left": lambda: (1.0, 1.0, 0.0, -REACH * t, 0.0),
        "slide right": lambda: (1.0, 1.0, 0.0, REACH * t, 0.0),
        "slide up": lambda: (1.0, 1.0, 0.0, 0.0, -REACH * t),
        "slide down": lambda: (1.0, 1.0, 0.0, 0.0, REACH * t),
        "shake": lambda: (1.0, 1.0, 0.0, 0.07 * math.sin(8 * math.pi * t), 0.0),
        "wave": lambda: (1.0, 1.0, 0.0, 0.0, 0.0),
    }
    return rules[motion]()


def moved(picture: np.ndarray, motion: str, num_frames: int, loop: bool = False) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3] on a plain ground to its frames; the ground's colour comes in from outside.

    Motions that come back take the clip as a circle (frame F would be frame 0), the others end at its last frame,
    or go back as they came in a loop.
    """
    returns = motion in ("bounce", "spin", "shake", "wave")
    for i in range(num_frames):
        t = i / (num_frames if returns or loop else num_frames - 1)
        if loop and not returns:
            t = (1 - math.cos(2 * math.pi * t)) / 2
        yield waved(picture, t) if motion == "wave" else transformed(picture, place(motion, t))


def transformed(picture: np.ndarray, where: Affine) -> np.ndarray:
    """The picture scaled and turned about its middle, then shifted."""
    across, down, angle, right, below = where
    height, width = picture.shape[:2]
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2 + right * width, height / 2 + below * height  # where the middle goes
    a, b, d, e = cos / across, sin / across, -sin / down, cos / down
    matrix = (a, b, width / 2 - a * x - b * y, d, e, height / 2 - d * x - e * y)
    ground = tuple(int(value) for value in picture[0, 0])
    image = Image.fromarray(picture)
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC,
                                      fillcolor=ground))  # fmt: skip


def waved(picture: np.ndarray, t: float) -> np.ndarray:
    """Each row shifted sideways, as by a wave that runs down the picture."""
    height, width = picture.shape[:2]
    rows = np.arange(height)[:, None] / height
    shift = 0.06 * width * (np.sin(2 * np.pi * (rows - t)) - np.sin(2 * np.pi * rows))
    columns = np.clip(np.rint(np.arange(width) - shift).astype(int), 0, width - 1)
    return np.take_along_axis(picture, columns[..., None], axis=1)


def clip_caption(caption: str, motion: str, rng: np.random.Generator) -> str:
    """What is said of a clip: its still, and the motion in one of its words."""
    return f"{caption}, {rng.choice(MOTIONS[motion])}"
