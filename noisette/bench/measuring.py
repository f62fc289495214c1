"""`noisette measure`: numbers of files and folders, to references, and of one folder against another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from noisette.bench import measures
from noisette.bench.entries import edit_of
from noisette.bench.features import Distance, Encoder, distance
from noisette.bench.measures import Numbers
from noisette.errors import UserError
from noisette.metadata import read_metadata
from noisette.reading import FORMATS, read, resolve
from noisette.recipe import from_mapping

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm")


@dataclass(frozen=True)
class Measured:
    """One picture's numbers."""

    path: Path
    numbers: Numbers

    def to_text(self) -> str:
        """A line for a person."""
        return f"{self.path}: " + ", ".join(f"{name} {value:.4g}" for name, value in self.numbers.items())


def pictures(place: str) -> list[Path]:
    """The file, or the pictures of a folder and those below it, sheets left out. Raises UserError for none."""
    if not Path(place).is_dir():
        return [resolve(place)]
    found = sorted(path for path in Path(place).rglob("*") if path.suffix.lower() in SUFFIXES)
    found = [path for path in found if "sheet" not in path.name]
    if not found:
        raise UserError(f"{place} holds no pictures ({', '.join(FORMATS)})")
    return found


def measure(places: Sequence[str], reference: str | None) -> Iterator[Measured]:
    """Numbers of every picture; with a reference (a file, or a folder matched by name) to that as well."""
    measures.need_skimage()
    paths = [path for place in places for path in pictures(place)]
    partner = partners(paths, reference) if reference is not None else None
    encoder = Encoder() if partner else None
    for path in paths:
        picture = read(path)
        numbers = measures.of_picture(picture) | edit_numbers(path)
        if partner and encoder and (target := partner(path)):
            other = read(target)
            numbers |= measures.of_pair(picture, other)
            numbers["perceptual"] = encoder.perceptual(picture, other)
        yield Measured(path, numbers)


def partners(paths: Sequence[Path], reference: str) -> Callable[[Path], Path | None]:
    """What each picture is compared with. Raises UserError where a folder holds no namesake of any."""
    if not Path(reference).is_dir():
        file = resolve(reference)
        return lambda path: file
    named = {path.name: path for path in pictures(reference)}
    if not any(path.name in named for path in paths):
        raise UserError(f"--reference {reference} holds no picture of the same name as any of the {len(paths)}")
    return lambda path: named.get(path.name)


def edit_numbers(path: Path) -> Numbers:
    """Kept pixels and seam, where the file's recipe is an inpainting whose base and mask are still there."""
    try:
        claims = read_metadata(path)
        base, repaint = edit_of(from_mapping(claims["recipe"]))
    except UserError:
        return {}
    return {} if repaint is None else measures.of_edit(read(path), base, repaint)


def summary(found: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each number over the pictures that have it."""
    names = dict.fromkeys(name for one in found for name in one.numbers)
    values = {name: [one.numbers[name] for one in found if name in one.numbers] for name in names}
    return {
        name: {"mean": fmean(some), "std": stdev(some) if len(some) > 1 else 0.0, "pictures": len(some)}
        for name, some in values.items()
    }


def between(one: Sequence[str], other: str) -> Distance:
    """FID's and KID's distance between two sets of pictures."""
    encoder = Encoder()
    sets = [path for place in one for path in pictures(place)], pictures(other)
    return distance(*(encoder.features(read(path) for path in paths) for paths in sets))


def as_json(found: Measured) -> dict[str, Any]:
    """JSON values; equal pictures have no PSNR."""
    return {"file": str(found.path), **{k: v for k, v in found.numbers.items() if abs(v) != float("inf")}}
