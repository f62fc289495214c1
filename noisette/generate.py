"""How a picture is made here, on one screen: condition, start, denoise, decode, finish.

Every mode is the same loop (see modes.py): text2img starts from pure noise, img2img part-way from the noised
base; inpainting also holds the known region; variation meets the base's own noise. A batch is a stack of
independent pictures: each has a noise stream of its own. An edit runs once for each of its windows (see
windows.py), which never overlap, and goes on with the stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import image_prompt, pixels, thesaurus
from noisette.finish import finish, on_canvas
from noisette.modes import MODES, Job
from noisette.noise import Noise, Varied
from noisette.reading import Picture
from noisette.recipe import parse_chain
from noisette.sampling import SAMPLERS, Callback
from noisette.sizes import SHARED, padded
from noisette.tiles import Place

if TYPE_CHECKING:
    from noisette.engines import Array, Networks
    from noisette.plan import Plan

    Look = Callable[[Sequence[int], Callable[[Array], Array], int, Array], object]  # seeds, decode, step, x0

GOLDEN = 0x9E3779B9  # sets the stream of a base's own path apart from the picture's


@dataclass(frozen=True)
class Result:
    """One picture, finished; `facts` are what only the run could know (method, words cut, …)."""

    seed: int
    picture: Picture
    seconds: float
    facts: dict[str, Any]


def generate(
    plan: Plan, networks: Networks, progress: Callable[[], object] = lambda: None, look: Look | None = None
) -> Iterator[Result]:
    """Yields the plan's pictures in the order of its seeds; `progress()` and `look` are called after each step."""
    if not plan.evaluated_steps:
        yield from finished(plan)
        return
    recipe = plan.recipe
    model = import_module(plan.family.module).load(networks, plan.checkpoint)
    told, read_as = thesaurus.read(plan, model, plan.scene.prompts if plan.scene else (recipe.prompt,))
    prompt = model.encode_prompt(told, recipe.negative_prompts)
    shown: dict[str, Any] = read_as
    if recipe.image_prompt or recipe.ip_adapter:
        prompt, said = image_prompt.prompted(prompt, plan, networks)
        shown = shown | said
    chain = parse_chain(recipe)
    inputs = [on_canvas(plan, window) for window in plan.windows]

    for seeds in batches(plan.seeds, recipe.batch_size):
        began = time.perf_counter()
        streams = [Varied(seed, chain) for seed in seeds]
        paths = [Varied(seed ^ GOLDEN, [(other ^ GOLDEN, share) for other, share in chain]) for seed in seeds]
        painted, facts = [], said_of(prompt) | said_of_chain(chain) | shown
        for window, (base, mask) in zip(plan.windows, inputs, strict=True):
            canvas = window.size.canvas_width, window.size.canvas_height
            job = Job(model, prompt, recipe, streams, paths, *canvas, base, mask, progress)
            if plan.scene:
                job = replace(job, places=places_of(plan, model))
            if look:
                job = replace(job, look=partial(look, seeds, model.decode))
            latents, said = sample(plan.mode, job)
            painted.append(model.decode(latents))
            facts |= said
        spent = time.perf_counter() - began
        for i, seed in enumerate(seeds):
            began = time.perf_counter()
            picture, said = finish(plan, [images[i] for images in painted])
            if recipe.refine:
                picture = refine(plan, model, prompt, picture, streams[i], progress)
            seconds = spent / len(seeds) + time.perf_counter() - began
            yield Result(seed, picture, seconds, {**facts, **said})


def finished(plan: Plan) -> Iterator[Result]:
    """The pictures of a plan that evaluates no network: enlarged ones."""
    for seed in plan.seeds:
        began = time.perf_counter()
        picture, said = finish(plan, [])
        yield Result(seed, picture, time.perf_counter() - began, said)


def refine(
    plan: Plan, model: Any, prompt: Any, picture: Picture, stream: Noise, progress: Callable[[], object]
) -> Picture:
    """An enlarged picture, denoised once more in tiles of the model's own size, in its own mode and depth."""
    size, side = plan.size, plan.checkpoint.native_side
    canvas = padded(size.width, size.height, plan.checkpoint.vae_scale_factor)
    across, down = canvas.canvas_width, canvas.canvas_height
    base = pixels.to_model(replace(picture, data=pixels.pad_to(picture.data, across, down)))
    nothing = np.ones((1, 1, down, across), np.float32)
    job = Job(model, prompt, plan.recipe, [stream], (), across, down, base, nothing, progress, tile=side)
    latents, _ = sample("refined", job)
    painted = pixels.from_model(model.decode(latents)[0])[: size.height, : size.width]
    return pixels.recoloured(picture, painted)


def sample(mode: str, job: Job) -> tuple[Array, dict[str, Any]]:
    """The loop, of pictures and clips alike: the latents of a job, and what only its run could know."""
    start = MODES[mode](job)
    callback = looked_at(start.callback, job.look) if job.look else start.callback
    x = SAMPLERS[job.recipe.sampler](start.denoise, start.x, start.levels, start.noise, callback)
    return start.end(x), start.facts


def places_of(plan: Plan, model: Any) -> list[Place]:
    """Where on the latents the things of a scene are: squares in a row or a column that share a little."""
    assert plan.scene is not None
    side = model.latent_shape(plan.checkpoint.native_side, plan.checkpoint.native_side)[-1]
    spans = [slice(start, start + side) for start in (i * (side - SHARED) for i in range(len(plan.scene.prompts)))]
    return [np.s_[..., span, :] if plan.scene.down else np.s_[..., span] for span in spans]


def looked_at(callback: Callback, look: Callable[[int, Array], object]) -> Callback:
    """The callback, once `look` has seen the guess x0 of step i."""

    def looking(i: int, x: Array, x0: Array) -> Array:
        look(i, x0)
        return callback(i, x, x0)

    return looking


def said_of(prompt: Any) -> dict[str, Any]:
    """The words of the prompts that the text encoder had no room for, if any."""
    cut = [words for words in prompt.cut if words]
    return {"words_cut": cut} if cut else {}


def said_of_chain(chain: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """The seeds that the picture's own was turned towards, one after the other, if any."""
    links = [{"variation_seed": seed, "variation_strength": strength} for seed, strength in chain]
    return {"variation_chain": links} if links else {}


def batches(seeds: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    """The seeds, `size` at a time."""
    for first in range(0, len(seeds), size):
        yield seeds[first : first + size]
