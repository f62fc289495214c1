"""The report of a store: one HTML file that needs no network, a contact sheet, a table."""

from __future__ import annotations

import csv
import html
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from noisette.bench import clip_measures, measures, sheet
from noisette.bench.cells import Cell, counted
from noisette.bench.entries import (
    Entry,
    environment,
    left_open_in,
    read_entries,
    row_of,
    same_all_along,
    swept_in,
    tell,
)
from noisette.bench.files import write_text
from noisette.bench.places import Place, as_asked, axes_of, check_axis, partners, place_of
from noisette.bench.references import with_base, with_reference, with_similarity
from noisette.bench.similarity import Judge
from noisette.bench.store import Store
from noisette.recipe import ALTERING_NOTHING, FIELDS

PAGE = Path(__file__).parent / "page.html"
EMBEDDED = 3000  # pictures whose previews stand in the page; more are read from the files beside it
QUALITY = (
    "psnr",
    "similarity",
    "seam_excess",
    "base_psnr",
    "flicker",
    "sharpness",
)  # the plot begins with the first there


@dataclass(frozen=True)
class Report:
    """What was written."""

    html: Path
    sheet: Path
    table: Path
    pictures: int
    kind: str
    notes: tuple[str, ...]


def report(
    folder: Path,
    rows: str | None = None,
    columns: str | None = None,
    reference: dict[str, Any] | None = None,
    judge: Judge | None = None,
) -> Report:
    """Writes report.html, sheet.png and table.csv into the folder of a store or of pictures. Raises UserError."""
    entries, strangers = read_entries(folder)
    rows, columns = chosen(rows, columns, axes_of(entries))
    entries = with_base(entries, folder)
    if reference:
        entries = with_reference(entries, reference, folder)
    if judge:
        entries = with_similarity(entries, judge, folder)
    axes = axes_of(entries)
    entries = sorted(entries, key=lambda e: [values.index(getattr(e.asked, name)) for name, values in axes.items()])
    notes = notes_of(entries, axes, strangers, reference)
    notes += [f"similarity: {judge.about}"] if judge else []
    paths = [folder / name for name in ("report.html", "sheet.png", "table.csv")]
    write_text(paths[0], page(folder, entries, axes, rows, columns, notes))
    sheet.draw(entries, rows, columns, paths[1])
    write_text(paths[2], table(entries, list(axes)))
    return Report(paths[0], paths[1], paths[2], len(entries), kind_of(entries), tuple(notes))


def check(
    cells: Sequence[Cell], store: Store, rows: str | None, columns: str | None, reference: dict[str, Any]
) -> None:
    """Holds what is asked of a report against the cells that are there and will be, before hours of work.

    Raises UserError.
    """
    if not (rows or columns or reference):
        return
    done = store.done()
    there = [found for path in done.values() if (found := tell(path))]
    told = [(recipe, left_open_in(claims), swept_in(claims)) for recipe, claims in there]
    told += [
        (replace(cell.recipe, **ALTERING_NOTHING), cell.left_open, tuple(cell.at))
        for cell in cells
        if cell.address not in done
    ]
    asked = as_asked([(recipe, names) for recipe, names, _ in told])
    places = [Place(recipe, swept) for recipe, (_, _, swept) in zip(asked, told, strict=True)]
    chosen(rows, columns, axes_of(places))
    partners(places, reference)


def chosen(rows: str | None, columns: str | None, axes: dict[str, list[Any]]) -> tuple[str | None, str | None]:
    """The axes of the grid: those named, else the first ones. Raises UserError for one that does not vary."""
    for flag, name in (("rows", rows), ("columns", columns)):
        if name is not None:
            check_axis(flag, name, axes)
    free = [name for name in axes if name not in (rows, columns)]
    if rows is None and len(axes) > 1 and free:
        rows = free.pop(0)
    if columns is None and free:
        columns = free.pop(0)
    return rows, columns


