"""Clips of models that were trained on clips: all frames are one array of latents, several frames to each of its own.

The loop, the modes and the noise are those of `video`; what differs is a job's geometry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from noisette import generate
from noisette.finish import on_canvas
from noisette.modes import Job, latent_mask

if TYPE_CHECKING:
    from noisette.engines import Array
    from noisette.families import ClipModel
    from noisette.plan import Plan
    from noisette.sampling import Denoise, Level


@dataclass(frozen=True)
class WholeJob(Job):
    """One clip: x is [1, C, f, h, w], of which frame 0 is the clip's first and each other stands for several."""

    plan: Plan = None  # type: ignore[assignment]
    shown: Any = None  # the picture that the clip begins with, as the family takes it

    @property
    def clips(self) -> ClipModel:
        """The family."""
        return cast("ClipModel", self.model)

    def shape(self) -> tuple[int, ...]:
        """[C, f, h, w]."""
        assert self.plan.clip is not None
        return self.clips.latent_shape(self.width, self.height, self.plan.clip.sampled().num_frames)

    def draw(self) -> Array:
        """Unit normals [1, C, f, h, w]."""
        return self.streams[0].normal((1, *self.shape()))

    def levels(self) -> list[Level]:
        """All levels of the recipe; some models' depend on how many tokens a clip has."""
        recipe = self.recipe
        tokens = int(np.prod(self.shape()[1:]))
        return self.clips.levels(recipe.num_inference_steps, recipe.schedule, recipe.sampler, tokens)

    def encode(self) -> Array:
        """The base clip's latents [1, C, f, h, w]."""
        frames = [base[0] for base, _ in self._inputs()]
        return self.clips.encode_clip(np.stack(frames, axis=1)[None], self.streams)

    def cells(self) -> Array:
        """The masks on the latents' grid [1, 1, f, h, w]: a cell is repainted when any pixel of its frames is."""
        channels, frames, *sides = self.shape()
        each = np.stack([latent_mask(mask, (channels, *sides))[0, 0] for _, mask in self._inputs()])
        rest = each[1:].reshape(frames - 1, -1, *sides).max(axis=1)
        found: Array = np.concatenate([each[:1], rest])[None, None]
        return found

    def _inputs(self) -> Iterator[tuple[Array, Array]]:
        from noisette import clip_plan

        for base, mask in clip_plan.inputs_of(self.plan):
            yield on_canvas(replace(self.plan, base=base, mask=mask), self.plan.windows[0])

    def denoiser(self, levels: list[Level], beside: Array | None = None) -> Denoise:
        """The model's denoiser of the whole clip."""
        recipe = self.recipe
        interval = recipe.guidance_start, recipe.guidance_end
        scales = recipe.guidance_scale, recipe.guidance_rescale
        return self.clips.denoiser(
            self.prompt, *scales, interval, levels, self.shown, float(recipe.fps or 0) / recipe.interpolate
        )


def sample(job: WholeJob) -> tuple[Array, dict[str, Any]]:
    """The latents of a job: from pure noise after its base picture, from the noised base clip otherwise."""
    plan = job.plan
    if plan.mode != "img2video":
        return generate.sample(plan.mode, job)
    assert plan.clip is not None
    pixels, _ = next(job._inputs())
    shown = job.clips.first_frame(pixels, plan.clip.sampled().num_frames, job.streams)
    return generate.sample("text2video", replace(job, shown=shown))


def decoded(job: WholeJob, latents: Array) -> Iterator[Array]:
    """The images [3, H, W] of latents [1, C, f, h, w]."""
    pixels = job.clips.decode(latents, job.streams)[0]
    for i in range(pixels.shape[1]):
        yield np.ascontiguousarray(pixels[:, i])
