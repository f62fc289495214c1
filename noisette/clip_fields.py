"""What each field of a clip means and becomes: mode, frames, rate, motion and modules. Checks, nothing heavy."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from noisette.catalog import MODELS
from noisette.errors import UserError
from noisette.recipe import FIELDS, MOTIONS, Recipe, asks

if TYPE_CHECKING:
    from noisette.catalog import Clips
    from noisette.checkpoint import Checkpoint
    from noisette.clips import Clip

NUM_FRAMES, FPS = 16, 8.0
REDRAWN = 0.25  # strength at which a moved still is redrawn without motion modules, which keep it in its place
NAMES = {word: name for name, words in MOTIONS.items() for word in words}
STILL = "bounce"  # the motion of a still when none is named
NONE, MODEL = "none", "model"  # no motion modules, and those in the model's own folder
STATION = re.compile(r"\s*(\d+)\s*:(?!\d)\s*(.*?)\s*", re.DOTALL)  # 16:9 and 5:30 are no frames
NEEDS_MASK = ("strict_mask", "invert_mask", "soft_mask", "feather", "blend", "color_match")
FOR_PICTURES = ("variation", "outpaint", "upscale", "refine", "image_prompt", "ip_adapter", "step_cache")
SEPARATE = ("walk_to", "loop", "motion_adapter")
NEEDS_BASE = ("strength", "fit", "mask_img", "mask_video")


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
        if asks(recipe, name):
            raise UserError(f"--{name} {getattr(recipe, name)} needs --mask_img or --mask_video")
    if recipe.strict_first_frame and recipe.base_img is None:
        raise UserError("--strict_first_frame True needs --base_img")
    for name in FOR_PICTURES:
        if asks(recipe, name):
            raise UserError(f"--{name} {getattr(recipe, name)} is for pictures: see python3 image.py")
    if recipe.base_img is not None:
        return "img2video"
    return "text2video" if recipe.base_video is None else "video2video"


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
    left_open = {name: getattr(recipe, name) is None for name in values} | {"num_frames": not recipe.num_frames}
    return replace(recipe, **{name: value for name, value in values.items() if left_open[name]})


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
    for name in ("mask_img", "mask_video") if mode == "img2video" else ():
        if value := getattr(recipe, name):
            raise UserError(f"--{name} {value}: {recipe.model} masks clips (--base_video), not a picture's")
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


def moved_by(recipe: Recipe, adapter: dict[str, Any]) -> str | None:
    """The rule that moves a still, if a clip starts so: without motion modules, and with those that learned it."""
    learned = recipe.motion_adapter == NONE or "moved_strength" in adapter
    starts_from_still = recipe.base_video is None and not recipe.walk_to
    return named(parse_motion(recipe.motion)[0]) if learned and starts_from_still else None


def named(words: str) -> str | None:
    """The rule that `words` name ('spinning' is spin), or none."""
    return NAMES.get(" ".join(words.lower().split()))


def redrawing(recipe: Recipe, checkpoint: Checkpoint) -> float:
    """The strength at which a moved still is redrawn where none is given."""
    strength: float = ours(checkpoint).get("moved_strength", REDRAWN)
    return max(strength, 1 / (recipe.num_inference_steps or 1000))


def ours(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `noisette train motion` says of its modules: {} for other ones, and for none."""
    said: dict[str, Any] = checkpoint.configs.get("motion_adapter", {}).get("noisette", {})
    return said


def parse_motion(text: str) -> tuple[str, float]:
    """--motion as (words, strength): 'spin', 'spin:1.5' or '1.5'. Raises UserError for a strength beyond 0 to 3."""
    words, _, scale = text.rpartition(":")
    if not re.fullmatch(r"-?\d+(\.\d*)?", scale.strip()):
        return text.strip(), 1.0
    if not 0 <= float(scale) <= 3:
        raise UserError(f"--motion {text!r}: its strength is out of range: 0 to 3")
    return words.strip(), float(scale)


def parse_travel(prompt: str) -> tuple[tuple[int, str], ...]:
    """'0: a seed; 8: a sapling' as ((0, 'a seed'), (8, 'a sapling')); any other prompt stands at frame 0 alone.

    Each part begins with its frame and a colon; a digit behind that makes it a ratio or a time of day.

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


def travels(recipe: Recipe) -> bool:
    """Whether the prompt changes on the way."""
    return len(parse_travel(recipe.prompt)) > 1
