"""The files of a store, or of any folder of noisette's files, as rows: recipe, provenance, measures, preview."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from noisette import clips
from noisette.bench import clip_measures, derived, measures
from noisette.bench.axes import parse_axis
from noisette.bench.derived import Derived
from noisette.bench.files import write_text
from noisette.bench.measures import Numbers
from noisette.bench.similarity import Judge, similarity
from noisette.bench.store import check_format
from noisette.errors import UserError
from noisette.inputs import written_inputs
from noisette.metadata import read_metadata
from noisette.pixels import fit
from noisette.reading import Picture, read, resolve
from noisette.recipe import FIELDS, Recipe, among, from_mapping
from noisette.verify import files_in

KEEP_EVERY = 200  # similarities
UNLIKE = ("engine", "device", "precision", "model", "seed")  # axes that come last in a grid


@dataclass(frozen=True)
class Entry:
    """One picture or clip: what its file says, what was worked out from it, and numbers to a reference."""

    path: Path
    recipe: Recipe
    claims: dict[str, Any]
    derived: Derived
    pair: Numbers = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """What the picture or clip took."""
        return float(self.claims.get("provenance", {}).get("seconds", 0.0))

    @property
    def numbers(self) -> Numbers:
        """All measures and the seconds."""
        return {"seconds": self.seconds, **self.derived.measures, **self.pair}

    def command(self) -> str:
        """The command that makes the picture or clip again."""
        words = ["python3", "video.py" if self.recipe.moving else "image.py"]
        for name, value in self.recipe.to_json().items():
            words.append(f"--{name}={value}" if str(value).startswith("-") else f"--{name}")
            words += [] if str(value).startswith("-") else [str(value)]
        return shlex.join(words)


def pictures_in(folder: Path) -> list[Path]:
    """The files of a store, or of a folder and those below it, without sheets. Raises UserError for none."""
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} is not a folder")
    return files_in(str(folder / "cells" if (folder / "store.json").exists() else folder))


def read_entries(folder: Path) -> tuple[list[Entry], list[Path]]:
    """The entries of a folder, and the files that carry no recipe of ours. Raises UserError."""
    check_format(folder / "store.json")
    entries, strangers = [], []
    for path in pictures_in(folder):
        try:
            claims = read_metadata(path)
            recipe = from_mapping(claims["recipe"])
        except UserError:
            claims = {}
        if "pixels" not in claims:  # none, or another program's
            strangers.append(path)
            continue
        entries.append(Entry(path, recipe, claims, derived_of(folder, path, recipe, claims)))
    if not entries:
        raise UserError(f"{folder} holds no picture with a recipe")
    return entries, strangers


def derived_of(folder: Path, path: Path, recipe: Recipe, claims: dict[str, Any]) -> Derived:
    """What is kept beside a cell; worked out now where it is missing, and kept if there is a store."""
    address = claims.get("cell", {}).get("address")
    kept = folder / "derived" / f"{address}.json"
    if address and (found := derived.read(kept)):
        return found
    made = derive(path, recipe)
    if address and kept.parent.is_dir():
        derived.write(kept, made)
    return made


def derive(path: Path, recipe: Recipe) -> Derived:
    """What is worked out from a file of this recipe. Raises UserError for one that can't be read."""
    if recipe.moving:
        return derived.derive_clip(path, start_of(recipe, clips.probe(path).size))
    return derived.derive(read(path), *edit_of(recipe))


def start_of(recipe: Recipe, size: tuple[int, int]) -> Picture | None:
    """The base picture that a clip of this size begins with, if it is still there."""
    if recipe.base_img is None:
        return None
    try:
        base = read(resolve(recipe.base_img))
    except UserError:
        return None
    return fit(base, *size, recipe.fit or "crop")


def edit_of(recipe: Recipe) -> tuple[Any, Any]:
    """The fitted base and what may be repainted, where the picture is an inpainting whose inputs are still there."""
    if recipe.moving or (recipe.mask_img is None and recipe.outpaint is None):
        return None, None
    try:
        base, mask = written_inputs(recipe)
    except UserError:
        return None, None
    return base, None if mask is None else mask.repaint


