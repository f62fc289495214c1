"""Stable Diffusion 1.x and 2.x and what is built like them: text, latents through a UNet, a VAE at both ends.

Everything that differs between such models (latent channels, scale, prediction type, noise schedule, text
encoder) is read from the checkpoint. Arrays are float32 NumPy; the networks may run anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette import text
from noisette.checkpoint import Checkpoint
from noisette.sampling import Denoise, Level
from noisette.schedules import CLEAN, Table, make_levels, make_table
from noisette.text import Chunk, Tokenizer

if TYPE_CHECKING:
    from noisette.engines import Networks
    from noisette.noise import Noise

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Conditions:
    """Text as the UNet takes it: states [B, T, width] of the prompts and of the negative prompts.

    B is 1 when one prompt serves every picture of a batch. `cut`: for each prompt, then each negative prompt,
    the end that found no room.
    """

    positive: Array
    negative: Array
    cut: tuple[str, ...] = ()

    def for_frames(self, change: Callable[[Array], Array]) -> Conditions:
        """`change` on whatever says the prompts, [N, …] to [F, …]; the first negative prompt serves all frames."""
        return replace(self, positive=change(self.positive), negative=self.negative[:1])


@dataclass
class KeptFeatures:
    """When the deep features of an earlier evaluation serve: for `interval` in a row, while shapes stay the same."""

    interval: int
    shape: tuple[int, ...] = ()
    uses: int = 0

    def serve(self, shape: tuple[int, ...]) -> bool:
        """Whether the coming evaluation uses them; counts it."""
        if shape != self.shape or self.uses >= self.interval:
            self.shape, self.uses = shape, 0
        self.uses += 1
        return self.uses > 1


class StableDiffusion:
    """One checkpoint: prompts to conditions, pictures to latents and back, a denoiser for the samplers."""

    def __init__(self, networks: Networks, checkpoint: Checkpoint) -> None:
        configs = checkpoint.configs
        vae, encoder = configs["vae"], configs["text_encoder"]
        self.networks = networks
        self.masked = checkpoint.masked
        self.is_tiny = vae["_class_name"] == "AutoencoderTiny"
        self.vae_scale_factor = checkpoint.vae_scale_factor
        self.latent_channels: int = vae.get("latent_channels", 4)
        self.scaling_factor: float = vae.get("scaling_factor", 1.0 if self.is_tiny else 0.18215)
        self.scheduler: dict[str, Any] = configs["scheduler"]
        self.prediction_type: str = self.scheduler.get("prediction_type", "epsilon")
        self.table = table_of(self.scheduler)
        self.use_mask: bool = bool(encoder.get("use_attention_mask", False))
        self.can_chunk: bool = encoder["model_type"] == "clip_text_model"
        self.tokenizer = text.load(checkpoint.tokenizer, configs["tokenizer"], encoder["max_position_embeddings"])

    def levels(self, num_inference_steps: int, schedule: str = "model", sampler: str = "euler") -> list[Level]:
        """The n + 1 noise levels of a run, noisy to clean; "model" is the spacing of the published scheduler.

        They end at a clean picture, but for `ddim` at the table's first level where the scheduler says so
        (set_alpha_to_one false, as Stable Diffusion 1.x), like diffusers' DDIMScheduler.
        """
        spacing = self.scheduler.get("timestep_spacing", "leading")
        offset = self.scheduler.get("steps_offset", 0)
        whole = sampler != "ddim" or self.scheduler.get("set_alpha_to_one", True)
        last = CLEAN if whole else self.table.level(0)
        schedule = spacing if schedule == "model" else schedule
        return make_levels(self.table, num_inference_steps, schedule, spacing, offset, last)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """[C, h, w] of the latents of a picture whose sides are multiples of vae_scale_factor."""
        return self.latent_channels, height // self.vae_scale_factor, width // self.vae_scale_factor

    def encode_prompt(self, prompts: str | Sequence[str], negative: str | Sequence[str] = "") -> Conditions:
        """Prompts and as many negative prompts (or one for all) to conditions, all of the same token length.

        CLIP takes prompts of any length, window by window, the states concatenated along the tokens. Other
        encoders were trained on one window: the rest is cut and reported in `cut`.
        """
        positives, negatives = listed(prompts, negative)
        every = positives + negatives
        windows = [self.tokenizer.chunks(prompt) for prompt in every]
        cut: tuple[str, ...] = ()
        if not self.can_chunk:
            windows = [chunks[:1] for chunks in windows]
            cut = tuple(self.tokenizer.cut_words(prompt) for prompt in every)
        flat = filled(windows, max(map(len, windows)), self.tokenizer)
        ids = np.array([chunk.ids for chunk in flat], np.int64)
        mask = np.array([chunk.mask for chunk in flat], np.int64) if self.use_mask else None
        states = weighed(self.networks.encode_text(ids, mask), flat, len(every))
        return Conditions(states[: len(positives)], states[len(positives) :], cut)

    def pooled(self, prompt: str) -> Array:
        """The mean of the states of a text's first window, of length one: [width] (Reimers and Gurevych 2019)."""
        chunk = self.tokenizer.chunks(prompt)[0]
        mask = np.array([chunk.mask], np.int64)
        states = self.networks.encode_text(np.array([chunk.ids], np.int64), mask if self.use_mask else None)
        mean: Array = states[0][mask[0] > 0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    def encode_image(self, pixels: Array, streams: Sequence[Noise]) -> Array:
        """Pixels [1 or B, 3, H, W] in [-1, 1] to scaled latents [B, C, h, w], one for each noise stream.

        The posterior is sampled with one draw from each image's own stream, as diffusers does it first of all
        draws in img2img. AutoencoderTiny has no posterior, and nothing is drawn.
        """
        mean, logvar = self.networks.encode_image(pixels)
        if self.is_tiny:
            latents = spread(mean, len(streams))
        else:
            latents = mean + np.exp(0.5 * logvar) * draw(streams, mean.shape[1:])
        scaled: Array = latents * np.float32(self.scaling_factor)
        return scaled

    def decode(self, latents: Array) -> Array:
        """Scaled latents [B, C, h, w] to pixels [B, 3, H, W], about [-1, 1], not clipped."""
        return self.networks.decode_image(latents / self.scaling_factor)

    def denoiser(
        self,
        conditions: Conditions,
        guidance_scale: float = 7.5,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        levels: Sequence[Level] = (),
        beside: Array | None = None,
        step_cache: int = 1,
    ) -> Denoise:
        """`denoise(x, level) -> x0` for the samplers: x [B, C, h, w] or [B, C, F, h, w] at alpha·x0 + sigma·noise.

        Classifier-free guidance (Ho and Salimans 2022) in the space of the UNet's output, when
        `guidance_scale` > 1: u + g·(c - u), both branches in one batch. `guidance_rescale`: Lin et al. 2023,
        eq. 15-16. `guidance_interval`: the share of the steps of `levels` that is guided (Kynkäänniemi et
        al. 2024); outside only the conditional branch runs. `beside` [B, 1 + C, h, w]: what a 9-channel UNet
        takes beside x. `step_cache`: of so many evaluations in a row all but the first use the first one's deep
        features (DeepCache, Ma et al. 2024, with its uniform 1:N schedule).
        """
        guided_at = guided_levels(guidance_interval, levels)
        kept = KeptFeatures(step_cache)

        def predict(x: Array, timestep: float, guided: bool) -> Array:
            inputs = x if beside is None else np.concatenate([x, beside], axis=1)
            settings: dict[str, Any] = {} if x.ndim == 4 else {"num_frames": x.shape[2]}
            sample = np.concatenate([as_frames(inputs)] * (1 + guided))
            if kept.serve(sample.shape):
                settings["reuse"] = True
            told = self.told(conditions, sample, guided)
            return from_frames(self.networks.denoise(sample, timestep, *told, **settings), x.shape)

        def denoise(x: Array, level: Level) -> Array:
            x, level = variance_preserving(x, level)
            timestep = self.table.timestep(level)
            if guidance_scale <= 1 or not guided_at(level):
                return x0_from(self.prediction_type, predict(x, timestep, False), x, level)
            uncond, cond = np.split(predict(x, timestep, True), 2)
            guided = uncond + guidance_scale * (cond - uncond)
            if guidance_rescale:
                guided = rescale(guided, cond, guidance_rescale)
            return x0_from(self.prediction_type, guided, x, level)

        return denoise

    def told(self, conditions: Conditions, sample: Array, guided: bool) -> tuple[Any, ...]:
        """What the UNet takes beside a sample [B, C, h, w], whose first half is the negative branch if `guided`."""
        return (branches(conditions.positive, conditions.negative, len(sample), guided),)


load = StableDiffusion


def listed(prompts: str | Sequence[str], negative: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """Prompts, and as many negative prompts where one is given for all."""
    positives = [prompts] if isinstance(prompts, str) else list(prompts)
    return positives, [negative] * len(positives) if isinstance(negative, str) else list(negative)


def filled(windows: Sequence[list[Chunk]], count: int, tokenizer: Tokenizer) -> list[Chunk]:
    """Each prompt's windows made `count` by empty ones, prompt after prompt."""
    empty = tokenizer.chunk([])
    return [chunk for chunks in windows for chunk in chunks + [empty] * (count - len(chunks))]


def weighed(states: Array, chunks: Sequence[Chunk], prompts: int) -> Array:
    """Token states of all windows [N, T, width] by the chunks' weights, as [prompts, N / prompts * T, width]."""
    states = weigh(states, np.array([chunk.weights for chunk in chunks], np.float32))
    return states.reshape(prompts, -1, states.shape[2])


def branches(positive: Array, negative: Array, count: int, guided: bool) -> Array:
    """Of the prompts' conditions, `count` for the UNet's batch: the negative branch first, if there is one."""
    if not guided:
        return spread(positive, count)
    return np.concatenate([spread(negative, count // 2), spread(positive, count // 2)])


def table_of(scheduler: Mapping[str, Any]) -> Table:
    """The training noise levels of a diffusers scheduler config; its defaults are those of DDIMScheduler."""
    return make_table(
        scheduler.get("beta_schedule", "linear"),
        scheduler.get("beta_start", 0.0001),
        scheduler.get("beta_end", 0.02),
        scheduler.get("num_train_timesteps", 1000),
        scheduler.get("rescale_betas_zero_snr", False),
    )


def variance_preserving(x: Array, level: Level) -> tuple[Array, Level]:
    """x and its level scaled so that alpha^2 + sigma^2 = 1, as the UNet was trained; x0 is the same."""
    norm = math.hypot(*level)
    return x / np.float32(norm), Level(level.alpha / norm, level.sigma / norm)


def x0_from(prediction_type: str, output: Array, x: Array, level: Level) -> Array:
    """x0 from the UNet's output at x = alpha * x0 + sigma * noise.

    epsilon: (x - sigma * e) / alpha, undefined at alpha = 0; v_prediction (Salimans and Ho 2022, appendix D):
    alpha * x - sigma * v; sample: the output.
    """
    alpha, sigma = np.float32(level.alpha), np.float32(level.sigma)
    if prediction_type == "sample":
        return output
    x0: Array = alpha * x - sigma * output if prediction_type == "v_prediction" else (x - sigma * output) / alpha
    return x0


def as_frames(x: Array) -> Array:
    """[B, C, F, h, w] as [B * F, C, h, w], which an engine takes; pictures stay as they are."""
    return x if x.ndim == 4 else x.swapaxes(1, 2).reshape(-1, x.shape[1], *x.shape[3:])


def from_frames(frames: Array, shape: tuple[int, ...]) -> Array:
    """What `as_frames` undoes, for one or several batches of x of this shape."""
    if len(shape) == 4:
        return frames
    return frames.reshape(-1, shape[2], frames.shape[1], *shape[3:]).swapaxes(1, 2)


def draw(streams: Sequence[Noise], shape: tuple[int, ...]) -> Array:
    """Unit normals [B, *shape], each picture's from its own stream."""
    return np.stack([stream.normal(shape) for stream in streams])


def spread(states: Array, batch: int) -> Array:
    """One for all pictures, or one for each: repeated along the first axis up to `batch`."""
    return np.repeat(states, batch // len(states), axis=0)


def weigh(states: Array, weights: Array) -> Array:
    """Token states [N, T, width] times weights [N, T], each window's mean then restored (AUTOMATIC1111)."""
    weighted = states * weights[..., None]
    plain = (weights == 1).all(axis=1)
    scale = np.where(plain, 1.0, states.mean(axis=(1, 2)) / weighted.mean(axis=(1, 2)))
    result: Array = weighted * scale[:, None, None].astype(np.float32)
    return result


def rescale(guided: Array, cond: Array, share: float) -> Array:
    """Guidance brought back to the conditional branch's contrast, by `share` (Lin et al. 2023, eq. 15-16)."""
    axes = tuple(range(1, cond.ndim))
    even = guided * (cond.std(axis=axes, keepdims=True) / guided.std(axis=axes, keepdims=True))
    result: Array = share * even + (1 - share) * guided
    return result


def guided_levels(interval: tuple[float, float], levels: Sequence[Level]) -> Callable[[Level], bool]:
    """Whether a level lies in the share `interval` of the steps from levels[0] to levels[-1]."""
    if interval == (0.0, 1.0):
        return lambda level: True
    steps = len(levels) - 1
    first, last = (angle(levels[min(round(share * steps), steps)]) for share in interval)
    return lambda level: last < angle(level) <= first


def angle(level: Level) -> float:
    """The noise of a level as an angle, 0 clean to pi/2 pure noise; grows with sigma / alpha."""
    return float(np.arctan2(level.sigma, level.alpha))
