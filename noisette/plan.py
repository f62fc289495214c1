"""The plan: every check that a user's mistake can fail, made before any weight is read.

`plan(recipe)` fills in what the recipe left open, decides the mode, the sizes and the engine, reads the base
and the mask, and says which files would be written. Nothing heavy is imported; Pillow only when there is a base.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette import adapters, clip_fields, clip_plan, wording
from noisette import checkpoint as checkpoints
from noisette.catalog import FAMILIES, MODELS, Family
from noisette.checkpoint import Checkpoint
from noisette.checks import (
    KEEPING,
    PARTWAY,
    check_device,
    check_inputs,
    check_precision,
    check_step_cache,
    check_together,
    choose_engine,
    loras_of,
    without_effect,
)
from noisette.clip_plan import ClipPlan
from noisette.engines import check_here
from noisette.errors import UserError
from noisette.recipe import ALTERING_NOTHING, MAX_PIXELS, Recipe, among, asks, parse_seeds
from noisette.sizes import Size, Window, composed_size, scene_for, written_size
from noisette.wording import Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from noisette.clips import Clip
    from noisette.masks import Mask
    from noisette.reading import Picture

BUILTIN = Path(__file__).parent / "models"
STRENGTH = {"img2img": 0.8, "inpainting": 1.0, "variation": 0.5, "img2video": 0.9, "video2video": 0.6}
IMAGE_PROMPT = 0.5  # of a variation that has a prompt too
FILES = (".safetensors", *checkpoints.PICKLES)
Found = tuple[Checkpoint, Family, dict[str, Any], "float | None"]
Inputs = tuple["Picture | None", "Mask | None", list[str]]
Clips = tuple["Clip | None", "Clip | None"]


@dataclass(frozen=True)
class Plan:
    """One run, decided: the recipe with nothing left open and everything `generate` needs besides weights."""

    recipe: Recipe
    mode: str
    family: Family
    checkpoint: Checkpoint
    engine: str
    engine_why: str
    size: Size
    seeds: tuple[int, ...]
    out: Path
    base: Picture | None
    mask: Mask | None
    windows: tuple[Window, ...]
    loras: tuple[tuple[Path, float], ...]
    notes: tuple[str, ...]
    clip: ClipPlan | None = None
    scene: Scene | None = None

    @property
    def steps(self) -> int:
        """Denoising steps that run: modes with a base begin part-way (diffusers' get_timesteps)."""
        count = self.recipe.num_inference_steps or 0
        if self.mode in PARTWAY:
            return min(int(count * (self.recipe.strength or 0.0)), count)
        return 0 if self.mode == "upscale" else count

    @property
    def refining_steps(self) -> int:
        """Steps that denoise the enlarged picture once more."""
        return int((self.recipe.num_inference_steps or 0) * self.recipe.refine)

    @property
    def evaluated_steps(self) -> int:
        """Steps the progress bar counts, over all pictures; variation walks the base's path first."""
        composing = self.steps * len(self.windows) * (2 if self.mode == "variation" else 1)
        if self.clip and self.clip.moved and self.mode == "text2video":
            composing += int((self.recipe.num_inference_steps or 0) * self.clip.redrawn)
        if self.clip and self.clip.times > 1 and self.recipe.interpolate_by == "model":
            composing += int((self.recipe.num_inference_steps or 0) * clip_plan.BETWEEN)
        return (composing + self.refining_steps) * len(self.seeds)

    @property
    def exact(self) -> bool:
        """Whether what the mask keeps stays byte for byte, which is then proved on the file."""
        return self.mask is not None and any(asks(self.recipe, name) for name in KEEPING)

    @property
    def cropped(self) -> bool:
        """Whether only windows around the mask are composed."""
        return self.mask is not None and any(window.size != self.size for window in self.windows)

    @property
    def suffix(self) -> str:
        """Of the files that are written."""
        return self.clip.codec.suffix if self.clip else ".png"

    def picture_recipe(self, seed: int) -> Recipe:
        """The recipe of one picture of this run: what its file carries."""
        return replace(self.recipe, **ALTERING_NOTHING, seed=str(seed))

    def describe(self) -> dict[str, Any]:
        """The plan as JSON values."""
        from noisette.names import preview

        recipe = self.recipe
        return {
            "mode": self.mode,
            "model": recipe.model,
            "family": self.family.name,
            "engine": self.engine,
            "engine_why": self.engine_why,
            "precision": recipe.precision,
            "size": [self.size.width, self.size.height],
            "canvas": [self.size.canvas_width, self.size.canvas_height],
            "hires": self.size.hires,
            "windows": [window.describe() for window in self.windows],
            "sampler": recipe.sampler,
            "schedule": recipe.schedule,
            "num_inference_steps": recipe.num_inference_steps,
            "steps": self.steps,
            "guidance_scale": recipe.guidance_scale,
            "strength": recipe.strength,
            "seeds": list(self.seeds),
            "files": [
                str(preview(self.out, recipe.prompt, self.mode, s, recipe.num_inference_steps, self.suffix))
                for s in self.seeds
            ],
            "downloads": list(self.checkpoint.downloads),
            "notes": list(self.notes),
            "recipe": recipe.to_json(),
            **({"scene": self.scene.describe()} if self.scene else {}),
            **(self.clip.describe() if self.clip else {}),
        }

    def to_text(self) -> str:
        """The plan for a person, a line a fact."""
        facts = self.describe()
        width, height = facts["size"]
        same = self.cropped or facts["size"] == facts["canvas"]
        composed = "" if same else " (composed at {}x{})".format(*facts["canvas"])
        rows = {
            "model": f"{facts['model']} ({facts['family']})",
            "engine": f"{facts['engine']}, {facts['precision']}: {facts['engine_why']}",
            "task": facts["mode"],
            "size": f"{width}x{height}{composed}",
            **({"crop": self.windows_text()} if self.mask is not None and not self.clip else {}),
            "sampler": f"{facts['sampler']}, {facts['schedule']} schedule, {facts['steps']} steps",
            "guidance": facts["guidance_scale"],
            "seeds": ", ".join(map(str, self.seeds)),
            **({"scene": f"{self.scene.order}: {'; '.join(self.scene.prompts)}"} if self.scene else {}),
            "writes": ", ".join(facts["files"]),
            "downloads": ", ".join(facts["downloads"]) or "nothing",
        }
        if self.clip:
            rows["clip"] = "{num_frames} frames, {fps} a second, by {codec}".format(**facts)
        return "\n".join(f"{name:10} {value}" for name, value in rows.items())

    def windows_text(self) -> str:
        """Which parts of the picture are composed."""
        if not self.cropped:
            return f"{self.recipe.crop}: the whole picture"
        parts = ("{2}x{3} at {0},{1}".format(*w.describe()["box"]) for w in self.windows)
        canvases = ("{}x{}".format(*w.describe()["canvas"]) for w in self.windows)
        pairs = zip(parts, canvases, strict=True)
        return f"{self.recipe.crop}: " + ", ".join(f"{part} composed at {canvas}" for part, canvas in pairs)


def mode_of(recipe: Recipe) -> str:
    """text2img, img2img, inpainting, variation or a clip's mode, from which inputs are given. Raises UserError."""
    if recipe.moving:
        return clip_fields.mode_of(recipe)
    check_inputs(recipe)
    if recipe.upscale is not None:
        return "upscale"
    if recipe.variation:
        return "variation"
    if recipe.mask_img is not None or recipe.outpaint is not None:
        return "inpainting"
    return "text2img" if recipe.base_img is None else "img2img"


def fill(recipe: Recipe, mode: str, family: Family, defaults: dict[str, Any], checkpoint: Checkpoint) -> Recipe:
    """Gives each open field the model's value, or the family's."""
    image_prompt = (IMAGE_PROMPT if recipe.prompt else 1.0) if checkpoint.sees else 0.0
    values: dict[str, Any] = {
        "num_inference_steps": family.steps,
        "guidance_scale": family.guidance_scale,
        "sampler": family.sampler,
        "schedule": "model",
        "strength": STRENGTH.get(mode),
        "preview_decoder": adapters.OWN_VAE,
        "crop": "auto" if not recipe.moving and (recipe.mask_img or recipe.outpaint) else None,
    } | defaults
    if mode == "variation":
        values["sampler"] = "euler_ancestral"
    elif recipe.moving and values["sampler"] == "euler_ancestral":
        values["sampler"] = "euler"  # fresh noise at each step and in each frame would flicker
    if mode == "variation" or recipe.ip_adapter:
        values["image_prompt"] = image_prompt
    if recipe.seed == "":
        values["seed"] = str(secrets.randbelow(2**32))
    still_open = {f.name for f in fields(recipe) if getattr(recipe, f.name) in (None, "")}
    if not recipe.preview_every:
        still_open.remove("preview_decoder")
    return replace(recipe, **{name: value for name, value in values.items() if name in still_open})


def read(recipe: Recipe, clip: Clip | None) -> Inputs:
    """The base and the mask, if any, as their files have them, and what is worth a note. Raises UserError."""
    if recipe.base_img is None and clip is None:
        return None, None, []
    from noisette.inputs import read_inputs

    return read_inputs(recipe, clip)


def fit(
    base: Picture | None, mask: Mask | None, recipe: Recipe, size: Size
) -> tuple[Picture | None, Mask | None, list[str]]:
    """Base and mask, if any, at the size that is written, and what is worth a note. Raises UserError."""
    if base is None and mask is None:
        return None, None, []
    from noisette.inputs import fit_inputs

    return fit_inputs(base, mask, recipe, size.width, size.height)


def windows_of(
    mode: str, mask: Mask | None, recipe: Recipe, size: Size, checkpoint: Checkpoint
) -> tuple[Window, ...]:
    """What is composed: the whole picture, or with --crop windows around what is masked; to upscale nothing."""
    if mode == "upscale":
        return ()
    if mask is None:
        return (Window(0, 0, size),)
    from noisette.windows import windows_for

    assert recipe.crop is not None
    return windows_for(mask.repaint, recipe.crop, size, checkpoint.native_side, checkpoint.vae_scale_factor)


def scene_of(recipe: Recipe, mode: str, checkpoint: Checkpoint) -> Scene | None:
    """The several things that a picture is to show, each in a place of its own, if the model knows them by name."""
    if mode != "text2img" or not recipe.interpret or recipe.hires == "off" or checkpoint.thesaurus is None:
        return None
    return wording.scene(recipe.prompt, wording.vocabulary(checkpoint.thesaurus))


def find_model(name: str) -> Found:
    """The checkpoint behind --model, its family, its own defaults and the widest aspect it composes directly."""
    row = MODELS.get(name)
    is_there = name != "" and Path(name).exists()
    looks_like_a_place = is_there or "/" in name or "\\" in name or Path(name).suffix in FILES
    if row is None and not looks_like_a_place:
        raise UserError(
            f"--model {name!r} is unknown{among(name, list(MODELS))},"
            " a diffusers folder, a .safetensors file or a hub id"
        )
    where = name if row is None else row.where
    if where.startswith("builtin:"):
        where = str(BUILTIN / where.removeprefix("builtin:"))
    checkpoint = checkpoints.locate(where)
    kind = checkpoint.kind.removesuffix("-inpaint")
    family = FAMILIES[row.family if row else kind if kind in FAMILIES else "stable-diffusion"]
    if row is None:
        return checkpoint, family, {}, family.max_aspect
    return checkpoint, family, row.defaults, row.max_aspect


def plan(
    recipe: Recipe,
    out: Path = Path("out"),
    lenient: bool = False,
    download: bool = True,
    find: Callable[[str], Found] = find_model,
    read: Callable[[Recipe, Clip | None], Inputs] = read,
    read_clips: Callable[[Recipe], Clips] = clip_plan.read_clips,
) -> Plan:
    """Decides a run. `download`: it is to run here, and weights of a hub that are not here yet are fetched.

    Raises UserError.

    What an argument would not do is an error, or with `lenient` a note. A caller who plans thousands of recipes
    may pass a `find`, a `read` and a `read_clips` that remember models and inputs.
    """
    if recipe.checkpoint_every and recipe.seed == "":
        raise UserError("--checkpoint_every needs --seed: a second run must make the same picture to go on")
    mode = mode_of(recipe)
    if download:
        check_device(recipe)
    checkpoint, family, defaults, max_aspect = find(recipe.model)
    base_clip, mask_clip = read_clips(recipe)
    if recipe.moving:
        if family.whole_clips:
            recipe = clip_fields.fill_whole(recipe, mode, base_clip, checkpoint, family.whole_clips)
        else:
            recipe = clip_fields.fill(recipe, mode, base_clip, checkpoint)
            if recipe.motion_adapter != clip_fields.NONE:
                checkpoint = adapters.with_motion(checkpoint, recipe.motion_adapter)
            recipe = clip_fields.started(recipe, mode, checkpoint)
    elif family.whole_clips:
        raise UserError(f"--model {recipe.model} makes clips: python3 video.py")
    if recipe.preview_decoder is not None and not recipe.preview_every:
        raise UserError(f"--preview_decoder {recipe.preview_decoder} needs --preview_every")
    if recipe.clip_skip:
        checkpoint = adapters.with_clip_skip(checkpoint, recipe.clip_skip)
    if recipe.ip_adapter:
        checkpoint = adapters.with_ip_adapter(checkpoint, recipe.ip_adapter)
    usual = fill(Recipe(), mode, family, defaults, checkpoint)
    recipe = fill(recipe, mode, family, defaults, checkpoint)
    check_together(recipe, mode, family, checkpoint)
    engine, why = choose_engine(recipe, family)
    check_step_cache(recipe, mode, engine)
    check_precision(recipe, engine, checkpoint)
    if download:
        check_here(engine, recipe.device, recipe.precision)
    if recipe.preview_every and recipe.preview_decoder != adapters.OWN_VAE:
        decoder = adapters.preview_weights(str(recipe.preview_decoder), checkpoint, download)
        recipe = replace(recipe, preview_decoder=decoder)
    loras = loras_of(recipe, engine)
    base, mask, notes = read(recipe, base_clip)
    shape = base or base_clip
    native = family.whole_clips.size if family.whole_clips else (checkpoint.native_side,) * 2
    width, height = written_size(recipe, shape.size if shape else None, native)
    if width * height > MAX_PIXELS:
        raise UserError(f"{width}x{height} are {width * height:,} pixels: at most {MAX_PIXELS:,} are written")
    scene = scene_of(recipe, mode, checkpoint)
    if scene:
        grid = checkpoint.vae_scale_factor
        size = scene_for(width, height, checkpoint.native_side, grid, len(scene.prompts), scene.down)
    else:
        size = composed_size(recipe, mode, width, height, checkpoint, max_aspect)
    if recipe.refine and mode != "upscale" and not (mode == "text2img" and size.hires):
        raise UserError(f"--refine {recipe.refine} has nothing to refine: {width}x{height} is not enlarged")
    clip = None
    if recipe.moving:
        picture = composed_size(recipe, "text2img", width, height, checkpoint, max_aspect)
        clip = clip_plan.plan_clip(recipe, size, base_clip, mask_clip, checkpoint, picture)
    if mask_clip is not None and shape is not None:
        clip_plan.check_masks(recipe, size, shape, mask_clip)
    base, repaint, fit_notes = (base, None, []) if mode == "upscale" else fit(base, mask, recipe, size)
    windows = (Window(0, 0, size),) if clip else windows_of(mode, repaint, recipe, size, checkpoint)
    notes = [*notes, *clip_plan.notes(recipe, mode, size, base_clip)]
    if min(width, height) < min(native) and windows == (Window(0, 0, size),):
        notes.append(f"{width}x{height} is below the model's native {checkpoint.native_side}: quality may drop")
    beyond = windows == (Window(0, 0, size),) and (
        composed_size(replace(recipe, hires="auto"), mode, width, height, checkpoint, max_aspect).hires
    )
    if recipe.hires == "off" and beyond:
        notes.append(f"--hires off: {width}x{height} is beyond what the model was made for, areas may repeat")
    seeds = tuple(parse_seeds(recipe.seed, recipe.count))
    made = Plan(
        recipe,
        mode,
        family,
        checkpoint,
        engine,
        why,
        size,
        seeds,
        out,
        base,
        repaint,
        windows,
        loras,
        (*fit_notes, *notes),
        clip,
        scene,
    )
    idle = without_effect(made, usual, beyond)
    if idle and not lenient:
        raise UserError(idle[0])
    if download:
        from noisette.names import check_writable

        checkpoint = checkpoints.fetch(checkpoint)
        if recipe.ip_adapter:
            adapters.check_ip_adapter(recipe.ip_adapter, *checkpoint.weights[checkpoints.IP_ADAPTER])
        check_writable(out)
        clip_plan.check_room(clip, size, out)
    return replace(made, checkpoint=checkpoint, notes=(*idle, *made.notes))
