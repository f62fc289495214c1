"""Is a file what it says? Its kept pixels are held against the base; its picture or clip is made again and compared.

The first needs neither the model nor the engine, and says so by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import clip_record, clips, codecs, engines, record, video
from noisette.errors import UserError
from noisette.generate import generate
from noisette.inputs import written_inputs
from noisette.metadata import OURS, read_metadata, read_texts
from noisette.origins import origins, relocated
from noisette.output import versions
from noisette.plan import Plan, plan
from noisette.reading import Picture, read, resolve
from noisette.recipe import Recipe, from_mapping
from noisette.record import Kept

if TYPE_CHECKING:
    from noisette.engines import Networks

Load = Callable[[Plan], "Networks"]
Given = Mapping[str, Path]  # a field of the recipe: where its file is now
NOWHERE_ELSE: Given = {}

UNPROVED = "NOT PROVED"
GOOD = ("identical", "within tolerance", "proved")
APART = ("not made here", "nothing kept")  # of a folder: not to be checked
TOLERANCE = 45.0  # dB: other kernels, threads or batch sizes round otherwise; a change one could see is far below
LOSSY = 35.0  # dB, the worst frame of a clip through a lossy codec


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: identical, within tolerance, different or not repeatable; of kept pixels alone proved or
    NOT PROVED; and in a folder not made here, nothing kept or not checked.

    `why` names what differs; `kept` is how the file's kept pixels compare with the base now, if it has any;
    `proved`: none differs, and they are those that the file records.
    """

    path: Path
    word: str
    psnr: float | None = None
    why: tuple[str, ...] = ()
    kept: Kept | None = None
    proved: bool = True

    @property
    def good(self) -> bool:
        """The kept pixels are proved, and the picture, if made again, is identical or within tolerance."""
        return self.proved and self.word in (*GOOD, *APART)

    def to_text(self) -> str:
        """The line for a person."""
        found = self.word if self.psnr is None or self.psnr == np.inf else f"{self.word} ({self.psnr:.1f} dB)"
        beside = () if self.proved or self.word == UNPROVED else (UNPROVED,)
        kept = () if self.kept is None else (self.kept.to_text(),)
        return f"{self.path}: " + "; ".join((found, *beside, *kept, *self.why))


def verify_kept(path: Path, given: Given = NOWHERE_ELSE) -> Verdict:
    """Holds the file's kept pixels against the base, by its mask, and both against what the file records of them.

    `given`: where inputs are now. Raises UserError for a file that kept none.
    """
    path = resolve(str(path))
    claims = claims_of(path)
    if "kept" not in claims:
        raise UserError(f"{path} has no kept pixels to check: it was made without --strict_mask")
    found = origins(path, claims, given)
    if changed := [origin.to_text() for origin in found if not origin.same]:
        return Verdict(path, UNPROVED, why=tuple(changed), proved=False)
    kept, proved, why = proof(path, relocated(from_mapping(claims["recipe"]), found), claims["kept"])
    return Verdict(path, "proved" if proved else UNPROVED, why=tuple(why), kept=kept, proved=proved)


def claims_of(path: Path) -> dict[str, Any]:
    """What a file of ours says of itself. Raises UserError for another program's."""
    claims = read_metadata(path)
    if "provenance" not in claims:
        raise UserError(f"{path} was not made by noisette: it can be made again with --from, but not verified")
    return claims


def proof(path: Path, recipe: Recipe, recorded: dict[str, Any]) -> tuple[Kept, bool, list[str]]:
    """The file's kept pixels now, whether none differs and they are those it records, and what it records if not."""
    kept = kept_now(path, recipe)
    if (kept.count, kept.sha256) == (recorded["count"], recorded["sha256"]):
        return kept, kept.differing == 0, []
    return kept, False, [f"the file records {recorded['count']:,} of {recorded['sha256']}, now {kept.sha256}"]


