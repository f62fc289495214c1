"""How long will it take? Told from cells that are there, or from a few timed steps of one that is not."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from noisette import engines
from noisette.bench.cells import Cell, counted, plan_cells
from noisette.bench.store import Store
from noisette.generate import generate
from noisette.metadata import read_metadata
from noisette.plan import plan
from noisette.recipe import Recipe

SAMPLE = 50  # pictures of the store that are asked for their seconds


def estimate(cells: Sequence[Cell], todo: Sequence[Cell], store: Store) -> tuple[float, str]:
    """Seconds for the cells to do on this machine, and what that is told from."""
    done = store.done()
    known = [(cell, done[cell.address]) for cell in cells if cell.address in done]
    total, probed = 0.0, 0
    for networks in dict.fromkeys(cell.networks for cell in todo):
        mine = [(cell, path) for cell, path in known if cell.networks == networks]
        group = [cell for cell in todo if cell.networks == networks]
        rates = [
            read_metadata(path)["provenance"]["seconds"] / cell.work
            for cell, path in mine[:: len(mine) // SAMPLE + 1]
        ]
        if rates:
            total += statistics.median(rates) * sum(cell.work for cell in group)
        else:
            fixed, rate = probe(group[0])
            total += fixed * len(group) + rate * sum(cell.work for cell in group)
            probed += 1
    return total, "two timed runs of one cell" if probed else "the cells that are there"


def probe(cell: Cell) -> tuple[float, float]:
    """Seconds a cell takes whatever its steps, and seconds a unit of work: text2img of its size, 2 and 6 steps.

    Of a clip likewise, from one frame.
    """
    if cell.mode == "upscale":
        began = time.perf_counter()
        list(generate(plan_cells([cell]), engines.load(plan_cells([cell]))))
        return time.perf_counter() - began, 0.0
    same = ("prompt", "model", "lora", "engine", "precision", "device", "img_w", "img_h")
    recipe = replace(Recipe(guidance_scale=3.0, seed="0"), **{name: getattr(cell.recipe, name) for name in same})
    networks = engines.load(plan(recipe))
    seconds = []
    for steps in (2, 2, 6):  # the first one warms up
        planned = plan(replace(recipe, num_inference_steps=steps))
        began = time.perf_counter()
        list(generate(planned, networks))
        seconds.append(time.perf_counter() - began)
    step = max(0.0, seconds[2] - seconds[1]) / 4
    megapixels = planned.size.canvas_width * planned.size.canvas_height / 1e6
    frames = cell.recipe.num_frames or 1
    return max(0.0, seconds[1] - 2 * step) * frames, step / (2 * megapixels)


def plan_text(found: Sequence[Cell], todo: Sequence[Cell], store: Store, as_json: bool) -> str:
    """How many cells, how many to do, how long."""
    seconds, basis = estimate(found, todo, store)
    facts: dict[str, Any] = {
        "cells": len(found),
        "done": len(found) - len(todo),
        "to_do": len(todo),
        "seconds": round(seconds, 1),
        "told_from": basis,
        "out": str(store.root),
    }
    if as_json:
        return json.dumps(facts)
    return (
        f"{counted(len(found), 'cell')}, {facts['done']:,} done, {facts['to_do']:,} to do"
        f"\nabout {duration(seconds)}, told from {basis}\nin {store.root}"
    )


def duration(seconds: float) -> str:
    """1 h 05 min, 3 min 20 s, 12 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{seconds:.3g} s"
