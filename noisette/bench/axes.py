"""Axes of a sweep: what is written on a command line or in a file, to recipes. Standard library only.

    steps=5..50:5   sampler=euler,heun   seed=0..7   img_w+img_h=128+128,192+128

Commas part values (a value with a comma stands in quotes), `..` is an inclusive range, `+` zips fields.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from noisette.bench.conditions import Condition, parse_condition
from noisette.bench.ranges import MAX_CELLS, spread
from noisette.clip_fields import NUM_FRAMES
from noisette.errors import UserError
from noisette.recipe import FIELDS, Recipe, among, check_field, field_name, kind, parse, parse_seeds

FILE_KEYS = ("recipe", "axes", "where", "reference")

Cell = tuple[dict[str, Any], Recipe]  # its coordinates, and the recipe of its one picture or clip


@dataclass(frozen=True)
class Axis:
    """Fields that move together through `values`, one tuple a position; a plain axis has one field."""

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Sweep:
    """Fields given for all cells, axes to cross, and conditions that a cell must meet."""

    given: dict[str, Any] = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()
    where: tuple[Condition, ...] = ()
    reference: tuple[str, ...] = ()  # axes at one value: what the report compares with


def parse_axis(text: str) -> Axis:
    """`name=value,value,…`, with a range where the field is a number or the seed. Raises UserError."""
    head, equals, tail = text.partition("=")
    if not equals:
        raise UserError(f"--sweep {text!r} is neither name=values nor a .toml or .csv file")
    names = tuple(field_name(word, "--sweep") for word in head.split("+"))
    words = next(csv.reader([tail], skipinitialspace=True), [])
    if len(names) == 1:
        rows = [(value,) for word in words for value in spread(names[0], word)]
    else:
        rows = [zipped(head, names, word) for word in words]
    return make_axis(head, names, rows)


def zipped(head: str, names: tuple[str, ...], word: str) -> tuple[Any, ...]:
    """One position of a zipped axis: as many values as names, parted by +."""
    parts = word.split("+")
    if len(parts) != len(names):
        raise UserError(f"--sweep {head}: {word!r} holds {len(parts)} values for {len(names)} fields")
    return tuple(parse(name, part) for name, part in zip(names, parts, strict=True))


def make_axis(head: str, names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> Axis:
    """The axis, each value held against its field's rules. Raises UserError."""
    if not rows:
        raise UserError(f"--sweep {head} has no values")
    check_apart([Axis(names, ())])
    for name in names:
        if not FIELDS[name].metadata.get("alters", True):
            raise UserError(f"--sweep {name} changes nothing: pictures do not depend on it")
    for row in rows:
        for name, value in zip(names, row, strict=True):
            check_field(name, value)
            if name == "seed" and len(parse_seeds(value)) != 1:
                raise UserError(f"--sweep seed: {value!r} is not one seed")
    seen = list(dict.fromkeys(rows))
    if len(seen) < len(rows):
        twice = next(row for i, row in enumerate(rows) if row in rows[:i])
        raise UserError(f"--sweep {head} has {'+'.join(map(str, twice))} twice")
    return Axis(names, tuple(rows))


def read_sweep(words: Sequence[str], where: Sequence[str], given: dict[str, Any]) -> Sweep:
    """All of --sweep, --where and the flags. An axis of the command line replaces a file's. Raises UserError."""
    sweep = Sweep()
    for word in words:
        if "=" not in word and Path(word).suffix.lower() in (".toml", ".csv"):
            sweep = merge(sweep, read_file(Path(word)))
    axes = [parse_axis(w) for w in words if "=" in w or Path(w).suffix.lower() not in (".toml", ".csv")]
    check_apart(axes)
    sweep = merge(sweep, Sweep(given, tuple(axes), tuple(map(parse_condition, where))))
    for name in given:
        if any(name in axis.names for axis in sweep.axes):
            raise UserError(f"--{name} is an axis of the sweep too: give one of both")
    return sweep


def merge(under: Sweep, over: Sweep) -> Sweep:
    """Both, `over` first where they speak of the same field."""
    names = {name for axis in over.axes for name in axis.names}
    kept = tuple(axis for axis in under.axes if not names & set(axis.names))
    given = {name: value for name, value in {**under.given, **over.given}.items() if name not in names}
    return Sweep(given, kept + over.axes, under.where + over.where, over.reference or under.reference)


def read_file(path: Path) -> Sweep:
    """A sweep file: TOML ([recipe], [axes], where), or CSV, a cell a row and a field a column. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"--sweep {path} is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--sweep {path} can't be read: {error}") from None
    try:
        return from_csv(text) if path.suffix.lower() == ".csv" else from_toml(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def from_csv(text: str) -> Sweep:
    """One zipped axis: the header names fields, an empty cell is the field's default."""
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if any(map(str.strip, row))]
    if len(rows) < 2:
        raise UserError("no rows below the header")
    names = tuple(field_name(word, "--sweep") for word in rows[0])
    for i, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise UserError(f"row {i} has {len(row)} columns, the header {len(names)}")
    values = [
        tuple(parse(n, word) if word.strip() else FIELDS[n].default for n, word in zip(names, row, strict=True))
        for row in rows[1:]
    ]
    return Sweep(axes=(make_axis("+".join(names), names, values),))


