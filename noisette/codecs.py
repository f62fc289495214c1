"""How a clip is written: codecs as rows, and frames to a file one at a time. Memory does not grow with length.

Exact size always. Odd sizes cannot be halved in colour: H.264 then keeps colour at full resolution (yuv444p).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette.errors import UserError

if TYPE_CHECKING:
    from noisette.clips import Frame


@dataclass(frozen=True)
class Codec:
    """One row: the file it makes, the encoder behind it, and what it keeps. `density`: bytes a pixel, at most."""

    name: str
    suffix: str
    container: str
    encoder: str
    pixels: str
    lossless: bool
    density: float
    odd_pixels: str | None = None
    options: dict[str, str] = field(default_factory=dict)


CODECS = {
    codec.name: codec
    for codec in (
        Codec(
            "h264",
            ".mp4",
            "mp4",
            "libx264",
            "yuv420p",
            False,
            0.4,
            "yuv444p",
            {"crf": "12", "preset": "medium", "x264-params": "mbtree=0"},
        ),
        Codec("av1", ".mp4", "mp4", "libsvtav1", "yuv420p", False, 0.3, None, {"crf": "16", "preset": "6"}),
        Codec("ffv1", ".mkv", "matroska", "ffv1", "bgr0", True, 2.0, "bgr0", {"level": "3", "slicecrc": "1"}),
        Codec("png", ".mov", "mov", "png", "rgb24", True, 3.0, "rgb24"),
        Codec("apng", ".apng", "apng", "apng", "rgb24", True, 3.0, "rgb24"),
        Codec("gif", ".gif", "gif", "gif", "pal8", False, 1.0, "pal8"),
        Codec("webp", ".webp", "webp", "webp", "rgb", True, 2.0, "rgb"),
    )
}


SUFFIXES = tuple(dict.fromkeys(codec.suffix for codec in CODECS.values()))


def available(codec: Codec) -> bool:
    """Whether this build of PyAV (for WebP, Pillow) has the encoder."""
    if codec.encoder == "webp":
        from PIL import features

        return bool(features.check("webp"))
    import av

    return codec.encoder in av.codecs_available


def pixels_for(codec: Codec, width: int, height: int) -> str:
    """The pixel format for a size. Raises UserError for an odd size with a codec that halves colour only."""
    if width % 2 == 0 and height % 2 == 0:
        return codec.pixels
    if codec.odd_pixels is None:
        raise UserError(f"--codec {codec.name} takes even sizes only, not {width}x{height}: h264 and ffv1 take odd")
    return codec.odd_pixels


def encode(path: Path, frames: Iterable[Frame], codec: Codec, size: tuple[int, int], fps: Fraction) -> None:
    """Writes uint8 [H, W, 3] frames of `size` (width, height) into `path`, each as it comes."""
    if codec.encoder == "webp":
        encode_webp(path, frames, size, fps)
        return
    import av

    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints its settings otherwise
    with av.open(str(path), "w", format=codec.container) as container:
        stream = container.add_stream(codec.encoder, rate=fps, options=dict(codec.options))
        stream.width, stream.height = size
        stream.pix_fmt = pixels_for(codec, *size)
        convert = palette(size, fps) if codec.pixels == "pal8" else converter(stream)
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = i, 1 / fps
            container.mux(stream.encode(convert(picture)))
        container.mux(stream.encode(None))


def converter(stream: Any) -> Any:
    """RGB to the stream's pixels; YUV by BT.709 in TV range, and the file says so."""
    from av.video.reformatter import ColorRange, Colorspace

    if not stream.pix_fmt.startswith("yuv"):
        return lambda picture: picture.reformat(format=stream.pix_fmt)
    context = stream.codec_context
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1

    def convert(picture: Any) -> Any:
        made = picture.reformat(
            format=stream.pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        made.colorspace, made.color_range = Colorspace.ITU709, ColorRange.MPEG
        return made

    return convert


def palette(size: tuple[int, int], fps: Fraction) -> Any:
    """RGB to 256 colours chosen for each frame, as ffmpeg's palettegen and paletteuse do."""
    import av.filter

    graph = av.filter.Graph()
    colours = av.VideoFormat("rgb24", *size)
    source = graph.add_buffer(width=size[0], height=size[1], format=colours, time_base=1 / fps)
    split = graph.add("split")
    chosen, used = graph.add("palettegen", "stats_mode=single"), graph.add("paletteuse", "new=1:dither=sierra2_4a")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(chosen, 0, 0)
    split.link_to(used, 1, 0)
    chosen.link_to(used, 0, 1)
    used.link_to(sink)
    graph.configure()

    def convert(picture: Any) -> Any:
        graph.push(picture)
        return graph.pull()

    return convert


def encode_webp(path: Path, frames: Iterable[Frame], size: tuple[int, int], fps: Fraction) -> None:
    """Animated WebP, lossless, looping: one ANMF chunk a frame (the container's specification, RFC 9649)."""
    width, height = ((side - 1).to_bytes(3, "little") for side in size)
    with path.open("wb") as file:
        file.write(b"RIFF\0\0\0\0WEBP")
        file.write(chunk(b"VP8X", bytes([0x02, 0, 0, 0]) + width + height))
        file.write(chunk(b"ANIM", bytes(6)))
        for duration, frame in zip(delays(fps, 1000), frames, strict=False):
            head = bytes(6) + width + height + duration.to_bytes(3, "little") + b"\x02"
            file.write(chunk(b"ANMF", head + still_webp(frame)))
        end = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", end - 8))


def chunk(name: bytes, data: bytes) -> bytes:
    """A RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def still_webp(frame: Frame) -> bytes:
    """The bare VP8L chunk of one lossless picture."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, "WEBP", lossless=True, quality=60, method=2)
    return buffer.getvalue()[12:]


def delays(fps: Fraction, ticks: int) -> Iterator[int]:
    """How long each frame stays, in 1/`ticks` second, rounded so that no error adds up."""
    i = 0
    while True:
        yield round((i + 1) * ticks / fps) - round(i * ticks / fps)
        i += 1
