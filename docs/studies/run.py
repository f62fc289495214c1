#!/usr/bin/env python3
"""Runs a study and refreshes its excerpt here: `python3 docs/studies/run.py samplers|guidance|inpainting|clips|all`.

The store with every picture and the whole report goes to studies/NAME-WEIGHTS, so that a table is of one model only;
beside this file come NAME-sheet.webp, NAME-table.md and, where there is a browser, NAME-plot.png. `--quick` makes a
few cells of each and no excerpt, to see that it works.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from noisette.bench.axes import read_file  # noqa: E402
from noisette.bench.entries import Entry, read_entries  # noqa: E402
from noisette.bench.places import axes_of, parse_reference, place_of  # noqa: E402
from noisette.bench.references import with_reference, with_similarity  # noqa: E402
from noisette.bench.sheet import label  # noqa: E402
from noisette.bench.similarity import find  # noqa: E402
from noisette.cli import main as noisette  # noqa: E402
from noisette.plan import plan  # noqa: E402
from noisette.recipe import Recipe  # noqa: E402

STUDIES = {  # the rows of its tables (and of the grid: the first), the columns, and the measures
    "samplers": (("sampler", "schedule"), "num_inference_steps", ("psnr", "seconds")),
    "guidance": (
        ("guidance_rescale", "guidance_start"),
        "guidance_scale",
        ("similarity", "clipped", "colourfulness", "contrast"),
    ),
    "inpainting": (
        ("strict_mask", "feather", "blend", "crop"),
        "strength",
        ("seam", "seam_excess", "kept_differing"),
    ),
    "clips": (("motion", "num_inference_steps"), "guidance_scale", ("flicker", "flow", "drift", "seconds")),
}
QUICK = {  # the axes of a trial
    "samplers": ["schedule=model", "prompt=alien", "sampler=heun,euler", "steps=3,60"],
    "guidance": ["prompt=alien", "guidance_scale=1,4", "seed=0"],
    "inpainting": ["prompt=an orange", "strength=0.6", "seed=0"],
    "clips": ["prompt=a red apple", "motion=bounce", "steps=2", "guidance_scale=1,3"],
}


def table(entries: list[Entry], rows: tuple[str, ...], columns: str, measures: tuple[str, ...]) -> str:
    """A Markdown table for each measure that there is: the mean over everything else."""
    axes = axes_of(entries)
    across = axes.get(columns, [getattr(entries[0].asked, columns)])
    entries = sorted(entries, key=lambda e: [values.index(getattr(e.asked, name)) for name, values in axes.items()])
    places: dict[tuple[object, ...], dict[object, list[Entry]]] = {}
    for entry in entries:
        row = place_of(entry, rows)
        places.setdefault(row, {}).setdefault(getattr(entry.asked, columns), []).append(entry)
    blocks = []
    for measure in measures:
        if not any(measure in entry.numbers for entry in entries):
            continue
        head = [f"{measure}, mean", *(label(columns, value) for value in across)]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for row, found in places.items():
            cells = []
            for column in across:
                values = [e.numbers[measure] for e in found.get(column, []) if measure in e.numbers]
                cells.append(f"{fmean(values):.3g}" if values else "")
            named = [label(name, value) for name, value in zip(rows, row, strict=True) if name in axes]
            lines.append("| " + " | ".join([", ".join(named), *cells]) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def plot(store: Path, path: Path) -> None:
    """The page's own plot, from a real browser."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 700, "height": 900})
        page.goto((store / "report.html").resolve().as_uri())
        page.locator("#plot").screenshot(path=path)
        browser.close()


def run(name: str, quick: bool = False) -> None:
    """The sweep, its report, the excerpt."""
    from PIL import Image

    os.chdir(ROOT)  # sweep files name their inputs from here
    rows, columns, measures = STUDIES[name]
    checkpoint = plan(Recipe(seed="0")).checkpoint
    file, store = HERE / f"{name}.toml", ROOT / "studies" / f"{name}-{checkpoint.weights_hash[:8]}{'-quick' * quick}"
    judge = find("noisette-1") if "similarity" in measures and checkpoint.image_encoder is not None else None
    flags = ["--sweep", str(file), *(QUICK[name] if quick else []), "--out", str(store)]
    flags += [] if quick else ["--rows", rows[0], "--columns", columns]
    if noisette(["sweep", *flags, *(["--similarity", "noisette-1"] if judge else [])]):
        sys.exit(1)
    entries = read_entries(store)[0]
    if reference := parse_reference(read_file(file).reference):
        entries = with_reference(entries, reference, store)
    if judge:
        entries = with_similarity(entries, judge, store)
    found = table(entries, rows, columns, measures)
    if quick:
        print(found)
        return
    (HERE / f"{name}-table.md").write_text(found, encoding="utf-8")
    with Image.open(store / "sheet.png") as sheet:
        sheet.save(HERE / f"{name}-sheet.webp", quality=80)
    plot(store, HERE / f"{name}-plot.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=(*STUDIES, "all"))
    parser.add_argument("--quick", action="store_true", help="a few cells, no excerpt")
    asked = parser.parse_args()
    for study in STUDIES if asked.name == "all" else (asked.name,):
        run(study, asked.quick)
