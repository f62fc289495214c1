"""Larger pictures: doubled by a small network until they are large enough, then brought to the very size.

The network is noisette-1-upscale, made by `noisette train upscale`. It runs on the CPU through openvino whatever
engine draws, so that the same pixels become the same picture everywhere.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noisette import pixels
from noisette.reading import Picture

FOLDER = Path(__file__).parent / "models" / "noisette-1-upscale"
REACH = 12  # pixels that one pixel of the result may depend on, to each side
BAND = 256  # rows that are doubled at a time


def enlarge(picture: NDArray[np.uint8], width: int, height: int, upscaler: str, fit: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] at width x height by 'network' or 'lanczos'; another aspect is met as `fit` says."""
    if upscaler == "network":
        picture = pixels.rounded(doubled(picture.astype(np.float32), width, height))
    return pixels.fit(Picture(picture), width, height, fit).data


def larger(picture: Picture, width: int, height: int, upscaler: str) -> Picture:
    """The picture in its own mode and depth at width x height, by 'network' or 'lanczos'; transparency by Lanczos.

    The network computes in float32, so 16-bit grey stays as deep.
    """
    plain = pixels.fit(picture, width, height, "stretch")
    if upscaler == "lanczos":
        return plain
    inks = pixels.inked(doubled(pixels.shown(picture), width, height), picture.mode)
    return pixels.with_inks(plain, pixels.resize(inks, width, height))


def doubled(colours: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """[H, W, 3] in 0..255, doubled until neither side is below width x height."""
    while colours.shape[1] < width or colours.shape[0] < height:
        colours = double(colours)
    return colours


@cache
def enlarging(upscaler: str) -> dict[str, str]:
    """What a file says of how it was enlarged."""
    if upscaler == "lanczos":
        return {"upscaler": upscaler}
    weights = hashlib.sha256((FOLDER / "model.safetensors").read_bytes())
    return {"upscaler": f"{FOLDER.name} {weights.hexdigest()[:12]}"}


def double(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """[H, W, 3] in 0..255 to [2 H, 2 W, 3], a band of rows at a time, which leave no trace: memory stays flat."""
    from noisette.engines.openvino import upscaler

    values = colours.transpose(2, 0, 1) / np.float32(127.5) - 1
    bands = []
    for top in range(0, colours.shape[0], BAND):
        first, last = max(0, top - REACH), min(colours.shape[0], top + BAND + REACH)
        larger = upscaler.double(FOLDER, np.ascontiguousarray(values[:, first:last]))
        inside = larger[:, 2 * (top - first) : 2 * (min(top + BAND, colours.shape[0]) - first)]
        bands.append(pixels.colours_of(inside))
    return np.concatenate(bands)
