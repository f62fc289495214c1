"""`noisette compare`: pictures and clips of two places side by side, in turn, and what differs between them."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from noisette.bench import clip_measures, measures
from noisette.bench.files import write_text
from noisette.bench.measures import Numbers
from noisette.bench.references import finite
from noisette.clips import frames, is_clip
from noisette.errors import UserError
from noisette.metadata import read_metadata
from noisette.names import cannot_write, check_writable
from noisette.pixels import rounded, shown
from noisette.reading import Picture, read
from noisette.recipe import FIELDS, from_mapping
from noisette.verify import files_in

PAGE = Path(__file__).parent / "compare.html"
MOST = 200  # pairs whose pictures stand in the page
SIDE = 512  # pixels of the longer side in the page
TILE, ROWS = 200, 30  # pixels and rows of the sheet


@dataclass(frozen=True)
class Pair:
    """Two pictures or clips, their numbers, and what their recipes say that differs.

    `frame`: which one of clips differs most, by the mean; it is the one that is shown.
    """

    a: Path
    b: Path
    numbers: Numbers
    differing: dict[str, tuple[Any, Any]]
    equal: bool
    frame: int | None

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        facts = {"a": str(self.a), "b": str(self.b), "equal": self.equal, "recipe": self.differing}
        return {**facts, **({} if self.frame is None else {"frame": self.frame}), **finite(self.numbers)}

    def to_text(self) -> str:
        """The line for a person."""
        if self.equal:
            return f"{self.a} {self.b}: equal"
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.numbers.items())
        return f"{self.a} {self.b}: {numbers}" + ("" if self.frame is None else f"; most in frame {self.frame}")


@dataclass(frozen=True)
class Comparison:
    """What was written."""

    pairs: tuple[Pair, ...]
    html: Path
    sheet: Path
    notes: tuple[str, ...]

    @property
    def equal(self) -> int:
        """Pairs of which every pixel of every frame is the same."""
        return sum(pair.equal for pair in self.pairs)


def compare(a: str, b: str, out: Path) -> Comparison:
    """Compares two files, or two folders' files of one name or one recipe. Raises UserError."""
    check_writable(out)
    paths, notes = partners(a, b)
    pairs: list[Pair] = []
    data: list[dict[str, Any]] = []
    rows: list[tuple[Picture, ...]] = []
    for one, other in paths:
        pair, left, right = pair_of(one, other)
        pairs.append(pair)
        if len(data) < MOST:
            pictures = [webp(picture) for picture in (left, right, difference(left, right))]
            data.append({**pair.describe(), "pictures": pictures})
        if len(rows) < ROWS:
            rows.append((left, right, difference(left, right)))
    if len(pairs) > MOST:
        notes.append(f"the page shows the first {MOST} of {len(pairs)} pairs")
    made = Comparison(tuple(pairs), out / "compare.html", out / "compare-sheet.png", tuple(notes))
    text = json.dumps({"pairs": data, "measures": measures.ABOUT, "notes": notes}, ensure_ascii=False)
    title = html.escape(f"{a} and {b}")
    template = PAGE.read_text(encoding="utf-8")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(made.html, template.replace("TITLE", title, 1).replace("DATA", text.replace("<", "\\u003c"), 1))
        draw(rows, made.sheet)
    except OSError as error:
        raise cannot_write(out, error) from None
    return made


def partners(a: str, b: str) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Files to compare: by name, else by address. What has no partner is a note. Raises UserError for none."""
    if Path(a).is_dir() != Path(b).is_dir():
        raise UserError(f"{a} and {b}: name two files or two folders")
    ones, others = files_in(a), files_in(b)
    if not Path(a).is_dir():
        return [(ones[0], others[0])], []
    named = {path.name: path for path in others}
    found = [(path, named[path.name]) for path in ones if path.name in named]
    if not found:
        addressed = {key: path for path in others if (key := recipe_key(path))}
        found = [(path, addressed[key]) for path in ones if (key := recipe_key(path)) in addressed]
    if not found:
        raise UserError(f"{a} and {b} hold no files of one name or one recipe")
    alone = len(ones) + len(others) - 2 * len(found)
    return found, [f"without a partner: {alone} of {len(ones) + len(others)} files"] if alone else []


def recipe_key(path: Path) -> str:
    """The recipe as text, '' where there is none: partners are those of one recipe."""
    try:
        return json.dumps(read_metadata(path)["recipe"], sort_keys=True)
    except UserError:
        return ""


def pair_of(one: Path, other: Path) -> tuple[Pair, Picture, Picture]:
    """The numbers of two pictures or clips, and of clips the frames that differ most.

    Raises UserError for two sizes or lengths.
    """
    rows: list[Numbers] = []
    equal, frame, worst = True, 0, -1.0
    try:
        for i, (left, right) in enumerate(clip_measures.alongside(frames_of(one), frames_of(other))):
            numbers = measures.of_pair(left, right)
            change = np.abs(shown(left) - shown(right))
            share = float((change > 0).any(axis=-1).mean())
            rows.append({**numbers, "differing": share, "largest": float(change.max())})
            equal = equal and same(left, right)
            if float(change.mean()) > worst:
                frame, worst, seen = i, float(change.mean()), (left, right)
    except UserError as error:
        raise UserError(f"{one} and {other}: {error}") from None
    numbers = clip_measures.over_frames(rows) | {"largest": max(row["largest"] for row in rows)}
    return Pair(one, other, numbers, differing(one, other), equal, frame if len(rows) > 1 else None), *seen


def frames_of(path: Path) -> Iterator[Picture]:
    """The picture, or the frames that a clip decodes to. Raises UserError."""
    if is_clip(path):
        yield from map(Picture, frames(path))
    else:
        yield read(path)


def same(left: Picture, right: Picture) -> bool:
    """Whether every value is, in every channel."""
    return (left.mode, left.data.shape) == (right.mode, right.data.shape) and bool((left.data == right.data).all())


def differing(one: Path, other: Path) -> dict[str, tuple[Any, Any]]:
    """Fields of the recipes that differ; none where a file carries no recipe."""
    try:
        a, b = (from_mapping(read_metadata(path)["recipe"]) for path in (one, other))
    except UserError:
        return {}
    return {name: (getattr(a, name), getattr(b, name)) for name in FIELDS if getattr(a, name) != getattr(b, name)}


def difference(left: Picture, right: Picture) -> Picture:
    """Where and how much: the largest channel's change, black none, white the picture's own largest (>= 16)."""
    change = np.abs(shown(left) - shown(right)).max(axis=-1)
    values = change * (255 / max(16.0, float(change.max())))
    return Picture(np.repeat(rounded(values)[..., None], 3, axis=-1))


def webp(picture: Picture) -> str:
    """A data URI; lossless, so that what flickers is there, and at most SIDE pixels a side."""
    from PIL import Image

    image = Image.fromarray(rounded(shown(picture)))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=1)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def draw(rows: Sequence[tuple[Picture, ...]], path: Path) -> None:
    """The sheet: a pair a row, and where it differs."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    gap, head = 6, 24
    sheet = Image.new("RGB", (3 * (TILE + gap) + gap, head + len(rows) * (TILE + gap)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, title in enumerate(("A", "B", "difference")):
        pen.text((gap + i * (TILE + gap), gap), title, "black", font)
    for j, row in enumerate(rows):
        for i, picture in enumerate(row):
            image = ImageOps.pad(Image.fromarray(rounded(shown(picture))), (TILE, TILE), color="white")
            sheet.paste(image, (gap + i * (TILE + gap), head + j * (TILE + gap)))
    sheet.save(path)
