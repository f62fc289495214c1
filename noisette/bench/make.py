"""Cells to pictures and clips, on this machine or inside a worker: the only place of the bench where networks run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette import engines, output, video
from noisette.bench import derived
from noisette.bench.cells import Cell, plan_cells
from noisette.bench.derived import Derived
from noisette.generate import generate
from noisette.journal import Journal
from noisette.names import cannot_write
from noisette.plan import Plan, find_model
from noisette.reading import Picture
from noisette.record import Kept

if TYPE_CHECKING:
    from noisette.engines import Networks


@dataclass(frozen=True)
class Made:
    """A finished picture on its way to the store; with a strict mask, with the base and what it may repaint."""

    address: str
    picture: Picture
    metadata: dict[str, Any]
    derived: Derived
    base: Picture | None = None
    repaint: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class MadeClip:
    """A finished clip on its way to the store: its file and its contact sheet as bytes.

    `pixels` is the hash of its frames; `proved` and `kept` what was found when the file was read back where it was
    made.
    """

    address: str
    file: bytes
    sheet: bytes
    pixels: str
    proved: bool
    kept: Kept | None
    derived: Derived


class Maker:
    """Keeps the networks of the last cells loaded, and models found.

    Checkpoints of long cells and clips in the making stand in `folder`, named by their address.
    """

    def __init__(self, folder: Path) -> None:
        self._find = cache(find_model)
        self._folder = folder
        self._networks: tuple[str, Networks] | None = None

    def make(self, batch: Sequence[Cell], progress: Callable[[], object] = lambda: None) -> Iterator[Made | MadeClip]:
        """What cells that differ by seed alone ask for, in their order. Raises UserError."""
        other = self._networks is None or self._networks[0] != batch[0].networks
        planned = plan_cells(batch, self._find, download=other)
        if other:
            self._networks = None  # the old ones go before the new ones come
            self._networks = batch[0].networks, engines.load(planned)
        assert self._networks is not None
        networks: Networks = self._networks[1]
        journal = None
        if planned.recipe.checkpoint_every:
            path = self._folder / f"{batch[0].address}-{len(batch)}.journal"
            networks = journal = Journal(networks, path, planned.recipe.checkpoint_every)

        def step() -> None:
            progress()
            if journal:
                journal.step()

        make = self._clips if planned.clip else self._pictures
        yield from make(batch, planned, networks, step)
        if journal:
            journal.remove()

    def _pictures(
        self, batch: Sequence[Cell], planned: Plan, networks: Networks, step: Callable[[], None]
    ) -> Iterator[Made]:
        base, repaint = (planned.base, planned.mask.repaint) if planned.mask else (None, None)
        strict = (base, repaint) if planned.exact else (None, None)
        for cell, result in zip(batch, generate(planned, networks, step), strict=True):
            said = output.metadata(planned, result.seed, result.seconds, result.facts)
            beside = derived.derive(result.picture, base, repaint)
            yield Made(cell.address, result.picture, {**said, **claims(cell)}, beside, *strict)

    def _clips(
        self, batch: Sequence[Cell], planned: Plan, networks: Networks, step: Callable[[], None]
    ) -> Iterator[MadeClip]:
        for cell, result in zip(batch, video.make(planned, networks, step), strict=True):
            place = self._folder / f"{cell.address}.clip"
            shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
            try:
                place.mkdir(parents=True)
                saved = video.save(planned, result, place / f"clip{planned.suffix}", claims(cell))
                file, sheet = (path.read_bytes() for path in (saved.path, contact_sheet(saved.path)))
                beside = derived.derive_clip(saved.path, planned.base)
            except OSError as error:
                raise cannot_write(place, error) from None
            finally:
                shutil.rmtree(place, ignore_errors=True)
            yield MadeClip(cell.address, file, sheet, saved.pixels, saved.proved, saved.kept, beside)


def claims(cell: Cell) -> dict[str, Any]:
    """What a cell's file says of the cell."""
    return {"cell": {"address": cell.address, "at": cell.at, "work": cell.work, "left_open": cell.left_open}}


def contact_sheet(clip: Path) -> Path:
    """The picture beside a clip, as `clip_record.save` names it."""
    return clip.with_name(clip.name + ".png")
