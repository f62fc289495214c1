"""A contact sheet: two axes as a labelled grid of pictures, or of clips by four frames each, in one PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette.bench.entries import Entry
from noisette.bench.places import axes_of, fullest, place_of
from noisette.names import cannot_write

if TYPE_CHECKING:
    from PIL import Image, ImageFont

SIDE, GAP, TEXT = 160, 6, 13  # pixels
MOST = 40  # rows and columns
INK, PAPER, FAINT = "#1c1b19", "#ffffff", "#6d6a63"


def draw(entries: Sequence[Entry], rows: str | None, columns: str | None, path: Path) -> None:
    """Writes the sheet: other axes where most pictures are, said on top. Raises UserError for a full disk."""
    from PIL import Image, ImageDraw, ImageFont

    axes = axes_of(entries)
    fixed = fullest(entries, axes, [name for name in axes if name not in (rows, columns)])
    shown = [e for e in entries if place_of(e, fixed) == tuple(fixed.values())]
    down = axes[rows][:MOST] if rows else [None]
    across = axes[columns][:MOST] if columns else [None]
    font = ImageFont.load_default(TEXT)
    margin = max([0, *(round(font.getlength(label(rows, value))) for value in down)]) + 2 * GAP if rows else GAP
    margin = min(margin, 2 * SIDE)
    head = 3 * TEXT + 3 * GAP
    size = (margin + len(across) * (SIDE + GAP), head + len(down) * (SIDE + GAP))
    sheet = Image.new("RGB", (max(size[0], 3 * SIDE), size[1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), cut(caption(shown, fixed), font, sheet.width - 2 * GAP), FAINT, font)
    for i, value in enumerate(across):
        where = (margin + i * (SIDE + GAP), head - TEXT - GAP)
        pen.text(where, cut(label(columns, value), font, SIDE), INK, font)
    for j, value in enumerate(down):
        where = (GAP, head + j * (SIDE + GAP) + SIDE // 2 - TEXT // 2)
        pen.text(where, cut(label(rows, value), font, margin - GAP), INK, font)
    at = {tuple(getattr(e.asked, name) if name else None for name in (rows, columns)): e for e in shown}
    for j, row in enumerate(down):
        for i, column in enumerate(across):
            if entry := at.get((row, column)):
                corner = (margin + i * (SIDE + GAP), head + j * (SIDE + GAP))
                sheet.paste(preview(entry), corner)
    try:
        sheet.save(path, optimize=True)
    except OSError as error:
        raise cannot_write(path, error) from None


def preview(entry: Entry) -> Image.Image:
    """The entry's preview within SIDE x SIDE, centred on paper; of a clip four frames, first and last among them."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(base64.b64decode(entry.derived.preview))) as image:
        count = getattr(image, "n_frames", 1)
        if count == 1:
            return ImageOps.pad(image.convert("RGB"), (SIDE, SIDE), color=PAPER)
        four = Image.new("RGB", (SIDE, SIDE), PAPER)
        half = SIDE // 2 - 1
        for i in range(4):
            image.seek(i * (count - 1) // 3)
            corner = (i % 2 * (SIDE - half), i // 2 * (SIDE - half))
            four.paste(ImageOps.pad(image.convert("RGB"), (half, half), color=PAPER), corner)
        return four


def caption(entries: Sequence[Entry], fixed: dict[str, Any]) -> str:
    """What is the same for all pictures shown."""
    facts = [label(name, value) for name, value in fixed.items()]
    prompts = {entry.recipe.prompt for entry in entries}
    head = [repr(prompts.pop())] if len(prompts) == 1 and "prompt" not in fixed else []
    return ", ".join(head + facts)


def label(name: str | None, value: Any) -> str:
    """`steps 20`: short names for the commonest fields."""
    short = {"num_inference_steps": "steps", "guidance_scale": "guidance", "guidance_rescale": "rescale"}
    if name is None:
        return ""
    if value is None:
        return f"{short.get(name, name)} default"
    return str(value) if name in ("sampler", "prompt", "schedule", "model") else f"{short.get(name, name)} {value}"


def cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The head of a text that fits, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
