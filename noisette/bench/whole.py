"""Is a clip's file as long as it says? Told from its outer structure, without decoding."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

END_OF_PNG, END_OF_GIF = b"IEND\xaeB`\x82", b"\x3b"
EBML, SEGMENT = 0x1A45DFA3, 0x18538067  # Matroska's two outermost elements (RFC 9559)


def is_whole_clip(path: Path) -> bool:
    """Whether nothing is missing at the end of an .mp4, .mov, .mkv, .gif, .webp or .apng."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if path.suffix in (".mp4", ".mov"):
            return end_of_boxes(file, size) == size
        if path.suffix == ".mkv":
            return end_of_matroska(file) == size
        if path.suffix == ".webp":  # RFC 9649: the size stands behind RIFF
            return int.from_bytes(file.read(8)[4:], "little") + 8 == size
        end = END_OF_PNG if path.suffix == ".apng" else END_OF_GIF
        file.seek(max(0, size - len(end)))
        return file.read() == end


def end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last box of an ISO base media file ends (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length == 0:  # to the end of the file
            return size
        if length < 8:
            return -1
        at += length
    return at


def end_of_matroska(file: BinaryIO) -> int:
    """Where the segment says that it ends, -1 where there is none."""
    at = 0
    for wanted in (EBML, SEGMENT):
        file.seek(at)
        if int.from_bytes(file.read(4), "big") != wanted:
            return -1
        first = file.read(1)
        if not first or not first[0]:
            return -1
        more = 8 - first[0].bit_length()  # zeros before the first one: that many bytes follow
        rest = first[0] & (1 << (7 - more)) - 1
        length = int.from_bytes(bytes([rest]) + file.read(more), "big")
        at = file.tell() + length
    return at
