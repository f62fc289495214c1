"""Pictures as bytes: read, fit, mask, composite. Nothing is converted in silence.

A picture keeps its own mode and depth from the file it came from to the file it is written to, so that a kept
pixel can be the same bytes. Only what a PNG can't hold exactly is refused.
"""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Bytes = NDArray[Any]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]  # [H, W], True is repainted

MAX_PIXELS = 100_000_000
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's L


@dataclass(frozen=True)
class Picture:
    """Pixels [H, W, C], uint8 (uint16 for I;16), in one of the modes L, LA, RGB, RGBA, I;16.

    `info` holds what travels with them: icc_profile (bytes), dpi, exif (bytes, orientation already applied).
    """

    data: Bytes
    mode: str = "RGB"
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.data.shape[1], self.data.shape[0]

    @property
    def alpha(self) -> Bytes | None:
        """The alpha channel [H, W], if there is one."""
        return self.data[..., -1] if self.mode in ("LA", "RGBA") else None

    def to_pil(self) -> Image.Image:
        """The same pixels as a Pillow image."""
        from PIL import Image

        data = self.data[..., 0] if CHANNELS[self.mode] == 1 else self.data
        return Image.fromarray(np.ascontiguousarray(data))


def resolve(path: str) -> Path:
    """The file a path names; `out\\edits\\a b.png` also where only the slash form exists. Raises UserError."""
    for candidate in (Path(path), Path(path.replace("\\", "/"))):
        if candidate.is_file():
            return candidate
    folder = Path(path.replace("\\", "/")).parent
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(Path(path.replace("\\", "/")).name, names, n=1)
    raise UserError(f"{path!r} is not there" + (f"; did you mean {str(folder / close[0])!r}?" if close else ""))


def read(path: Path) -> Picture:
    """A picture with its mode, depth and profile. Raises UserError for what is none or can't be kept exactly."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UserError(f"{path} has {width}x{height} pixels: at most {MAX_PIXELS:,} are opened")
            refuse_lossy(path, image)
            image.load()
        except UnidentifiedImageError:
            raise UserError(f"{path} is not a picture that can be read: PNG, JPEG, WebP, TIFF, BMP and GIF are") from None
        except Image.DecompressionBombError:
            raise UserError(f"{path} has too many pixels: at most {MAX_PIXELS:,} are opened") from None
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise UserError(f"{path} is damaged or cut short: {error}") from None
    upright = ImageOps.exif_transpose(image)
    info = {name: upright.info[name] for name in ("icc_profile", "dpi", "exif") if upright.info.get(name)}
    data, mode = pixels_of(upright)
    return Picture(data, mode, info)


def refuse_lossy(path: Path, image: Image.Image) -> None:
    """Raises UserError for pictures that Pillow or a PNG would change in silence."""
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "F"):
        raise UserError(f"{path} is {image.mode}, which a PNG can't hold: convert it to RGB first")
    if image.format == "PNG":
        with path.open("rb") as file:
            depth, color = file.read(26)[24:26]
        if depth == 16 and color != 0:
            raise UserError(f"{path} has 16 bits a colour channel, which would be cut to 8: save it with 8 first")
    elif image.format == "TIFF" and set(image.tag_v2.get(258, (8,))) - {1, 2, 4, 8} and image.mode != "I;16":  # type: ignore[attr-defined]
        raise UserError(f"{path} has more than 8 bits a colour channel, which would be cut: save it with 8 first")


def pixels_of(image: Image.Image) -> tuple[Bytes, str]:
    """The pixels and the exact mode for them: palettes, bilevel and 32-bit grey are widened or narrowed losslessly."""
    if image.mode == "P" or (image.mode in ("L", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode == "PA":
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("I", "I;16B", "I;16L", "I;16N"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise UserError("a picture with 32 bits a pixel does not fit 16: save it with 16 first")
        return values.astype(np.uint16)[..., None], "I;16"
    if image.mode not in CHANNELS:
        raise UserError(f"a picture of mode {image.mode} can't be kept exactly: convert it to RGB or RGBA first")
    data = np.array(image)
    return data[..., None] if data.ndim == 2 else data, image.mode


def resize(data: Bytes, width: int, height: int) -> Bytes:
    """Lanczos resampling of uint8 [H, W, C]; the same size gives the same bytes."""
    from PIL import Image

    if (data.shape[1], data.shape[0]) == (width, height):
        return data
    planes = [
        np.asarray(Image.fromarray(data[..., c]).resize((width, height), Image.Resampling.LANCZOS))
        for c in range(data.shape[2])
    ]
    return np.stack(planes, axis=-1)


def fit(picture: Picture, width: int, height: int, how: str = "crop") -> Picture:
    """The picture at width x height: 'stretch'; 'crop' fills and cuts the overhang; 'pad' fits inside, edges repeated.

    16-bit grey is resampled at 16 bits. The same size gives the same picture.
    """
    if picture.size == (width, height):
        return picture
    if how == "stretch":
        return replace(picture, data=resample(picture.data, width, height))
    across, down = width / picture.size[0], height / picture.size[1]
    scale = max(across, down) if how == "crop" else min(across, down)
    inner = max(1, round(picture.size[0] * scale)), max(1, round(picture.size[1] * scale))
    data = resample(picture.data, *inner)
    left, top = (inner[0] - width) // 2, (inner[1] - height) // 2
    if how == "crop":
        return replace(picture, data=data[max(top, 0) :, max(left, 0) :][:height, :width])
    before = -top, -left
    pads = [(b, side - size - b) for b, side, size in zip(before, (height, width), data.shape, strict=False)]
    return replace(picture, data=np.pad(data, [*pads, (0, 0)], mode="edge"))


def resample(data: Bytes, width: int, height: int) -> Bytes:
    """`resize` for either depth: Pillow resamples uint16 by way of float32, exact enough for 16 bits."""
    if data.dtype == np.uint8:
        return resize(data, width, height)
    values = resize(data.astype(np.float32), width, height)
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


def pad_to(data: Bytes, width: int, height: int) -> Bytes:
    """[H, W, ...] grown to width x height at the right and the bottom by repeating the edge; `data[:H, :W]` undoes it."""
    grow = [(0, height - data.shape[0]), (0, width - data.shape[1])] + [(0, 0)] * (data.ndim - 2)
    return np.pad(data, grow, mode="edge")


def rgb(picture: Picture) -> Bytes:
    """uint8 [H, W, 3] as the model sees it; under transparency the colour is laid on white."""
    data = picture.data
    if picture.mode == "I;16":
        data = (data.astype(np.uint32) * 255 // 65535).astype(np.uint8)
    colour = data[..., :3] if picture.mode in ("RGB", "RGBA") else np.repeat(data[..., :1], 3, axis=-1)
    if picture.alpha is None:
        return colour
    opacity = picture.alpha[..., None].astype(np.float32) / 255
    return np.rint(colour * opacity + 255 * (1 - opacity)).astype(np.uint8)


def to_model(colour: Bytes) -> Floats:
    """uint8 [H, W, 3] to float32 [1, 3, H, W] in [-1, 1], as diffusers' VaeImageProcessor."""
    return np.ascontiguousarray(colour.astype(np.float32).transpose(2, 0, 1)[None] / 255 * 2 - 1)


