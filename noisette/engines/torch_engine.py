"""The torch engine: diffusers' and transformers' networks behind `Networks`, on a GPU or the CPU."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, AutoencoderTiny, MotionAdapter, UNet2DConditionModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from noisette.checkpoint import IMAGE_ENCODER, IP_ADAPTER, MOTION, Checkpoint, fetch, not_skipped
from noisette.engines import tiled
from noisette.engines.torch_ip_adapter import ImagePrompter
from noisette.engines.torch_motion import Tie, insert
from noisette.errors import UserError
from noisette.kinds import TEXT_2
from noisette.tensors import Tensor, check_all_used, file_of

if TYPE_CHECKING:
    from noisette.engines import Added, Array, Ids

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
STORED = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
TINY_SIDE = 512  # pixels of AutoencoderTiny's tiles
AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def load(
    checkpoint: Checkpoint, device: str = "auto", precision: str = "float32", motion_scale: float = 1.0
) -> TorchNetworks:
    """The networks of a checkpoint on `device` (auto: cuda, mps, cpu in this order), motion modules in the UNet.

    Raises UserError: a device that is not there, a precision that torch does not run, a block that diffusers
    does not know, a tensor that does not fit its configuration.
    """
    where, dtype = check(device, precision)
    checkpoint = fetch(checkpoint)
    with init_empty_weights(include_buffers=False):
        networks = {
            "unet": from_config(UNet2DConditionModel, checkpoint.configs["unet"]),
            "vae": from_config(AUTOENCODERS[checkpoint.configs["vae"]["_class_name"]], checkpoint.configs["vae"]),
            "text_encoder": text_encoder(checkpoint.configs["text_encoder"]),
        }
        if TEXT_2 in checkpoint.configs:
            networks[TEXT_2] = CLIPTextModelWithProjection(text_config(checkpoint.configs[TEXT_2]))
        if MOTION in checkpoint.configs:
            known = {key: value for key, value in checkpoint.configs[MOTION].items() if key != "noisette"}
            networks[MOTION] = from_config(MotionAdapter, known)
        if IP_ADAPTER in checkpoint.weights:
            vision = CLIPVisionConfig.from_dict(checkpoint.configs[IMAGE_ENCODER])
            networks[IMAGE_ENCODER] = CLIPVisionModelWithProjection(vision)
    for name, network in networks.items():
        upcast = name == "vae" and dtype == torch.float16 and checkpoint.upcasts_vae
        tensors, where_from = checkpoint.tensors(name), file_of(checkpoint.weights[name])
        used = fill(network, name, tensors, torch.float32 if upcast else dtype, where_from)
        check_all_used(name, not_skipped(tensors, checkpoint.configs[name]), used, where_from)
        network.to(where).eval().requires_grad_(False)
    networks["unet"].to(memory_format=torch.channels_last)
    networks["vae"].to(memory_format=torch.channels_last)
    tie = insert(networks["unet"], networks[MOTION], motion_scale) if MOTION in networks else Tie()
    prompter = None
    if IP_ADAPTER in checkpoint.weights:
        weights = {name: read(tensor).to(where, dtype) for name, tensor in checkpoint.tensors(IP_ADAPTER).items()}
        prompter = ImagePrompter(networks["unet"], networks[IMAGE_ENCODER], weights)
    texts = {name: network for name, network in networks.items() if name in ("text_encoder", TEXT_2)}
    return TorchNetworks(networks["unet"], networks["vae"], texts, where, dtype, tie, prompter)


def check(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    """Both as torch has them. Raises UserError for what is not there, or does not run."""
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision} does not run on the torch engine: {', '.join(PRECISIONS)} do")
    return choose_device(device), PRECISIONS[precision]


def choose_device(device: str) -> torch.device:
    """'auto', 'cuda', 'mps' or 'cpu' as a torch device. Raises UserError when it is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [name for name, available in there.items() if available]
    if device == "auto":
        return torch.device(found[0])
    if device not in found:
        raise UserError(f"--device {device} is not available here: {', '.join(found)}")
    return torch.device(device)


def from_config(kind: Any, config: dict[str, Any]) -> nn.Module:
    """A diffusers model without weights. Raises UserError when diffusers can't build it."""
    try:
        return kind.from_config(config)  # type: ignore[no-any-return]
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the {kind.__name__} configuration can't be built: {reason}") from None


def text_encoder(config: dict[str, Any]) -> nn.Module:
    """Any transformers encoder without weights, and without the pooler that diffusion does not use."""
    extra = {"add_pooling_layer": False} if config["model_type"] in ("bert", "roberta", "xlm-roberta") else {}
    return AutoModel.from_config(text_config(config), **extra)  # type: ignore[no-any-return]


def text_config(config: dict[str, Any]) -> Any:
    """A text encoder's configuration as transformers has it."""
    settings = {key: value for key, value in config.items() if key not in ("model_type", "dtype", "torch_dtype")}
    return AutoConfig.for_model(config["model_type"], **settings)


def fill(network: nn.Module, name: str, tensors: dict[str, Tensor], dtype: torch.dtype, where: str) -> list[str]:
    """Puts weights from their files into a network; returns the names of those it took.

    Raises UserError for one that is missing or misfits.
    """
    state, used = {}, []
    for wanted, slot in network.state_dict().items():
        used.append(wanted if wanted in tensors else "text_model." + wanted)
        tensor = tensors.get(used[-1])
        if tensor is None:
            raise UserError(f"{name}: tensor {wanted} {list(slot.shape)} is missing from {where}")
        if tensor.shape != tuple(slot.shape):
            raise UserError(
                f"{name}: tensor {wanted} is {list(tensor.shape)} in the checkpoint, {list(slot.shape)} in its config"
            )
        state[wanted] = read(tensor).to(dtype)
    network.load_state_dict(state, assign=True)
    return used


