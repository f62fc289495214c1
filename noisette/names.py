"""File names: made from the prompt, safe on every system, taken by one process only, published when complete.

A name is taken by creating `NAME.part` with O_EXCL; the picture is written into that file, which then gets
the final name. So the final name never stands for half a file, kill -9 included. Standard library only.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from itertools import count
from pathlib import Path

from noisette.errors import UserError

LONGEST = 255  # bytes of UTF-8 in a file name: the limit of Linux, macOS and (counted otherwise) Windows
PART = ".part"
RESERVED = re.compile(r'[<>:"/\\|?*]')
DEVICES = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])", re.IGNORECASE)
UNSEEN = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
STEERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")  # turn text around: a name could lie


def slug(prompt: str, longest: int = LONGEST) -> str:
    """The prompt as the head of a file name, at most `longest` bytes of UTF-8.

    Spaces become `_`, so do characters that Windows reserves; control characters go. Unicode in form NFC.
    """
    text = unicodedata.normalize("NFC", re.sub(r"\s+", "_", prompt.strip()))
    text = STEERING.sub("", RESERVED.sub("_", text))
    text = "".join(character for character in text if unicodedata.category(character) not in UNSEEN)
    text = text.strip(".- ") or "untitled"
    if DEVICES.fullmatch(text.split(".")[0].rstrip()):
        text = "_" + text
    return cut(text, longest).rstrip(".- ")


def cut(text: str, longest: int) -> str:
    """The head of the text that fits `longest` bytes of UTF-8, never half a character."""
    head = text.encode()[:longest].decode(errors="ignore")
    while len(head) < len(text) and head and (unicodedata.combining(text[len(head)]) or head[-1] == "\u200d"):
        head = head[:-1]
    return head


def file_name(prompt: str, mode: str, seed: int, steps: int, n: int | str, suffix: str = ".png") -> str:
    """`{slug}-{mode}-{seed}-{steps}its-{n}.png`, short enough that `.part` can be added; n a count or an address."""
    tail = f"-{mode}-{seed}-{steps}its-{n}{suffix}"
    return slug(prompt, LONGEST - len(tail.encode()) - len(PART)) + tail


def part_of(path: Path) -> Path:
    """The file that stands for a name until it is complete."""
    return path.with_name(path.name + PART)


def preview(out_dir: Path, prompt: str, mode: str, seed: int, steps: int, suffix: str = ".png") -> Path:
    """The path that `reserve` would give now; touches nothing."""
    paths = (out_dir / file_name(prompt, mode, seed, steps, n, suffix) for n in count())
    return next(path for path in paths if not path.exists() and not part_of(path).exists())


def reserve(out_dir: Path, prompt: str, mode: str, seed: int, steps: int, suffix: str = ".png") -> Path:
    """Takes the first free name, for this process alone, and returns its path; the folder is made if need be.

    Only `path.part` exists then: fill it and `publish(path)`, or `release(path)`. Raises UserError.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for n in count():
            path = out_dir / file_name(prompt, mode, seed, steps, n, suffix)
            if not path.exists() and take(path):
                return path
    except OSError as error:
        raise cannot_write(out_dir, error) from None
    raise AssertionError("count() ends never")


def take(path: Path) -> bool:
    """Whether this process got the name. First the part, then the look: publishing leaves no gap between."""
    try:
        os.close(os.open(part_of(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    if path.exists():  # published between the caller's look and ours
        release(path)
        return False
    return True


def release(path: Path) -> None:
    """Gives the name back: removes its part."""
    part_of(path).unlink(missing_ok=True)


def publish(path: Path) -> None:
    """Gives a complete part its final name, in one step. Raises FileExistsError rather than overwrite."""
    part = part_of(path)
    try:
        os.link(part, path)  # unlike a rename, fails when the name is there
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        part.rename(path)
    else:
        part.unlink(missing_ok=True)  # another process of the sweep may have tidied it away


def check_writable(out_dir: Path) -> None:
    """Raises UserError for a folder that can't be written to or made; makes nothing."""
    there = next(folder for folder in (out_dir, *out_dir.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise UserError(f"--out {out_dir}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out_dir} can't be written to: permission denied for {there}")


def cannot_write(path: Path, error: OSError) -> UserError:
    """The one line for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path} can't be written: the disk is full; free some space or name another --out")
    return UserError(f"{path} can't be written: {error.strerror or error}; name another --out")