def from_model(image: Floats) -> Bytes:
    """float32 [3, H, W], about [-1, 1], clipped to uint8 [H, W, 3]. Raises UserError for NaN."""
    if not np.isfinite(image).all():
        raise UserError("the model gave numbers that are not finite: try --precision float32 or another checkpoint")
    return np.rint(np.clip(image / 2 + 0.5, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def composite(base: Picture, painted: Bytes, mask: Mask) -> Picture:
    """The base with uint8 [H, W, 3] painted where the mask is True, in the base's own mode and depth.

    Everywhere else every byte is the base's, alpha included. Painted pixels are opaque; in grey pictures their
    luma (ITU-R BT.601) is painted, at 16 bits in a 16-bit picture.
    """
    if picture_is_grey(base):
        luma = np.rint(painted.astype(np.float32) @ LUMA)
        colour = (luma * 257 if base.mode == "I;16" else luma).astype(base.data.dtype)[..., None]
    else:
        colour = painted
    data = base.data.copy()
    data[..., : colour.shape[-1]][mask] = colour[mask]
    if base.alpha is not None:
        data[..., -1][mask] = 255
    return replace(base, data=data)


def picture_is_grey(picture: Picture) -> bool:
    """One colour channel."""
    return picture.mode in ("L", "LA", "I;16")


def blend(base: Picture, painted: Bytes, weight: Floats) -> Bytes:
    """uint8 [H, W, 3] between the base's colours (weight 0) and the painted ones (1); weight [H, W]."""
    share = weight[..., None]
    return np.rint(rgb(base) * (1 - share) + painted * share).astype(np.uint8)


def soften(mask: Mask, radius: float) -> Floats:
    """The mask as weights [H, W] that fall off around its rim: 1 inside, 0 from about two radii outside on."""
    from PIL import Image, ImageFilter

    image = Image.fromarray(mask.astype(np.uint8) * 255)
    wide = image.filter(ImageFilter.GaussianBlur(radius))
    return np.maximum(np.minimum(np.asarray(wide).astype(np.float32) / 127.5, 1), mask.astype(np.float32))


def shrink_mask(mask: Mask, width: int, height: int) -> Mask:
    """The mask at width x height; True where any pixel that it stands for is."""
    from PIL import Image

    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX)) > 0
