"""Engines run networks; families know what the networks mean.

The border between them is `Networks`: functions from float32 NumPy arrays to float32 NumPy arrays.
The sampling loop therefore runs in NumPy whatever the engine is. A latent is small (64 KiB for Stable
Diffusion at 512x512), so crossing the border costs microseconds beside a network call, and the
arithmetic of a sampler is the same, bit for bit, on every engine and device.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from noisette.plan import Plan

    Array = NDArray[np.float32]
    Ids = NDArray[np.int64]
    Added = tuple[Array, Array]

MODULES = {"openvino": "noisette.engines.openvino", "torch": "noisette.engines.torch_engine"}
WHOLE = "noisette.engines.torch_video"  # models of whole clips
NEEDS = {"openvino": ("openvino",), "torch": ("torch", "diffusers", "transformers")}
INSTALL = {"openvino": "requirements.txt", "torch": "requirements-torch.txt"}


class Networks(Protocol):
    """The networks of a Stable Diffusion checkpoint, as an engine serves them."""

    def encode_text(self, ids: Ids, attention_mask: Ids | None) -> Array:
        """Token ids [B, T] (and mask [B, T], 1 = real token) to hidden states [B, T, width].

        For CLIP this is the last hidden state after the final layer norm, for BERT `last_hidden_state`.
        """
        ...

    def text_states(self, network: str, ids: Ids) -> tuple[Array, Array]:
        """Of one of Stable Diffusion XL's encoders ("text_encoder", "text_encoder_2"), for token ids [B, T].

        The states before the last layer, or `clip_skip` of its configuration earlier, not normed [B, T, width];
        and the last hidden states, normed, and projected where the encoder has a projection [B, T, P].
        """
        ...

    def denoise(
        self,
        sample: Array,
        timestep: float,
        context: Array,
        added: Added | None = None,
        num_frames: int = 1,
        reuse: bool = False,
    ) -> Array:
        """The UNet: sample [B, C_in, h, w], one timestep for the batch, context [B, T, width] -> [B, C_out, h, w].

        `added`: Stable Diffusion XL's text_embeds [B, P] and time_ids [B, 6] (diffusers' added_cond_kwargs).
        B is pictures, or clips times `num_frames`, which motion modules tie together where there are some.
        `reuse` (openvino): the deep features of the last call without it, which had the same shapes, are kept.
        """
        ...

    def encode_image(self, pixels: Array) -> tuple[Array, Array]:
        """The VAE encoder: pixels [B, 3, H, W] in [-1, 1] -> (mean, logvar) of the posterior, each [B, C, h, w].

        Unscaled: the family applies scaling_factor. logvar is clamped to [-30, 20] as diffusers does.
        """
        ...

    def decode_image(self, latents: Array) -> Array:
        """The VAE decoder: unscaled latents [B, C, h, w] -> pixels [B, 3, H, W], about [-1, 1], not clipped."""
        ...


class VideoNetworks(Protocol):
    """The networks of a model of whole clips, as the torch engine serves them."""

    def encode_text(self, prompts: list[str], length: int, masked: bool) -> tuple[Array, Ids]:
        """States [N, length, width] of padded prompts and which are tokens [N, length]; `masked`: padding unseen."""
        ...

    def cut_words(self, prompts: list[str], length: int) -> tuple[str, ...]:
        """What of each prompt found no room."""
        ...

    def denoise(self, network: str, x: Array, timestep: Array, context: Array, extra: dict[str, Any]) -> Array:
        """A transformer, by the name of its component: x at `timestep` [B] or, by token, [B, S] -> its output."""
        ...

    def encode_clip(self, pixels: Array) -> tuple[Array, Array]:
        """Pixels [B, 3, F, H, W] in [-1, 1] -> (mean, logvar) of the posterior, each [B, C, f, h, w]."""
        ...

    def decode_clip(self, latents: Array, timestep: float | None = None) -> Array:
        """Latents [B, C, f, h, w] -> pixels [B, 3, F, H, W], about [-1, 1]; `timestep` for VAEs that denoise."""
        ...

    def statistics(self) -> tuple[Array, Array]:
        """Mean and deviation of the latents, each [C, 1, 1, 1], where the VAE's weights hold them."""
        ...

    def see(self, picture: Any) -> Array:
        """The image encoder: uint8 [H, W, 3] -> its states [1, tokens, width]."""
        ...


@cache
def installed(engine: str) -> bool:
    """Whether what the engine imports is installed; nothing is imported to find out."""
    return all(find_spec(package) is not None for package in NEEDS[engine])


def check_here(engine: str, device: str, precision: str) -> None:
    """Raises UserError for a device or a precision that this machine has not.

    What every machine has is known without the engine, which is imported for anything else.
    """
    if device not in ("auto", "cpu") or precision != "float32":
        import_module(MODULES[engine]).check(device, precision)


def load(plan: Plan) -> Networks:
    """The plan's networks on its engine: the one slow step before sampling. None for a plan that evaluates none."""
    if not plan.evaluated_steps:
        return cast("Networks", None)
    if plan.family.whole_clips:
        whole: Networks = import_module(WHOLE).load(plan.checkpoint, plan.recipe.device, plan.recipe.precision)
        return whole
    module = import_module(MODULES[plan.engine])
    extra: dict[str, Any] = {"loras": plan.loras} if plan.loras else {}
    if plan.clip is not None and plan.clip.tied:
        extra["motion_scale"] = plan.clip.motion_scale
    networks: Networks = module.load(plan.checkpoint, plan.recipe.device, plan.recipe.precision, **extra)
    return networks
