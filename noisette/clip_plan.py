"""What a clip adds to the plan: its frames, its inputs, its codec, its motion modules. Checks, nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette.errors import UserError
from noisette.recipe import CODECS, MAX_FRAMES, Recipe, parse_seeds

if TYPE_CHECKING:
    from noisette.checkpoint import Checkpoint
    from noisette.clips import Clip
    from noisette.codecs import Codec
    from noisette.masks import Mask
    from noisette.plan import Plan
    from noisette.reading import Picture
    from noisette.sizes import Size

NUM_FRAMES, FPS = 16, 8.0
NONE, MODEL = "none", "model"  # no motion modules, and those in the model's own folder
STATION = re.compile(r"\s*(\d+)\s*:\s*(.*?)\s*", re.DOTALL)
CHUNK = 8  # frames a network takes at a time where no motion modules tie them together
NEEDS = {"strength": "--base_img or --base_video", "fit": "--base_img or --base_video", "mask_img": "--base_img or"
         " --base_video", "mask_video": "--base_img or --base_video"}  # fmt: skip


@dataclass(frozen=True)
class ClipPlan:
    """The clip of a run, decided. `prompts`: (frame, prompt) in order; `walk`: the seeds the noise walks to."""

    num_frames: int
    fps: Fraction
    codec: Codec
    base: Clip | None
    mask: Clip | None
    prompts: tuple[tuple[int, str], ...]
    walk: tuple[int, ...]
    window: int
    tied: bool
    motion_scale: float

    @property
    def overlap(self) -> int:
        """Frames that neighbouring windows share: a quarter, where motion modules tie frames together."""
        return self.window // 4 if self.tied else 0

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {"num_frames": self.num_frames, "fps": float(self.fps), "codec": self.codec.name}


def mode_of(recipe: Recipe) -> str:
    """text2video, img2video or video2video, from which inputs are given. Raises UserError."""
    if recipe.base_img is not None and recipe.base_video is not None:
        raise UserError("--base_img and --base_video are both given: a clip starts from one of them")
    if recipe.mask_img is not None and recipe.mask_video is not None:
        raise UserError("--mask_img and --mask_video are both given: a clip has one of them")
    if recipe.base_img is None and recipe.base_video is None:
        for name, needed in NEEDS.items():
            if getattr(recipe, name) is not None:
                raise UserError(f"--{name} {getattr(recipe, name)} needs {needed}")
    for name in ("strict_mask", "invert_mask"):
        if getattr(recipe, name) and recipe.mask_img is None and recipe.mask_video is None:
            raise UserError(f"--{name} True needs --mask_img or --mask_video")
    if recipe.strict_first_frame and recipe.base_img is None:
        raise UserError("--strict_first_frame True needs --base_img")
    if recipe.variation:
        raise UserError("--variation True is for pictures: python3 image.py makes variations")
    if recipe.base_img is not None:
        return "img2video"
    return "text2video" if recipe.base_video is None else "video2video"


def parse_motion(text: str) -> tuple[str, float]:
    """--motion as (words, strength): 'spin', 'spin:1.5' or '1.5'. Raises UserError for a strength beyond 0 to 3."""
    words, _, scale = text.rpartition(":")
    if not re.fullmatch(r"-?\d+(\.\d*)?", scale.strip()):
        return text.strip(), 1.0
    if not 0 <= float(scale) <= 3:
        raise UserError(f"--motion {text!r}: its strength is out of range: 0 to 3")
    return words.strip(), float(scale)


def fill(recipe: Recipe, mode: str, base: Clip | None, checkpoint: Checkpoint) -> Recipe:
    """Gives each open field of a clip its value: the base's frames and rate, or 16 frames at 8 a second.

    Motion modules: the model's own, where it has some. Raises UserError for a clip that can't do without.
    """
    exact = recipe.strict_mask or recipe.strict_first_frame
    still = bool(recipe.walk_to)
    values: dict[str, Any] = {
        "num_frames": base.num_frames if base else NUM_FRAMES,
        "fps": float(base.fps) if base else FPS,
        "codec": "ffv1" if exact else "h264",
        "motion_adapter": MODEL if checkpoint.has_motion and not still else NONE,
    }
    recipe = replace(recipe, **{name: value for name, value in values.items() if getattr(recipe, name) is None})
    travels = len(parse_travel(recipe.prompt)) > 1
    if recipe.motion_adapter == NONE and mode != "video2video" and not (still or travels):
        raise UserError(
            f"--model {recipe.model} has no motion modules here: train some by `noisette train motion`, name some by"
            " --motion_adapter, or make a clip without: --walk_to 5,9 or --base_video"
        )
    return recipe


def read_clips(recipe: Recipe) -> tuple[Clip | None, Clip | None]:
    """The base clip and the mask clip, read through once. Raises UserError."""
    from noisette import clips
    from noisette.reading import resolve

    most = recipe.num_frames or MAX_FRAMES
    base = clips.probe(resolve(recipe.base_video), most) if recipe.base_video is not None else None
    mask = clips.probe(resolve(recipe.mask_video), most) if recipe.mask_video is not None else None
    return base, mask


def check_clip(recipe: Recipe, codec: Codec, base: Clip | None, mask: Clip | None) -> None:
    """What fields of a clip mean beside each other and its inputs. Raises UserError."""
    from noisette.codecs import available

    frames = recipe.num_frames or 0
    if base is not None and base.num_frames < frames:
        raise UserError(f"--num_frames {frames} is more than the {base.num_frames} that {base.path} has")
    if mask is not None and mask.num_frames < frames:
        raise UserError(
            f"--mask_video {mask.path} has {mask.num_frames} frames, the clip {frames}: --num_frames"
            f" {mask.num_frames}, or a longer mask"
        )
    if base is not None and mask is not None and base.size != mask.size and recipe.fit is None:
        (w, h), (mask_w, mask_h) = base.size, mask.size
        raise UserError(f"the mask {mask.path} is {mask_w}x{mask_h}, the base {w}x{h}: say how they meet by --fit")
    for name in ("strict_mask", "strict_first_frame"):
        if getattr(recipe, name) and not codec.lossless:
            lossless = ", ".join(row for row in CODECS if row not in ("h264", "av1", "gif"))
            raise UserError(f"--codec {codec.name} can't keep a pixel for --{name}: {lossless} can")
    if not available(codec):
        raise UserError(f"--codec {codec.name} needs the encoder {codec.encoder}, which this installation lacks")


def plan_clip(recipe: Recipe, size: Size, base: Clip | None, mask: Clip | None, checkpoint: Checkpoint) -> ClipPlan:
    """The clip of a filled recipe. Raises UserError."""
    from noisette.codecs import CODECS as ROWS
    from noisette.codecs import pixels_for

    assert recipe.num_frames is not None
    assert recipe.fps is not None
    codec = ROWS[recipe.codec]
    check_clip(recipe, codec, base, mask)
    pixels_for(codec, size.width, size.height)
    prompts = parse_travel(recipe.prompt)
    if prompts[-1][0] >= recipe.num_frames:
        raise UserError(f"--prompt names frame {prompts[-1][0]}: the clip's last is {recipe.num_frames - 1}")
    words, scale = parse_motion(recipe.motion)
    if words:
        prompts = tuple((frame, f"{prompt}, {words}" if prompt else words) for frame, prompt in prompts)
    tied = recipe.motion_adapter != NONE
    window = checkpoint.configs["motion_adapter"]["motion_max_seq_length"] if tied else CHUNK
    fps = Fraction(recipe.fps).limit_denominator(1001)
    walk = tuple(parse_seeds(recipe.walk_to))
    return ClipPlan(recipe.num_frames, fps, codec, base, mask, prompts, walk, window, tied, scale)


def parse_travel(prompt: str) -> tuple[tuple[int, str], ...]:
    """'0: a seed; 8: a sapling' as ((0, 'a seed'), (8, 'a sapling')); any other prompt stands at frame 0 alone.

    Raises UserError for frames that do not grow.
    """
    parts = [part for part in prompt.split(";") if part.strip()]
    matches = [STATION.fullmatch(part) for part in parts]
    if not matches or not all(matches):
        return ((0, prompt),)
    found = tuple((int(match[1]), match[2]) for match in matches if match)
    frames = [frame for frame, _ in found]
    if frames != sorted(set(frames)):
        raise UserError(f"--prompt {prompt!r}: its frames {', '.join(map(str, frames))} do not grow")
    return found


def notes(recipe: Recipe, mode: str, size: Size, base: Clip | None) -> list[str]:
    """What is worth a note, a line each."""
    found = []
    if base is not None and base.size != (size.width, size.height):
        how = recipe.fit or "crop"
        found.append(
            "the base is {}x{}, brought to {}x{} by --fit {}".format(*base.size, size.width, size.height, how)
        )
    if mode == "video2video" and recipe.motion_adapter == NONE:
        found.append("no motion modules: each frame is made by itself from the same noise, and flickers")
    if recipe.codec == "h264" and (size.width % 2 or size.height % 2):
        found.append(f"{size.width}x{size.height} is odd: H.264 keeps full colour, which some players can't show")
    return found


def as_frame(recipe: Recipe, base: Picture) -> Picture:
    """A base picture as a clip's frame: 8-bit RGB. Raises UserError for one that could not stay exact."""
    from noisette import pixels
    from noisette.reading import Picture

    if base.mode == "RGB":
        return Picture(base.data)
    if (base.alpha is not None or base.mode == "I;16") and (recipe.strict_mask or recipe.strict_first_frame):
        raise UserError(f"--base_img {recipe.base_img} is {base.mode}, a clip's frames are RGB: save it as RGB first")
    return Picture(pixels.rounded(pixels.shown(base)))


