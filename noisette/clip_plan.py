"""What a clip adds to the plan: its frames, its inputs, its codec, its motion modules. Checks, nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette.catalog import MODELS
from noisette.errors import UserError
from noisette.recipe import CODECS, FIELDS, MAX_FRAMES, MOTIONS, Recipe, parse_seeds

if TYPE_CHECKING:
    from noisette.catalog import Clips
    from noisette.checkpoint import Checkpoint
    from noisette.clips import Clip
    from noisette.codecs import Codec
    from noisette.masks import Mask
    from noisette.plan import Plan
    from noisette.reading import Picture
    from noisette.sizes import Size

NUM_FRAMES, FPS = 16, 8.0
BETWEEN = 0.5  # strength of frame interpolation: enough to sharpen a mixture of two frames
REDRAWN = 0.25  # strength at which a moved still is redrawn without motion modules, which keep it in its place
NAMES = {word: name for name, words in MOTIONS.items() for word in words}
STILL = "bounce"  # the motion of a still when none is named
NONE, MODEL = "none", "model"  # no motion modules, and those in the model's own folder
STATION = re.compile(r"\s*(\d+)\s*:\s*(.*?)\s*", re.DOTALL)
LEARNED = 16  # frames that AnimateDiff and noisette-1 were trained on
CHUNK = 8  # frames a network takes at a time where no motion modules tie them together
NEEDS_MASK = ("strict_mask", "invert_mask", "soft_mask", "feather", "blend", "color_match")
SEPARATE = ("walk_to", "loop", "motion_adapter")
NEEDS_BASE = ("strength", "fit", "mask_img", "mask_video")


@dataclass(frozen=True)
class ClipPlan:
    """The clip of a run, decided. `prompts`: (frame, prompt) in order; `walk`: the seeds the noise walks to.

    `times`: of the `num_frames` that are written, every so many is sampled, the others are made between them.
    `moved`: the rule that makes a clip of a still, which is then noised and redrawn at strength `redrawn`.
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