def axes_of(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    """The fields that differ between entries, with their values in order; seed and the like last."""
    found: dict[str, list[Any]] = {}
    asked = [name for entry in entries for name in entry.claims.get("cell", {}).get("at", {})][:20]
    for name in sorted(FIELDS, key=lambda n: (n in UNLIKE, asked.index(n) if n in asked else len(asked))):
        values = list(dict.fromkeys(getattr(entry.recipe, name) for entry in entries))
        if len(values) > 1:
            found[name] = in_order(name, values)
    return found


def in_order(name: str, values: list[Any]) -> list[Any]:
    """Numbers and seeds by size, choices as they are listed in the recipe, other texts as they came."""
    choices = FIELDS[name].metadata.get("choices", ())

    def key(value: Any) -> tuple[bool, float]:
        if value is None:
            return False, 0.0
        if name == "seed":
            return True, float(value) if value.isdigit() else 0.0
        if isinstance(value, (int, float)):
            return True, float(value)
        return True, float(choices.index(value)) if value in choices else 0.0

    return sorted(values, key=key)


def same_all_along(entries: Sequence[Entry], axes: dict[str, list[Any]]) -> list[str]:
    """Axes along which there are several pictures, all the same, pixel for pixel; of zipped fields none is alone."""
    found = []
    for name in axes:
        rest = [n for n in axes if n != name]
        along: dict[Any, list[str]] = {}
        for entry in entries:
            along.setdefault(place_of(entry, rest), []).append(seen_pixels(entry))
        if any(len(line) > 1 for line in along.values()) and all(len(set(line)) == 1 for line in along.values()):
            found.append(name)
    return found


def seen_pixels(entry: Entry) -> str:
    """The hash of what one sees: the picture, or the frames that a clip's file decodes to."""
    return str(entry.claims.get("decoded", entry.claims["pixels"]))


def place_of(entry: Entry, names: Sequence[str]) -> tuple[Any, ...]:
    """Where an entry lies on these axes."""
    return tuple(getattr(entry.recipe, name) for name in names)


def fullest(entries: Sequence[Entry], axes: dict[str, list[Any]], names: Sequence[str]) -> dict[str, Any]:
    """The place on the axes `names` where most entries lie, the first in the axes' order of several.

    Fields that move together, and conditions, leave places empty: the first value of each axis may be one.
    """
    places = Counter(place_of(entry, names) for entry in entries)

    def rank(place: tuple[Any, ...]) -> tuple[int, list[int]]:
        return places[place], [-axes[name].index(value) for name, value in zip(names, place, strict=True)]

    place = max(places, key=rank)
    return dict(zip(names, place, strict=True))


def parse_reference(words: Sequence[str]) -> dict[str, Any]:
    """`sampler=heun steps=100` as fields. Raises UserError."""
    found: dict[str, Any] = {}
    for word in words:
        axis = parse_axis(word)
        if len(axis.values) != 1:
            raise UserError(f"--reference {word}: one value is needed")
        found |= dict(zip(axis.names, axis.values[0], strict=True))
    return found


def with_reference(entries: Sequence[Entry], reference: dict[str, Any], folder: Path) -> list[Entry]:
    """Each entry with its numbers to the one at the same place but for `reference`'s fields. Raises UserError."""
    axes = list(axes_of(entries))
    for name in reference:
        if name not in axes:
            raise UserError(f"--reference {name} is no axis here{among(name, axes)}")
    rest = [name for name in axes if name not in reference]
    targets = {
        place_of(entry, rest): entry
        for entry in entries
        if all(getattr(entry.recipe, name) == value for name, value in reference.items())
    }
    if not targets:
        raise UserError(f"--reference {reference}: no picture is there")
    return [
        paired(entry, targets[at], folder) if (at := place_of(entry, rest)) in targets else entry for entry in entries
    ]


def paired(entry: Entry, target: Entry, folder: Path) -> Entry:
    """The entry with its numbers to the target, kept beside the cells of a store."""
    if entry.path == target.path:
        return entry
    names = [e.claims.get("cell", {}).get("address", e.path.stem) for e in (entry, target)]
    kept = folder / "derived" / "{}~{}.json".format(*names)
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if found.get("version") != measures.VERSION:
        numbers = pair_numbers(entry, target)
        found = {"version": measures.VERSION, "pair": finite(numbers)}
        if kept.parent.is_dir():
            write_text(kept, json.dumps(found))
    return replace(entry, pair=found["pair"])


def with_similarity(entries: Sequence[Entry], judge: Judge, folder: Path) -> list[Entry]:
    """Each entry with the similarity of its picture to its prompt, kept beside the cells of a store."""
    kept = folder / "derived" / f"similarity-{judge.key}.json"
    try:
        known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    found = []
    for i, entry in enumerate(entries):
        key = entry.claims["pixels"] + entry.recipe.prompt
        if key not in known:
            known[key] = similarity(judge, entry.path, entry.recipe.prompt)
        found.append(replace(entry, pair={"similarity": known[key], **entry.pair}))
        if kept.parent.is_dir() and (i % KEEP_EVERY == 0 or i == len(entries) - 1):
            write_text(kept, json.dumps(known))
    return found


def pair_numbers(entry: Entry, target: Entry) -> Numbers:
    """Of two pictures, or of two clips frame by frame. Raises UserError for other sizes."""
    if entry.recipe.moving:
        return clip_measures.of_pair(clips.frames(entry.path), clips.frames(target.path))
    return measures.of_pair(read(entry.path), read(target.path))


def finite(numbers: Numbers) -> Numbers:
    """JSON knows no infinity: equal pictures have no PSNR."""
    return {name: value for name, value in numbers.items() if abs(value) != float("inf")}


def row_of(entry: Entry, axes: Sequence[str]) -> dict[str, Any]:
    """The entry as a flat row of a table: its place, its numbers, its file."""
    at = {name: getattr(entry.recipe, name) for name in axes}
    return {**at, **entry.numbers, "file": str(entry.path)}


def environment(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """What computed the pictures: each fact with its values."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        facts = entry.claims.get("provenance", {})
        names = ("noisette", "engine", "precision", "device", "processor", "model_hash")
        for name in names:
            found.setdefault(name, {})[str(facts.get(name))] = None
        for package, number in facts.get("versions", {}).items():
            found.setdefault(package, {})[number] = None
    return {name: list(values) for name, values in found.items()}


def named(path: str) -> Path:
    """A folder or a file that a user names. Raises UserError."""
    return Path(path) if Path(path).is_dir() else resolve(path)
