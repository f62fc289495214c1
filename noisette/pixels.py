"""Pictures as bytes: fit, composite, and the way to and from a model. Nothing is converted in silence.

A picture keeps its own mode and depth from the file it came from to the file it is written to, so that a kept
pixel can be the same bytes. Reading stands in `reading`, masks in `masks`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError
from noisette.masks import LUMA, Mask
from noisette.reading import Picture, Pixels

if TYPE_CHECKING:
    from PIL import Image

Region = tuple[float, float, float, float]
Array = TypeVar("Array", bound=NDArray[np.generic])


GROUND_FADE = 0.06  # of a square's side
GROUND_EVENS = 0.15  # of the side: how far beyond an end its ground's colours reach
GROUND_REACH = 60  # of 255: what is as near to the ground's colour is ground


def resize(data: Pixels, width: int, height: int) -> Pixels:
    """uint8 [H, W, C] or uint16 [H, W, 1] at another size, by Lanczos; the same size gives the same bytes."""
    if (data.shape[1], data.shape[0]) == (width, height):
        return data
    return resample(data, width, height, (0.0, 0.0, data.shape[1], data.shape[0]))


def resample(data: Pixels, width: int, height: int, region: Region) -> Pixels:
    """A region (left, top, right, bottom) at width x height; alpha weighs the colours, 16 bits by float32."""
    from PIL import Image

    lanczos = Image.Resampling.LANCZOS
    if data.dtype == np.uint16:
        deep = Image.fromarray(data[..., 0].astype(np.float32)).resize((width, height), lanczos, region)
        values: Pixels = np.clip(np.rint(np.asarray(deep)), 0, 65535).astype(np.uint16)
        return values[..., None]
    image: Image.Image = Image.fromarray(np.ascontiguousarray(data[..., 0] if data.shape[2] == 1 else data))
    resized = np.array(image.resize((width, height), lanczos, region))
    return resized[..., None] if resized.ndim == 2 else resized


def fit(picture: Picture, width: int, height: int, how: str = "crop") -> Picture:
    """The picture at width x height by 'stretch', 'crop' (cuts the overhang) or 'pad' (repeats the edges).

    In its own mode and depth, `info` kept. The same size gives the same picture.
    """
    if picture.size == (width, height):
        return picture
    across, down = picture.size
    if how == "stretch":
        return replace(picture, data=resize(picture.data, width, height))
    if how == "crop":
        scale = max(width / across, height / down)
        wide, high = min(across, width / scale), min(down, height / scale)
        left, top = (across - wide) / 2, (down - high) / 2
        region = (left, top, min(left + wide, across), min(top + high, down))
        return replace(picture, data=resample(picture.data, width, height, region))
    scale = min(width / across, height / down)
    inner = resize(picture.data, max(1, round(across * scale)), max(1, round(down * scale)))
    left, top = (width - inner.shape[1]) // 2, (height - inner.shape[0]) // 2
    around = ((top, height - inner.shape[0] - top), (left, width - inner.shape[1] - left), (0, 0))
    return replace(picture, data=np.pad(inner, around, mode="edge"))


def fit_mask(mask: Mask, width: int, height: int, how: str = "crop") -> Mask:
    """The mask at width x height, as `fit` does to its base."""
    fitted = fit(Picture(mask.values[..., None], "L"), width, height, how)
    return replace(mask, values=fitted.data[..., 0])


def pad_to(data: Array, width: int, height: int) -> Array:
    """[H, W, ...] grown to width x height at the right and bottom by reflection; `data[:H, :W]` undoes it."""
    grow = [(0, height - data.shape[0]), (0, width - data.shape[1])] + [(0, 0)] * (data.ndim - 2)
    return np.pad(data, grow, mode="reflect")  # type: ignore[return-value]


def continue_ground(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A picture uint8 [h, w, 3] in the middle of width x height, of which it has the one or the other.

    Beyond each of the two ends the ground goes on in the colours it has along that end, which turn into their median
    further out; its outermost pixels fade into them. Ground is what is near the median colour of the border.
    """
    if picture.shape[:2] == (height, width):
        return picture
    if picture.shape[1] < width:
        return continue_ground(picture.swapaxes(0, 1), height, width).swapaxes(0, 1)
    side, fade = len(picture), max(1, round(len(picture) * GROUND_FADE))
    whole = np.zeros((height, width, 3), np.float32)
    top = (height - side) // 2
    edge = np.median(np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]]), axis=0)
    whole[top : top + side] = picture
    for part, row in ((whole[: top + fade], top), (whole[: top + side - fade - 1 : -1], height - top - side)):
        near = part[row:].copy()
        plain = np.abs(near - edge).max(axis=-1) < GROUND_REACH  # things that end here keep their edge
        ground = np.median(near[plain], axis=0) if plain.any() else edge
        along = along_end(near, plain, fade) if plain.any() else np.broadcast_to(edge, near.shape[1:])
        away = np.exp(-np.arange(row, 0, -1) / (side * GROUND_EVENS))[:, None, None]
        part[:row] = ground + away * (along - ground)
        weight = np.arange(1, len(near) + 1, dtype=np.float32)[:, None] / (fade + 1)
        weight = np.where(plain, weight, 1)[..., None]
        part[row:] = weight * near + (1 - weight) * along
    return rounded(whole)


