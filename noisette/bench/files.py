"""Small files beside the pictures: written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from noisette.names import cannot_write


def write_text(path: Path, text: str) -> None:
    """The whole text under the name, in one step; two writers of the same content do no harm. Raises UserError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise cannot_write(path, error) from None


def write_bytes(path: Path, data: bytes) -> None:
    """The whole of the data under the name, flushed, then in one step. Raises UserError."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise cannot_write(path, error) from None
