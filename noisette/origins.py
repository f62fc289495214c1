"""The inputs of a written file as they are now: where they are, and whether they are those it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from noisette.errors import UserError
from noisette.reading import resolve
from noisette.recipe import INPUTS, Recipe
from noisette.record import file_hash


@dataclass(frozen=True)
class Origin:
    """One input: its field, where it was, where a file is now (None: nowhere), whether that has the same bytes."""

    name: str
    path: str
    found: Path | None
    same: bool

    def to_text(self) -> str:
        """What is wrong with one that is not the same."""
        if self.found is None:
            where = f": --{self.name} PATH says where it is now" if self.name in INPUTS else ""
            return f"--{self.name} {self.path} is gone{where}"
        if self.found.absolute() == Path(self.path).absolute():
            return f"--{self.name} {self.path} has changed since"
        return f"--{self.name} {self.found} is not the file it was made from"


def origins(file: Path, claims: Mapping[str, Any], given: Mapping[str, Path]) -> list[Origin]:
    """All inputs that a file's metadata record; `given` names where some are now.

    Raises UserError for a given one that the file was made without.
    """
    recorded = claims.get("provenance", {}).get("inputs", {})
    for name in given:
        if name not in recorded:
            raise UserError(f"--{name} {given[name]}: {file} was made without one")
    asked = claims["recipe"]
    return [
        origin(name, claim, [given[name]] if name in given else places(file, claim["path"], asked.get(name)))
        for name, claim in recorded.items()
    ]


def origin(name: str, claim: Mapping[str, str], at: list[Path]) -> Origin:
    """The first of the places whose file has the recorded hash, else the first that has a file."""
    same = next((place for place in at if file_hash(place) == claim["sha256"]), None)
    return Origin(name, claim["path"], same or next(iter(at), None), same is not None)


def places(file: Path, recorded: str, asked: str | None) -> list[Path]:
    """Files that may be an input: where it was; from the file's folder and those above, by the path that was asked
    for, where both were moved together; beside the file.
    """
    asked = asked or recorded
    above = (str(folder / asked) for folder in file.absolute().parents)
    beside = str(file.with_name(PureWindowsPath(asked).name))
    return [found for path in dict.fromkeys((recorded, *above, beside)) if (found := there(path))]


def there(path: str) -> Path | None:
    """The file that a path names, if it is there."""
    try:
        return resolve(path)
    except UserError:
        return None


def relocated(recipe: Recipe, found: list[Origin]) -> Recipe:
    """The recipe with those inputs that are the same where they are now; paths that lead there from here stay."""
    now = {origin.name: origin.found for origin in found if origin.name in INPUTS and origin.found and origin.same}
    moved: dict[str, Any] = {
        name: str(at)
        for name, at in now.items()
        if (own := there(getattr(recipe, name))) is None or own.absolute() != at.absolute()
    }
    return replace(recipe, **moved)