def notes_of(
    entries: Sequence[Entry], axes: dict[str, list[Any]], strangers: Sequence[Path], reference: dict[str, Any] | None
) -> list[str]:
    """What a reader must know before believing the numbers."""
    notes = [f"axis {name} changes nothing: pictures along it are the same" for name in same_all_along(entries, axes)]
    if reference:
        fields = ", ".join(f"{name} {value}" for name, value in reference.items())
        notes.append(f"distances are to what is at {fields}; those of base_… to the base")
        away = [entry for entry in entries if place_of(entry, reference) != tuple(reference.values())]
        if alone := sum("delta_e" not in entry.pair for entry in away):
            notes.append(f"{alone} of {len(entries)} have no such partner of their size")
    weights: dict[str, set[str]] = {}
    for entry in entries:
        weights.setdefault(entry.recipe.model, set()).add(str(entry.claims.get("provenance", {}).get("model_hash")))
    for model, hashes in weights.items():
        if len(hashes) > 1:
            notes.append(f"{len(hashes)} sets of weights of {model} are mixed here: give each a folder of its own")
    if strangers:
        notes.append(f"left out, for they carry no recipe: {len(strangers)} of {len(strangers) + len(entries)} files")
    if not measures.has_skimage():
        notes.append(f"without scikit-image there is no SSIM: {measures.INSTALL}")
    return notes


def page(
    folder: Path,
    entries: Sequence[Entry],
    axes: dict[str, list[Any]],
    rows: str | None,
    columns: str | None,
    notes: list[str],
) -> str:
    """The HTML with its data inside."""
    data = facts(folder, entries, axes, notes) | {"rows": rows, "columns": columns}
    if columns in axes and is_numeric(axes[columns]):  # the plot asks what the grid asks
        data["x"] = columns
        data["series"] = rows or data["series"]
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    template = PAGE.read_text(encoding="utf-8")
    return template.replace("TITLE", html.escape(str(data["title"])), 1).replace("DATA", text, 1)


def facts(folder: Path, entries: Sequence[Entry], axes: dict[str, list[Any]], notes: list[str]) -> dict[str, Any]:
    """Everything the page shows."""
    first, kind = entries[0].asked, kind_of(entries)
    names = list(axes)
    numeric = [name for name in names if is_numeric(axes[name])]
    series = [name for name in names if name not in numeric and name != "seed"]
    here = [name for name in QUALITY if any(name in entry.numbers for entry in entries)]
    places = {name: {value: i for i, value in enumerate(values)} for name, values in axes.items()}
    with_previews = len(entries) <= EMBEDDED
    return {
        "title": f"{folder.resolve().name}: {first.prompt}" if "prompt" not in axes else folder.resolve().name,
        "about": f"{counted(len(entries), kind)}; " + ", ".join(f"{n} ({len(v)})" for n, v in axes.items()),
        "kind": kind,
        "axes": axes,
        "common": {name: value for name, value in asdict(first).items() if name not in axes and matters(name, value)},
        "x": numeric[0] if numeric else "seconds",
        "y": here[0],
        "series": series[0] if series else None,
        "measures": measures.ABOUT | (clip_measures.ABOUT if first.moving else {}),
        "environment": environment(entries),
        "notes": notes,
        "entries": [
            {
                "at": [places[name][getattr(entry.asked, name)] for name in names],
                "n": {name: rounded(value) for name, value in entry.numbers.items()},
                "f": Path(os.path.relpath(entry.path, folder)).as_posix(),
                "c": entry.command(),
                "h": entry.claims["pixels"],
                **({"p": entry.derived.preview} if with_previews else {}),
            }
            for entry in entries
        ],
    }


def kind_of(entries: Sequence[Entry]) -> str:
    """What they are: a picture, or a clip."""
    return "clip" if entries[0].recipe.moving else "picture"


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether an axis can be drawn along."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def matters(name: str, value: Any) -> bool:
    """Whether a field that all share is worth showing."""
    return value != FIELDS[name].default


def rounded(value: float) -> float:
    """Six digits: a page holds thousands of numbers."""
    return float(f"{value:.6g}")


def table(entries: Sequence[Entry], axes: Sequence[str]) -> str:
    """All entries as CSV, a picture a row."""
    rows = [row_of(entry, axes) for entry in entries]
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
