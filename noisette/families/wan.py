"""Wan 2.1 and 2.2: UMT5, a transformer over the whole clip (two in Wan 2.2 A14B, by noise level), a causal VAE.

Text to video, and image to video in its three forms: the picture's latents and a mask beside x (2.1 and 2.2
A14B, 2.1 also through CLIP), or its latents in place of the first frame's (2.2 5B). Equal to diffusers' WanPipeline
and WanImageToVideoPipeline. Arrays are float32 NumPy; x is [B, C, f, h, w].
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from noisette.checkpoint import Checkpoint
from noisette.families import flow
from noisette.pixels import from_model
from noisette.sampling import Denoise, Level

if TYPE_CHECKING:
    from noisette.engines import VideoNetworks
    from noisette.noise import Noise

Array = NDArray[np.float32]
TOKENS = 512  # of a prompt


@dataclass(frozen=True)
class Conditions:
    """Text states [1, T, width], zero behind each prompt's end."""

    positive: Array
    negative: Array
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class FirstFrame:
    """A picture to go on from: `beside` x [1, C', f, h, w] or `instead` of x's first frame [1, C, 1, h, w]."""

    beside: Array | None = None
    instead: Array | None = None
    seen: Array | None = None  # by CLIP [1, tokens, width]


class Wan:
    """One checkpoint: prompts to conditions, clips to latents and back, a denoiser for the samplers."""

    masked, whole = False, True

    def __init__(self, networks: VideoNetworks, checkpoint: Checkpoint) -> None:
        self.networks, configs = networks, checkpoint.configs
        vae, self.transformer = configs["vae"], configs["transformer"]
        self.scheduler, self.pipeline = configs["scheduler"], configs["pipeline"]
        self.temporal, self.spatial = checkpoint.frames_to_a_latent, checkpoint.pixels_to_a_latent
        self.channels: int = vae["z_dim"]
        self.mean, self.std = (
            np.array(vae[key], np.float32)[:, None, None, None] for key in ("latents_mean", "latents_std")
        )
        self.boundary: float | None = self.pipeline.get("boundary_ratio")
        self.expands: bool = bool(self.pipeline.get("expand_timesteps"))

    def levels(self, num_inference_steps: int, schedule: str, sampler: str, tokens: int = 0) -> list[Level]:
        """The n + 1 noise levels of a run, noisy to clean, as the published scheduler has them."""
        return flow.levels(self.scheduler, num_inference_steps, tokens)

    def latent_shape(self, width: int, height: int, num_frames: int = 1) -> tuple[int, int, int, int]:
        """[C, f, h, w] of the latents of a clip of 1 + f * temporal frames."""
        frames = (num_frames - 1) // self.temporal + 1
        return self.channels, frames, height // self.spatial, width // self.spatial

    def encode_prompt(self, prompts: str | Sequence[str], negative: str = "") -> Conditions:
        """One prompt, cleaned of HTML and doubled blanks as in training, and its negative."""
        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        cleaned = [re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip() for text in [*asked, negative]]
        states, mask = self.networks.encode_text(cleaned, TOKENS, masked=True)
        states = states * mask[..., None].astype(np.float32)
        return Conditions(states[:1], states[-1:], self.networks.cut_words(cleaned, TOKENS))

    def encode_clip(self, pixels: Array, streams: Sequence[Noise]) -> Array:
        """Pixels [1, 3, F, H, W] in [-1, 1] to latents [1, C, f, h, w]: the posterior's mean, nothing is drawn."""
        mean, _ = self.networks.encode_clip(pixels)
        latents: Array = (mean - self.mean) / self.std
        return latents

    def first_frame(self, pixels: Array, num_frames: int, streams: Sequence[Noise]) -> FirstFrame:
        """What the denoiser is shown of a picture [1, 3, H, W] that a clip begins with."""
        if self.expands:
            return FirstFrame(instead=self.encode_clip(pixels[:, :, None], streams))
        clip = np.zeros((1, 3, num_frames, *pixels.shape[2:]), np.float32)
        clip[:, :, 0] = pixels
        latents = self.encode_clip(clip, streams)
        mask = np.zeros((1, self.temporal, *latents.shape[2:]), np.float32)
        mask[:, :, 0] = 1
        seen = None
        if self.transformer.get("image_dim") is not None:
            seen = self.networks.see(from_model(pixels[0]))
        return FirstFrame(beside=np.concatenate([mask, latents], axis=1), seen=seen)

    def denoiser(
        self,
        conditions: Conditions,
        guidance_scale: float,
        guidance_rescale: float,
        guidance_interval: tuple[float, float],
        levels: Sequence[Level],
        shown: FirstFrame | None = None,
        fps: float = 16.0,
    ) -> Denoise:
        """denoise(x, level) -> x0 for x [1, C, f, h, w]; `shown` is the clip's first frame."""
        shown = shown or FirstFrame()

        def velocity(x: Array, level: Level, conditional: bool) -> Array:
            t = flow.timestep(self.scheduler, level)
            late = self.boundary is not None and t < self.boundary * flow.STEPS
            times = np.array([t], np.float32)
            inputs = x
            if self.expands:
                times = self.token_times(x, t, shown.instead is not None)
            if shown.instead is not None:
                inputs = replaced(x, shown.instead)
            if shown.beside is not None:
                inputs = np.concatenate([x, shown.beside], axis=1)
            context = conditions.positive if conditional else conditions.negative
            extra = {} if shown.seen is None else {"encoder_hidden_states_image": shown.seen}
            return self.networks.denoise("transformer_2" if late else "transformer", inputs, times, context, extra)

        denoise = flow.denoiser(velocity, guidance_scale, guidance_rescale, guidance_interval, levels)
        if shown.instead is None:
            return denoise
        kept = shown.instead
        return lambda x, level: replaced(denoise(replaced(x, kept), level), kept)

    def token_times(self, x: Array, t: float, first_is_clean: bool) -> Array:
        """A timestep for each token [1, S]; 0 for those of a first frame that is known."""
        _, down, across = self.transformer["patch_size"]
        times = np.full((x.shape[2], x.shape[3] // down, x.shape[4] // across), t, np.float32)
        if first_is_clean:
            times[0] = 0
        return times.reshape(1, -1)

    def decode(self, latents: Array, streams: Sequence[Noise] = ()) -> Array:
        """Latents [1, C, f, h, w] to pixels [1, 3, F, H, W], about [-1, 1]."""
        return self.networks.decode_clip(latents * self.std + self.mean)


load = Wan


def replaced(x: Array, first: Array) -> Array:
    """x [B, C, f, h, w] with another first frame [1, C, 1, h, w]."""
    return np.concatenate([np.repeat(first, len(x), axis=0), x[:, :, 1:]], axis=2)
