"""Modes are starts and constraints of the one loop: where x begins, which noise it meets, what it must hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette.noise import Noise, slerp
from noisette.sampling import Callback, Denoise, Draw, Level, ancestral_step, keep
from noisette.schedules import from_strength
from noisette.tiles import Place, tiled, together

if TYPE_CHECKING:
    from noisette.engines import Array
    from noisette.families import Model
    from noisette.recipe import Recipe

OVERLAP = 4  # neighbouring tiles share a fourth of their side


@dataclass(frozen=True)
class Start:
    """Everything a sampler is handed, and how its x becomes the latents to decode."""

    denoise: Denoise
    x: Array
    levels: list[Level]
    noise: Draw
    callback: Callback = keep
    end: Callable[[Array], Array] = lambda x: x
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One batch: the model with its prompt, a noise stream a picture, and the inputs at the size of the canvas."""

    model: Model
    prompt: Any
    recipe: Recipe
    streams: Sequence[Noise]
    paths: Sequence[Noise]  # streams beside those, for the base's own path in a variation
    width: int
    height: int
    base: Array  # pixels [1, 3, H, W] in [-1, 1]; nothing for text2img
    mask: Array  # [1, 1, H, W], 0 is kept, 1 repainted, more of the steps the more; 1 where no mask is given
    progress: Callable[[], object] = lambda: None
    tile: int = 0  # pixels a side, where the canvas is denoised in tiles
    places: Sequence[Place] = ()  # of the latents, one for each prompt, where each has a part of its own
    look: Callable[[int, Array], object] | None = None  # shown the guessed latents after each step

    def draw(self) -> Array:
        """Fresh unit normals for the whole batch, each picture's from its own stream."""
        shape = self.model.latent_shape(self.width, self.height)
        return np.stack([stream.normal(shape) for stream in self.streams])

    def encode(self) -> Array:
        """The base's latents, one for each picture."""
        return self.model.encode_image(self.base, self.streams)

    def encode_kept(self) -> Array:
        """The latents of the base with grey where it is repainted."""
        return self.model.encode_image(self.base * (self.mask < 0.5), self.streams)

    def cells(self) -> Array:
        """The mask on the latents' grid."""
        return latent_mask(self.mask, self.model.latent_shape(self.width, self.height))

    def denoiser(self, levels: list[Level], beside: Array | None = None) -> Denoise:
        """The model's denoiser for these levels."""
        recipe = self.recipe
        interval = recipe.guidance_start, recipe.guidance_end
        scales = recipe.guidance_scale, recipe.guidance_rescale
        denoise = self.model.denoiser(self.prompt, *scales, interval, levels, beside, recipe.step_cache)
        if self.places:
            return together(denoise, self.places)
        if not self.tile:
            return denoise
        side = self.model.latent_shape(self.tile, self.tile)[-1]
        return tiled(denoise, side, side // OVERLAP)

    def levels(self) -> list[Level]:
        """All levels of the recipe."""
        recipe = self.recipe
        return self.model.levels(recipe.num_inference_steps, recipe.schedule, recipe.sampler)

    def count(self, i: int, x: Array, x0: Array) -> Array:
        """The callback that counts a step."""
        self.progress()
        return x


def pure_noise(level: Level, noise: Array) -> Array:
    """x at the first level when there is no picture: noise as large as signal and noise together."""
    return np.float32(math.hypot(*level)) * noise


def noised(latents: Array, level: Level, noise: Array) -> Array:
    """x_t = alpha * x0 + sigma * noise."""
    return np.float32(level.alpha) * latents + np.float32(level.sigma) * noise


def latent_mask(mask: Array, shape: tuple[int, ...]) -> Array:
    """The mask [1, 1, H, W] on the latents' grid: a cell is repainted when any of its pixels is."""
    height, width = shape[-2:]
    cells = mask.reshape(1, 1, height, mask.shape[2] // height, width, mask.shape[3] // width)
    return cells.max(axis=(3, 5))


def hold(known: Callable[[int], Array], mask: Array, steps: int, count: Callback) -> Callback:
    """After step i what the mask holds by then becomes `known(i)`, the base at that level.

    Black is always held (RePaint without jumps); a cell of strength s is let go for the last share s of the
    steps (differential diffusion, Levin and Fried 2023, algorithm 1), white from the first.
    """

    def callback(i: int, x: Array, x0: Array) -> Array:
        free = (mask > 0) & (mask >= 1 - (i + 1) / steps)
        return count(i, np.where(free, x, known(i)), x0)

    return callback


def text2img(job: Job) -> Start:
    """From pure noise."""
    levels = job.levels()
    return Start(job.denoiser(levels), pure_noise(levels[0], job.draw()), levels, job.draw, job.count)


def img2img(job: Job) -> Start:
    """From the noised base, the last `strength` share of the steps (SDEdit, Meng et al. 2022)."""
    levels = from_strength(job.levels(), job.recipe.strength)
    latents = job.encode()
    return Start(job.denoiser(levels), noised(latents, levels[0], job.draw()), levels, job.draw, job.count)


def refined(job: Job) -> Start:
    """An enlarged picture once more: img2img by `refine`, in tiles of the model's own size."""
    recipe = replace(job.recipe, strength=job.recipe.refine)
    return img2img(replace(job, recipe=recipe))


def inpainting(job: Job) -> Start:
    """As img2img (from pure noise at strength 1), with the known region held at each step.

    A 9-channel network is shown the mask and the masked base instead and holds the rest by itself.
    Draws come in the order of diffusers' StableDiffusionInpaintPipeline (Rombach et al. 2022, section 4.5).
    """
    levels = from_strength(job.levels(), job.recipe.strength)
    return shown(job, levels) if job.model.masked else held(job, levels)


def held(job: Job, levels: list[Level]) -> Start:
    """Inpainting with any model: the known region is put back after each step."""
    latents = job.encode()
    noise = job.draw()
    mask = job.cells()
    x = noised(latents, levels[0], noise)
    if job.recipe.strength == 1.0:  # a grey cell is let go later, and is the base until then
        x = np.where((mask > 0) & (mask < 1), x, pure_noise(levels[0], noise))

    def known(i: int) -> Array:
        """The base after step i; after the last itself, also where levels end short of clean (ddim, SD 1)."""
        return latents if i + 2 == len(levels) else noised(latents, levels[i + 1], noise)

    callback = hold(known, mask, len(levels) - 1, job.count)
    return Start(job.denoiser(levels), x, levels, job.draw, callback, facts={"method": "latents held"})


def shown(job: Job, levels: list[Level]) -> Start:
    """Inpainting with a 9-channel UNet, which sees the mask and the masked base beside x at each step."""
    if job.recipe.strength == 1.0:
        x = pure_noise(levels[0], job.draw())
    else:
        x = noised(job.encode(), levels[0], job.draw())
    masked = job.encode_kept()
    mask = np.repeat(job.cells(), len(x), axis=0)
    denoise = job.denoiser(levels, np.concatenate([mask, masked], axis=1))
    return Start(denoise, x, levels, job.draw, job.count, facts={"method": "9-channel"})


def img2video(job: Job) -> Start:
    """From the base standing still, noised; its first frame is held at each step, so that the others follow it.

    Frames between frames likewise: the mixtures of neighbours, noised, while what they lie between is held.
    """
    return held(job, from_strength(job.levels(), job.recipe.strength))


def video2video(job: Job) -> Start:
    """img2img or inpainting of every frame, all in one denoising."""
    masked = job.recipe.mask_img or job.recipe.mask_video
    return inpainting(job) if masked else img2img(job)


def variation(job: Job) -> Start:
    """Ancestral sampling with the base's own noise, mixed with fresh noise by `strength`.

    The noise of each step that would lead the sampler along a noised path of the base is worked out first
    (edit-friendly DDPM inversion, Huberman-Spiegelglas et al. 2024), then turned towards fresh noise (slerp).
    At strength 0 the result is the base's own reconstruction, at strength 1 the picture of the pure seed.
    """
    strength = job.recipe.strength
    levels = job.levels()
    denoise = job.denoiser(levels)
    latents = job.model.encode_image(job.base, job.paths)
    path = [noised(latents, level, np.stack([s.normal(latents.shape[1:]) for s in job.paths])) for level in levels]
    own, rest = walk(job, denoise, path, levels)

    x = turned(path[0], pure_noise(levels[0], job.draw()), strength)
    steps = iter(own)
    callback = hold(lambda i: path[i + 1], latent_mask(job.mask, x.shape), len(levels) - 1, job.count)
    return Start(
        denoise,
        x,
        levels,
        noise=lambda: turned(next(steps), job.draw(), strength),
        callback=callback,
        end=lambda x: x + np.float32(1 - strength) * rest,
        facts={"method": "edit-friendly DDPM inversion", "strength": strength},
    )


def walk(job: Job, denoise: Denoise, path: list[Array], levels: list[Level]) -> tuple[list[Array], Array]:
    """The noise of each ancestral step along `path`, and what the last, noiseless step leaves over."""
    own: list[Array] = []
    rest = np.zeros_like(path[0])
    for x, after, now, then in zip(path, path[1:], levels, levels[1:], strict=False):
        x0 = denoise(x, now)
        job.progress()
        rest = after - ancestral_step(x, x0, now, then, lambda: 0.0)
        size = ancestral_step(0.0, 0.0, now, then, lambda: 1.0)
        if size > 0:
            own.append(rest / np.float32(size))
    return own, rest


def turned(a: Array, b: Array, t: float) -> Array:
    """slerp for each picture of a batch."""
    return np.stack([slerp(one, other, t) for one, other in zip(a, b, strict=False)])


MODES: dict[str, Callable[[Job], Start]] = {
    "text2img": text2img,
    "img2img": img2img,
    "inpainting": inpainting,
    "variation": variation,
    "refined": refined,
    "text2video": text2img,
    "img2video": img2video,
    "video2video": video2video,
}
