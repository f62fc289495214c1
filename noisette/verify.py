"""Is a file what it says? Its kept pixels are held against the base; its picture or clip is made again and compared.

The first needs neither the model nor the engine, and says so by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import clip_record, clips, codecs, engines, record, video
from noisette.errors import UserError
from noisette.generate import generate
from noisette.inputs import written_inputs
from noisette.metadata import read_metadata
from noisette.output import versions
from noisette.plan import Plan, plan
from noisette.reading import Picture, read, resolve
from noisette.recipe import from_mapping
from noisette.record import Kept

if TYPE_CHECKING:
    from noisette.engines import Networks

Load = Callable[[Plan], "Networks"]

TOLERANCE = 45.0  # dB: other kernels, threads or batch sizes round otherwise; a change one could see is far below
LOSSY = 35.0  # dB, the worst frame of a clip through a lossy codec


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: identical, within tolerance, different, not repeatable or not rendered.

    `why` names what differs; `kept` is how the file's kept pixels compare with the base as it is now, if it has any.
    """

    path: Path
    word: str
    psnr: float | None
    why: tuple[str, ...] = ()
    kept: Kept | None = None

    @property
    def good(self) -> bool:
        """No kept pixel differs, and the picture, if made again, is identical or within tolerance."""
        proved = self.kept is None or self.kept.differing == 0
        return proved and self.word in ("identical", "within tolerance", "not rendered")

    def to_text(self) -> str:
        """The line for a person."""
        found = self.word if self.psnr is None or self.psnr == np.inf else f"{self.word} ({self.psnr:.1f} dB)"
        facts = (found, *(() if self.kept is None else (self.kept.to_text(),)), *self.why)
        return f"{self.path}: " + "; ".join(facts)


def verify_kept(path: Path) -> Verdict:
    """Holds the file's kept pixels against the base, by its mask. Raises UserError for a file that has none."""
    path = resolve(str(path))
    claims = read_metadata(path)
    if "kept" not in claims:
        raise UserError(f"{path} has no kept pixels to check: it was made without --strict_mask")
    reasons = changed_inputs(claims)
    if any("is gone" in reason for reason in reasons):
        return Verdict(path, "not repeatable", None, tuple(reasons))
    return Verdict(path, "not rendered", None, tuple(reasons), kept_now(path, claims))


def kept_now(path: Path, claims: dict[str, Any]) -> Kept | None:
    """How the pixels that the file says it kept compare with the base on disk. Raises UserError."""
    if "kept" not in claims:
        return None
    recipe = from_mapping(claims["recipe"])
    if recipe.moving:
        held = video.held(plan(recipe, lenient=True, download=False))
        assert held is not None
        return clip_record.kept_in(path, held)
    base, mask = written_inputs(recipe)
    assert mask is not None
    return record.kept_in(read(path), base, mask.repaint)


class Loader:
    """`engines.load` that keeps the last networks: files of one model load it once."""

    def __init__(self) -> None:
        self._last: tuple[tuple[str | None, ...], Networks] | None = None

    def __call__(self, planned: Plan) -> Networks:
        recipe = planned.recipe
        key = (
            recipe.model,
            planned.engine,
            recipe.device,
            recipe.precision,
            recipe.lora,
            recipe.motion,
            recipe.motion_adapter,
            recipe.ip_adapter,
            str(recipe.clip_skip),
        )
        if self._last is None or self._last[0] != key:
            self._last = None  # the old networks go before the new ones come
            self._last = key, engines.load(planned)
        return self._last[1]


def files_in(place: str) -> list[Path]:
    """The file, or the PNG files and clips of a folder and those below it, sheets left out.

    Raises UserError for none.
    """
    if not Path(place).is_dir():
        return [resolve(place)]
    found = sorted(path for path in Path(place).rglob("*") if is_ours(path))
    if not found:
        raise UserError(f"{place} holds no pictures")
    return found