def mode_of(recipe: Recipe) -> str:
    """text2video, img2video or video2video, from which inputs are given. Raises UserError."""
    if recipe.base_img is not None and recipe.base_video is not None:
        raise UserError("--base_img and --base_video are both given: a clip starts from one of them")
    if recipe.mask_img is not None and recipe.mask_video is not None:
        raise UserError("--mask_img and --mask_video are both given: a clip has one of them")
    if recipe.base_img is None and recipe.base_video is None:
        for name in NEEDS_BASE:
            if getattr(recipe, name) is not None:
                raise UserError(f"--{name} {getattr(recipe, name)} needs --base_img or --base_video")
    for name in NEEDS_MASK if recipe.mask_img is None and recipe.mask_video is None else ():
        if getattr(recipe, name) != FIELDS[name].default:
            raise UserError(f"--{name} {getattr(recipe, name)} needs --mask_img or --mask_video")
    if recipe.strict_first_frame and recipe.base_img is None:
        raise UserError("--strict_first_frame True needs --base_img")
    for name in ("variation", "outpaint"):
        if getattr(recipe, name):
            raise UserError(f"--{name} {getattr(recipe, name)} is for pictures: see python3 image.py")
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

    Motion modules: the model's own, or those the catalog names; none for walks. noisette-1's own stay away from
    prompts that change: they move a still.
    """
    exact = recipe.strict_mask or recipe.strict_first_frame
    walks = bool(recipe.walk_to)
    row = MODELS.get(recipe.model)
    by_rule = "noisette" in checkpoint.own_motion and travels(recipe) and not recipe.motion
    own = NONE if by_rule else MODEL if checkpoint.own_motion else (row.motion_adapter if row else None) or NONE
    values: dict[str, Any] = {
        "num_frames": base.num_frames if base else NUM_FRAMES,
        "fps": float(base.fps) if base else FPS * recipe.interpolate,
        "codec": "ffv1" if exact else "h264",
        "motion_adapter": NONE if walks else own,
    }
    return filled(recipe, values)


def filled(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """The recipe with these values where it is open; 0 frames are as many as the model likes."""
    return replace(recipe, **{name: value for name, value in values.items() if getattr(recipe, name) in (None, 0)})


def fill_whole(recipe: Recipe, mode: str, base: Clip | None, checkpoint: Checkpoint, usual: Clips) -> Recipe:
    """`fill` for models that were trained on clips and make all frames at once. Raises UserError.

    They begin with a picture or with noise, never part-way; what ties separate frames together is not for them.
    """
    for name in SEPARATE:
        if getattr(recipe, name) != FIELDS[name].default:
            raise UserError(
                f"--{name} {getattr(recipe, name)} is for models of single frames: {recipe.model} makes whole clips"
            )
    if recipe.interpolate > 1 and recipe.interpolate_by == "model":
        raise UserError(
            f"--interpolate {recipe.interpolate}: {recipe.model} makes none between: --interpolate_by blend"
        )
    if travels(recipe):
        raise UserError(f"--prompt {recipe.prompt!r} changes on the way: {recipe.model} takes one for the whole clip")
    if parse_motion(recipe.motion)[1] != 1.0:
        raise UserError(f"--motion {recipe.motion}: {recipe.model} takes words, no strength")
    if mode == "img2video" and checkpoint.first_frame == "never":
        raise UserError(f"--base_img {recipe.base_img}: {recipe.model} makes clips of text alone")
    if mode != "img2video" and checkpoint.first_frame == "must":
        raise UserError(f"--model {recipe.model} goes on from a picture: give it one by --base_img")
    if mode == "img2video" and recipe.mask_img is not None:
        raise UserError(f"--mask_img {recipe.mask_img}: {recipe.model} masks clips (--base_video), not a picture's")
    if mode == "img2video" and recipe.strength not in (None, 1.0):
        raise UserError(f"--strength {recipe.strength}: {recipe.model} begins with the picture and pure noise")
    stride = checkpoint.frames_to_a_latent
    exact = recipe.strict_mask or recipe.strict_first_frame
    recipe = filled(
        recipe,
        {
            "num_frames": (base.num_frames - 1) // stride * stride + 1 if base else usual.num_frames,
            "fps": float(base.fps) if base else usual.fps * recipe.interpolate,
            "codec": "ffv1" if exact else "h264",
            "motion_adapter": MODEL,
            "strength": 1.0 if mode == "img2video" else None,
        },
    )
    frames = recipe.num_frames or 0
    if (frames - 1) % stride or frames <= stride:
        below = max((frames - 1) // stride * stride + 1, stride + 1)
        near = f"{below} and {below + stride}" if below < frames else f"{below}"
        raise UserError(
            f"--num_frames {frames} does not suit {recipe.model}: {near} do ({stride} to a latent, and 1)"
        )
    return recipe


def moved_by(recipe: Recipe, adapter: dict[str, Any]) -> str | None:
    """The rule that moves a still, if a clip starts so: without motion modules, and with those that learned it."""
    learned = recipe.motion_adapter == NONE or "moved_strength" in adapter
    starts_from_still = recipe.base_video is None and not recipe.walk_to
    return named(parse_motion(recipe.motion)[0]) if learned and starts_from_still else None


def named(words: str) -> str | None:
    """The rule that `words` name ('spinning' is spin), or none."""
    return NAMES.get(" ".join(words.lower().split()))


def started(recipe: Recipe, mode: str, checkpoint: Checkpoint) -> Recipe:
    """Gives a clip that starts from a moved still its motion, and with a base its strength; others stay.

    Without motion modules all do that neither walk nor change their prompt, and all with modules that learned so.
    Raises UserError for a motion that has no rule.
    """
    alone = recipe.motion_adapter == NONE
    if mode == "video2video" or recipe.walk_to or not (alone or "moved_strength" in ours(checkpoint)):
        return recipe
    if not recipe.motion and travels(recipe):
        return recipe
    words, scale = parse_motion(recipe.motion)
    if words and named(words) is None:
        others = " (--motion_adapter)" if alone else ""
        raise UserError(f"--motion {words!r} needs other motion modules{others}; by rule: {', '.join(MOTIONS)}")
    if scale != 1.0 and alone:
        raise UserError(f"--motion {recipe.motion} has no strength without motion modules: see --motion_adapter")
    recipe = replace(recipe, motion=recipe.motion if words else f"{STILL}:{scale}" if scale != 1.0 else STILL)
    if recipe.base_img is None or recipe.strength is not None:
        return recipe
    return replace(recipe, strength=redrawing(recipe, checkpoint))


def travels(recipe: Recipe) -> bool:
    """Whether the prompt changes on the way."""
    return len(parse_travel(recipe.prompt)) > 1


def redrawing(recipe: Recipe, checkpoint: Checkpoint) -> float:
    """The strength at which a moved still is redrawn where none is given."""
    strength: float = ours(checkpoint).get("moved_strength", REDRAWN)
    return max(strength, 1 / (recipe.num_inference_steps or 1000))


def ours(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `noisette train motion` says of its modules: {} for other ones, and for none."""
    said: dict[str, Any] = checkpoint.configs.get("motion_adapter", {}).get("noisette", {})
    return said


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
    strength = recipe.strength if recipe.strength is not None else redrawing(recipe, checkpoint)
    fps = Fraction(recipe.fps).limit_denominator(1001)
    walk = tuple(parse_seeds(recipe.walk_to, name="walk_to"))
    written = frames * times if recipe.loop else (frames - 1) * times + 1
    prompts = tuple((frame * times, prompt) for frame, prompt in prompts)
    return ClipPlan(
        written, times, fps, codec, base, mask, prompts, walk, window, tied, scale, moved,
        strength if moved else 0.0, ours(checkpoint).get("shared_noise", 0.0),
    )  # fmt: skip


def window_of(adapter: dict[str, Any], num_frames: int) -> int:
    """Frames that motion modules see at once: all they have places for; in longer clips the 16 they learned."""
    places: int = adapter.get("motion_max_seq_length", 32)
    return places if num_frames <= places else min(places, LEARNED)


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
            repaint = replace(repaint, soft=plan.recipe.soft_mask)
            repaint = pixels.fit_mask(
                repaint.inverted() if plan.recipe.invert_mask else repaint, size.width, size.height, how
            )
        yield picture, repaint
