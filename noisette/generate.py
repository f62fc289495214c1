"""How a picture is made here, on one screen: condition, start, denoise, decode, finish.

Every mode is the same loop (see modes.py): text2img starts from pure noise, img2img part-way from the noised
base; inpainting also holds the known region; variation meets the base's own noise. A batch is a stack of
independent pictures: each has a noise stream of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import pixels
from noisette.modes import MODES, Job
from noisette.noise import Noise
from noisette.reading import Picture
from noisette.sampling import SAMPLERS

if TYPE_CHECKING:
    from noisette.engines import Array, Networks
    from noisette.masks import Mask
    from noisette.plan import Plan

NOTHING = np.zeros((0, 3, 0, 0), np.float32)
SEAM = 4  # radius, in pixels of the canvas, of the soft rim that a mask gets unless it is strict


@dataclass(frozen=True)
class Result:
    """One picture, finished; `facts` are what only the run could know (method, words cut, …)."""

    seed: int
    picture: Picture
    seconds: float
    facts: dict[str, Any]


def generate(plan: Plan, networks: Networks, progress: Callable[[], object] = lambda: None) -> Iterator[Result]:
    """Yields the plan's pictures in the order of its seeds; `progress()` is called after each step."""
    recipe, size = plan.recipe, plan.size
    model = import_module(plan.family.module).load(networks, plan.checkpoint)
    prompt = model.encode_prompt(recipe.prompt, recipe.negative_prompts)
    base, mask = on_canvas(plan, plan.base, plan.mask)

    for seeds in batches(plan.seeds, recipe.batch_size):
        began = time.perf_counter()
        streams = [Noise(seed) for seed in seeds]
        job = Job(
            model, prompt, recipe, streams, seeds, size.canvas_width, size.canvas_height, base, mask, progress
        )  # fmt: skip
        latents, facts = sample(plan.mode, job)
        images = model.decode(latents)
        seconds = (time.perf_counter() - began) / len(seeds)
        for seed, image in zip(seeds, images, strict=False):
            picture = finish(plan, image, plan.base, plan.mask)
            yield Result(seed, picture, seconds, {**facts, **said_of(prompt)})


def sample(mode: str, job: Job) -> tuple[Array, dict[str, Any]]:
    """The loop, of pictures and clips alike: the latents of a job, and what only its run could know."""
    start = MODES[mode](job)
    x = SAMPLERS[job.recipe.sampler](start.denoise, start.x, start.levels, start.noise, start.callback)
    return start.end(x), start.facts


def said_of(prompt: Any) -> dict[str, Any]:
    """The words of the prompts that the text encoder had no room for, if any."""
    cut = [words for words in prompt.cut if words]
    return {"words_cut": cut} if cut else {}


def batches(seeds: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    """The seeds, `size` at a time."""
    for first in range(0, len(seeds), size):
        yield seeds[first : first + size]


def on_canvas(plan: Plan, picture: Picture | None, mask: Mask | None) -> tuple[Array, Array]:
    """The base [1, 3, H, W] in [-1, 1] and the mask [1, 1, H, W] of 0 and 1 at the size the model composes.

    Within the model's reach they are padded by repeating the edge; beyond it they are brought to the canvas, and
    a pixel of the mask is white there when any of what it stands for is.
    """
    if picture is None:
        return NOTHING, NOTHING
    width, height, hires = plan.size.canvas_width, plan.size.canvas_height, plan.size.hires
    if hires:
        base = pixels.fit(picture, width, height, "stretch")
    else:
        base = replace(picture, data=pixels.pad_to(picture.data, width, height))
    if mask is None:
        return pixels.to_model(base), np.ones((1, 1, height, width), np.float32)
    bring = pixels.shrink_mask if hires else pixels.pad_to
    return pixels.to_model(base), bring(mask.repaint, width, height)[None, None].astype(np.float32)


def finish(plan: Plan, image: Array, base: Picture | None, mask: Mask | None) -> Picture:
    """Pixels [3, H, W] of the canvas to the picture that is written; the mask is the last thing that happens."""
    size = plan.size
    painted = pixels.from_model(image)
    if not size.hires:
        painted = painted[: size.height, : size.width]
    elif base is None:
        painted = pixels.fit(Picture(painted), size.width, size.height, "crop").data
    else:
        painted = pixels.resize(painted, size.width, size.height)
    if base is None:
        return Picture(painted)
    if mask is None:
        return Picture(painted, info=base.info)
    if plan.recipe.strict_mask:
        return pixels.composite(base, painted, mask.repaint)
    weight = pixels.soften(mask.repaint, SEAM * size.width / size.canvas_width)
    return pixels.composite(base, pixels.blend(base, painted, weight), weight > 0)
