"""`noisette measure`: numbers of pictures and clips, to references, and of one folder against another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from noisette.bench import clip_measures, features, measures
from noisette.bench.entries import edit_of, start_of
from noisette.bench.features import Distance, distance, encoder
from noisette.bench.measures import Numbers
from noisette.bench.references import finite
from noisette.bench.similarity import Judge, similarity
from noisette.clips import frames, is_clip, probe
from noisette.errors import UserError
from noisette.metadata import read_metadata
from noisette.reading import FORMATS, read, resolve
from noisette.recipe import from_mapping

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm")
CLIPS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".apng")


@dataclass(frozen=True)
class Measured:
    """One picture's or clip's numbers."""

    path: Path
    numbers: Numbers

    def to_text(self) -> str:
        """A line for a person."""
        return f"{self.path}: " + ", ".join(f"{name} {value:.4g}" for name, value in self.numbers.items())


def files(place: str) -> list[Path]:
    """The file, or the pictures and clips of a folder and those below it, sheets left out.

    Raises UserError for none.
    """
    if not Path(place).is_dir():
        return [resolve(place)]
    found = sorted(path for path in Path(place).rglob("*") if path.suffix.lower() in (*SUFFIXES, *CLIPS))
    names = {path.with_name(f"{path.name}.png") for path in found}  # of contact sheets, beside clips
    found = [path for path in found if "sheet" not in path.name and path not in names]
    if not found:
        raise UserError(f"{place} holds no pictures ({', '.join(FORMATS)}) and no clips ({', '.join(CLIPS)})")
    return found


def pictures(place: str) -> list[Path]:
    """`files` without clips. Raises UserError for none."""
    found = [path for path in files(place) if not is_clip(path)]
    if not found:
        raise UserError(f"{place} is or holds clips: pictures are needed")
    return found


def measure(
    places: Sequence[str], reference: str | None, judge: Judge | None = None, prompt: str | None = None
) -> Iterator[Measured]:
    """Numbers of every file; with a reference (a file, or a folder matched by name) to that as well.

    With a judge the similarity to `prompt`, or to the prompt of the file's recipe. Raises UserError.
    """
    measures.need_skimage()
    paths = [path for place in places for path in files(place)]
    partner = partners(paths, reference) if reference is not None else None
    for path in paths:
        said = similarity_of(path, judge, prompt) if judge else {}
        if is_clip(path):
            yield Measured(path, clip_numbers(path, partner(path) if partner else None) | said)
            continue
        picture = read(path)
        numbers = measures.of_picture(picture) | edit_numbers(path) | said
        if partner and (target := partner(path)):
            numbers |= features.of_pair(picture, read(target))
        yield Measured(path, numbers)


def similarity_of(path: Path, judge: Judge, prompt: str | None) -> Numbers:
    """To the text, or to that of the file's own recipe; nothing where there is neither. Raises UserError."""
    if prompt is not None:
        return {"similarity": similarity(judge, path, prompt)}
    try:
        recipe = from_mapping(read_metadata(path)["recipe"])
    except UserError:
        return {}
    return {"similarity": similarity(judge, path, recipe.prompt, recipe.interpolate, recipe.loop)}


def partners(paths: Sequence[Path], reference: str) -> Callable[[Path], Path | None]:
    """What each picture is compared with. Raises UserError where a folder holds no namesake of any."""
    if not Path(reference).is_dir():
        file = resolve(reference)
        return lambda path: file
    named = {path.name: path for path in files(reference)}
    if not any(path.name in named for path in paths):
        raise UserError(f"--reference {reference} holds no picture of the same name as any of the {len(paths)}")
    return lambda path: named.get(path.name)


def clip_numbers(path: Path, reference: Path | None) -> Numbers:
    """A clip's own, to the picture it begins with where that is still there, and to a reference. Raises UserError."""
    try:
        base = start_of(from_mapping(read_metadata(path)["recipe"]), probe(path).size)
    except UserError:
        base = None
    numbers = clip_measures.of_clip(frames(path), base)
    return numbers | (clip_measures.of_pair(frames(path), frames(reference)) if reference else {})


def edit_numbers(path: Path) -> Numbers:
    """Kept pixels and seam, where the file's recipe is an inpainting whose base and mask are still there."""
    try:
        claims = read_metadata(path)
        base, repaint = edit_of(from_mapping(claims["recipe"]))
    except UserError:
        return {}
    return {} if repaint is None else measures.of_edit(read(path), base, repaint)


def summary(found: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each number over the pictures that have it; infinite ones are left out."""
    rows = [finite(one.numbers) for one in found]
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {
        name: {"mean": fmean(some), "std": stdev(some) if len(some) > 1 else 0.0, "pictures": len(some)}
        for name, some in values.items()
    }


def summary_text(found: Sequence[Measured]) -> str:
    """The line for a person, with how many are equal to their reference and have no PSNR."""
    means = [f"{name} {of['mean']:.4g} ± {of['std']:.2g}" for name, of in summary(found).items()]
    equal = sum(one.numbers.get("psnr") == math.inf for one in found)
    means += [f"{equal} equal to the reference and left out of psnr"] if equal else []
    return f"mean of {len(found)}: {', '.join(means)}"


def between(one: Sequence[str], other: str) -> Distance:
    """FID's and KID's distance between two sets of pictures."""
    sets = [path for place in one for path in pictures(place)], pictures(other)
    return distance(*(encoder().features(read(path) for path in paths) for paths in sets))


def as_json(found: Measured) -> dict[str, Any]:
    """JSON values; equal pictures have no PSNR."""
    return {"file": str(found.path), **finite(found.numbers)}
