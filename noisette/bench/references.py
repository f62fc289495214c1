"""Numbers of a picture or clip to another: a reference of its sweep, the base it was made from; and to its prompt.

They are worked out when a report asks for them, and kept beside the cells of a store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from noisette import clips
from noisette.bench import clip_measures, features, measures
from noisette.bench.entries import Entry
from noisette.bench.files import write_text
from noisette.bench.measures import Numbers
from noisette.bench.places import partners
from noisette.bench.similarity import Judge, similarity
from noisette.clip_fields import travels
from noisette.inputs import written_inputs
from noisette.origins import origins, relocated
from noisette.reading import read

KEEP_EVERY = 200  # similarities


def with_reference(entries: Sequence[Entry], reference: dict[str, Any], folder: Path) -> list[Entry]:
    """Each entry with its numbers to the one of its size at the same place but for `reference`'s fields.

    Raises UserError.
    """
    found = []
    for entry, target in zip(entries, partners(entries, reference), strict=True):
        if target is None or target is entry or shape_of(entry) != shape_of(target):
            found.append(entry)
        else:
            numbers = kept(folder, f"{name_of(entry)}~{name_of(target)}", partial(pair_numbers, entry, target))
            found.append(replace(entry, pair=entry.pair | numbers))
    return found


def with_base(entries: Sequence[Entry], folder: Path) -> list[Entry]:
    """Each picture that was made from a base with its numbers to that, where it is still there and the same file."""
    return [
        entry
        if entry.recipe.base_img is None or entry.recipe.moving
        else replace(entry, pair=entry.pair | kept(folder, f"{name_of(entry)}~base", partial(base_numbers, entry)))
        for entry in entries
    ]


def shape_of(entry: Entry) -> tuple[Any, int]:
    """Size in pixels and number of frames: only what has the same ones compares pixel by pixel."""
    return entry.claims.get("provenance", {}).get("size"), len(entry.claims.get("frames", ()))


def name_of(entry: Entry) -> str:
    """What numbers that are kept call an entry: a cell's address."""
    return str(entry.claims.get("cell", {}).get("address", entry.path.stem))


def kept(folder: Path, name: str, numbers_of: Callable[[], Numbers]) -> Numbers:
    """The numbers under a name in the folder's store; worked out now where they are missing or of another version."""
    path = folder / "derived" / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if found.get("version") == measures.VERSION:
        numbers: Numbers = found["pair"]
        return numbers
    numbers = finite(numbers_of())
    if numbers and path.parent.is_dir():
        write_text(path, json.dumps({"version": measures.VERSION, "pair": numbers}))
    return numbers


def pair_numbers(entry: Entry, target: Entry) -> Numbers:
    """Of two pictures, or of two clips frame by frame."""
    if entry.recipe.moving:
        return clip_measures.of_pair(clips.frames(entry.path), clips.frames(target.path))
    return features.of_pair(read(entry.path), read(target.path))


def base_numbers(entry: Entry) -> Numbers:
    """Of a picture to its base as its run met it; none where that file is gone or another one by now."""
    inputs = origins(entry.path, entry.claims, {})
    if not all(origin.same for origin in inputs):
        return {}
    numbers = features.of_pair(read(entry.path), written_inputs(relocated(entry.recipe, inputs))[0])
    return {f"base_{name}": value for name, value in numbers.items()}


def with_similarity(entries: Sequence[Entry], judge: Judge, folder: Path) -> list[Entry]:
    """Each entry with the similarity of its picture to its prompt, kept beside the cells of a store."""
    place = folder / "derived" / f"similarity-{judge.key}.json"
    try:
        known: dict[str, float] = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    found = []
    for i, entry in enumerate(entries):
        recipe = entry.recipe
        key = entry.claims["pixels"] + recipe.prompt + (" on the way" if travels(recipe) else "")
        if key not in known:
            known[key] = similarity(judge, entry.path, recipe.prompt, recipe.interpolate, recipe.loop)
        found.append(replace(entry, pair={"similarity": known[key], **entry.pair}))
        if place.parent.is_dir() and (i % KEEP_EVERY == 0 or i == len(entries) - 1):
            write_text(place, json.dumps(known))
    return found


def finite(numbers: Numbers) -> Numbers:
    """JSON knows no infinity: equal pictures have no PSNR."""
    return {name: value for name, value in numbers.items() if abs(value) != float("inf")}
