"""What a recipe's fields mean beside each other and on an engine: each mistake is one line, before any weight."""

from __future__ import annotations

import math
import re
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from noisette import clip_fields
from noisette.catalog import Family
from noisette.checkpoint import MOTION, Checkpoint
from noisette.errors import UserError
from noisette.optimized import check_optimized
from noisette.recipe import Recipe, asks

if TYPE_CHECKING:
    from noisette.plan import Plan

PARTWAY = ("img2img", "inpainting", "img2video", "video2video")
SETTLED_BY_OUTPAINT = ("img_w", "img_h", "fit", "variation")
SETTLED_BY_UPSCALE = (*SETTLED_BY_OUTPAINT, "hires", "strength", "mask_img", "outpaint", "image_prompt", "ip_adapter")
NEEDS_BASE = ("upscale", "mask_img", "outpaint", "variation", "image_prompt", "ip_adapter", "strength", "fit")
NEEDS_MASK_IMG = ("invert_mask", "soft_mask")
NEEDS_MASK = ("strict_mask", "feather", "blend", "color_match", "crop")  # or an outpainting
KEEPING = ("strict_mask", "outpaint", "feather", "soft_mask", "blend", "variation")  # the mask's black, exactly
OF_THE_MODEL = (
    "prompt", "negative_prompts", "model", "lora", "clip_skip", "num_inference_steps", "sampler", "schedule",
    "guidance_scale", "guidance_rescale", "guidance_start", "guidance_end", "step_cache",
    "variation_seed", "variation_strength", "preview_every",
)  # fmt: skip


def check_inputs(recipe: Recipe) -> None:
    """What a picture's fields need of its base and its mask, and what these settle. Raises UserError."""
    if recipe.base_img is None:
        for name in NEEDS_BASE:
            if asks(recipe, name):
                raise UserError(f"--{name} {getattr(recipe, name)} needs --base_img")
    for name in (*NEEDS_MASK_IMG, *(NEEDS_MASK if recipe.outpaint is None else ())):
        if asks(recipe, name) and recipe.mask_img is None:
            mask = "--mask_img" if name in NEEDS_MASK_IMG else "--mask_img or --outpaint"
            needed = mask if recipe.base_img else "--base_img and --mask_img"
            raise UserError(f"--{name} {getattr(recipe, name)} needs {needed}")
    for settling, settled in (("outpaint", SETTLED_BY_OUTPAINT), ("upscale", SETTLED_BY_UPSCALE)):
        for name in settled:
            if asks(recipe, settling) and asks(recipe, name):
                value, by = getattr(recipe, name), getattr(recipe, settling)
                raise UserError(f"--{name} {value} does not go with --{settling} {by}")


def check_together(recipe: Recipe, mode: str, family: Family, checkpoint: Checkpoint) -> None:
    """What fields mean beside each other. Raises UserError."""
    steps, strength = recipe.num_inference_steps, recipe.strength
    assert steps is not None
    assert recipe.guidance_scale is not None
    if recipe.crop is not None:
        from noisette.windows import check_crop

        check_crop(recipe.crop)
    if mode in PARTWAY and strength is not None and int(steps * strength) < 1:
        raise UserError(
            f"--strength {strength} of --num_inference_steps {steps} is less than one step:"
            f" --strength {math.ceil(100 / steps) / 100} is the least"
        )
    if recipe.refine and int(steps * recipe.refine) < 1:
        raise UserError(
            f"--refine {recipe.refine} of --num_inference_steps {steps} is less than one step:"
            f" --refine {math.ceil(100 / steps) / 100} is the least, 0 is off"
        )
    if recipe.refine and checkpoint.masked:
        raise UserError(f"--refine {recipe.refine} does not suit {recipe.model}, which only fills masks")
    if recipe.sampler not in family.samplers:
        raise UserError(f"--sampler {recipe.sampler} does not suit {family.name}: {', '.join(family.samplers)} do")
    if recipe.schedule not in family.schedules:
        raise UserError(f"--schedule {recipe.schedule} does not suit {family.name}: {', '.join(family.schedules)} do")
    if mode == "variation" and recipe.sampler != "euler_ancestral":
        raise UserError(f"--sampler {recipe.sampler} draws no noise a variation could vary: euler_ancestral does")
    if recipe.image_prompt and not checkpoint.sees:
        raise UserError(
            f"--image_prompt {recipe.image_prompt} needs an image encoder, which {recipe.model} has not: name one by"
            " --ip_adapter, for Stable Diffusion 1.5 and XL h94/IP-Adapter"
        )
    if recipe.soft_mask and checkpoint.masked:
        raise UserError(f"--soft_mask True does not suit {recipe.model}, which was trained on black and white masks")
    if recipe.guidance_start > recipe.guidance_end:
        raise UserError(f"--guidance_start {recipe.guidance_start} lies after --guidance_end {recipe.guidance_end}")


