"""Clips: the one loop of `generate` on latents with a frame axis, decoded and written a frame at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette import clip_fields, clip_plan, clip_record, generate, moving, names, output, thesaurus, whole_clips
from noisette.clips import Frame
from noisette.finish import composed, finish, on_canvas
from noisette.modes import Job, latent_mask
from noisette.motion import along, even_stops, windowed
from noisette.noise import Noise, Varied
from noisette.pixels import from_model, to_model
from noisette.reading import Picture
from noisette.recipe import parse_chain
from noisette.record import Saved
from noisette.sampling import Denoise, Level
from noisette.whole_clips import WholeJob

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
    known: Array | None = None  # latents [1, C, F, h, w] of which
    held_every: int = 1  # every so many frames are held

    def draw(self) -> Array:
        """Unit normals [1, C, F, h, w]: drawn at once where motion modules tie the frames together, as AnimateDiff.

        Without them one noise serves all frames, or walks from seed to seed, so that frames resemble each other.
        """
        channels, height, width = self.model.latent_shape(self.width, self.height)
        frames = self.clip.num_frames
        still = len(self.streams) == 1
        if self.clip.tied and still and self.clip.base is not None:  # a clip's noise is drawn frame by frame there
            noise = self.streams[0].normal((1, frames, channels, height, width))
            return with_shared(np.ascontiguousarray(noise.swapaxes(1, 2)), self.streams[0], self.clip.shared_noise)
        if self.clip.tied and still:
            own = self.streams[0].normal((1, channels, frames, height, width))
            return with_shared(own, self.streams[0], self.clip.shared_noise)
        stations = np.stack([stream.normal((channels, height, width)) for stream in self.streams])
        stops = even_stops(len(stations), frames, self.recipe.loop)
        noise = along(stations, stops, frames, self.recipe.loop)
        return np.ascontiguousarray(noise.transpose(1, 0, 2, 3)[None])

    def encode(self) -> Array:
        """The base's latents [1, C, F, h, w], frame by frame; a picture stands still."""
        if self.known is not None:
            return self.known
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
        if self.known is not None:
            between = np.arange(self.clip.num_frames) % self.held_every > 0
            return between.astype(np.float32)[None, None, :, None, None]
        shape = self.model.latent_shape(self.width, self.height)
        cells = np.stack([latent_mask(mask, shape) for _, mask in self._inputs()], axis=2)
        if self.plan.base is not None:
            cells[:, :, 0] = 0
        return cells

    def _inputs(self) -> Iterator[tuple[Array, Array]]:
        for base, mask in clip_plan.inputs_of(replace(self.plan, clip=self.clip)):
            yield on_canvas(replace(self.plan, base=base, mask=mask), self.plan.windows[0])

    def denoiser(self, levels: list[Level], beside: Array | None = None) -> Denoise:
        """The model's denoiser on each window of frames, with the prompts that hold there."""
        recipe, clip, prompt = self.recipe, self.clip, self.prompt
        interval = recipe.guidance_start, recipe.guidance_end
        scales = recipe.guidance_scale, recipe.guidance_rescale

        def for_window(window: NDArray[np.int64]) -> Denoise:
            several = len(prompt.positive) > 1
            here = prompt.for_frames(lambda states: states[window]) if several else prompt
            shown = None if beside is None else np.ascontiguousarray(beside[:, :, window])
            return self.model.denoiser(here, *scales, interval, levels, shown, 1)

        return windowed(for_window, clip.num_frames, clip.window, clip.overlap, recipe.loop and clip.tied)