def from_toml(text: str) -> Sweep:
    """[recipe] holds fixed fields, [axes] lists or texts as on the command line, `where` conditions.

    [reference] names the axes' values that the report compares with.
    """
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not TOML: {error}") from None
    for key in values:
        if key not in FILE_KEYS:
            raise UserError(f"unknown key {key!r}{among(key, FILE_KEYS)}")
    recipe, axes, reference = (table_of(values, key) for key in ("recipe", "axes", "reference"))
    named = [(field_name(word, "[recipe]"), value) for word, value in recipe.items()]
    given = {name: plain(name, value) for name, value in named}
    for name, value in given.items():
        check_field(name, value)
    where = values.get("where", [])
    conditions = [where] if isinstance(where, str) else where
    if not isinstance(conditions, list) or not all(isinstance(condition, str) for condition in conditions):
        raise UserError(f"where is neither a text nor a list of texts: {where!r}")
    crossed = tuple(toml_axis(head, value) for head, value in axes.items())
    check_apart(crossed)
    return Sweep(
        given,
        crossed,
        tuple(parse_condition(condition) for condition in conditions),
        tuple(f"{name}={value}" for name, value in reference.items()),
    )


def table_of(values: dict[str, Any], key: str) -> dict[str, Any]:
    """A table of a sweep file, empty where it is left out. Raises UserError."""
    table = values.get(key, {})
    if not isinstance(table, dict):
        raise UserError(f"{key} is no table: write [{key}] and NAME = VALUE below it")
    return table


def check_apart(axes: Sequence[Axis]) -> None:
    """Raises UserError for a field that is an axis twice, whatever its name."""
    names = [name for axis in axes for name in axis.names]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"--sweep {twice[0]} is an axis twice")


def toml_axis(head: str, value: Any) -> Axis:
    """A text as on the command line, or a list: of values, or of lists where fields are zipped."""
    if isinstance(value, str):
        return parse_axis(f"{head}={value}")
    if not isinstance(value, list):
        raise UserError(f"axis {head} is neither a list nor a text such as '5..50:5': {value!r}")
    names = tuple(field_name(word, "--sweep") for word in head.split("+"))
    rows = []
    for item in value:
        parts = item if isinstance(item, list) else [item]
        if len(parts) != len(names):
            raise UserError(f"axis {head}: {item!r} holds {len(parts)} values for {len(names)} fields")
        rows.append(tuple(plain(name, part) for name, part in zip(names, parts, strict=True)))
    return make_axis(head, names, rows)


def plain(name: str, value: Any) -> Any:
    """A TOML value as the field has it: seeds are text, whole numbers may stand for floats, "" is the default."""
    if value == "":
        return FIELDS[name].default
    if name == "seed" and isinstance(value, int):
        return str(value)
    return float(value) if kind(name) is float and type(value) is int else value


def base_of(sweep: Sweep) -> Recipe:
    """What all cells share. A field of clips makes each a clip, of as many frames as video.py makes.

    Raises UserError where pictures' own fields stand beside clips' own.
    """
    names = [*sweep.given, *(name for axis in sweep.axes for name in axis.names)]
    only = {word: [n for n in names if FIELDS[n].metadata.get("only") == word] for word in ("image", "video")}
    if only["image"] and only["video"]:
        raise UserError(
            f"--{only['image'][0]} is of pictures, --{only['video'][0]} of clips: a sweep makes one or the other"
        )
    if previews := {"preview_every", "preview_decoder"} & set(names):
        raise UserError(f"--{min(previews)} shows pictures in the making: a sweep has the finished ones")
    counted = {"num_frames", "base_video"} & set(names)
    frames: dict[str, Any] = {"num_frames": NUM_FRAMES} if only["video"] and not counted else {}
    return replace(Recipe(), **frames, **sweep.given)


def cells(sweep: Sweep) -> Iterator[Cell]:
    """The crossed axes in order, the last fastest, a recipe of one picture or clip each; conditions applied.

    Without a seed it is 0, so that a second run finds the first one's pictures; several seeds become an axis.
    Raises UserError where nothing is left or there are too many.
    """
    base = base_of(sweep)
    axes = list(sweep.axes)
    if not axes:
        raise UserError("--sweep names no axis: steps=5..50:5, or [axes] in a file")
    swept = any("seed" in axis.names for axis in axes)
    if swept and base.count > 1:
        raise UserError(f"--count {base.count} can't stand beside --sweep seed, whose values are all the seeds")
    if not swept:
        axes.append(Axis(("seed",), tuple((str(s),) for s in parse_seeds(base.seed or "0", base.count))))
    asked = math.prod(len(axis.values) for axis in axes)
    if asked > MAX_CELLS:
        raise UserError(f"--sweep crosses to {asked:,} cells: at most {MAX_CELLS:,}")
    found = False
    for rows in itertools.product(*(axis.values for axis in axes)):
        at = {name: v for axis, row in zip(axes, rows, strict=True) for name, v in zip(axis.names, row, strict=True)}
        recipe = replace(base, **at, count=1)
        if all(condition.holds(recipe) for condition in sweep.where):
            found = True
            yield at, recipe
    if not found:
        raise UserError(f"--where leaves none of {asked:,} cells")
