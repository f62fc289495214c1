"""Runs the cells that are not done yet, one process or many, and lands each as it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from noisette.bench.cells import Cell, batches, place
from noisette.bench.make import Maker
from noisette.bench.store import Store, is_whole
from noisette.errors import UserError

POLL = 0.5  # seconds between looks at cells that another process is at


@dataclass(frozen=True)
class Landed:
    """A cell that is done, or why it can't be."""

    cell: Cell
    path: Path
    proved: bool = True
    error: str = ""

    def to_text(self) -> str:
        """The line for a person."""
        if self.error:
            return f"{place(self.cell.at)}: FAILED, {self.error}"
        return (
            str(self.path)
            if self.proved
            else f"{self.path}: NOT PROVED, the file as re-read is not what it should be"
        )


def missing(cells: Sequence[Cell], store: Store) -> list[Cell]:
    """The cells still to make: not there, or cut short. Touches nothing."""
    done = store.done()
    return [cell for cell in cells if cell.address not in done or not is_whole(done[cell.address])]


def run(
    todo: Sequence[Cell], store: Store, progress: Callable[[], object] = lambda: None, maker: Maker | None = None
) -> Iterator[Landed]:
    """Makes the cells here. Those that another process is at come last: taken over if it dies.

    A cell that fails is yielded with its error; a store that can't be written to raises UserError. A `maker` that
    has networks loaded may be given.
    """
    store.prepare(todo)
    maker = maker or Maker(store.claims)
    waiting = batches(todo)
    while waiting:
        before = waiting
        waiting = []
        for batch in before:
            with store.claimed(batch) as mine:
                if mine:
                    yield from make(maker, mine, store, progress)
            taken = {cell.address for cell in mine}
            others = [cell for cell in batch if cell.address not in taken and not store.path(cell).exists()]
            waiting += [others] if others else []
        if waiting and len(waiting) == len(before):
            time.sleep(POLL)


def make(maker: Maker, batch: Sequence[Cell], store: Store, progress: Callable[[], object]) -> Iterator[Landed]:
    """Makes and lands a claimed batch."""
    pictures = maker.make(batch, progress)
    for cell in batch:
        try:
            made = next(pictures)
        except UserError as error:
            yield from (Landed(rest, store.path(rest), error=str(error)) for rest in batch[batch.index(cell) :])
            return
        saved = store.land(cell, made)
        yield Landed(cell, saved.path, saved.proved)
    next(pictures, None)  # lets it put away what only a crash would need
