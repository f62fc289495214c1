"""Clips from files, frame by frame: what they are, and their frames as exact RGB. Memory does not grow with length.

PyAV reads all but animated WebP, which Pillow does. What can't be read as a row of pictures of one size at one
rate is refused with the way to mend it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError
from noisette.recipe import MAX_FRAMES, MAX_PIXELS

Frame = NDArray[np.uint8]  # [H, W, 3]

FORMATS = "mov,mp4,matroska,webm,avi,gif,apng,mpegts,mpeg,ogg,flv,asf,yuv4mpegpipe,ivf"
TELEVISION = tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 60, 120))
KINDS = "MP4, MOV, Matroska, WebM, AVI, GIF, APNG and WebP are"


@dataclass(frozen=True)
class Clip:
    """What a file holds: its frames' size in pixels, how many of them, how many a second."""

    path: Path
    width: int
    height: int
    num_frames: int
    fps: Fraction

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height


def probe(path: Path, at_most: int = MAX_FRAMES) -> Clip:
    """Reads a clip through once, up to `at_most` frames. Raises UserError for what can't start a clip.

    No video, no frames, a size that changes, rotation metadata, a variable frame rate, damage: one line each.
    """
    times: list[float] = []
    size = (0, 0)
    rate: Fraction | None = None
    tick = 0.0
    for frame, time, container_rate, container_tick in timed(path):
        rate, tick = container_rate, container_tick
        if times and size != (frame.shape[1], frame.shape[0]):
            was, now = "{}x{}".format(*size), f"{frame.shape[1]}x{frame.shape[0]}"
            raise UserError(f"{path} changes size at frame {len(times)}, from {was} to {now}: cut it there first")
        size = frame.shape[1], frame.shape[0]
        times.append(time)
        if len(times) >= at_most:
            break
    if not times:
        raise UserError(f"{path} has no frames")
    return Clip(path, *size, len(times), steady_rate(path, times, rate, tick))


def steady_rate(path: Path, times: list[float], rate: Fraction | None, tick: float) -> Fraction:
    """Frames a second. Raises UserError, with the command that mends it, when the frames are not evenly spaced."""
    gaps = np.diff(times)
    if len(gaps) == 0:
        return rate or Fraction(8)
    mean = float(gaps.mean())
    if mean <= 0 or float(np.abs(gaps - mean).max()) > max(1.5 * tick, 0.02 * mean):
        low, high = 1 / max(gaps.max(), 1e-9), 1 / max(gaps.min(), 1e-9)
        raise UserError(
            f"{path} has a variable frame rate ({low:.4g} to {high:.4g} a second): make it even first, as by"
            f" ffmpeg -i {path.name} -vf fps={round(1 / mean) if mean > 0 else 25} even.mp4"
        )
    named = [rate] if rate is not None and (rate.denominator == 1 or rate in TELEVISION) else []
    candidates = [*named, Fraction(round(1 / mean)), Fraction(1 / mean).limit_denominator(1001)]
    return next((c for c in candidates if c > 0 and len(gaps) * abs(1 / float(c) - mean) <= tick), candidates[-1])


def frames(path: Path, at_most: int = MAX_FRAMES) -> Iterator[Frame]:
    """The frames as uint8 [H, W, 3], one at a time. Raises UserError as `probe` does, but for the frame rate."""
    for i, (frame, *_) in enumerate(timed(path)):
        if i >= at_most:
            return
        yield frame


def timed(path: Path) -> Iterator[tuple[Frame, float, Fraction | None, float]]:
    """(frame, seconds, the container's rate, the container's tick in seconds) for each frame."""
    return timed_webp(path) if is_webp(path) else timed_av(path)


def head_of(path: Path) -> bytes:
    """The first 12 bytes of a file. Raises UserError."""
    try:
        with path.open("rb") as file:
            return file.read(12)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None


def is_webp(path: Path) -> bool:
    """Whether a file begins as a WebP does."""
    head = head_of(path)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def is_png(path: Path) -> bool:
    """Whether a file begins as a PNG does, animated or not."""
    return head_of(path)[:8] == b"\x89PNG\r\n\x1a\n"


def is_clip(path: Path) -> bool:
    """Whether a file is a clip rather than a picture. Raises UserError for what is neither."""
    from noisette.reading import is_animated

    animated = is_animated(path)
    if animated is None and not is_png(path):  # a damaged PNG is a picture's reader's to tell of
        with opened(path):
            return True
    return bool(animated)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The PyAV container of a clip on this disk: no playlists, nothing from the network. Raises UserError."""
    import av

    try:
        safe = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
        name = "apng" if is_png(path) else None  # told by its name alone otherwise
        with av.open(f"file:{path}", format=name, options=safe) as container:
            yield container
    except av.error.EOFError:
        raise UserError(f"{path} has no frames") from None
    except av.error.FFmpegError as error:
        from noisette.reading import is_animated

        if is_animated(path) is not None:
            raise UserError(f"{path} is a picture, not a clip: --base_img takes pictures") from None
        raise UserError(f"{path} is no clip that can be read, or is damaged ({error.strerror}): {KINDS}") from None


def timed_av(path: Path) -> Iterator[tuple[Frame, float, Fraction | None, float]]:
    """`timed` by PyAV."""
    with opened(path) as container:
        if not container.streams.video:
            raise UserError(f"{path} has no video in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UserError(f"{path} is in a codec that this PyAV can't read: make it H.264 first, as by"
                            f" ffmpeg -i {path.name} -crf 12 readable.mp4")  # fmt: skip
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise UserError(f"{path} has frames of more than {MAX_PIXELS:,} pixels")
        for i, frame in enumerate(container.decode(stream)):
            if frame.rotation % 360:
                raise UserError(
                    f"{path} is to be turned by {frame.rotation % 360} degrees when shown: turn its pixels first,"
                    f" as by ffmpeg -i {path.name} upright.mp4"
                )
            time = float(frame.time) if frame.time is not None else float(i)
            yield rgb(frame), time, stream.average_rate, float(stream.time_base)


def rgb(frame: Any) -> Frame:
    """The frame's pixels, uint8 [H, W, 3]; YUV by its own matrix, BT.709 where the file names none."""
    from av.video.reformatter import Colorspace

    if frame.format.name in ("bgr0", "rgb24", "bgra", "rgba", "gbrp"):
        array: Frame = frame.to_ndarray(format="rgb24")
        return array
    named = int(frame.colorspace) != 2  # AVCOL_SPC_UNSPECIFIED
    source = frame.colorspace if named else Colorspace.ITU709
    plain: Frame = frame.reformat(format="rgb24", src_colorspace=source).to_ndarray()
    return plain


def timed_webp(path: Path) -> Iterator[tuple[Frame, float, Fraction | None, float]]:
    """`timed` by Pillow, for animated WebP."""
    from noisette.reading import opened as opened_picture

    time = 0
    with opened_picture(path) as image:
        count = getattr(image, "n_frames", 1)
        if count == 1:
            raise UserError(f"{path} is a picture, not a clip: --base_img takes pictures")
        for i in range(count):
            image.seek(i)
            pixels = np.asarray(image.convert("RGB"))
            yield pixels, time / 1000, None, 0.001
            time += int(image.info.get("duration", 0))
