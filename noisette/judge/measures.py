"""What the judge measures, each from pictures uint8 [H, W, 3] and features float32 [N, D] alone."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

HUES = {"red": 0, "orange": 28, "yellow": 50, "green": 120, "blue": 215, "purple": 275}  # degrees
GROUNDS = {
    "white": (255, 255, 255),
    "red": (222, 54, 54),
    "orange": (245, 140, 40),
    "yellow": (250, 212, 60),
    "green": (70, 168, 84),
    "blue": (58, 110, 222),
    "purple": (140, 80, 200),
    "pink": (246, 150, 190),
    "brown": (134, 88, 60),
    "black": (24, 24, 28),
    "gray": (136, 140, 146),
}
THING = 0.03  # the least share of a picture that counts as a thing
IDENTICAL = 8.0  # mean absolute difference of 64x64 pixels, of 255, below which two pictures are nearly the same


def ranked(drawn: np.ndarray, known: np.ndarray) -> np.ndarray:
    """For each drawn feature the known ones' numbers, the most similar first: int [N, M]."""
    return np.argsort(-drawn @ known.T, axis=1)


def foreground(picture: np.ndarray) -> np.ndarray:
    """Where a picture differs from its own ground, the median of its border: bool [H, W]."""
    return np.abs(picture.astype(np.int32) - border_colour(picture)).max(2) > 24


def border_colour(picture: np.ndarray) -> np.ndarray:
    """The median colour of the outermost four pixels: float [3]."""
    edges = [picture[:4], picture[-4:], picture[:, :4].swapaxes(0, 1), picture[:, -4:].swapaxes(0, 1)]
    return np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)


def hue_name(picture: np.ndarray) -> str:
    """The name of the hue that most of the foreground's saturation lies nearest to, "" for a colourless one."""
    hsv = np.asarray(Image.fromarray(picture).convert("HSV")).astype(np.float64)[foreground(picture)]
    coloured = hsv[(hsv[:, 1] > 80) & (hsv[:, 2] > 60)]
    if len(coloured) < 0.1 * len(hsv) or not len(coloured):
        return ""
    away = np.abs((coloured[:, :1] * 360 / 256 - np.array(list(HUES.values())) + 180) % 360 - 180)
    weight = np.bincount(away.argmin(1), coloured[:, 1], len(HUES))
    return list(HUES)[int(weight.argmax())]


def ground_name(picture: np.ndarray) -> str:
    """The name of the colour nearest (in RGB) to the picture's border."""
    away = np.abs(np.array(list(GROUNDS.values())) - border_colour(picture)).sum(1)
    return list(GROUNDS)[int(away.argmin())]


def boxes(picture: np.ndarray) -> list[tuple[slice, slice]]:
    """Rows and columns of the picture's separate things."""
    labelled, _ = ndimage.label(ndimage.binary_closing(foreground(picture), iterations=2))
    found = ndimage.find_objects(labelled)
    return [(r, c) for r, c in found if (r.stop - r.start) * (c.stop - c.start) > THING * labelled.size]


def count_things(picture: np.ndarray, area: int) -> int:
    """How many separate things a picture shows once it is brought to `area` pixels, in its own aspect."""
    scale = (area / (picture.shape[0] * picture.shape[1])) ** 0.5
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return len(boxes(np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))))


def things(picture: np.ndarray) -> list[np.ndarray]:
    """The picture's separate things cut out; its four halves when it has but one."""
    cut_outs = [squared(picture[rows, columns], border_colour(picture)) for rows, columns in boxes(picture)]
    if len(cut_outs) > 1:
        return cut_outs
    high, wide = picture.shape[0] // 2, picture.shape[1] // 2
    halves = [picture[:high], picture[high:], picture[:, :wide], picture[:, wide:]]
    return [squared(half, border_colour(picture)) for half in halves]


def squared(picture: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """The picture in the middle of a square of its ground, with a margin of a tenth."""
    side = round(max(picture.shape[:2]) * 1.2)
    canvas = np.broadcast_to(ground, (side, side, 3)).astype(np.uint8)
    top, left = (side - picture.shape[0]) // 2, (side - picture.shape[1]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def thumbnails(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures at 64x64: float32 [N, 64 * 64 * 3]."""
    small = [Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX) for picture in pictures]
    return np.stack([np.asarray(picture, np.float32).ravel() for picture in small])


def memorized(pictures: list[np.ndarray], training: list[np.ndarray]) -> float:
    """The share of pictures of which a training picture (or its mirror image) is nearly the same."""
    known = thumbnails([*training, *(picture[:, ::-1] for picture in training)])
    nearest = [np.abs(known - row).mean(1).min() for row in thumbnails(pictures)]
    return float(np.mean(np.array(nearest) < IDENTICAL))
