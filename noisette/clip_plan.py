"""What a clip adds to the plan: its frames, its inputs, its codec, its window. Checks, nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette.clip_fields import NONE, moved_by, ours, parse_motion, parse_travel, redrawing
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

BETWEEN = 0.5  # strength of frame interpolation: enough to sharpen a mixture of two frames
LEARNED = 16  # frames that AnimateDiff and noisette-1 were trained on
CHUNK = 8  # frames a network takes at a time where no motion modules tie them together


@dataclass(frozen=True)
class ClipPlan:
    """The clip of a run, decided. `prompts`: (frame, prompt) in order; `walk`: the seeds the noise walks to.

    `times`: of the `num_frames` that are written, every so many is sampled, the others are made between them.
    `moved`: the rule that makes a clip of a still, which is then noised and redrawn at strength `redrawn`.
    `still`: how that is composed where no base is given and pictures are composed otherwise than the clip's frames.
    `shared_noise`: the share of the noise's variance that tied frames have in common.
    """

    num_frames: int
    times: int
    fps: Fraction
    codec: Codec
    base: Clip | None
    mask: Clip | None
    prompts: tuple[tuple[int, str], ...]
    walk: tuple[int, ...]
    window: int
    tied: bool
    motion_scale: float
    moved: str | None = None
    redrawn: float = 0.0
    still: Size | None = None
    shared_noise: float = 0.0

    @property
    def overlap(self) -> int:
        """Frames that neighbouring windows share: a quarter, where motion modules tie frames together."""
        return self.window // 4 if self.tied else 0

    def sampled(self) -> ClipPlan:
        """The clip before frames are made between its frames."""
        prompts = tuple((frame // self.times, prompt) for frame, prompt in self.prompts)
        return replace(self, num_frames=-(-self.num_frames // self.times), times=1, prompts=prompts)

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {"num_frames": self.num_frames, "fps": float(self.fps), "codec": self.codec.name}


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
    if mask is not None and recipe.interpolate > 1:
        raise UserError(
            f"--interpolate {recipe.interpolate} can't stand beside --mask_video, which has its own frames"
        )
    if mask is not None and mask.num_frames < frames:
        raise UserError(
            f"--mask_video {mask.path} has {mask.num_frames} frames, the clip {frames}: --num_frames"
            f" {mask.num_frames}, or a longer mask"
        )
    for name in ("strict_mask", "strict_first_frame"):
        if getattr(recipe, name) and not codec.lossless:
            lossless = ", ".join(row for row in CODECS if row not in ("h264", "av1", "gif"))
            raise UserError(f"--codec {codec.name} can't keep a pixel for --{name}: {lossless} can")
    if not available(codec):
        raise UserError(f"--codec {codec.name} needs the encoder {codec.encoder}, which this installation lacks")


def check_masks(recipe: Recipe, size: Size, base: Picture | Clip, mask: Clip) -> None:
    """Raises UserError for masks of another size than the base, and for those that repaint nothing once fitted."""
    how = recipe.fit or "crop"
    if base.size != mask.size and recipe.fit is None:
        (w, h), (mask_w, mask_h) = base.size, mask.size
        raise UserError(f"the mask {mask.path} is {mask_w}x{mask_h}, the base {w}x{h}: say how they meet by --fit")
    if not any(each.repaint.any() for each in masks_of(recipe, size, mask, recipe.num_frames or 0)):
        raise UserError(
            f"the mask {mask.path} is empty at {size.width}x{size.height}: none of its {recipe.num_frames} frames has"
            f" anything to repaint by --fit {how}"
        )


def plan_clip(
    recipe: Recipe, size: Size, base: Clip | None, mask: Clip | None, checkpoint: Checkpoint, picture: Size
) -> ClipPlan:
    """The clip of a filled recipe; `picture` is how one of the same size is composed. Raises UserError."""
    from noisette.codecs import CODECS as ROWS
    from noisette.codecs import pixels_for

    assert recipe.num_frames is not None
    assert recipe.fps is not None
    codec = ROWS[recipe.codec]
    check_clip(recipe, codec, base, mask)
    pixels_for(codec, size.width, size.height)
    times, frames = recipe.interpolate, recipe.num_frames
    if times not in (1, 2, 4) or (times > 1 and base is not None):
        raise UserError(
            f"--interpolate {times} is not 1, 2 or 4, or stands beside --base_video, which has its frames"
        )
    if times > 1 and recipe.interpolate_by == "model" and int((recipe.num_inference_steps or 0) * BETWEEN) < 1:
        raise UserError(f"--interpolate {times} needs --num_inference_steps 2 or more")
    prompts = parse_travel(recipe.prompt)
    if prompts[-1][0] >= recipe.num_frames:
        raise UserError(f"--prompt names frame {prompts[-1][0]}: the clip's last is {recipe.num_frames - 1}")
    words, scale = parse_motion(recipe.motion)
    tied = recipe.motion_adapter != NONE
    if words and tied:
        prompts = tuple((frame, f"{prompt}, {words}" if prompt else words) for frame, prompt in prompts)
    adapter = checkpoint.configs.get("motion_adapter")
    window = window_of(adapter, recipe.num_frames) if adapter else CHUNK
    moved = moved_by(recipe, ours(checkpoint))
    drawn = moved is not None and recipe.base_img is None
    strength = recipe.strength if recipe.strength is not None else redrawing(recipe, checkpoint)
    fps = Fraction(recipe.fps).limit_denominator(1001)
    walk = tuple(parse_seeds(recipe.walk_to, name="walk_to"))
    written = frames * times if recipe.loop else (frames - 1) * times + 1
    prompts = tuple((frame * times, prompt) for frame, prompt in prompts)
    return ClipPlan(
        written, times, fps, codec, base, mask, prompts, walk, window, tied, scale, moved,
        strength if moved else 0.0, picture if drawn and picture != size else None,
        ours(checkpoint).get("shared_noise", 0.0),
    )  # fmt: skip


def window_of(adapter: dict[str, Any], num_frames: int) -> int:
    """Frames that motion modules see at once: all they have places for; in longer clips the 16 they learned."""
    places: int = adapter.get("motion_max_seq_length", 32)
    return places if num_frames <= places else min(places, LEARNED)


def notes(recipe: Recipe, mode: str, size: Size, base: Clip | None) -> list[str]:
    """What is worth a note, a line each."""
    found: list[str] = []
    if not recipe.moving:
        return found
    if base is not None and base.size != (size.width, size.height):
        how = recipe.fit or "crop"
        found.append(
            "the base is {}x{}, brought to {}x{} by --fit {}".format(*base.size, size.width, size.height, how)
        )
    if recipe.motion_adapter == NONE and (rule := moved_by(recipe, {})):
        found.append(f"no motion modules: the still is moved by the rule {rule!r}, each frame then redrawn by itself")
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
    """Base and mask of each frame at the size that is written, one at a time."""
    from itertools import repeat

    from noisette import clips, pixels
    from noisette.reading import Picture

    clip, size, how = plan.clip, plan.size, plan.recipe.fit or "crop"
    assert clip is not None
    moving_base = clips.frames(clip.base.path, clip.num_frames) if clip.base else repeat(None)
    masks = masks_of(plan.recipe, size, clip.mask, clip.num_frames) if clip.mask else repeat(plan.mask)
    for _, base, mask in zip(range(clip.num_frames), moving_base, masks, strict=False):
        picture = plan.base if base is None else pixels.fit(Picture(base), size.width, size.height, how)
        yield picture, mask


def masks_of(recipe: Recipe, size: Size, clip: Clip, num_frames: int) -> Iterator[Mask]:
    """The masks of a clip at the size that is written, one at a time."""
    from noisette import clips, masks, pixels
    from noisette.reading import Picture

    for frame in clips.frames(clip.path, num_frames):
        mask = replace(masks.mask_of(Picture(frame), str(recipe.mask_video)), soft=recipe.soft_mask)
        mask = mask.inverted() if recipe.invert_mask else mask
        yield pixels.fit_mask(mask, size.width, size.height, recipe.fit or "crop")
