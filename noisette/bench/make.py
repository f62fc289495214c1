"""Cells to pictures, on this machine or inside a worker: the only place of the bench where networks run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette import engines, output
from noisette.bench.cells import Cell, plan_cells
from noisette.generate import generate
from noisette.journal import Journal
from noisette.plan import find_model
from noisette.reading import Picture

if TYPE_CHECKING:
    from noisette.engines import Networks


@dataclass(frozen=True)
class Made:
    """A finished cell on its way to the store; where it is an inpainting, with its fitted base and mask."""

    address: str
    picture: Picture
    metadata: dict[str, Any]
    base: Picture | None = None
    repaint: NDArray[np.bool_] | None = None
    strict: bool = False


class Maker:
    """Keeps the networks of the last cells loaded, and models found; checkpoints of long cells stand in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._find = cache(find_model)
        self._folder = folder
        self._networks: tuple[str, Networks] | None = None

    def make(self, batch: Sequence[Cell], progress: Callable[[], object] = lambda: None) -> Iterator[Made]:
        """The pictures of cells that differ by seed alone, in their order. Raises UserError."""
        planned = plan_cells(batch, self._find)
        if self._networks is None or self._networks[0] != batch[0].networks:
            self._networks = None  # the old ones go before the new ones come
            self._networks = batch[0].networks, engines.load(planned)
        base, repaint = (planned.base, planned.mask.repaint) if planned.mask else (None, None)
        networks: Networks = self._networks[1]
        journal = None
        if planned.recipe.checkpoint_every:
            path = self._folder / f"{batch[0].address}-{len(batch)}.journal"
            networks = journal = Journal(networks, path, planned.recipe.checkpoint_every)

        def step() -> None:
            progress()
            if journal:
                journal.step()

        for cell, result in zip(batch, generate(planned, networks, step), strict=True):
            claims = {"address": cell.address, "at": cell.at, "work": cell.work}
            said = output.metadata(planned, result.seed, result.seconds, result.facts)
            metadata = {**said, "cell": claims}
            yield Made(cell.address, result.picture, metadata, base, repaint, planned.exact)
        if journal:
            journal.remove()