def read(tensor: Tensor) -> torch.Tensor:
    """A tensor straight out of the mapped file, without a copy unless it lies there transposed.

    Raises UserError for a type that is not computed with, as the other engine does.
    """
    if tensor.dtype not in STORED:
        raise UserError(
            f"{tensor.path.name}: tensor {tensor.name} is stored as {tensor.dtype}; convert it to F16 or F32"
        )
    with tensor.path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    dtype = STORED[tensor.dtype]
    count = (tensor.end - tensor.start) // dtype.itemsize
    found = torch.frombuffer(mapped, dtype=dtype, count=count, offset=tensor.start).reshape(tensor.stored_shape)
    return found.T.contiguous() if tensor.flipped else found


class TorchNetworks:
    """`noisette.engines.Networks` on torch. Arrays come and go as float32, whatever the precision inside."""

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        texts: dict[str, nn.Module],
        device: torch.device,
        dtype: torch.dtype,
        tie: Tie,
        prompter: ImagePrompter | None = None,
    ) -> None:
        self.unet, self.vae, self.texts, self.text = unet, vae, texts, texts["text_encoder"]
        self.device, self.dtype, self.tie, self.prompter = device, dtype, tie, prompter
        self.vae.enable_slicing()

    @torch.inference_mode()
    def encode_text(self, ids: Ids, attention_mask: Ids | None) -> Array:
        mask = None if attention_mask is None else torch.from_numpy(attention_mask).to(self.device)
        return out(self.text(torch.from_numpy(ids).to(self.device), attention_mask=mask)[0])

    @torch.inference_mode()
    def text_states(self, network: str, ids: Ids) -> tuple[Array, Array]:
        encoder = self.texts[network]
        found = encoder(torch.from_numpy(ids).to(self.device), output_hidden_states=True)
        last = found.last_hidden_state
        if isinstance(encoder, CLIPTextModelWithProjection):
            last = encoder.text_projection(last)
        return out(found.hidden_states[-2 - getattr(encoder.config, "clip_skip", 0)]), out(last)

    @torch.inference_mode()
    def denoise(
        self, sample: Array, timestep: float, context: Array, added: Added | None = None, num_frames: int = 1
    ) -> Array:
        self.tie.num_frames = num_frames
        time = torch.tensor(timestep, dtype=torch.float32, device=self.device)
        inputs = self._in(sample).contiguous(memory_format=torch.channels_last)
        states, conditions = self._in(context), {}
        if added is not None:
            conditions = dict(zip(("text_embeds", "time_ids"), map(self._in, added), strict=True))
        if self.prompter is not None:
            states, seen = self.prompter.split(states)
            conditions |= seen
        result = self.unet(
            inputs, time, encoder_hidden_states=states, added_cond_kwargs=conditions, return_dict=False
        )
        return out(result[0])

    @torch.inference_mode()
    def encode_image_prompt(self, pixels: Array, scale: float) -> tuple[Array, Array]:
        """The IP-Adapter: CLIP pixels [1, 3, S, S] to tokens [1, N, width] of the picture, and of no picture.

        `scale` is their weight from now on.
        """
        assert self.prompter is not None
        seen, unseen = self.prompter(self._in(pixels), scale)
        return out(seen), out(unseen)

    @torch.inference_mode()
    def encode_image(self, pixels: Array) -> tuple[Array, Array]:
        if isinstance(self.vae, AutoencoderTiny):
            mean = self._in_tiles(lambda x: self.vae.encode(x).latents, pixels, TINY_SIDE, TINY_SIDE // self._factor)
            return mean, np.full_like(mean, -30)
        self._tile(pixels.shape[2] * pixels.shape[3])
        posterior = self.vae.encode(self._in(pixels, self.vae.dtype)).latent_dist
        return out(posterior.mean), out(posterior.logvar)

    @torch.inference_mode()
    def decode_image(self, latents: Array) -> Array:
        if isinstance(self.vae, AutoencoderTiny):
            return self._in_tiles(lambda x: self.vae.decode(x).sample, latents, TINY_SIDE // self._factor, TINY_SIDE)
        self._tile(latents.shape[2] * latents.shape[3] * self._factor**2)
        return out(self.vae.decode(self._in(latents, self.vae.dtype), return_dict=False)[0])

    @property
    def _factor(self) -> int:
        """Pixels to a latent along each side."""
        is_tiny = isinstance(self.vae, AutoencoderTiny)
        return 2 ** (len(self.vae.config["encoder_block_out_channels" if is_tiny else "block_out_channels"]) - 1)

    def _in_tiles(self, run: Any, x: Array, tile: int, made: int) -> Array:
        """AutoencoderTiny over a picture: diffusers' own tiles of it are for 4 latent channels and 8 pixels alone."""
        return tiled.whole_or_tiled(lambda part: out(run(self._in(part, self.vae.dtype))), x, tile, made)

    def _in(self, array: Array, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, dtype or self.dtype)

    def _tile(self, area: int) -> None:
        """Tiles above `tiled.WHOLE_AREA` pixels, and only there: tiles change a picture a little."""
        if area > tiled.WHOLE_AREA:
            self.vae.enable_tiling()
        else:
            self.vae.disable_tiling()


def out(tensor: torch.Tensor) -> Array:
    """To a float32 array on the CPU."""
    array: Array = tensor.float().contiguous().cpu().numpy()
    return array
