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
        while picture.shape[1] < width or picture.shape[0] < height:
            picture = double(picture)
    return pixels.fit(Picture(picture), width, height, fit).data


def larger(picture: Picture, width: int, height: int, upscaler: str) -> Picture:
    """The picture in its own mode and depth at width x height; transparency and 16-bit grey by Lanczos."""
    plain = pixels.fit(picture, width, height, "stretch")
    if picture.mode == "I;16":
        return plain
    colours = enlarge(pixels.rounded(pixels.shown(picture)), width, height, upscaler, "stretch")
    return pixels.recoloured(plain, colours)


@cache
def enlarging(upscaler: str) -> dict[str, str]:
    """What a file says of how it was enlarged."""
    if upscaler == "lanczos":
        return {"upscaler": upscaler}
    weights = hashlib.sha256((FOLDER / "model.safetensors").read_bytes())
    return {"upscaler": f"{FOLDER.name} {weights.hexdigest()[:12]}"}


def double(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] to [2 H, 2 W, 3], a band of rows at a time: memory stays flat and the bands leave no trace."""
    from noisette.engines.openvino import upscaler

    values = picture.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    bands = []
    for top in range(0, picture.shape[0], BAND):
        first, last = max(0, top - REACH), min(picture.shape[0], top + BAND + REACH)
        larger = upscaler.double(FOLDER, np.ascontiguousarray(values[:, first:last]))
        bands.append(larger[:, 2 * (top - first) : 2 * (min(top + BAND, picture.shape[0]) - first)])
    return pixels.from_model(np.concatenate(bands, axis=1))