def without_effect(plan: Plan, usual: Recipe, beyond: bool) -> list[str]:
    """Arguments that the run would ignore, a line each.

    `usual`: the recipe as it is filled where nothing is asked. `beyond`: hires would enlarge what is composed.
    """
    recipe, size = plan.recipe, plan.size
    found = idle_in_upscale(plan, usual) if plan.mode == "upscale" and not recipe.refine else idle_guidance(recipe)
    if recipe.motion and recipe.motion_adapter == clip_fields.NONE and clip_fields.moved_by(recipe, {}) is None:
        found.append(f"--motion {recipe.motion} has no effect without motion modules: see --motion_adapter")
    if recipe.interpolate == 1 and asks(recipe, "interpolate_by"):
        found.append(f"--interpolate_by {recipe.interpolate_by} has no effect without --interpolate 2 or 4")
    if recipe.strict_mask is False and plan.exact and not recipe.moving:
        by = next(f"--{name} {getattr(recipe, name)}" for name in KEEPING if asks(recipe, name))
        found.append(f"--strict_mask False has no effect: {by} keeps the mask's black, byte for byte")
    if recipe.hires == "off" and not beyond:
        where = f"in the windows of --crop {recipe.crop}" if plan.cropped else f"at {size.width}x{size.height}"
        found.append(f"--hires off has no effect {where}: auto composes the same")
    if asks(recipe, "upscaler") and plan.mode != "upscale" and not any(w.size.scale > 1 for w in plan.windows):
        found.append(f"--upscaler {recipe.upscaler} has no effect at {size.width}x{size.height}: nothing is enlarged")
    if not recipe.interpret and plan.checkpoint.thesaurus is None:
        found.append(f"--interpret False has no effect: {recipe.model} takes each prompt as it stands")
    if recipe.preview_every > plan.steps and plan.mode != "upscale":
        found.append(f"--preview_every {recipe.preview_every} has no effect on {plan.steps} steps: take fewer")
    return found


def idle_guidance(recipe: Recipe) -> list[str]:
    """Arguments that only guidance would read, where there is none."""
    scale = recipe.guidance_scale
    assert scale is not None
    names = [name for name in ("negative_prompts", "guidance_rescale") if scale <= 1 and getattr(recipe, name)]
    return [f"--{name} has no effect at --guidance_scale {scale}: take more than 1" for name in names]


def idle_in_upscale(plan: Plan, usual: Recipe) -> list[str]:
    """Arguments that only the model would read, where a picture is enlarged without it."""
    recipe = plan.recipe
    where = f"on --upscale {recipe.upscale} without --refine"
    names = [name for name in OF_THE_MODEL if getattr(recipe, name) != getattr(usual, name)]
    found = [f"--{name} {shorten(str(getattr(recipe, name)), 60)} has no effect {where}" for name in names]
    if len(plan.seeds) > 1:
        found.append(f"{len(plan.seeds):,} seeds make the same picture {where}: name one")
    return found


