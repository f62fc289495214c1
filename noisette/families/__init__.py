"""Families: what a model means. A family is wrapped once, here at the border, and then every mode works for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from noisette.engines import Array
    from noisette.noise import Noise
    from noisette.sampling import Denoise, Level


class Model(Protocol):
    """What `generate` asks of a family, made by its module's `load(networks, checkpoint)`. Arrays are float32."""

    masked: bool  # the network itself takes the mask and the masked picture (9-channel inpainting)

    def encode_prompt(self, prompts: str | Sequence[str], negative: str) -> Any:
        """The conditions of a run, computed once; `.cut` holds the words that found no room."""
        ...

    def levels(self, num_inference_steps: int, schedule: str, sampler: str) -> list[Level]:
        """The n + 1 noise levels of a run, noisy to clean."""
        ...

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """The shape of one picture's latents, without the batch."""
        ...

    def encode_image(self, pixels: Array, streams: Sequence[Noise]) -> Array:
        """Pixels [1, 3, H, W] in [-1, 1] to scaled latents [len(streams), C, h, w], each with its own stream."""
        ...

    def denoiser(
        self,
        conditions: Any,
        guidance_scale: float,
        guidance_rescale: float,
        guidance_interval: tuple[float, float],
        levels: Sequence[Level],
        beside: Array | None,
        step_cache: int = 1,
    ) -> Denoise:
        """denoise(x, level) -> x0 with guidance; `beside` [B, C', h, w] are channels put beside x.

        Of `step_cache` evaluations in a row one computes the deep features of the network, and the others use them.
        """
        ...

    def decode(self, latents: Array) -> Array:
        """Scaled latents [B, C, h, w] to pixels [B, 3, H, W], about [-1, 1]."""
        ...


class ClipModel(Protocol):
    """What `whole_clips` asks of a family that was trained on clips; x is [B, C, f, h, w]."""

    whole: bool

    def levels(self, num_inference_steps: int, schedule: str, sampler: str, tokens: int = 0) -> list[Level]:
        """As `Model.levels`; `tokens`: of the clip's latents, f * h * w."""
        ...

    def latent_shape(self, width: int, height: int, num_frames: int = 1) -> tuple[int, ...]:
        """[C, f, h, w] of a clip of `num_frames` frames."""
        ...

    def encode_clip(self, pixels: Array, streams: Sequence[Noise]) -> Array:
        """Pixels [1, 3, F, H, W] in [-1, 1] to latents [1, C, f, h, w]."""
        ...

    def first_frame(self, pixels: Array, num_frames: int, streams: Sequence[Noise]) -> Any:
        """What the denoiser is shown of a picture [1, 3, H, W] that the clip begins with."""
        ...

    def denoiser(
        self,
        conditions: Any,
        guidance_scale: float,
        guidance_rescale: float,
        guidance_interval: tuple[float, float],
        levels: Sequence[Level],
        shown: Any = None,
        fps: float = 16.0,
    ) -> Denoise:
        """denoise(x, level) -> x0 with guidance; `shown` is what `first_frame` gave."""
        ...

    def decode(self, latents: Array, streams: Sequence[Noise] = ()) -> Array:
        """Latents [1, C, f, h, w] to pixels [1, 3, F, H, W], about [-1, 1]."""
        ...
