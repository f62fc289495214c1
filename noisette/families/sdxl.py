"""Stable Diffusion XL (Podell et al. 2023): two text encoders side by side, and the picture's size as a condition.

Everything else is Stable Diffusion's: the UNet with 4 or 9 channels, the VAE, the noise schedule, the denoiser.
Equal to diffusers' StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline and StableDiffusionXLInpaintPipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette import text
from noisette.checkpoint import Checkpoint
from noisette.families import stable_diffusion as sd
from noisette.kinds import TEXT_2
from noisette.text import Tokenizer

if TYPE_CHECKING:
    from noisette.engines import Networks

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Conditions(sd.Conditions):
    """Also the pooled texts [B, P], which the second encoder projects."""

    pooled: Array
    negative_pooled: Array

    def for_frames(self, change: Callable[[Array], Array]) -> Conditions:
        """`change` on whatever says the prompts, [N, …] to [F, …]; the first negative prompt serves all frames."""
        pooled, negative_pooled = change(self.pooled), self.negative_pooled[:1]
        states, negative = change(self.positive), self.negative[:1]
        return Conditions(states, negative, self.cut, pooled=pooled, negative_pooled=negative_pooled)


class StableDiffusionXL(sd.StableDiffusion):
    """One checkpoint: prompts to conditions, pictures to latents and back, a denoiser for the samplers."""

    def __init__(self, networks: Networks, checkpoint: Checkpoint) -> None:
        super().__init__(networks, checkpoint)
        configs = checkpoint.configs
        window = configs[TEXT_2]["max_position_embeddings"]
        second = text.load(checkpoint.tokenizer_2, configs["tokenizer_2"], window)
        self.tokenizers: dict[str, Tokenizer] = {"text_encoder": self.tokenizer, TEXT_2: second}
        self.zeroed: bool = configs.get("pipeline", {}).get("force_zeros_for_empty_prompt", True)

    def encode_prompt(self, prompts: str | Sequence[str], negative: str | Sequence[str] = "") -> Conditions:
        """Prompts and as many negative prompts (or one for all) to conditions, all of the same token length.

        States are those before each encoder's last layer, side by side; prompts of any length go window by window,
        and the first window is pooled. An empty negative prompt is all zeros, where the model was trained so
        (force_zeros_for_empty_prompt).
        """
        positives, negatives = sd.listed(prompts, negative)
        every = positives + negatives
        windows = {name: [tokenizer.chunks(p) for p in every] for name, tokenizer in self.tokenizers.items()}
        longest = max(len(chunks) for each in windows.values() for chunks in each)
        parts = []
        for name, tokenizer in self.tokenizers.items():
            flat = sd.filled(windows[name], longest, tokenizer)
            ids = np.array([chunk.ids for chunk in flat], np.int64)
            states, last = self.networks.text_states(name, ids)
            parts.append(sd.weighed(states, flat, len(every)))
        ends = (ids == tokenizer.eos).argmax(axis=1)
        pooled = last[np.arange(len(flat)), ends][::longest]
        states = np.concatenate(parts, axis=2)
        if self.zeroed:
            empty = len(positives) + np.flatnonzero([not prompt for prompt in negatives])
            states[empty], pooled[empty] = 0, 0
        count = len(positives)
        return Conditions(states[:count], states[count:], pooled=pooled[:count], negative_pooled=pooled[count:])

    def told(self, conditions: sd.Conditions, sample: Array, guided: bool) -> tuple[Any, ...]:
        """Also the pooled texts [B, P] and the time_ids [B, 6]: the size, no crop, and the size again, in pixels."""
        assert isinstance(conditions, Conditions)
        height, width = (side * self.vae_scale_factor for side in sample.shape[-2:])
        pooled = sd.branches(conditions.pooled, conditions.negative_pooled, len(sample), guided)
        time_ids = np.tile(np.array([height, width, 0, 0, height, width], np.float32), (len(sample), 1))
        return *super().told(conditions, sample, guided), (pooled, time_ids)


load = StableDiffusionXL
