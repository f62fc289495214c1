"""Pictures from files, each pixel exactly as the file has it; what can't be kept exactly is refused."""

from __future__ import annotations

import difflib
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError
from noisette.recipe import MAX_PIXELS

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[Any]  # uint8, or uint16 for 16-bit grey

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")  # others are cut to 8 bits in silence
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """Pixels [H, W, C], uint8 (uint16 for I;16), in one of the modes L, LA, RGB, RGBA, I;16.

    `info` holds what travels with them: icc_profile (bytes), dpi (x, y), exif (bytes, without orientation).
    """

    data: Pixels
    mode: str = "RGB"
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.data.shape[1], self.data.shape[0]

    @property
    def alpha(self) -> Pixels | None:
        """The alpha channel [H, W], if there is one."""
        return self.data[..., -1] if self.mode in ("LA", "RGBA") else None

    @property
    def grey(self) -> bool:
        """One colour channel."""
        return self.mode in ("L", "LA", "I;16")

    def to_pil(self) -> Image.Image:
        """The same pixels as a Pillow image, without `info`."""
        from PIL import Image

        data = self.data[..., 0] if CHANNELS[self.mode] == 1 else self.data
        return Image.fromarray(np.ascontiguousarray(data))


def resolve(path: str) -> Path:
    """The file a path names; `out\\edits\\a.png` also where only the slash form exists. Raises UserError."""
    slashed = Path(path.replace("\\", "/"))
    try:
        for candidate in (Path(path), slashed):
            if candidate.is_file():
                return candidate
        if path and slashed.is_dir():
            raise UserError(f"{path!r} is a folder: name a file in it")
        names = [p.name for p in slashed.parent.iterdir()] if slashed.parent.is_dir() else []
    except OSError as error:
        raise UserError(f"{path!r} can't be looked up: {error.strerror}") from None
    close = difflib.get_close_matches(slashed.name, names, n=1)
    raise UserError(
        f"{path!r} is not there" + (f"; did you mean {str(slashed.parent / close[0])!r}?" if close else "")
    )


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The Pillow image of a file, its header read and its size checked.

    Raises UserError for what is no picture, too large, or (also later, inside the with block) damaged.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd headers; what matters is an error here
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    size = f"{image.width}x{image.height}"
                    raise UserError(f"{path} is {size}: at most {MAX_PIXELS:,} pixels are opened")
                yield image
    except UnidentifiedImageError:
        raise UserError(
            f"{path} is not a picture that can be read: PNG, JPEG, WebP, TIFF, BMP, GIF, PPM are"
        ) from None
    except Image.DecompressionBombError:
        raise UserError(f"{path} has too many pixels: at most {MAX_PIXELS:,} are opened") from None
    except PermissionError:
        raise UserError(f"{path} can't be read: permission denied") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        LookupError,
        TypeError,
        OverflowError,
    ) as error:
        raise UserError(f"{path} is damaged or cut short: {error}") from None


def is_animated(path: Path) -> bool | None:
    """Whether a picture file holds several frames; None for what is no picture."""
    try:
        with opened(path) as image:
            return bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except UserError:
        return None


def read(path: Path) -> Picture:
    """A picture with its mode, depth and profile, upright. Raises UserError for what is none, or can't be."""
    from PIL import ImageOps

    with opened(path) as image:
        refuse_lossy(path, image)
        image.load()
        upright = ImageOps.exif_transpose(image)
        info, scale = info_of(image, upright), palette_scale(path, image)
    data, mode = pixels_of(path, upright, scale)
    return Picture(data, mode, info)


def info_of(image: Image.Image, upright: Image.Image) -> dict[str, Any]:
    """icc_profile, dpi (turned with the picture) and EXIF without orientation, where the file has them."""
    info: dict[str, Any] = {}
    if image.info.get("icc_profile"):
        info["icc_profile"] = bytes(image.info["icc_profile"])
    if all(side > 0 for side in image.info.get("dpi", (0, 0))):
        across, down = (float(side) for side in image.info["dpi"])
        turned = image.getexif().get(ORIENTATION, 1) >= 5
        info["dpi"] = (down, across) if turned else (across, down)
    exif = upright.getexif()
    exif.pop(ORIENTATION, None)
    if len(exif):
        info["exif"] = exif.tobytes()
    return info


