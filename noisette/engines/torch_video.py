"""Networks of whole clips on torch: diffusers' video transformers and VAEs, transformers' text and image encoders."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoTokenizer, CLIPImageProcessor

from noisette.checkpoint import Checkpoint, fetch
from noisette.engines.torch_engine import check, out
from noisette.errors import UserError
from noisette.tensors import check_all_used

if TYPE_CHECKING:
    from noisette.engines import Array, Ids

LIBRARIES = {
    "WanTransformer3DModel": "diffusers",
    "AutoencoderKLWan": "diffusers",
    "LTXVideoTransformer3DModel": "diffusers",
    "AutoencoderKLLTXVideo": "diffusers",
    "UMT5EncoderModel": "transformers",
    "T5EncoderModel": "transformers",
    "CLIPVisionModel": "transformers",
    "CLIPVisionModelWithProjection": "transformers",
}


def load(checkpoint: Checkpoint, device: str = "auto", precision: str = "float32") -> TorchVideoNetworks:
    """The networks of a checkpoint on `device`; the VAE at float32, where it needs it.

    Raises UserError: a device that is not there, a precision or a class that does not run here, damaged weights.
    """
    where, dtype = check(device, precision)
    checkpoint = fetch(checkpoint)
    assert checkpoint.folder is not None
    networks = {}
    for name in checkpoint.weights:
        kind = checkpoint.configs["pipeline"][name][1]
        if kind not in LIBRARIES:
            raise UserError(f"{checkpoint.model}: its {name} is a {kind}; known are {', '.join(LIBRARIES)}")
        its = torch.float32 if name == "vae" else dtype
        networks[name] = from_folder(getattr(import_module(LIBRARIES[kind]), kind), checkpoint.folder / name, its)
        networks[name].to(where).eval().requires_grad_(False)
    return TorchVideoNetworks(networks, checkpoint.folder, where, dtype)


def from_folder(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A network with its weights, from safetensors alone. Raises UserError when they can't be read or do not fit."""
    settings = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    try:
        network, found = kind.from_pretrained(folder, torch_dtype=dtype, **settings)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{folder} can't be loaded as {kind.__name__}: {reason}") from None
    if missing := sorted(found["missing_keys"]):  # they would be random numbers
        raise UserError(f"{folder.name}: tensor {missing[0]} is missing from {folder}")
    check_all_used(folder.name, found["unexpected_keys"], (), str(folder))
    return network


class TorchVideoNetworks:
    """`noisette.engines.VideoNetworks` on torch. Arrays come and go as float32, whatever the precision inside."""

    def __init__(self, networks: dict[str, Any], folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.networks, self.folder, self.device, self.dtype = networks, folder, device, dtype
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)

    @torch.inference_mode()
    def encode_text(self, prompts: list[str], length: int, masked: bool) -> tuple[Array, Ids]:
        found = self.tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, add_special_tokens=True,
            return_attention_mask=True, return_tensors="pt",
        )  # fmt: skip
        mask = found.attention_mask
        attended = mask.to(self.device) if masked else None
        states = self.networks["text_encoder"](found.input_ids.to(self.device), attended)[0]
        return out(states), mask.numpy()

    def cut_words(self, prompts: list[str], length: int) -> tuple[str, ...]:
        every = (self.tokenizer(prompt, add_special_tokens=True).input_ids for prompt in prompts)
        return tuple(str(self.tokenizer.decode(ids[length - 1 : -1])) for ids in every)

    @torch.inference_mode()
    def denoise(self, network: str, x: Array, timestep: Array, context: Array, extra: dict[str, Any]) -> Array:
        more = {
            key: self._in(value) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value
            for key, value in extra.items()
        }
        if "encoder_attention_mask" in more:
            more["encoder_attention_mask"] = torch.from_numpy(more["encoder_attention_mask"]).bool().to(self.device)
        times = torch.from_numpy(timestep).to(self.device)
        output = self.networks[network](
            hidden_states=self._in(x), timestep=times, encoder_hidden_states=self._in(context), return_dict=False,
            **more,
        )  # fmt: skip
        return out(output[0])

    @torch.inference_mode()
    def encode_clip(self, pixels: Array) -> tuple[Array, Array]:
        posterior = self.networks["vae"].encode(torch.from_numpy(pixels).to(self.device)).latent_dist
        return out(posterior.mean), out(posterior.logvar)

    @torch.inference_mode()
    def decode_clip(self, latents: Array, timestep: float | None = None) -> Array:
        inputs = torch.from_numpy(np.ascontiguousarray(latents)).to(self.device)
        extra = () if timestep is None else (torch.full((len(latents),), timestep, device=self.device),)
        return out(self.networks["vae"].decode(inputs, *extra, return_dict=False)[0])

    def statistics(self) -> tuple[Array, Array]:
        vae = self.networks["vae"]
        return out(vae.latents_mean)[:, None, None, None], out(vae.latents_std)[:, None, None, None]

    @torch.inference_mode()
    def see(self, picture: Any) -> Array:
        processor = CLIPImageProcessor.from_pretrained(self.folder / "image_processor", local_files_only=True)
        pixels = processor(images=picture, return_tensors="pt").pixel_values.to(self.device, self.dtype)
        return out(self.networks["image_encoder"](pixels, output_hidden_states=True).hidden_states[-2])

    def _in(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.dtype)