def choose_engine(recipe: Recipe, family: Family) -> tuple[str, str]:
    """The engine and why. Raises UserError when the asked one can't run this or is not installed."""
    from noisette.engines import INSTALL, installed

    if recipe.engine != "auto":
        if recipe.engine not in family.engines:
            raise UserError(f"--engine {recipe.engine} does not run {family.name}: {', '.join(family.engines)} does")
        if recipe.engine == "openvino" and recipe.device not in ("auto", "cpu"):
            raise UserError(f"--device {recipe.device} needs --engine torch: openvino runs on the CPU")
        engine, why = recipe.engine, "asked for"
    elif recipe.ip_adapter:
        engine, why = "torch", "for --ip_adapter"
    elif recipe.device in ("cuda", "mps"):
        engine, why = "torch", f"for --device {recipe.device}"
    else:
        here = [name for name in family.engines if installed(name)]
        engine = here[0] if here else family.engines[0]
        why = (
            f"the fastest one here on a CPU for {family.name}"
            if engine == "openvino"
            else f"what is installed for {family.name}"
        )
    if recipe.ip_adapter and engine != "torch":
        raise UserError(f"--ip_adapter {recipe.ip_adapter} runs on --engine torch, not on {engine}")
    if not installed(engine):
        raise UserError(f"--engine {engine} is not installed: pip3 install -r {INSTALL[engine]}")
    return engine, why


def check_device(recipe: Recipe) -> None:
    """A device that this machine has not is told before a model is looked up. Raises UserError."""
    from noisette.engines import check_here, installed

    if recipe.device in ("cuda", "mps") and recipe.engine != "openvino" and installed("torch"):
        check_here("torch", recipe.device, "float32")


def check_step_cache(recipe: Recipe, mode: str, engine: str) -> None:
    """Kept features need the openvino engine and steps that follow each other. Raises UserError."""
    if recipe.step_cache > 1 and engine != "openvino":
        raise UserError(f"--step_cache {recipe.step_cache} runs on --engine openvino, not on {engine}")
    if recipe.step_cache > 1 and mode == "variation":
        raise UserError(f"--step_cache {recipe.step_cache} does not go with --variation, whose path is no smooth one")
    for name in ("refine", "checkpoint_every"):  # the features of one tile are not another's, nor are they saved
        if recipe.step_cache > 1 and getattr(recipe, name):
            raise UserError(f"--step_cache {recipe.step_cache} does not go with --{name} {getattr(recipe, name)}")


def check_precision(recipe: Recipe, engine: str, checkpoint: Checkpoint) -> None:
    """int8 needs the openvino engine, networks made by `noisette optimize`, no LoRA and no motion modules.

    Raises UserError.
    """
    if recipe.precision != "int8":
        return
    if engine != "openvino":
        raise UserError(f"--precision int8 runs on --engine openvino, not on {engine}: float32, float16, bfloat16 do")
    if recipe.lora:
        raise UserError(f"--lora {recipe.lora} can't be merged into int8 networks: take another --precision")
    if MOTION in checkpoint.configs:
        raise UserError(
            f"--precision int8 does not go with motion modules (--motion_adapter {recipe.motion_adapter}): take"
            " another --precision, or --motion_adapter none"
        )
    check_optimized(checkpoint, recipe.model)


def loras_of(recipe: Recipe, engine: str) -> tuple[tuple[Path, float], ...]:
    """The LoRA files of --lora with their scales. Raises UserError for one that is missing or has a strange scale."""
    if recipe.lora and engine != "openvino":
        raise UserError(f"--lora is merged by --engine openvino, not by {engine}")
    from noisette.reading import resolve

    found = []
    for part in filter(None, recipe.lora.split(",")):
        file, colon, scale = part.rpartition(":")
        numeric = colon and re.fullmatch(r"-?\d+(\.\d*)?", scale)
        found.append((resolve(file if numeric else part), float(scale) if numeric else 1.0))
    return tuple(found)