def rgb_info(info: dict[str, Any]) -> dict[str, Any]:
    """What of an `info` suits an RGB picture: all but a profile of another colour space (ICC.1, bytes 16 to 19)."""
    return {name: value for name, value in info.items() if name != "icc_profile" or value[16:20] == b"RGB "}


def png_header(path: Path) -> tuple[int, int]:
    """(bit depth, colour type) of a PNG's IHDR."""
    with path.open("rb") as file:
        depth, color = file.read(26)[24:26]
    return depth, color


def palette_scale(path: Path, image: Image.Image) -> int:
    """The factor for a PNG's transparent grey: Pillow widens 2- and 4-bit pixels, but not that value."""
    depth = png_header(path)[0] if image.format == "PNG" and image.mode == "L" else 8
    return 255 // ((1 << depth) - 1)


def refuse_lossy(path: Path, image: Image.Image) -> None:
    """Raises UserError for pictures that Pillow or a PNG would change in silence."""
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "F"):
        way = f"magick in.{(image.format or 'png').lower()} -colorspace sRGB out.png"
        raise UserError(f"{path} is {image.mode}, which a PNG can't hold: convert it to RGB first, as by {way}")
    if image.format == "PNG":
        depth, color = png_header(path)
        if depth == 16 and color != 0:
            kind = {2: "RGB", 4: "grey with alpha", 6: "RGBA"}[color]
            raise UserError(f"{path} is {kind} of 16 bits a channel, which would be cut to 8: save it with 8 first")
    if image.format == "TIFF" and image.mode not in ("I;16", "I;16B"):
        depth = max(image.tag_v2.get(258, (1,)))  # type: ignore[attr-defined]
        if depth > 8:
            raise UserError(f"{path} has {depth} bits a channel, which would be cut to 8: save it with 8 first")
    if image.format == "PPM" and (most := ppm_most(path)) not in ((65535,) if image.mode == "I" else (1, 255)):
        raise UserError(f"{path} counts to {most}, which would be scaled: save it with 0 to 255 first")
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a camera's MPO: one picture, and helpers
    if frames > 1:
        raise UserError(f"{path} has {frames} frames: save the one that is meant as a picture")


def ppm_most(path: Path) -> int:
    """The value of white in a PBM, PGM or PPM file (1 for bitmaps). Raises ValueError for no number."""
    with path.open("rb") as file:
        lines = [line.split(b"#")[0] for line in file.read(4096).splitlines()]
    words = b" ".join(lines).split()
    return 1 if words[0] in (b"P1", b"P4") else int(words[3])


def pixels_of(path: Path, image: Image.Image, scale: int) -> tuple[Pixels, str]:
    """The pixels and the exact mode for them; palettes, bilevel, a transparent colour widened losslessly."""
    if image.mode == "I":
        return np.asarray(image).astype(np.uint16)[..., None], "I;16"
    if image.mode.startswith("I;16"):
        if "transparency" in image.info:
            raise UserError(
                f"{path} is 16-bit grey with a transparent value, which would be lost: save it opaque first"
            )
        return np.asarray(image).astype(np.uint16)[..., None], "I;16"
    if image.mode == "L" and "transparency" in image.info:
        image.info["transparency"] *= scale
    transparent = image.has_transparency_data
    wanted = {
        "1": "LA" if transparent else "L",
        "L": "LA" if transparent else "L",
        "RGB": "RGBA" if transparent else "RGB",
        "P": "RGBA" if transparent else "RGB",
        "PA": "RGBA",
        "LA": "LA",
        "RGBA": "RGBA",
    }
    if image.mode not in wanted:
        raise UserError(
            f"{path} is of mode {image.mode}, which can't be kept exactly: convert it to RGB or RGBA first"
        )
    mode = wanted[image.mode]
    data = np.array(image if image.mode == mode else image.convert(mode))
    return data[..., None] if data.ndim == 2 else data, mode
