"""The files of a store, or of any folder of noisette's files, as rows: recipe, provenance, measures, preview."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noisette import clips
from noisette.bench import derived
from noisette.bench.derived import Derived
from noisette.bench.measures import Numbers
from noisette.bench.places import Place, as_asked, place_of
from noisette.bench.store import check_format
from noisette.errors import UserError
from noisette.inputs import written_inputs
from noisette.metadata import read_metadata
from noisette.pixels import fit
from noisette.reading import Picture, read, resolve
from noisette.recipe import Recipe, from_mapping
from noisette.verify import files_in


@dataclass(frozen=True)
class Entry(Place):
    """One picture or clip: what its file says, what was worked out from it, and numbers to others."""

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
    paths = pictures_in(folder)
    told = {path: found for path in paths if (found := tell(path))}
    if not told:
        raise UserError(f"{folder} holds no picture with a recipe")
    asked = as_asked([(recipe, left_open_in(claims)) for recipe, claims in told.values()])
    entries = [
        Entry(as_one_asked, swept_in(claims), path, recipe, claims, derived_of(folder, path, recipe, claims))
        for as_one_asked, (path, (recipe, claims)) in zip(asked, told.items(), strict=True)
    ]
    return entries, [path for path in paths if path not in told]


def tell(path: Path) -> tuple[Recipe, dict[str, Any]] | None:
    """The recipe and all that a file of ours says of itself; None for a file without, or another program's."""
    try:
        claims = read_metadata(path)
        recipe = from_mapping(claims["recipe"])
    except UserError:
        return None
    return (recipe, claims) if "pixels" in claims else None


def left_open_in(claims: dict[str, Any]) -> tuple[str, ...]:
    """The fields that the file's sweep left to the model; of a picture without a sweep none is known."""
    return tuple(claims.get("cell", {}).get("left_open", ()))


def swept_in(claims: dict[str, Any]) -> tuple[str, ...]:
    """The axes of the file's sweep, in their order."""
    return tuple(claims.get("cell", {}).get("at", ()))


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


def row_of(entry: Entry, axes: Sequence[str]) -> dict[str, Any]:
    """The entry as a flat row of a table: its place, its numbers, its file."""
    at = dict(zip(axes, place_of(entry, axes), strict=True))
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
