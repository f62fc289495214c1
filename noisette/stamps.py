"""The recipe inside a clip. Its text is known last (it holds the frames' hashes), so it is put in by copying.

.mp4 .mov   the container's `comment`, the only free key that MP4 keeps
.mkv        the tag NOISETTE
.gif        a comment extension
.webp       EXIF ImageDescription
.apng       an iTXt chunk `noisette`, as in our PNG files
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from noisette.clips import head_of, is_png, is_webp, opened

OURS = "noisette"
TAGS = {".mp4": ("mp4", "comment"), ".mov": ("mov", "comment"), ".mkv": ("matroska", "NOISETTE")}
DESCRIPTION = 0x010E  # EXIF ImageDescription
EXIF_FLAG = 0x08  # of VP8X


def stamp(source: Path, target: Path, suffix: str, text: str) -> None:
    """Copies the clip `source`, of the kind of `suffix`, to `target` with `text` in it; frames as they are."""
    if suffix in TAGS:
        remux(source, target, *TAGS[suffix], text)
        return
    splice: Callable[[BinaryIO, BinaryIO, str], None]
    splice = {".gif": splice_gif, ".webp": splice_webp, ".apng": splice_png}[suffix]
    with source.open("rb") as old, target.open("wb") as new:
        splice(old, new, text)


def remux(source: Path, target: Path, container: str, key: str, text: str) -> None:
    """Copies the packets into a new container of the same kind whose tag `key` is `text`."""
    import av

    flags = {"mp4": {"movflags": "+faststart"}, "mov": {"movflags": "+faststart+use_metadata_tags"}}
    settings = flags.get(container, {})  # MOV's own comment has a length of 16 bits
    with av.open(str(source)) as old, av.open(str(target), "w", format=container, container_options=settings) as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        new.metadata[key] = text
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:  # the last one only says that there are no more
                packet.stream = stream
                new.mux(packet)


def splice_gif(old: BinaryIO, new: BinaryIO, text: str) -> None:
    """A comment extension behind the global palette, in blocks of at most 255 bytes."""
    head = old.read(13)
    colours = old.read(3 * 2 ** ((head[10] & 7) + 1)) if head[10] & 0x80 else b""
    data = text.encode()
    blocks = [data[i : i + 255] for i in range(0, len(data), 255)]
    comment = b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    new.write(head + colours + comment)
    shutil.copyfileobj(old, new)


def splice_png(old: BinaryIO, new: BinaryIO, text: str) -> None:
    """An iTXt chunk (PNG specification, 11.3.3.4) behind acTL, by which readers know an animation."""
    data = OURS.encode() + b"\0\0\0\0\0" + text.encode()
    body = b"iTXt" + data
    new.write(old.read(8))
    name = b""
    while name != b"acTL":
        head = old.read(8)
        name = head[4:]
        new.write(head + old.read(struct.unpack(">I", head[:4])[0] + 4))
    new.write(struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body)))
    shutil.copyfileobj(old, new)


def splice_webp(old: BinaryIO, new: BinaryIO, text: str) -> None:
    """An EXIF chunk at the end, and VP8X's flag for it (RFC 9649)."""
    from PIL.Image import Exif

    from noisette.codecs import chunk

    exif = Exif()
    exif[DESCRIPTION] = text
    data = chunk(b"EXIF", exif.tobytes().removeprefix(b"Exif\0\0"))
    head = bytearray(old.read(30))
    head[4:8] = struct.pack("<I", struct.unpack("<I", head[4:8])[0] + len(data))
    head[20] |= EXIF_FLAG
    new.write(head)
    shutil.copyfileobj(old, new)
    new.write(data)


def read_stamp(path: Path) -> str | None:
    """The text that `stamp` put into a clip; None where there is none. Raises UserError for what is no clip."""
    if head_of(path)[:3] == b"GIF" or is_png(path) or is_webp(path):
        return read_picture_stamp(path)
    with opened(path) as container:
        tags: dict[str, str] = {**container.metadata}
    return next((text for _, key in TAGS.values() if (text := tags.get(key, tags.get(key.lower())))), None)


def read_picture_stamp(path: Path) -> str | None:
    """`read_stamp` for what Pillow reads: GIF, WebP, APNG."""
    from noisette.reading import opened as opened_picture

    with opened_picture(path) as image:
        info: dict[Any, Any] = dict(image.info)
        found = info.get(OURS) or image.getexif().get(DESCRIPTION) or info.get("comment")
    return found.decode(errors="replace") if isinstance(found, bytes) else found