def make(plan: Plan, networks: Networks, progress: Callable[[], object] = lambda: None) -> Iterator[ClipResult]:
    """Yields the plan's clips in the order of its seeds; ask for a clip's frames before the next clip."""
    assert plan.clip is not None
    recipe, size, clip = plan.recipe, plan.size, plan.clip
    model = import_module(plan.family.module).load(networks, plan.checkpoint)
    told, read_as = thesaurus.read(plan, model, [text for _, text in clip.prompts])
    prompt = model.encode_prompt(told, recipe.negative_prompts)
    sampled, turns = clip.sampled(), parse_chain(recipe)
    nothing = np.zeros(0, np.float32)
    for seed in plan.seeds:
        began = time.perf_counter()
        seeds = (seed, *clip.walk)
        streams = [Varied(each, turns) for each in seeds]
        canvas = size.canvas_width, size.canvas_height
        if plan.family.whole_clips:
            wide = WholeJob(model, prompt, recipe, streams, (), *canvas, nothing, nothing, progress, plan=plan)
            latents, facts = whole_clips.sample(wide)
            images = whole_clips.decoded(wide, latents)
        else:
            here = at_frames(prompt, sampled, recipe.loop)
            job = ClipJob(
                model, here, recipe, streams, (), *canvas, nothing, nothing, progress, plan=plan, clip=sampled
            )
            latents, facts = moved(job) if clip.moved else generate.sample(plan.mode, job)
            if clip.times > 1 and recipe.interpolate_by == "model":
                latents = between(job, latents, at_frames(prompt, clip, recipe.loop))
            images = (model.decode(np.ascontiguousarray(latents[:, :, i]))[0] for i in range(latents.shape[2]))
        if recipe.interpolate_by == "blend":
            images = blended(images, clip.times, recipe.loop)
        said = {**facts, **read_as, **generate.said_of(prompt), **generate.said_of_chain(turns)}
        yield ClipResult(seed, frames_of(plan, images), began, said)


def between(job: ClipJob, latents: Array, prompt: Any) -> Array:
    """New frames between those of latents [1, C, f, h, w]: mixtures of neighbours, denoised while these are held."""
    clip, recipe = job.plan.clip, job.recipe
    assert clip is not None
    known = spread_out(latents, clip, recipe.loop)
    less = replace(recipe, strength=clip_plan.BETWEEN)
    filled = replace(job, recipe=less, clip=clip, known=known, held_every=clip.times, prompt=prompt)
    return generate.sample("img2video", filled)[0]


def moved(job: ClipJob) -> tuple[Array, dict[str, Any]]:
    """A still (the base, else one drawn of the prompt) moved by a rule, noised part-way and redrawn by the model.

    As Text2Video-Zero (Khachatryan et al. 2023) moves latents; pixels are moved here, since latents of 8 or 16
    pixels a side can't be moved by less. The first frame is held, so that it stays the still.
    """
    clip, recipe = job.clip, job.recipe
    assert clip.moved is not None
    if job.plan.base is None:
        still, latents = drawn(job)
    else:
        still = from_model(next(job._inputs())[0][0])
        latents = job.model.encode_image(to_model(Picture(still)), job.streams[:1])
    frames = moving.moved(still, clip.moved, clip.num_frames, recipe.loop)
    next(frames)  # is the still
    encoded = [job.model.encode_image(to_model(Picture(frame)), job.streams[:1]) for frame in frames]
    encoded.insert(0, latents)
    known = np.stack(encoded, axis=2)
    less = replace(recipe, strength=clip.redrawn)
    latents, _ = generate.sample("img2video", replace(job, recipe=less, known=known, held_every=clip.num_frames))
    redrawn = np.concatenate([known[:, :, :1], coloured_as(latents, known)[:, :, 1:]], axis=2)
    return redrawn, {"moved": clip.moved, "redrawn": clip.redrawn}


def drawn(job: ClipJob) -> tuple[Frame, Array]:
    """The still that the prompt alone makes, composed as `image.py` does, on the clip's canvas, and its latents."""
    clip, recipe, plan = job.clip, job.recipe, job.plan
    said = clip_fields.parse_travel(recipe.prompt)[0][1]  # without the motion, which a still has not
    told, _ = thesaurus.read(plan, job.model, [said])
    prompt = job.model.encode_prompt(told, recipe.negative_prompts)
    canvas = clip.still or plan.size
    sides = canvas.canvas_width, canvas.canvas_height
    alone = Job(job.model, prompt, recipe, job.streams, (), *sides, job.base, job.mask, job.progress)
    latents, _ = generate.sample("text2img", alone)
    image = job.model.decode(latents)[0]
    if clip.still is None:
        return from_model(image), latents
    picture = Picture(composed(image, clip.still, recipe.upscaler))
    shown, _ = on_canvas(replace(plan, base=picture, mask=None), plan.windows[0])
    return from_model(shown[0]), job.model.encode_image(shown, job.streams[:1])


