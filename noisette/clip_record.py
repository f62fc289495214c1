"""Clips on disk: frames to the encoder as they come, the recipe stamped in, then read back and proved.

The name stands for nothing until all is done: what is interrupted leaves no file. A lossless codec is proved by the
frames themselves; a lossy one carries the hashes of the frames that were made, and of what the file decodes to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noisette import clips, codecs, stamps
from noisette.clips import Frame
from noisette.codecs import Codec
from noisette.names import cannot_write, part_of, publish, release
from noisette.record import Kept, Saved

Held = Callable[[], Iterator[tuple[Frame, NDArray[np.bool_]]]]  # each frame's base and what may be repainted of it

SHEET_SIDE, SHEET_MOST, COLUMNS = 256, 16, 8


class Tally:
    """Frames that pass by: their hashes, one over all, and a few of them small for the contact sheet."""

    def __init__(self, num_frames: int) -> None:
        self._all = hashlib.sha256()
        self.each: list[str] = []
        self.small: list[Image.Image] = []
        shown = min(num_frames, SHEET_MOST)
        self._shown = {round(i * (num_frames - 1) / max(shown - 1, 1)) for i in range(shown)}

    def watch(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames, counted."""
        for i, frame in enumerate(frames):
            digest = hashlib.sha256("RGB {}x{}\n".format(*frame.shape[1::-1]).encode() + frame.tobytes())
            self._all.update(digest.digest())
            self.each.append(digest.hexdigest()[:12])
            if i in self._shown:
                small = Image.fromarray(frame)
                small.thumbnail((SHEET_SIDE, SHEET_SIDE))
                self.small.append(small)
            yield frame

    @property
    def sha256(self) -> str:
        """'sha256:…' over the frames' hashes in their order."""
        return f"sha256:{self._all.hexdigest()}"

    def sheet(self) -> Image.Image:
        """The contact sheet: up to 16 frames, evenly chosen, first and last among them."""
        width, height = self.small[0].size
        rows = -(-len(self.small) // COLUMNS)
        sheet = Image.new("RGB", (min(COLUMNS, len(self.small)) * width, rows * height), "white")
        for i, small in enumerate(self.small):
            sheet.paste(small, (i % COLUMNS * width, i // COLUMNS * height))
        return sheet


def tally(frames: Iterable[Frame]) -> Tally:
    """All frames counted."""
    counted = Tally(0)
    for _ in counted.watch(frames):
        pass
    return counted


def save(
    path: Path,
    frames: Iterable[Frame],
    num_frames: int,
    codec: Codec,
    size: tuple[int, int],
    fps: Fraction,
    metadata: Callable[[], dict[str, Any]],
    held: Held | None = None,
) -> Saved:
    """Writes a clip and its contact sheet (`path` + .png) to a name from `reserve`, whole or not at all.

    `metadata()` is asked when all frames are through; hashes are added to it: `pixels` (of the frames that were
    made), `frames` (each one's) and `decoded` (of what the file decodes to). Raises UserError for a full disk.
    """
    made, part, stamped = Tally(num_frames), part_of(path), path.with_name(path.name + ".tag")
    try:
        codecs.encode(part, made.watch(frames), codec, size, fps)
        decoded = tally(clips.frames(part))
        claims = {**metadata(), "pixels": made.sha256, "decoded": decoded.sha256, "frames": made.each}
        if held is not None:
            claims["kept"] = asdict(kept_in(part, held))
        stamps.stamp(part, stamped, codec.suffix, json.dumps(claims, allow_nan=False))
        stamped.replace(part)
        made.sheet().save(stamped, "PNG")
        publish(path)
        stamped.replace(path.with_name(path.name + ".png"))
    except OSError as error:  # PyAV's are among them
        release(path)
        raise cannot_write(path, error) from None
    except BaseException:
        release(path)
        raise
    finally:
        stamped.unlink(missing_ok=True)
    again = tally(clips.frames(path))
    expected = made if codec.lossless else decoded
    same = (again.sha256, len(again.each)) == (expected.sha256, len(made.each))
    return Saved(path, made.sha256, same, kept_in(path, held) if held is not None else None)


def kept_in(path: Path, held: Held) -> Kept:
    """Compares, in the file as it decodes, each pixel of each frame that is to be kept with the base's."""
    count = differing = 0
    digest = hashlib.sha256()
    for frame, (base, repaint) in zip(clips.frames(path), held(), strict=True):
        kept = ~repaint
        count += int(kept.sum())
        differing += int((frame != base).any(axis=-1)[kept].sum())
        digest.update(base[kept].tobytes())
    return Kept(count, differing, f"sha256:{digest.hexdigest()}")
