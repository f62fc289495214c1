"""Clips: the one loop of `generate` on latents with a frame axis, decoded and written a frame at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette import clip_plan, clip_record, generate, names, output
from noisette.clips import Frame
from noisette.finish import finish, on_canvas
from noisette.modes import Job, latent_mask
from noisette.motion import along, even_stops, windowed
from noisette.noise import Noise
from noisette.record import Saved
from noisette.sampling import Denoise, Level

if TYPE_CHECKING:
    from noisette.clip_plan import ClipPlan
    from noisette.engines import Array, Networks
    from noisette.plan import Plan


@dataclass(frozen=True)
class ClipResult:
    """One clip: `frames` gives uint8 [H, W, 3], decoded as they are asked for; `facts` what only the run knows."""

    seed: int
    frames: Iterator[Frame]
    began: float
    facts: dict[str, Any]


@dataclass(frozen=True)
class ClipJob(Job):
    """One clip: x is [1, C, F, h, w]. `streams` holds the noise of the seed and of those it walks to."""

    plan: Plan = None  # type: ignore[assignment]
    clip: ClipPlan = None  # type: ignore[assignment]

    def draw(self) -> Array:
        """Unit normals [1, C, F, h, w]: drawn at once where motion modules tie the frames together, as AnimateDiff.

        Without them one noise serves all frames, or walks from seed to seed, so that frames resemble each other.
        """
        channels, height, width = self.model.latent_shape(self.width, self.height)
        frames = self.clip.num_frames
        still = len(self.streams) == 1
        if self.clip.tied and still and self.clip.base is not None:  # a clip's noise is drawn frame by frame there
            noise = self.streams[0].normal((1, frames, channels, height, width))
            return np.ascontiguousarray(noise.swapaxes(1, 2))
        if self.clip.tied and still:
            return self.streams[0].normal((1, channels, frames, height, width))
        stations = np.stack([stream.normal((channels, height, width)) for stream in self.streams])
        stops = even_stops(len(stations), frames, self.recipe.loop)
        noise = along(stations, stops, frames, self.recipe.loop)
        return np.ascontiguousarray(noise.transpose(1, 0, 2, 3)[None])

    def encode(self) -> Array:
        """The base's latents [1, C, F, h, w], frame by frame; a picture stands still."""
        return self._encode(lambda base, mask: base)

    def encode_kept(self) -> Array:
        """`encode` of the base with grey where it is repainted."""
        return self._encode(lambda base, mask: base * (mask < 0.5))

    def _encode(self, shown: Callable[[Array, Array], Array]) -> Array:
        latents: list[Array] = []
        for base, mask in self._inputs():
            latents.append(self.model.encode_image(shown(base, mask), self.streams[:1]))
            if self.plan.base is not None and self.clip.mask is None:
                return np.repeat(latents[0][:, :, None], self.clip.num_frames, axis=2)
        return np.stack(latents, axis=2)

    def cells(self) -> Array:
        """The masks on the latents' grid [1, 1, F, h, w]; a base picture is the first frame, and kept there."""
        shape = self.model.latent_shape(self.width, self.height)
        cells = np.stack([latent_mask(mask, shape) for _, mask in self._inputs()], axis=2)
        if self.plan.base is not None:
            cells[:, :, 0] = 0
        return cells

    def _inputs(self) -> Iterator[tuple[Array, Array]]:
        for base, mask in clip_plan.inputs_of(self.plan):
            yield on_canvas(replace(self.plan, base=base, mask=mask), self.plan.windows[0])

    def denoiser(self, levels: list[Level], beside: Array | None = None) -> Denoise:
        """The model's denoiser on each window of frames, with the prompts that hold there."""
        recipe, clip, prompt = self.recipe, self.clip, self.prompt
        interval = recipe.guidance_start, recipe.guidance_end
        scales = recipe.guidance_scale, recipe.guidance_rescale

        def for_window(window: NDArray[np.int64]) -> Denoise:
            several = len(prompt.positive) > 1
            here = replace(prompt, positive=prompt.positive[window]) if several else prompt
            shown = None if beside is None else np.ascontiguousarray(beside[:, :, window])
            return self.model.denoiser(here, *scales, interval, levels, shown)

        return windowed(for_window, clip.num_frames, clip.window, clip.overlap, recipe.loop and clip.tied)


def make(plan: Plan, networks: Networks, progress: Callable[[], object] = lambda: None) -> Iterator[ClipResult]:
    """Yields the plan's clips in the order of its seeds; ask for a clip's frames before the next clip."""
    assert plan.clip is not None
    recipe, size, clip = plan.recipe, plan.size, plan.clip
    model = import_module(plan.family.module).load(networks, plan.checkpoint)
    prompt = model.encode_prompt([text for _, text in clip.prompts], recipe.negative_prompts)
    if len(clip.prompts) > 1:
        stops = [frame for frame, _ in clip.prompts]
        travelled = along(prompt.positive, stops, clip.num_frames, recipe.loop)
        prompt = replace(prompt, positive=travelled, negative=prompt.negative[:1])
    nothing = np.zeros(0, np.float32)
    for seed in plan.seeds:
        began = time.perf_counter()
        seeds = (seed, *clip.walk)
        streams = [Noise(each) for each in seeds]
        job = ClipJob(
            model, prompt, recipe, streams, (), size.canvas_width, size.canvas_height, nothing, nothing, progress,
            plan, clip,
        )  # fmt: skip
        latents, facts = generate.sample(plan.mode, job)
        yield ClipResult(seed, frames_of(plan, model, latents), began, {**facts, **generate.said_of(prompt)})


def frames_of(plan: Plan, model: Any, latents: Array) -> Iterator[Frame]:
    """Latents [1, C, F, h, w] to finished frames, one after another."""
    for i, (base, mask) in enumerate(clip_plan.inputs_of(plan)):
        if i == 0 and plan.recipe.strict_first_frame and base is not None:
            yield np.ascontiguousarray(base.data)
            continue
        image = model.decode(np.ascontiguousarray(latents[:, :, i]))[0]
        yield finish(replace(plan, base=base, mask=mask), [image])[0].data


def held(plan: Plan) -> clip_record.Held | None:
    """What each frame must keep of its base: the black of a strict mask, and the whole of a strict first frame."""
    recipe = plan.recipe
    if not (recipe.strict_mask or recipe.strict_first_frame):
        return None

    def frames() -> Iterator[tuple[Frame, NDArray[np.bool_]]]:
        for i, (base, mask) in enumerate(clip_plan.inputs_of(plan)):
            assert base is not None
            strict = mask is not None and recipe.strict_mask
            repaint = mask.repaint if strict and mask else np.ones(base.data.shape[:2], bool)
            yield base.data, repaint & (not (i == 0 and recipe.strict_first_frame))

    return frames


def write(plan: Plan, result: ClipResult) -> Saved:
    """Saves a clip and its contact sheet under the next free name, and proves the file."""
    clip, steps = plan.clip, plan.recipe.num_inference_steps
    assert clip is not None
    assert steps is not None
    path = names.reserve(plan.out, plan.recipe.prompt, plan.mode, result.seed, steps, plan.suffix)

    def metadata() -> dict[str, Any]:
        return output.metadata(plan, result.seed, time.perf_counter() - result.began, result.facts)

    size = plan.size.width, plan.size.height
    return clip_record.save(
        path, result.frames, clip.num_frames, clip.codec, size, clip.fps, metadata, held(plan)
    )  # fmt: skip
