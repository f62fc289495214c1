"""Is a file what it says? Its picture is made again from its own recipe and compared, pixel for pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import engines, record
from noisette.errors import UserError
from noisette.generate import generate
from noisette.metadata import read_metadata
from noisette.output import versions
from noisette.plan import Plan, plan
from noisette.reading import Picture, read, resolve
from noisette.recipe import Recipe, from_mapping

if TYPE_CHECKING:
    from noisette.engines import Networks

TOLERANCE = 45.0  # dB: other kernels, threads or batch sizes round otherwise; a change one could see is far below


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: identical, within tolerance, different, or not repeatable; `why` names what differs."""

    path: Path
    word: str
    psnr: float | None
    why: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Identical or within tolerance."""
        return self.word in ("identical", "within tolerance")

    def to_text(self) -> str:
        """The line for a person."""
        found = self.word if self.psnr is None or self.psnr == np.inf else f"{self.word} ({self.psnr:.1f} dB)"
        return f"{self.path}: {found}" + "".join(f"; {reason}" for reason in self.why)


class Loader:
    """`engines.load` that keeps the last networks: files of one model load it once."""

    def __init__(self) -> None:
        self._last: tuple[tuple[str, ...], Networks] | None = None

    def __call__(self, planned: Plan) -> Networks:
        recipe = planned.recipe
        key = (recipe.model, planned.engine, recipe.device, recipe.precision, recipe.lora)
        if self._last is None or self._last[0] != key:
            self._last = None  # the old networks go before the new ones come
            self._last = key, engines.load(planned)
        return self._last[1]


def files_in(place: str) -> list[Path]:
    """The file, or the PNG files of a folder and those below it, sheets left out. Raises UserError for none."""
    if not Path(place).is_dir():
        return [resolve(place)]
    found = sorted(path for path in Path(place).rglob("*.png") if "sheet" not in path.name)
    if not found:
        raise UserError(f"{place} holds no pictures")
    return found


def summary(verdicts: list[Verdict]) -> str:
    """`12 pictures: 11 identical, 1 different`."""
    counts = Counter(verdict.word for verdict in verdicts)
    return f"{len(verdicts):,} pictures: " + ", ".join(f"{count:,} {word}" for word, count in counts.most_common())


def verify_file(path: Path, engine: str | None = None, load: Callable[[Plan], Networks] = engines.load) -> Verdict:
    """Makes the file's picture again, on its own engine or the named one. Raises UserError if it has no recipe."""
    path = resolve(str(path))
    claims = read_metadata(path)
    if "provenance" not in claims:
        raise UserError(f"{path} was not made by noisette: it can be made again with --from, but not verified")
    written = read(path)
    reasons = changed_inputs(claims) + edited(written, claims)
    if any("is gone" in reason for reason in reasons):
        return Verdict(path, "not repeatable", None, tuple(reasons))
    recipe = replace(from_mapping(claims["recipe"]), engine=engine or claims["provenance"]["engine"])
    again, now = render(recipe, load)
    psnr = decibels(written, again)
    if psnr == np.inf:
        return Verdict(path, "identical", psnr, tuple(reasons))
    reasons += [
        f"{name} was {claims['provenance'].get(name)}, is {value}"
        for name, value in now.items()
        if claims["provenance"].get(name) != value
    ]
    return Verdict(path, "within tolerance" if psnr >= TOLERANCE else "different", psnr, tuple(reasons))


def render(recipe: Recipe, load: Callable[[Plan], Networks] = engines.load) -> tuple[Picture, dict[str, Any]]:
    """The picture of a recipe, made now, and what could make it differ from an older one."""
    planned = plan(recipe)
    result = next(generate(planned, load(planned)))
    now = {
        "engine": planned.engine,
        "model_hash": planned.checkpoint.weights_hash,
        "versions": versions(planned.engine),
    }
    return result.picture, now


def changed_inputs(claims: dict[str, Any]) -> list[str]:
    """Base and mask that are gone or are other files by now."""
    found = []
    for name, claim in claims["provenance"].get("inputs", {}).items():
        try:
            digest = record.file_hash(resolve(claim["path"]))
        except UserError:
            found.append(f"--{name} {claim['path']} is gone")
            continue
        if digest != claim["sha256"]:
            found.append(f"--{name} {claim['path']} has changed since")
    return found


def edited(written: Picture, claims: dict[str, Any]) -> list[str]:
    """Whether the pixels are still those that were written."""
    return [] if record.pixel_hash(written) == claims.get("pixels") else ["its pixels were edited since"]


def decibels(a: Picture, b: Picture) -> float:
    """PSNR of two pictures; infinite when they are the same, minus infinite for other modes or sizes."""
    if (a.mode, a.data.shape) != (b.mode, b.data.shape):
        return -np.inf
    error = float(np.mean((a.data.astype(np.float64) - b.data.astype(np.float64)) ** 2))
    peak = np.iinfo(a.data.dtype).max
    return np.inf if error == 0 else float(10 * np.log10(peak**2 / error))
