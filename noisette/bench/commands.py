"""The bench on the command line: `noisette sweep`, and what is done with its store."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette.bench.axes import Sweep, cells, read_sweep
from noisette.cli import Parser, add_recipe_flags
from noisette.errors import UserError
from noisette.recipe import FIELDS, Recipe, check, field_name, parse, parse_number

if TYPE_CHECKING:
    from noisette.bench.cells import Cell
    from noisette.bench.similarity import Judge
    from noisette.bench.store import Store

NAMED_IN_NOTES = 8
MAX_WORKERS = 1000


def sweep_parser(prog: str) -> Parser:
    """The recipe's flags, and the axes."""
    parser = Parser(
        prog=prog,
        description="Make a picture or a clip for each combination of values; a second run makes what is missing.",
        epilog="An axis: steps=5..50:5 (inclusive), sampler=euler,heun, seed=0..7, img_w+img_h=128+128,192+128"
        " (zipped), or a file: .toml with [recipe], [axes], where; .csv with a cell a row. With a flag or an axis"
        " of clips (--num_frames 16) the cells are clips.",
    )
    parser.add_argument(
        "--sweep", nargs="+", action="extend", default=[], metavar="AXIS", help="NAME=VALUES, or a TOML or CSV file"
    )
    only = "only cells with, say, 'steps <= 20 or sampler != heun'"
    parser.add_argument("--where", action="append", default=[], metavar="TEXT", help=only)
    add_recipe_flags(parser, "image", "video")
    add_report_flags(parser)
    parser.add_argument("--out", default="out", metavar="DIR", help="the store: pictures, report, all (default out)")
    parser.add_argument("--on", metavar="WHERE", help="ray: a Ray cluster or this machine; ray://host:10001")
    parser.add_argument("--workers", metavar="N", help="workers on Ray (default: one a GPU, or one a node)")
    parser.add_argument("--plan", action="store_true", help="count the cells, estimate the time, and stop")
    parser.add_argument("--json", action="store_true", help="for machines: one JSON object a line")
    parser.add_argument("--lenient", action="store_true", help="an argument without effect is a warning")
    return parser


def asked_sweep(values: argparse.Namespace) -> Sweep:
    """The sweep of a parsed command line. Raises UserError."""
    if not values.sweep:
        raise UserError("--sweep is missing: name an axis, as in --sweep steps=5..50:5")
    given = {name: parse(name, text) for name in FIELDS if (text := getattr(values, name, None)) is not None}
    check(Recipe(**given))
    return read_sweep(values.sweep, values.where, given)


def sweep(argv: Sequence[str], prog: str) -> int:
    """Runs a sweep. Returns 0 when every cell is done and proved, 1 otherwise."""
    values = sweep_parser(prog).parse(argv)
    from noisette.bench.cells import resolve
    from noisette.bench.places import parse_reference
    from noisette.bench.report import check as check_report
    from noisette.bench.run import missing
    from noisette.bench.store import Store
    from noisette.names import check_writable

    check_where(values)
    asked = asked_sweep(values)
    store = Store(Path(values.out))
    reference = parse_reference(values.reference or asked.reference)
    rows, columns = grid_of(values)
    found, notes = resolve(cells(asked), values.lenient)
    check_report(found, store, rows, columns, reference)
    judge = judge_of(values)
    check_writable(store.root)
    for note in notes[:NAMED_IN_NOTES]:
        print(f"note: {note}", file=sys.stderr)
    todo = missing(found, store)
    if values.plan:
        from noisette.bench.estimate import plan_text

        print(plan_text(found, todo, store, values.json))
        return 0
    code = carry_out(found, todo, store, values)
    if store.done():
        write_report(store.root, values, reference, judge)
    return code


def judge_of(values: argparse.Namespace) -> Judge | None:
    """Who --similarity names, looked at but not loaded. Raises UserError."""
    if values.similarity is None:
        return None
    from noisette.bench.similarity import find

    return find(values.similarity)