def coloured_as(latents: Array, known: Array) -> Array:
    """Latents [1, C, F, h, w] with the mean and spread that each channel of each frame has in `known`.

    Adaptive instance normalization, as StableSR (Wang et al. 2024) keeps an enlarged picture's colours: a still drawn
    with guidance is brighter than what the model redraws it to.
    """
    (mean, spread), (wanted, wanted_spread) = (
        (x.mean((3, 4), keepdims=True), x.std((3, 4), keepdims=True)) for x in (latents, known)
    )
    return (latents - mean) / np.maximum(spread, np.float32(1e-6)) * wanted_spread + wanted


def with_shared(noise: Array, stream: Noise, share: float) -> Array:
    """Noise [1, C, F, h, w] of which `share` of the variance is common to all frames (PYoCo, Ge et al. 2023)."""
    if not share:
        return noise
    common = stream.normal(noise[:, :, :1].shape)
    mixed: Array = np.float32(share**0.5) * common + np.float32((1 - share) ** 0.5) * noise
    return mixed


def at_frames(prompt: Any, clip: ClipPlan, loop: bool) -> Any:
    """The conditions of each frame where the prompt changes; as they are where one serves all."""
    if len(clip.prompts) == 1:
        return prompt
    stops = [frame for frame, _ in clip.prompts]
    return prompt.for_frames(lambda states: along(states, stops, clip.num_frames, loop))


def blended(images: Iterator[Array], times: int, loop: bool) -> Iterator[Array]:
    """Images [3, H, W] with times - 1 plain mixtures between neighbours, also of a loop's last and first."""
    shown = (np.clip(image, -1, 1) for image in images)
    before = first = next(shown)
    yield first
    for after in chain(shown, [first]) if loop else shown:
        yield from (before + np.float32(i / times) * (after - before) for i in range(1, times))
        if after is not first:
            yield after
        before = after


def spread_out(latents: Array, clip: ClipPlan, loop: bool) -> Array:
    """Latents [1, C, F, h, w] at every clip.times-th frame of the clip, and between them by slerp."""
    stops = [i * clip.times for i in range(latents.shape[2])]
    frames = along(latents[0].swapaxes(0, 1), stops, clip.num_frames, loop)
    return np.ascontiguousarray(frames.swapaxes(0, 1)[None])


def frames_of(plan: Plan, images: Iterator[Array]) -> Iterator[Frame]:
    """Images [3, H, W] as the model decodes them to finished frames, one after another."""
    for i, ((base, mask), image) in enumerate(zip(clip_plan.inputs_of(plan), images, strict=True)):
        if i == 0 and plan.recipe.strict_first_frame and base is not None:
            yield np.ascontiguousarray(base.data)
        else:
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
    steps = plan.recipe.num_inference_steps
    assert steps is not None
    path = names.reserve(plan.out, plan.recipe.prompt, plan.mode, result.seed, steps, plan.suffix)
    return save(plan, result, path, {})


def save(plan: Plan, result: ClipResult, path: Path, more: dict[str, Any]) -> Saved:
    """Saves a clip and its contact sheet under a name that is ours, `more` in its metadata, and proves the file."""
    clip = plan.clip
    assert clip is not None

    def metadata() -> dict[str, Any]:
        seconds = time.perf_counter() - result.began
        return {**output.metadata(plan, result.seed, seconds, result.facts), **more}

    size = plan.size.width, plan.size.height
    return clip_record.save(
        path, result.frames, clip.num_frames, clip.codec, size, clip.fps, metadata, held(plan)
    )  # fmt: skip
