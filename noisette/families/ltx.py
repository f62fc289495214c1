"""LTX-Video: T5, a transformer over the whole clip that is told its frame rate, a VAE of 32x32x8 pixels to a latent.

Text to video, and image to video with the picture's latents in place of the first frame's, at timestep 0. Equal to
diffusers' LTXPipeline and LTXImageToVideoPipeline (HaCohen et al. 2024). Arrays are float32 NumPy, x [B, C, f, h, w].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette.checkpoint import Checkpoint
from noisette.families import flow
from noisette.families.wan import FirstFrame, replaced
from noisette.sampling import Denoise, Level

if TYPE_CHECKING:
    from noisette.engines import VideoNetworks
    from noisette.noise import Noise

Array = NDArray[np.float32]
TOKENS = 128  # of a prompt
DECODE_TIMESTEP, DECODE_NOISE = 0.05, 0.025  # of VAEs that denoise a last time, as their model card has them


@dataclass(frozen=True)
class Conditions:
    """Text states [1, T, width] and which of them are words [1, T]."""

    positive: Array
    negative: Array
    masks: tuple[NDArray[np.int64], NDArray[np.int64]]
    cut: tuple[str, ...] = ()


class LTX:
    """One checkpoint: prompts to conditions, clips to latents and back, a denoiser for the samplers."""

    masked, whole = False, True

    def __init__(self, networks: VideoNetworks, checkpoint: Checkpoint) -> None:
        self.networks, configs = networks, checkpoint.configs
        self.vae, self.transformer, self.scheduler = configs["vae"], configs["transformer"], configs["scheduler"]
        self.temporal, self.spatial = checkpoint.frames_to_a_latent, checkpoint.pixels_to_a_latent
        self.patch = self.transformer.get("patch_size_t", 1), self.transformer.get("patch_size", 1)
        self.scaling_factor: float = self.vae.get("scaling_factor", 1.0)

    def levels(self, num_inference_steps: int, schedule: str, sampler: str, tokens: int = 0) -> list[Level]:
        """The n + 1 noise levels of a run, noisy to clean: the more tokens, the longer at high noise."""
        return flow.levels(self.scheduler, num_inference_steps, tokens)

    def latent_shape(self, width: int, height: int, num_frames: int = 1) -> tuple[int, int, int, int]:
        """[C, f, h, w] of the latents of a clip of 1 + f * temporal frames."""
        frames = (num_frames - 1) // self.temporal + 1
        return int(self.vae["latent_channels"]), frames, height // self.spatial, width // self.spatial

    def encode_prompt(self, prompts: str | Sequence[str], negative: str = "") -> Conditions:
        """One prompt and its negative."""
        asked = [*([prompts] if isinstance(prompts, str) else prompts), negative]
        states, mask = self.networks.encode_text(asked, TOKENS, masked=False)
        cut = self.networks.cut_words(asked, TOKENS)
        return Conditions(states[:1], states[-1:], (mask[:1], mask[-1:]), cut)

    def encode_clip(self, pixels: Array, streams: Sequence[Noise]) -> Array:
        """Pixels [1, 3, F, H, W] in [-1, 1] to latents [1, C, f, h, w], drawn from the posterior."""
        mean, logvar = self.networks.encode_clip(pixels)
        latents = mean + np.exp(0.5 * logvar) * streams[0].normal(mean.shape)
        center, deviation = self.networks.statistics()
        scaled: Array = (latents - center) * np.float32(self.scaling_factor) / deviation
        return scaled

    def first_frame(self, pixels: Array, num_frames: int, streams: Sequence[Noise]) -> FirstFrame:
        """What the denoiser is shown of a picture [1, 3, H, W] that a clip begins with."""
        mean, logvar = self.networks.encode_clip(pixels[:, :, None])
        latents = mean + np.exp(0.5 * logvar) * streams[0].normal(mean.shape)
        center, deviation = self.networks.statistics()
        return FirstFrame(instead=(latents - center) / deviation)

    def denoiser(
        self,
        conditions: Conditions,
        guidance_scale: float,
        guidance_rescale: float,
        guidance_interval: tuple[float, float],
        levels: Sequence[Level],
        shown: FirstFrame | None = None,
        fps: float = 25.0,
    ) -> Denoise:
        """denoise(x, level) -> x0 for x [1, C, f, h, w]; `shown` is the clip's first frame."""
        kept = None if shown is None else shown.instead

        def velocity(x: Array, level: Level, conditional: bool) -> Array:
            inputs = x if kept is None else replaced(x, kept)
            tokens = packed(inputs, self.patch)
            frames, height, width = (x.shape[2] // self.patch[0], *(side // self.patch[1] for side in x.shape[3:]))
            times = np.full(len(x), level.sigma * flow.STEPS, np.float32)
            if kept is not None:
                times = np.repeat(times[:, None], tokens.shape[1], axis=1)
                times[:, : height * width] = 0
            extra = {
                "encoder_attention_mask": conditions.masks[0 if conditional else 1],
                "num_frames": frames,
                "height": height,
                "width": width,
                "rope_interpolation_scale": (self.temporal / fps, self.spatial, self.spatial),
            }
            context = conditions.positive if conditional else conditions.negative
            output = self.networks.denoise("transformer", tokens, times, context, extra)
            return unpacked(output, x.shape, self.patch)

        denoise = flow.denoiser(velocity, guidance_scale, guidance_rescale, guidance_interval, levels)
        if kept is None:
            return denoise
        first: Any = kept
        return lambda x, level: replaced(denoise(replaced(x, first), level), first)

    def decode(self, latents: Array, streams: Sequence[Noise] = ()) -> Array:
        """Latents [1, C, f, h, w] to pixels [1, 3, F, H, W], about [-1, 1]; some VAEs denoise a last time."""
        center, deviation = self.networks.statistics()
        latents = latents * deviation / np.float32(self.scaling_factor) + center
        if not self.vae.get("timestep_conditioning"):
            return self.networks.decode_clip(latents)
        noise = streams[0].normal(latents.shape)
        mixed = np.float32(1 - DECODE_NOISE) * latents + np.float32(DECODE_NOISE) * noise
        return self.networks.decode_clip(mixed, DECODE_TIMESTEP)


load = LTX


def packed(x: Array, patch: tuple[int, int]) -> Array:
    """[B, C, f, h, w] as tokens [B, S, C * patches], frame by frame, row by row."""
    b, c, f, h, w = x.shape
    t, p = patch
    parts = x.reshape(b, c, f // t, t, h // p, p, w // p, p).transpose(0, 2, 4, 6, 1, 3, 5, 7)
    return np.ascontiguousarray(parts.reshape(b, -1, c * t * p * p))


def unpacked(tokens: Array, shape: tuple[int, ...], patch: tuple[int, int]) -> Array:
    """What `packed` undoes."""
    b, c, f, h, w = shape
    t, p = patch
    parts = tokens.reshape(b, f // t, h // p, w // p, c, t, p, p).transpose(0, 4, 1, 5, 2, 6, 3, 7)
    return np.ascontiguousarray(parts.reshape(shape))