def kept_now(path: Path, recipe: Recipe) -> Kept:
    """How the pixels that a file of this recipe kept compare with the base on disk. Raises UserError."""
    if recipe.moving:
        held = video.held(plan(recipe, lenient=True, download=False))
        assert held is not None
        return clip_record.kept_in(path, held)
    base, mask = written_inputs(recipe)
    assert mask is not None
    return record.kept_in(read(path), base, mask.repaint)


class Loader:
    """`engines.load` that keeps the last networks: files of one model load it once, whatever was enlarged between."""

    def __init__(self) -> None:
        self._last: tuple[tuple[str | None, ...], Networks] | None = None

    def __call__(self, planned: Plan) -> Networks:
        if not planned.evaluated_steps:
            return engines.load(planned)  # none
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


def verdicts(places: Sequence[str], check: Callable[[Path], Verdict], claim: str) -> Iterator[Verdict]:
    """The verdict on each file that is named or lies in a named folder: one that can't be checked stops no other.

    `claim`: what a file has to say of itself to be checked. Raises UserError for a single file, and where none is.
    """
    paths = [path for place in places for path in files_in(place)]
    if len(paths) == 1:
        yield check(paths[0])
        return
    early = {path: left_out(path, claim) for path in paths}
    if all(early.values()):
        what = "with kept pixels: none was made with --strict_mask" if claim == "kept" else "made here"
        raise UserError(f"{' '.join(places)} holds no pictures {what}")
    for path, verdict in early.items():
        yield verdict or in_turn(path, check)


def left_out(path: Path, claim: str) -> Verdict | None:
    """The verdict on a file that is not to be checked, or can't be; else none."""
    try:
        claims = read_metadata(path) if OURS in read_texts(path) else {}
    except UserError as error:
        return Verdict(path, "not checked", why=(str(error),))
    if "provenance" not in claims:
        return Verdict(path, "not made here")
    return None if claim in claims else Verdict(path, "nothing kept")


def in_turn(path: Path, check: Callable[[Path], Verdict]) -> Verdict:
    """The verdict on one file of several; its error is one too."""
    try:
        return check(path)
    except UserError as error:
        return Verdict(path, "not checked", why=(str(error),))


def is_ours(path: Path) -> bool:
    """Whether a file's name is one of a picture or a clip as we write them, and no sheet's."""
    if path.suffix == ".png":
        return "sheet" not in path.name and Path(path.stem).suffix not in codecs.SUFFIXES
    return path.suffix in codecs.SUFFIXES and clips.is_clip(path)


def summary(verdicts: list[Verdict]) -> str:
    """`12 files: 11 identical, 1 different`."""
    counts = Counter(verdict.word for verdict in verdicts)
    return f"{len(verdicts):,} files: " + ", ".join(f"{count:,} {word}" for word, count in counts.most_common())


def verify_file(
    path: Path, engine: str | None = None, load: Load = engines.load, given: Given = NOWHERE_ELSE
) -> Verdict:
    """Makes the file's picture again, on its own engine or the named one, and checks its kept pixels.

    `given`: where inputs are now. Raises UserError if it has no recipe.
    """
    path = resolve(str(path))
    claims = claims_of(path)
    found = origins(path, claims, given)
    if changed := [origin.to_text() for origin in found if not origin.same]:
        return Verdict(path, "not repeatable", why=tuple(changed), proved="kept" not in claims)
    recipe = replace(from_mapping(claims["recipe"]), engine=engine or claims["provenance"]["engine"])
    recipe = relocated(recipe, found)
    planned = plan(recipe, lenient=True)  # what a file was made with in vain stands in it too
    kept, proved, reasons = proof(path, recipe, claims["kept"]) if "kept" in claims else (None, True, [])
    reasons += edited_clip(path, claims) if recipe.moving else edited(read(path), claims)
    enough = LOSSY if planned.clip and not planned.clip.codec.lossless else TOLERANCE
    psnr, different = (compare_clip if recipe.moving else compare)(path, planned, claims, load)
    if psnr == np.inf:
        return Verdict(path, "identical", psnr, tuple(reasons), kept, proved)
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
    return Verdict(path, word, psnr, tuple(reasons), kept, proved)


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