def write_report(folder: Path, values: argparse.Namespace, reference: dict[str, Any], judge: Judge | None) -> None:
    """The page, the sheet and the table, with a line to say so. Raises UserError."""
    from noisette.bench.cells import counted
    from noisette.bench.report import report as make_report

    made = make_report(folder, *grid_of(values), reference, judge)
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{made.html}, {made.sheet}, {made.table}: {counted(made.pictures, made.kind)}", file=sys.stderr)


def grid_of(values: argparse.Namespace) -> tuple[str | None, str | None]:
    """The fields of --rows and --columns. Raises UserError."""
    rows = None if values.rows is None else field_name(values.rows, "--rows")
    return rows, None if values.columns is None else field_name(values.columns, "--columns")


def add_report_flags(parser: Parser) -> None:
    """How a report is laid out."""
    parser.add_argument("--rows", metavar="AXIS", help="the axis down the grid (default: the first)")
    parser.add_argument("--columns", metavar="AXIS", help="the axis across the grid (default: the second)")
    parser.add_argument(
        "--reference", nargs="+", default=[], metavar="NAME=VALUE",
        help="PSNR, SSIM and CIEDE2000 to the picture at these values of axes, as sampler=heun steps=50",
    )  # fmt: skip
    add_similarity_flag(parser)


def add_similarity_flag(parser: Parser) -> None:
    """Who says how well pictures fit their prompts."""
    parser.add_argument(
        "--similarity", metavar="MODEL",
        help="text-image similarity by noisette-1's image encoder (noisette-1) or a folder with a CLIP model",
    )  # fmt: skip


def report(argv: Sequence[str], prog: str) -> int:
    """Writes the report of a folder."""
    parser = Parser(prog=prog, description="Write report.html, sheet.png and table.csv of a folder.")
    parser.add_argument("folder", metavar="DIR")
    add_report_flags(parser)
    values = parser.parse(argv)
    from noisette.bench.places import parse_reference

    write_report(Path(values.folder), values, parse_reference(values.reference), judge_of(values))
    return 0


def measure(argv: Sequence[str], prog: str) -> int:
    """Prints the numbers of pictures and clips, of pairs, or of two sets."""
    parser = Parser(prog=prog, description="Measure pictures and clips, alone, against references or as sets.")
    parser.add_argument("places", nargs="+", metavar="PATH", help="files and folders")
    parser.add_argument("--reference", metavar="PATH", help="a file, or a folder with files of the same names")
    parser.add_argument("--against", metavar="DIR", help="FID and KID between the pictures and this folder's")
    add_similarity_flag(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="the text of --similarity (default: each file's own prompt)")
    parser.add_argument("--json", action="store_true", help="for machines: one JSON object a line")
    values = parser.parse(argv)
    from noisette.bench import measuring

    if values.against is not None:
        found = measuring.between(values.places, values.against)
        if values.json:
            print(json.dumps({**asdict(found), "notes": found.notes}))
        else:
            print(found.to_text())
        return 0
    rows = []
    if values.prompt is not None and values.similarity is None:
        raise UserError("--prompt needs --similarity: noisette-1, or a folder with a CLIP model")
    for row in measuring.measure(values.places, values.reference, judge_of(values), values.prompt):
        rows.append(row)
        print(json.dumps(measuring.as_json(row)) if values.json else row.to_text(), flush=True)
    if len(rows) > 1 and not values.json:
        print(measuring.summary_text(rows))
    return 0


