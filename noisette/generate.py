"""How a picture is made here, on one screen: condition, start, denoise, decode, finish.

Every mode is the same loop. Text2img starts from pure noise; img2img part-way, from the noised base;
inpainting also holds the known region at each step; variation feeds the loop the base's own noise, mixed
with fresh. Batches are stacks of independent pictures: each has a noise stream of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import pixels
from noisette.modes import Start, begin
from noisette.noise import Noise
from noisette.sampling import SAMPLERS

if TYPE_CHECKING:
    from noisette.engines import Networks
    from noisette.pixels import Picture
    from noisette.plan import Plan


@dataclass(frozen=True)
class Result:
    """One picture, finished; `facts` says what only the run could know (method, prompt words cut, …)."""

    seed: int
    picture: Picture
    seconds: float
    facts: dict[str, Any]


def generate(plan: Plan, networks: Networks, progress: Callable[[], object] = lambda: None) -> Iterator[Result]:
    """Yields the plan's pictures in the order of its seeds; `progress()` is called after each step."""
    recipe = plan.recipe
    model = import_module(plan.family.module).Model(networks, plan.checkpoint)
    prompt = model.encode_prompt(recipe.prompt, recipe.negative_prompts)

    for seeds in batches(plan.seeds, recipe.batch_size):
        began = time.perf_counter()
        streams = [Noise(seed) for seed in seeds]
        denoise = model.denoiser(prompt, recipe)
        start = begin(plan, model, denoise, streams, progress)
        x = SAMPLERS[recipe.sampler](start.denoise, start.x, start.levels, start.noise, start.callback)
        images = model.decode(start.end(x))
        seconds = (time.perf_counter() - began) / len(seeds)
        for seed, image in zip(seeds, images, strict=True):
            yield Result(seed, finish(plan, image), seconds, start.facts)