def along_end(near: NDArray[np.float32], plain: NDArray[np.bool_], smooth: int) -> NDArray[np.float32]:
    """The ground's colours [w, 3] along the end of a picture, from its outermost rows [n, w, 3].

    Where nothing is `plain` [n, w] they lie between those beside it; each is a mean over 2 `smooth` + 1 pixels.
    """
    columns = np.arange(near.shape[1])
    there = plain.any(axis=0)
    sums = (near * plain[..., None]).sum(axis=0)[there] / plain.sum(axis=0)[there, None]
    whole = [np.interp(columns, columns[there], sums[:, channel]) for channel in range(3)]
    window = np.full(2 * smooth + 1, 1 / (2 * smooth + 1))
    even = [np.convolve(np.pad(values, smooth, mode="edge"), window, mode="valid") for values in whole]
    return np.stack(even, axis=-1).astype(np.float32)


def shown(picture: Picture) -> NDArray[np.float32]:
    """float32 [H, W, 3] in 0..255 as a model sees it.

    Colours stand as they are under partial alpha, so that painting on goes from the real colour; where alpha
    is 0 they are white, because editors leave garbage there that was never seen.
    """
    data: NDArray[np.float32] = picture.data.astype(np.float32)
    if picture.mode == "I;16":
        data /= 257
    colour = np.repeat(data[..., :1], 3, axis=-1) if picture.grey else data[..., :3].copy()
    if picture.alpha is not None:
        colour[picture.alpha == 0] = 255
    return colour


def rounded(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Values in 0..255 to the nearest uint8, halves up."""
    whole: NDArray[np.uint8] = np.floor(values + 0.5).astype(np.uint8)
    return whole


def to_model(picture: Picture) -> NDArray[np.float32]:
    """float32 [1, 3, H, W] in [-1, 1], as diffusers' VaeImageProcessor; alpha as `shown` says."""
    return np.ascontiguousarray(shown(picture).transpose(2, 0, 1)[None] / 255 * 2 - 1)


def colours_of(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [3, H, W], about [-1, 1], clipped to [H, W, 3] in 0..255. NaN or Inf: UserError."""
    if not np.isfinite(image).all():
        raise UserError("the model gave numbers that are not finite: try --precision float32 or another checkpoint")
    values = np.clip(image.astype(np.float32) / 2 + 0.5, 0, 1) * 255
    return values.transpose(1, 2, 0)


def from_model(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`colours_of` as uint8 [H, W, 3], halves up."""
    return np.ascontiguousarray(rounded(colours_of(image)))


def inked(colours: NDArray[Any], mode: str) -> Pixels:
    """Colours [..., 3] in 0..255 as a mode stores them, its alpha left out: uint8 [..., 3], or [..., 1] for grey.

    Grey is their luma (ITU-R BT.601), uint16 in I;16.
    """
    if mode in ("RGB", "RGBA"):
        return rounded(colours)
    luma = colours.astype(np.float32) @ LUMA
    deep = mode == "I;16"
    return np.rint(luma * (257 if deep else 1)).astype(np.uint16 if deep else np.uint8)[..., None]


def composite(base: Picture, painted: NDArray[Any], weight: NDArray[np.float32]) -> Picture:
    """The base with [H, W, 3] in 0..255 painted on it by weight [H, W], 0 to 1, in the base's own mode and depth.

    Where the weight is 0 every byte is the base's. Elsewhere opaque paint and base are mixed with their colours
    premultiplied: transparency ends by the same weight, and what was hidden does not shine through.
    """
    touched = weight > 0
    under = replace(base, data=base.data[touched][None])
    paint = weight[touched][:, None]
    left = (1 - paint) * (1 if under.alpha is None else under.alpha[0][:, None] / np.float32(255))
    data = base.data.copy()
    inks = inked((shown(under)[0] * left + painted[touched] * paint) / (left + paint), base.mode)
    data[..., : inks.shape[-1]][touched] = inks
    if base.alpha is not None:
        data[..., -1:][touched] = rounded((left + paint) * 255)
    return replace(base, data=data)


def recoloured(picture: Picture, colours: NDArray[Any]) -> Picture:
    """The picture with the colours of [H, W, 3] in 0..255 everywhere, in its own mode, and its own transparency."""
    return with_inks(picture, inked(colours, picture.mode))


def with_inks(picture: Picture, inks: Pixels) -> Picture:
    """The picture with other stored colours [H, W, 3 or 1], and its own transparency."""
    return replace(picture, data=np.concatenate([inks, picture.data[..., inks.shape[-1] :]], axis=-1))


def over(picture: Picture, ground: float) -> NDArray[np.float32]:
    """float32 [H, W, 3] in 0..255 as a viewer shows the picture on a plain ground of grey `ground`."""
    if picture.alpha is None:
        return shown(picture)
    opaque = picture.alpha[..., None] / np.float32(255)
    return shown(picture) * opaque + np.float32(ground) * (1 - opaque)


def soften(repaint: NDArray[np.bool_], radius: float) -> NDArray[np.float32]:
    """`repaint` as weights [H, W]: 1 inside, falling to 0 at about two radii outside."""
    from PIL import Image, ImageFilter

    wide = Image.fromarray(repaint.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(radius))
    fading = np.minimum(np.asarray(wide, np.float32) / 127.5, 1)
    weights: NDArray[np.float32] = np.maximum(fading, repaint, dtype=np.float32)
    return weights


def shrink_mask(strength: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """A mask's strengths [H, W], 0 to 1, at width x height: where any is 1 it is 1, greys are averaged."""
    from PIL import Image

    size, box = (width, height), Image.Resampling.BOX
    most = np.asarray(Image.fromarray((strength == 1).astype(np.float32)).resize(size, box)) > 0
    mean = np.asarray(Image.fromarray(strength).resize(size, box))
    return np.where(most, np.float32(1), mean)