def compare(argv: Sequence[str], prog: str) -> int:
    """Sets two pictures, or two folders', side by side. Returns 0 when all pixels are equal, 1 otherwise."""
    parser = Parser(prog=prog, description="Two pictures or two folders side by side: flicker, difference, measures.")
    parser.add_argument("a", metavar="A", help="a picture or a folder")
    parser.add_argument("b", metavar="B", help="what it is compared with")
    parser.add_argument("--out", default="out", metavar="DIR", help="where compare.html and compare-sheet.png go")
    parser.add_argument("--json", action="store_true", help="for machines: one JSON object a line")
    values = parser.parse(argv)
    from noisette.bench.compare import compare as make_comparison

    made = make_comparison(values.a, values.b, Path(values.out))
    for pair in made.pairs:
        print(json.dumps(pair.describe()) if values.json else pair.to_text())
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{made.equal} of {len(made.pairs)} are equal; {made.html}, {made.sheet}", file=sys.stderr)
    return 0 if made.equal == len(made.pairs) else 1


def rerun(argv: Sequence[str], prog: str) -> int:
    """Makes the pictures of files again, from their own recipes."""
    parser = Parser(prog=prog, description="Make pictures again from the recipes inside files and folders.")
    parser.add_argument("places", nargs="+", metavar="PATH", help="files and folders")
    add_recipe_flags(parser, "image", "video")
    parser.add_argument("--out", default="out", metavar="DIR", help="where files go (default out)")
    parser.add_argument("--json", action="store_true", help="for machines: one JSON object a line")
    values = parser.parse(argv)
    given = {name: parse(name, text) for name in FIELDS if (text := getattr(values, name, None)) is not None}
    from noisette.bench.cells import counted
    from noisette.bench.rerun import recipes_of
    from noisette.bench.rerun import rerun as make_again

    recipes, notes = recipes_of(values.places, given)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    made = 0
    for saved in make_again(recipes, Path(values.out), lenient=not given):  # what stands in files may idle
        made += 1
        print(json.dumps(saved.describe(), ensure_ascii=False) if values.json else saved.to_text(), flush=True)
    print(f"{counted(made, 'file')} made again in {values.out}", file=sys.stderr)
    return 0


def workers_of(values: argparse.Namespace) -> int | None:
    """--workers as a number. Raises UserError."""
    if values.workers is None:
        return None
    count = int(parse_number("workers", values.workers, int))
    if not 1 <= count <= MAX_WORKERS:
        raise UserError(f"--workers {count} is out of range: 1 to {MAX_WORKERS}")
    return count


def check_where(values: argparse.Namespace) -> None:
    """--on and --workers are ones that mean something. Raises UserError."""
    if values.on is None and values.workers is not None:
        raise UserError("--workers needs --on ray")
    if values.on is not None and values.on != "ray" and not values.on.startswith("ray://"):
        raise UserError(f"--on {values.on!r} is unknown: ray, or ray://host:10001")
    workers_of(values)


def carry_out(found: list[Cell], todo: list[Cell], store: Store, values: argparse.Namespace) -> int:
    """Makes what is missing, a line a cell, then a summary."""
    from tqdm import tqdm

    from noisette.bench.cells import counted
    from noisette.bench.estimate import duration
    from noisette.bench.run import run

    landing = run(todo, store)
    if values.on is not None:
        from noisette.bench.on_ray import run_on_ray

        landing = run_on_ray(todo, store, values.on, workers_of(values))
    began, made, failed = time.perf_counter(), 0, 0
    with tqdm(total=len(todo), unit="cell", disable=None, leave=False) as bar:
        for landed in landing:
            made += not landed.error
            failed += bool(landed.error) or not landed.proved
            bar.update()
            bar.clear()
            if values.json:
                facts = {"address": landed.cell.address, "file": str(landed.path), "at": landed.cell.at}
                print(json.dumps({**facts, "proved": landed.proved, "error": landed.error or None}), flush=True)
            else:
                print(landed.to_text(), flush=True)
    seconds = time.perf_counter() - began
    each = f", {seconds / made:.2f} s each" if made else ""
    print(
        f"{counted(len(found), 'cell')} in {store.root}: {made:,} made, {len(found) - len(todo):,} were there,"
        f" {failed:,} failed; {duration(seconds)}{each}",
        file=sys.stderr,
    )
    return 1 if failed else 0
