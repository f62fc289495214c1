"""How visible a seam is: the step of colour across the mask's edge, as CIEDE2000."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])  # D65


def lab(colours: NDArray[Any]) -> Floats:
    """sRGB [..., 3] in 0..255 to CIELAB under D65."""
    share = np.asarray(colours, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ TO_XYZ.T / WHITE
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def delta_e(a: Floats, b: Floats) -> Floats:
    """CIEDE2000 between CIELAB colours [..., 3] (Sharma, Wu and Dalal 2005, eq. 2 to 22); 1 is just visible."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    grow = 1 + 0.5 * (1 - np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))
    c1, c2 = np.hypot(grow * a1, b1), np.hypot(grow * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(y, grow * x)) % 360 for x, y in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    turn = np.where((turn == -180) & (h2 > h1), 180, turn)
    hue = np.where(grey, h1 + h2, (h1 + h2) / 2)
    apart = ~grey & (np.abs(h1 - h2) > 180)
    hue = np.where(apart, np.where(h1 + h2 < 360, hue + 180, hue - 180), hue)
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = 1 - 0.17 * cos(hue - 30) + 0.24 * cos(2 * hue) + 0.32 * cos(3 * hue + 6) - 0.20 * cos(4 * hue - 63)
    s_l = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    blue = 60 * np.exp(-(((hue - 275) / 25) ** 2))
    rotate = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(np.radians(blue))
    d_l, d_c = (l2 - l1) / s_l, (c2 - c1) / s_c
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / s_h
    found: Floats = np.sqrt(np.maximum(d_l**2 + d_c**2 + d_h**2 + rotate * d_c * d_h, 0))
    return found


def cos(degrees: Floats) -> Floats:
    """The cosine of an angle in degrees."""
    found: Floats = np.cos(np.radians(degrees))
    return found


def steps_across(colours: NDArray[Any], repaint: NDArray[np.bool_]) -> Floats:
    """CIEDE2000 between each repainted pixel and each kept one beside, above or below it; [H, W, 3] in 0..255."""
    found = []
    for flip in (False, True):
        picture, mask = (colours.swapaxes(0, 1), repaint.T) if flip else (colours, repaint)
        edge = mask[:, 1:] != mask[:, :-1]
        found.append(delta_e(lab(picture[:, 1:][edge]), lab(picture[:, :-1][edge])))
    return np.concatenate(found)


def report(steps: Mapping[str, Floats]) -> dict[str, Any]:
    """Of each kind of steps the mean and the 95th percentile, two digits, as JSON values; the pairs of 'written'."""
    found: dict[str, Any] = {"metric": "CIEDE2000", "pairs": len(steps["written"])}
    for name, values in steps.items():
        if len(values):
            found[name] = {"mean": round(float(values.mean()), 2), "p95": round(float(np.percentile(values, 95)), 2)}
    return found
