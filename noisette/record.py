"""Results on disk: written whole or not at all, then read back and proved.

Names stand in `names`, what a file says of itself in `metadata`.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette.clips import is_clip, probe
from noisette.errors import UserError
from noisette.metadata import png_info, read_metadata
from noisette.names import cannot_write, part_of, publish, release
from noisette.reading import Picture, read, resolve
from noisette.recipe import Recipe, from_mapping


@dataclass(frozen=True)
class Kept:
    """How many pixels were to be kept, how many differ, and the hash of the base's kept pixels."""

    count: int
    differing: int
    sha256: str

    def to_text(self) -> str:
        """For a person."""
        if self.differing:
            return f"{self.differing:,} of {self.count:,} kept pixels differ"
        return f"{self.count:,} kept pixels, none differs"


@dataclass(frozen=True)
class Saved:
    """A file that was written and read back: its pixels' hash, and whether it holds what it should."""

    path: Path
    pixels: str
    same: bool
    kept: Kept | None

    @property
    def proved(self) -> bool:
        """The file as re-read is the picture, and no kept pixel differs from the base."""
        return self.same and (self.kept is None or self.kept.differing == 0)

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        kept = None if self.kept is None else asdict(self.kept)
        return {"file": str(self.path), "pixels": self.pixels, "proved": self.proved, "kept": kept}

    def to_text(self) -> str:
        """The line for a person."""
        if not self.same:
            return f"{self.path}: NOT PROVED, the file as re-read is not the picture that was made"
        if self.kept is None:
            return str(self.path)
        return f"{self.path}: {'' if self.proved else 'NOT PROVED, '}{self.kept.to_text()}"


def pixel_hash(picture: Picture) -> str:
    """'sha256:…' over mode, size and bytes (little-endian); metadata doesn't count."""
    digest = hashlib.sha256("{} {}x{}\n".format(picture.mode, *picture.size).encode())
    digest.update(little_endian(picture.data))
    return f"sha256:{digest.hexdigest()}"


def little_endian(data: NDArray[Any]) -> bytes:
    """The array's bytes, the same on every machine."""
    return data.astype(data.dtype.newbyteorder("<")).tobytes()


def file_hash(path: Path) -> str:
    """'sha256:…' over a file's bytes. Raises UserError for a file that can't be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    return f"sha256:{digest.hexdigest()}"


def kept_in(picture: Picture, base: Picture, repaint: NDArray[np.bool_]) -> Kept:
    """Compares each pixel that `repaint` [H, W] keeps, all channels; another mode or size: all differ."""
    kept = ~repaint
    count = int(kept.sum())
    differing = count
    if (picture.mode, picture.size) == (base.mode, base.size):
        differing = int((picture.data != base.data).any(axis=-1)[kept].sum())
    digest = hashlib.sha256("{} {}x{}\n".format(base.mode, *base.size).encode())
    digest.update(little_endian(base.data[kept]))
    return Kept(count, differing, f"sha256:{digest.hexdigest()}")


def check_kept(path: Path, base: Picture, repaint: NDArray[np.bool_]) -> Kept:
    """`kept_in` for the file as it is on disk, opened and decoded anew. Raises UserError if unreadable."""
    return kept_in(read(path), base, repaint)


def encode(picture: Picture, metadata: dict[str, Any]) -> bytes:
    """The PNG, with its profile, resolution, EXIF and text."""
    buffer = io.BytesIO()
    picture.to_pil().save(buffer, "PNG", pnginfo=png_info(metadata, picture.size), **picture.info)
    return buffer.getvalue()


def save(
    path: Path,
    picture: Picture,
    metadata: dict[str, Any],
    base: Picture | None = None,
    repaint: NDArray[np.bool_] | None = None,
) -> Saved:
    """Writes the picture to a name from `reserve`, whole or not at all, and reads it back.

    `metadata` holds 'recipe' (a dict of JSON values) and, as one likes, 'provenance' and more; the pixels'
    hash is added, and with a base and what may be repainted of it (strict mask) the proof of its kept pixels.
    A full disk, a name that is taken: UserError. Whatever interrupts (Ctrl-C too), the name is given back.
    """
    claims: dict[str, Any] = {**metadata, "pixels": pixel_hash(picture)}
    if base is not None and repaint is not None:
        claims["kept"] = asdict(kept_in(picture, base, repaint))
    try:
        with part_of(path).open("wb") as file:
            file.write(encode(picture, claims))
            file.flush()
            os.fsync(file.fileno())
        publish(path)
    except OSError as error:
        release(path)
        raise cannot_write(path, error) from None
    except BaseException:
        release(path)
        raise
    written = read(path)
    kept = kept_in(written, base, repaint) if base is not None and repaint is not None else None
    return Saved(path, claims["pixels"], pixel_hash(written) == claims["pixels"], kept)


def read_recipe(path: str) -> Recipe:
    """The recipe inside a picture. Raises UserError."""
    return from_mapping(read_metadata(resolve(path))["recipe"])


def describe(path: Path) -> dict[str, Any]:
    """What a picture or clip says of itself, and what its pixels are. Raises UserError."""
    path = resolve(str(path))
    if is_clip(path):
        clip = probe(path)
        found = {"size": list(clip.size), "num_frames": clip.num_frames, "fps": float(clip.fps)}
        return {"file": str(path), **found, **read_metadata(path)}
    picture = read(path)
    return {
        "file": str(path),
        "mode": picture.mode,
        "size": list(picture.size),
        "pixels_found": pixel_hash(picture),
        **read_metadata(path),
    }