def check_room(clip: ClipPlan | None, size: Size, out: Path) -> None:
    """Raises UserError when the disk has less room than the clip may take."""
    if clip is None:
        return
    import shutil

    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    needed = size.width * size.height * clip.num_frames * clip.codec.density * 2  # encoded, and while it is stamped
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"--num_frames {clip.num_frames} of {size.width}x{size.height} by --codec {clip.codec.name} may take"
            f" {needed / 1e9:.1f} GB, {there} has {free / 1e9:.1f} free: take fewer frames or name another --out"
        )


def inputs_of(plan: Plan) -> Iterator[tuple[Picture | None, Mask | None]]:
    """Base and mask of each frame at the size that is written, one at a time. Raises UserError for an empty mask."""
    from itertools import repeat

    from noisette import clips, masks, pixels
    from noisette.reading import Picture

    clip, size, how = plan.clip, plan.size, plan.recipe.fit or "crop"
    assert clip is not None
    moving_base = clips.frames(clip.base.path, clip.num_frames) if clip.base else repeat(None)
    moving_mask = clips.frames(clip.mask.path, clip.num_frames) if clip.mask else repeat(None)
    for _, base, mask in zip(range(clip.num_frames), moving_base, moving_mask, strict=False):
        picture, repaint = plan.base, plan.mask
        if base is not None:
            picture = pixels.fit(Picture(base), size.width, size.height, how)
        if mask is not None:
            repaint = masks.mask_of(Picture(mask), str(plan.recipe.mask_video))
            repaint = pixels.fit_mask(
                repaint.inverted() if plan.recipe.invert_mask else repaint, size.width, size.height, how
            )
        yield picture, repaint