def kept_in(place: str) -> list[Path]:
    """Of `files_in` a folder those that say they kept pixels; a file as it is. Raises UserError for none."""
    found = files_in(place)
    if not Path(place).is_dir():
        return found
    found = [path for path in found if "kept" in read_metadata(path)]
    if not found:
        raise UserError(f"{place} holds no pictures with kept pixels: none was made with --strict_mask")
    return found


def is_ours(path: Path) -> bool:
    """Whether a file's name is one of a picture or a clip as we write them, and no sheet's."""
    if path.suffix == ".png":
        return "sheet" not in path.name and Path(path.stem).suffix not in codecs.SUFFIXES
    return path.suffix in codecs.SUFFIXES and clips.is_clip(path)


def summary(verdicts: list[Verdict]) -> str:
    """`12 files: 11 identical, 1 different`."""
    counts = Counter(verdict.word for verdict in verdicts)
    return f"{len(verdicts):,} files: " + ", ".join(f"{count:,} {word}" for word, count in counts.most_common())


def verify_file(path: Path, engine: str | None = None, load: Load = engines.load) -> Verdict:
    """Makes the file's picture again, on its own engine or the named one, and checks its kept pixels.

    Raises UserError if it has no recipe.
    """
    path = resolve(str(path))
    claims = read_metadata(path)
    if "provenance" not in claims:
        raise UserError(f"{path} was not made by noisette: it can be made again with --from, but not verified")
    recipe = replace(from_mapping(claims["recipe"]), engine=engine or claims["provenance"]["engine"])
    reasons = changed_inputs(claims)
    if any("is gone" in reason for reason in reasons):
        return Verdict(path, "not repeatable", None, tuple(reasons))
    planned = plan(recipe, lenient=True)  # what a file was made with in vain stands in it too
    kept = kept_now(path, claims)
    reasons += edited_clip(path, claims) if recipe.moving else edited(read(path), claims)
    enough = LOSSY if planned.clip and not planned.clip.codec.lossless else TOLERANCE
    psnr, different = (compare_clip if recipe.moving else compare)(path, planned, claims, load)
    if psnr == np.inf:
        return Verdict(path, "identical", psnr, tuple(reasons), kept)
    now = {
        "engine": planned.engine,
        "model_hash": planned.checkpoint.weights_hash,
        "versions": versions(planned.engine),
    }
    reasons += different
    reasons += [
        f"{name} was {claims['provenance'].get(name)}, is {value}"
        for name, value in now.items()
        if claims["provenance"].get(name) != value
    ]
    word = "within tolerance" if psnr >= enough else "different"
    return Verdict(path, word, psnr, tuple(reasons), kept)


def compare(path: Path, planned: Plan, claims: dict[str, Any], load: Load) -> tuple[float, list[str]]:
    """PSNR of a written picture and that of its recipe, made now."""
    result = next(generate(planned, load(planned)))
    return decibels(read(path), result.picture), []


def compare_clip(path: Path, planned: Plan, claims: dict[str, Any], load: Load) -> tuple[float, list[str]]:
    """The same for a clip: infinite when every frame has the hash that the file holds, else the worst frame's PSNR.

    A lossy file's frames differ from those that were made, so there the PSNR is that of the codec at best.
    """
    result = next(video.make(planned, load(planned)))
    counted = clip_record.Tally(0)
    pairs = zip(counted.watch(result.frames), clips.frames(path), strict=True)
    worst = min(decibels(Picture(again), Picture(written)) for again, written in pairs)
    if counted.sha256 == claims["pixels"]:
        return np.inf, []
    hashes = zip(counted.each, claims["frames"], strict=True)
    differing = [i for i, (again, written) in enumerate(hashes) if again != written]
    return worst, [f"{len(differing)} of {len(counted.each)} frames differ, frame {differing[0]} first"]


def edited_clip(path: Path, claims: dict[str, Any]) -> list[str]:
    """Whether a clip's frames are still those that were written."""
    same = clip_record.tally(clips.frames(path)).sha256 == claims.get("decoded")
    return [] if same else ["its frames were edited since"]


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
