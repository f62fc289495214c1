#!/usr/bin/env python3
"""Runs a study and refreshes its excerpt here: `python3 docs/studies/run.py samplers|guidance|inpainting|all`.

The store with every picture and the whole report goes to studies/NAME; beside this file come NAME-sheet.webp,
NAME-table.md and, where there is a browser, NAME-plot.png.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from noisette.bench.axes import read_file  # noqa: E402
from noisette.bench.entries import axes_of, parse_reference, read_entries, with_reference  # noqa: E402
from noisette.bench.sheet import label  # noqa: E402
from noisette.cli import main as noisette  # noqa: E402

STUDIES = {  # the grid's rows and columns, and the measures of its tables
    "samplers": ("sampler", "num_inference_steps", ("psnr", "seconds")),
    "guidance": ("guidance_rescale", "guidance_scale", ("clipped", "colourfulness", "contrast")),
    "inpainting": ("strict_mask", "strength", ("seam", "seam_excess", "kept_differing")),
}


def table(store: Path, rows: str, columns: str, measures: tuple[str, ...], reference: dict[str, object]) -> str:
    """A Markdown table for each measure: the mean over everything else."""
    entries = read_entries(store)[0]
    axes = axes_of(entries)
    entries = with_reference(entries, reference, store) if reference else entries
    blocks = []
    for measure in measures:
        head = [f"{measure}, mean", *(label(columns, value) for value in axes[columns])]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for row in axes[rows]:
            cells = []
            for column in axes[columns]:
                place = [e for e in entries if (getattr(e.recipe, rows), getattr(e.recipe, columns)) == (row, column)]
                values = [e.numbers[measure] for e in place if measure in e.numbers]
                cells.append(f"{fmean(values):.3g}" if values else "")
            lines.append("| " + " | ".join([label(rows, row), *cells]) + " |")
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


def run(name: str) -> None:
    """The sweep, its report, the excerpt."""
    from PIL import Image

    rows, columns, measures = STUDIES[name]
    file, store = HERE / f"{name}.toml", ROOT / "studies" / name
    flags = ["--rows", rows, "--columns", columns, "--out", str(store)]
    if noisette(["sweep", "--sweep", str(file), *flags]):
        sys.exit(1)
    reference = parse_reference(read_file(file).reference)
    (HERE / f"{name}-table.md").write_text(table(store, rows, columns, measures, reference), encoding="utf-8")
    with Image.open(store / "sheet.png") as sheet:
        sheet.save(HERE / f"{name}-sheet.webp", quality=80)
    plot(store, HERE / f"{name}-plot.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=(*STUDIES, "all"))
    asked = parser.parse_args().name
    for study in STUDIES if asked == "all" else (asked,):
        run(study)
