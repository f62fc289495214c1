"""What an original Stable Diffusion file (ldm, 1.x and 2.x) is, told from the shapes of its tensors.

The configurations are those of the diffusers folders that the same weights are published in. Two things can't
be seen in shapes and follow the convention: the number of attention heads (8 in 1.x, 64 channels each in
2.x), and what 2.x predicts (v for text-to-image, as in 2.1 at 768 pixels; epsilon for inpainting).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from noisette.ldm_keys import CLIP, OPEN_CLIP, UNET, VAE
from noisette.tensors import Tensor

Shapes = Mapping[str, Tensor]
HEAD_DIM = 64


def configs(tensors: Shapes, prediction_type: str | None) -> dict[str, dict[str, Any]]:
    """The configuration of each component; `prediction_type` None takes the convention."""
    unet, vae = unet_config(tensors), vae_config(tensors)
    second = is_second(tensors)
    inpainting = unet["in_channels"] != vae["latent_channels"]
    predicts = prediction_type or ("v_prediction" if second and not inpainting else "epsilon")
    vae["sample_size"] = 768 if second and predicts == "v_prediction" else 512
    unet["sample_size"] = vae["sample_size"] // 2 ** (len(vae["block_out_channels"]) - 1)
    return {
        "unet": unet,
        "vae": vae,
        "text_encoder": open_clip_config(tensors) if second else clip_config(tensors),
        "scheduler": scheduler_config(predicts),
        "tokenizer": {"model_max_length": 77, "pad_token": "!" if second else "<|endoftext|>"},
    }


def is_second(tensors: Shapes) -> bool:
    """Stable Diffusion 2.x carries OpenCLIP instead of CLIP."""
    return any(name.startswith(OPEN_CLIP) for name in tensors)


def is_ldm(tensors: Shapes) -> bool:
    """Whether the three networks of Stable Diffusion 1.x or 2.x are in the file, and nothing of SDXL."""
    needed = (UNET + "input_blocks.0.0.weight", VAE + "decoder.conv_in.weight")
    text = any(name.startswith((CLIP, OPEN_CLIP)) for name in tensors)
    return text and all(name in tensors for name in needed) and UNET + "label_emb.0.0.weight" not in tensors


def count(tensors: Shapes, pattern: str) -> int:
    """One more than the greatest number that `pattern`'s group takes in a name; 0 when none matches."""
    return max((int(m[1]) + 1 for name in tensors if (m := re.match(pattern, name))), default=0)


def unet_config(tensors: Shapes) -> dict[str, Any]:
    """UNet2DConditionModel's, without sample_size."""
    where = re.escape(UNET)
    inputs = count(tensors, where + r"input_blocks\.(\d+)\.")
    downs = [i for i in range(inputs) if f"{UNET}input_blocks.{i}.0.op.weight" in tensors]
    starts = [1, *(i + 1 for i in downs)]
    attends = [f"{UNET}input_blocks.{i}.1.norm.weight" in tensors for i in starts]
    channels = [tensors[f"{UNET}input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in starts]
    first = f"{UNET}input_blocks.{starts[attends.index(True)]}.1."
    linear = len(tensors[first + "proj_in.weight"].shape) == 2
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": tensors[UNET + "input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors[UNET + "out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": (downs[0] if downs else inputs) - 1,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "transformer_layers_per_block": count(tensors, re.escape(first) + r"transformer_blocks\.(\d+)\."),
        "cross_attention_dim": tensors[first + "transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "attention_head_dim": [width // HEAD_DIM for width in channels] if linear else 8,
        "use_linear_projection": linear,
    }


def vae_config(tensors: Shapes) -> dict[str, Any]:
    """AutoencoderKL's, without sample_size."""
    blocks = count(tensors, re.escape(VAE) + r"encoder\.down\.(\d+)\.")
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": tensors[VAE + "encoder.conv_in.weight"].shape[1],
        "out_channels": tensors[VAE + "decoder.conv_out.weight"].shape[0],
        "latent_channels": tensors[VAE + "post_quant_conv.weight"].shape[0],
        "block_out_channels": [
            tensors[f"{VAE}encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(blocks)
        ],
        "layers_per_block": count(tensors, re.escape(VAE) + r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "scaling_factor": 0.18215,
    }


def clip_config(tensors: Shapes) -> dict[str, Any]:
    """CLIPTextModel's in 1.x."""
    where = CLIP + ("text_model." if any(name.startswith(CLIP + "text_model.") for name in tensors) else "")
    layers = count(tensors, re.escape(where) + r"encoder\.layers\.(\d+)\.")
    wide = tensors[where + "encoder.layers.0.mlp.fc1.weight"].shape[0]
    return text_config(tensors, where + "embeddings.token_embedding.weight", layers, wide, "quick_gelu")


def open_clip_config(tensors: Shapes) -> dict[str, Any]:
    """CLIPTextModel's in 2.x, which uses the states before the last block."""
    layers = count(tensors, re.escape(OPEN_CLIP) + r"transformer\.resblocks\.(\d+)\.") - 1
    wide = tensors[OPEN_CLIP + "transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    return text_config(tensors, OPEN_CLIP + "token_embedding.weight", layers, wide, "gelu")


def text_config(tensors: Shapes, embedding: str, layers: int, wide: int, act: str) -> dict[str, Any]:
    """A CLIPTextModel configuration from its token embedding [vocabulary, width] and sizes."""
    vocabulary, width = tensors[embedding].shape
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD_DIM,
        "hidden_act": act,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77,
    }


def scheduler_config(predicts: str) -> dict[str, Any]:
    """The noise schedule that all of 1.x and 2.x were trained with."""
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": predicts,
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "timestep_spacing": "leading",
        "clip_sample": False,
    }
