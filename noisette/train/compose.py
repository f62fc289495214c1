"""Pictures made from cut-outs: laid on white, on a named colour, on a gradient, and in another colour."""

from __future__ import annotations

import numpy as np
from PIL import Image

COLOURS = {
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
    "light blue": (158, 206, 244),
    "light green": (176, 224, 164),
}
HUES = {"red": 0.0, "orange": 24.0, "yellow": 46.0, "green": 125.0, "blue": 215.0, "purple": 275.0}  # degrees
SATURATED, DARK = 90, 64  # of 255: above both a pixel has a colour of its own


def lay_on(cut_out: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """A cut-out uint8 [h, w, 4] on a ground that broadcasts to [h, w, 3], as uint8 [h, w, 3]."""
    alpha = cut_out[..., 3:].astype(np.float32) / 255
    laid = alpha * cut_out[..., :3] + (1 - alpha) * np.asarray(ground, np.float32)
    return np.rint(laid).astype(np.uint8)


def on_white(cut_out: np.ndarray) -> np.ndarray:
    """A cut-out uint8 [h, w, 4] on white."""
    return lay_on(cut_out, np.array([255, 255, 255]))


def draw_ground(name: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """A ground [side or 1, side or 1, 3] of about the named colour: even, or lighter towards one edge."""
    colour = np.clip(np.array(COLOURS[name]) + rng.normal(0, 10, 3), 0, 255)
    if rng.random() < 0.6:
        return colour[None, None]
    ramp = np.linspace(0, rng.uniform(0.2, 0.5), side)[:: rng.choice([-1, 1]), None, None]
    ground = colour + ramp * (255 - colour)
    return ground if rng.random() < 0.7 else ground.transpose(1, 0, 2)


def on_colour(cut_out: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A cut-out on a ground drawn from all."""
    return lay_on(cut_out, draw_ground(str(rng.choice(list(COLOURS))), cut_out.shape[0], rng))


def resized(cut_out: np.ndarray, side: int) -> np.ndarray:
    """A cut-out uint8 [h, h, 4] at another size."""
    return np.asarray(Image.fromarray(cut_out).resize((side, side), Image.Resampling.LANCZOS))


def on_canvas(cut_out: np.ndarray, canvas: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """A cut-out on a white canvas, uint8 [height, width, 3]: as large as it fits, about the middle of the rest.

    `canvas` is width and height as shares of the cut-out's side; they are rounded to multiples of 16 pixels, the
    autoencoder's reduction.
    """
    width, height = (max(1, round(share * len(cut_out) / 16)) * 16 for share in canvas)
    thing = resized(cut_out, min(width, height))
    whole = np.full((height, width, 3), 255, np.uint8)
    free = max(width, height) - len(thing)
    shift = round(free * rng.uniform(0.35, 0.65))
    top, left = (shift, 0) if height > width else (0, shift)
    whole[top : top + len(thing), left : left + len(thing)] = on_white(thing)
    return whole


def together(one: np.ndarray, other: np.ndarray, above: bool, rng: np.random.Generator) -> np.ndarray:
    """Two cut-outs on white, uint8 [side, side, 3]: the first above the other, or left of it."""
    side = len(one)
    large = round(side * rng.uniform(0.44, 0.5))
    whole = np.full((side, side, 3), 255, np.uint8)
    for place, thing in enumerate((one, other)):
        along = side // 4 + place * side // 2 - large // 2
        across = round((side - large) * rng.uniform(0.4, 0.6))
        top, left = (along, across) if above else (across, along)
        whole[top : top + large, left : left + large] = on_white(resized(thing, large))
    return whole


def dominant_hue(cut_out: np.ndarray) -> float | None:
    """The hue in degrees that most of a cut-out's coloured pixels are near; None when under a third has colour."""
    hsv = to_hsv(cut_out)[cut_out[..., 3] > 128].astype(np.float32)
    coloured = hsv[(hsv[:, 1] > SATURATED) & (hsv[:, 2] > DARK)]
    if len(coloured) * 3 < len(hsv) or not len(coloured):
        return None
    counts, edges = np.histogram(coloured[:, 0], 24, (0, 256), weights=coloured[:, 1])
    smooth = counts + 0.5 * (np.roll(counts, 1) + np.roll(counts, -1))
    return float((edges[smooth.argmax()] + edges[1] / 2) / 256 * 360)


def to_hsv(cut_out: np.ndarray) -> np.ndarray:
    """Hue, saturation and value uint8 [h, w, 3] of a cut-out."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(cut_out[..., :3])).convert("HSV"))


def recolour(cut_out: np.ndarray, hue: float, wanted: str) -> np.ndarray:
    """The cut-out turned so that `hue` (degrees) becomes the wanted colour: all hues by the same angle."""
    hsv = to_hsv(cut_out).astype(np.int32)
    hsv[..., 0] = (hsv[..., 0] + round((HUES[wanted] - hue) / 360 * 256)) % 256
    rgb = np.asarray(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB"))
    return np.concatenate([rgb, cut_out[..., 3:]], axis=2)
