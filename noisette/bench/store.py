"""The store of a sweep: a folder with one file a cell, named by its address, whole or absent.

    DIR/store.json          which layout this is
    DIR/cells/*             NAME-{address}.png, or .mp4 and the like, each with its recipe and provenance inside;
                            beside a clip its contact sheet, NAME-{address}.mp4.png
    DIR/derived/*.json      previews and measures, made anew from the files when they are missing
    DIR/claims/*.lock       who is at which cell right now; a lock ends with its process

A file is written beside its name, flushed, and linked to it, so kill -9 leaves a cell done or not done. What is
done is told by the names alone. Two processes share the work through the claims.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from noisette import names, record
from noisette.bench import derived
from noisette.bench.cells import ADDRESS, Cell
from noisette.bench.files import write_bytes, write_text
from noisette.bench.make import Made, MadeClip, contact_sheet
from noisette.bench.whole import is_whole_clip
from noisette.codecs import SUFFIXES
from noisette.errors import UserError

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT = 1
FORGOTTEN = 3600.0  # seconds: no small file takes so long to be written
NAME = re.compile(rf".*-([0-9a-f]{{{ADDRESS}}})\.(png|{'|'.join(s.removeprefix('.') for s in SUFFIXES)})")
END = b"IEND\xaeB`\x82"  # the last eight bytes of every whole PNG


class Store:
    """One folder. Opening checks its layout; nothing is written before the first cell lands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cells, self.derived, self.claims = root / "cells", root / "derived", root / "claims"
        check_format(root / "store.json")

    def prepare(self, todo: Sequence[Cell] = ()) -> None:
        """Makes the folders; removes files of cells to do that were cut short, and what killed runs left behind.

        Raises UserError.
        """
        try:
            for folder in (self.cells, self.derived, self.claims):
                folder.mkdir(parents=True, exist_ok=True)
            if not (self.root / "store.json").exists():
                write_text(self.root / "store.json", json.dumps({"format": FORMAT}))
            for cell in todo:
                if self.path(cell).exists() and not is_whole(self.path(cell)):
                    self.path(cell).unlink()
            done = self.done()
            for lock in self.claims.glob("*.lock"):
                if lock.stem in done:
                    self._drop_claim(lock.stem)
            landed = set(done.values())
            for part in self.cells.glob("*.part"):  # killed between publishing and letting the part go
                if part.with_suffix("") in landed:
                    part.unlink(missing_ok=True)
            for part in self.derived.glob("*.part"):
                with contextlib.suppress(FileNotFoundError):  # just renamed
                    if time.time() - part.stat().st_mtime > FORGOTTEN:
                        part.unlink()
        except OSError as error:
            raise names.cannot_write(self.root, error) from None

    def done(self) -> dict[str, Path]:
        """address -> file, from one look at the folder, in the order of names."""
        if not self.cells.is_dir():
            return {}
        with os.scandir(self.cells) as entries:
            found = sorted(entry.name for entry in entries)
        return {match[1]: self.cells / name for name in found if (match := NAME.fullmatch(name))}

    def damaged(self) -> list[Path]:
        """Files that are cut short or overwritten by something else."""
        return [path for path in self.done().values() if not is_whole(path)]

    def path(self, cell: Cell) -> Path:
        """Where a cell's file belongs."""
        recipe = cell.recipe
        steps = recipe.num_inference_steps or 0
        name = names.file_name(recipe.prompt, cell.mode, cell.seed, steps, cell.address, cell.suffix)
        return self.cells / name

    @contextlib.contextmanager
    def claimed(self, cells: Sequence[Cell]) -> Iterator[list[Cell]]:
        """Those of the cells that nobody else is at and nobody has done, held until the block ends."""
        from filelock import FileLock, Timeout

        locks: dict[str, BaseFileLock] = {}
        try:
            for cell in cells:
                lock = FileLock(self.claims / f"{cell.address}.lock", timeout=0)
                with contextlib.suppress(Timeout):
                    lock.acquire()
                    locks[cell.address] = lock
            yield [cell for cell in cells if cell.address in locks and not self.path(cell).exists()]
        finally:
            for cell in cells:
                if cell.address in locks:
                    self._give_back(cell, locks[cell.address])

    def _give_back(self, cell: Cell, lock: BaseFileLock) -> None:
        """The lock's file goes once the cell has landed: whoever claims it later sees the picture."""
        landed = self.path(cell).exists()
        lock.release()
        if landed:
            self._drop_claim(cell.address)

    def _drop_claim(self, address: str) -> None:
        """Removes the lock's file of a cell that has landed."""
        with contextlib.suppress(OSError):  # Windows, while another process looks at it
            (self.claims / f"{address}.lock").unlink(missing_ok=True)

    def land(self, cell: Cell, made: Made | MadeClip) -> record.Saved:
        """Writes a claimed cell's file and proves it. Raises UserError, a full disk included."""
        path = self.path(cell)
        if isinstance(made, Made):
            saved = record.save(path, made.picture, made.metadata, made.base, made.repaint)
        else:
            write_bytes(contact_sheet(path), made.sheet)
            write_bytes(path, made.file)
            same = made.proved and path.read_bytes() == made.file
            saved = record.Saved(path, made.pixels, same, made.kept)
        derived.write(self.derived / f"{cell.address}.json", made.derived)
        return saved


def check_format(path: Path) -> None:
    """Raises UserError for a store of another version, or a file that is none of ours."""
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the mark of a store: name another --out") from None
    if found != FORMAT:
        raise UserError(
            f"{path.parent} is a store of format {found}, this noisette knows {FORMAT}: take another folder,"
            " or the version that made it"
        )


def is_whole(path: Path) -> bool:
    """Whether the file ends as a PNG does; a clip, whether it is as long as it says."""
    if path.suffix != ".png":
        return is_whole_clip(path)
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - len(END)))
        return file.read() == END
