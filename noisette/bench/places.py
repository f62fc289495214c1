"""Places: where pictures and clips lie among others, told by what was asked for, not by what followed from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from noisette.bench.axes import parse_axis
from noisette.errors import UserError
from noisette.recipe import ALTERING_NOTHING, FIELDS, Recipe, among, field_name

UNLIKE = ("engine", "device", "precision", "model", "seed")  # axes that come last in a grid
NAMED = 12  # values in an error


@dataclass(frozen=True)
class Place:
    """A recipe as it was asked for, and the axes of its sweep in their order."""

    asked: Recipe
    swept: tuple[str, ...]


P = TypeVar("P", bound=Place)


def left_open(asked: Recipe, planned: Recipe) -> tuple[str, ...]:
    """The fields that the plan gave their values, where nobody else did."""
    return tuple(
        name
        for name, field in FIELDS.items()
        if getattr(asked, name) == field.default != getattr(planned, name) and name not in ALTERING_NOTHING
    )


def as_asked(told: Sequence[tuple[Recipe, Sequence[str]]]) -> list[Recipe]:
    """Of complete recipes with what was left open in each: open again what comes to other values among them.

    Two models have two default samplers, two numbers of steps two default strengths: nobody asked for such an axis.
    """
    came_to: dict[str, set[Any]] = {}
    for recipe, names in told:
        for name in names:
            came_to.setdefault(name, set()).add(getattr(recipe, name))
    varying = {name for name, values in came_to.items() if len(values) > 1}
    opened: list[dict[str, Any]] = [{n: FIELDS[n].default for n in names if n in varying} for _, names in told]
    return [replace(recipe, **fields) for (recipe, _), fields in zip(told, opened, strict=True)]


def axes_of(places: Sequence[Place]) -> dict[str, list[Any]]:
    """The fields that differ between places, with their values in order; seed and the like last."""
    found: dict[str, list[Any]] = {}
    swept = list(dict.fromkeys(name for place in places for name in place.swept))
    for name in sorted(FIELDS, key=lambda n: (n in UNLIKE, swept.index(n) if n in swept else len(swept))):
        values = list(dict.fromkeys(getattr(place.asked, name) for place in places))
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


def place_of(place: Place, names: Iterable[str]) -> tuple[Any, ...]:
    """Where a place lies on these axes."""
    return tuple(getattr(place.asked, name) for name in names)


def fullest(places: Sequence[Place], axes: dict[str, list[Any]], names: Sequence[str]) -> dict[str, Any]:
    """The values of the axes `names` where most lie, the first in the axes' order of several.

    Fields that move together, and conditions, leave places empty: the first value of each axis may be one.
    """
    counts = Counter(place_of(place, names) for place in places)

    def rank(values: tuple[Any, ...]) -> tuple[int, list[int]]:
        return counts[values], [-axes[name].index(value) for name, value in zip(names, values, strict=True)]

    most = max(counts, key=rank)
    return dict(zip(names, most, strict=True))


def partners(places: Sequence[P], reference: dict[str, Any]) -> list[P | None]:
    """For each the one at the same place but for `reference`'s fields, None where there is none. Raises UserError."""
    axes = axes_of(places)
    for name, value in reference.items():
        check_axis("reference", name, axes)
        if value not in axes[name]:
            there = ", ".join(map(str, axes[name][:NAMED])) + ", …" * (len(axes[name]) > NAMED)
            raise UserError(f"--reference {name}={value}: no cell is there; there are: {there}")
    rest = [name for name in axes if name not in reference]
    wanted = tuple(reference.values())
    targets = {place_of(place, rest): place for place in places if place_of(place, reference) == wanted}
    if not targets:
        fields = " ".join(f"{name}={value}" for name, value in reference.items())
        raise UserError(f"--reference {fields}: no cell has all of these values")
    return [targets.get(place_of(place, rest)) for place in places]


def check_axis(flag: str, name: str, axes: dict[str, list[Any]]) -> None:
    """Raises UserError for a field that does not vary."""
    if name not in axes:
        there = among(name, list(axes)) if axes else "; all cells have the same recipe"
        raise UserError(f"--{flag} {name} is no axis here{there}")


def parse_reference(words: Sequence[str]) -> dict[str, Any]:
    """`sampler=heun steps=100` as fields. Raises UserError."""
    found: dict[str, Any] = {}
    for word in words:
        head, _, value = word.partition("=")
        if not value:
            raise UserError(f"--reference {word!r} is no NAME=VALUE, as steps=50")
        for name in head.split("+"):
            field_name(name, "--reference")
        axis = parse_axis(word)
        if len(axis.values) != 1:
            raise UserError(f"--reference {word}: one value is needed")
        found |= dict(zip(axis.names, axis.values[0], strict=True))
    return found
