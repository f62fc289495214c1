"""What an original Stable Diffusion file (ldm, 1.x, 2.x and XL) is, told from the shapes of its tensors.

The configurations are those of the diffusers folders that the same weights are published in. Two things can't
be seen in shapes and follow the convention: the number of attention heads (8 in 1.x, 64 channels each in
2.x and XL), and what 2.x predicts (v for text-to-image, as in 2.1 at 768 pixels; epsilon for inpainting). Files of
XL that predict v hold an empty tensor "v_pred", and "ztsnr" where the noise ends at zero signal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from noisette.kinds import SIZES, TEXT_2
from noisette.ldm_keys import CLIP, OPEN_CLIP, UNET, VAE, XL_CLIP, XL_OPEN_CLIP
from noisette.tensors import Tensor

Shapes = Mapping[str, Tensor]
HEAD_DIM = 64
EDM = ("edm_mean", "edm_vpred.sigma_max")  # in files of Playground v2.5, and of CosXL
TOKENIZER = {"model_max_length": 77, "pad_token": "<|endoftext|>"}


def configs(tensors: Shapes, prediction_type: str | None) -> dict[str, dict[str, Any]]:
    """The configuration of each component; `prediction_type` None takes the convention."""
    if is_xl(tensors):
        return xl_configs(tensors, prediction_type)
    unet, vae = unet_config(tensors), vae_config(tensors)
    second = is_second(tensors)
    inpainting = unet["in_channels"] != vae["latent_channels"]
    predicts = prediction_type or ("v_prediction" if second and not inpainting else "epsilon")
    vae["sample_size"] = 768 if second and predicts == "v_prediction" else 512
    unet["sample_size"] = vae["sample_size"] // 2 ** (len(vae["block_out_channels"]) - 1)
    return {
        "unet": unet,
        "vae": vae,
        "text_encoder": open_clip_config(tensors, OPEN_CLIP, 1) if second else clip_config(tensors, CLIP),
        "scheduler": scheduler_config(predicts),
        "tokenizer": TOKENIZER | ({"pad_token": "!"} if second else {}),
    }


def xl_configs(tensors: Shapes, prediction_type: str | None) -> dict[str, dict[str, Any]]:
    """Those of Stable Diffusion XL."""
    unet, vae = unet_config(tensors), vae_config(tensors)
    vae |= {"scaling_factor": 0.13025, "sample_size": 1024}
    text_2 = open_clip_config(tensors, XL_OPEN_CLIP, 0)
    text_2["projection_dim"] = tensors[XL_OPEN_CLIP + "text_projection"].shape[1]
    added = tensors[UNET + "label_emb.0.0.weight"].shape[1]
    unet |= {
        "sample_size": vae["sample_size"] // 2 ** (len(vae["block_out_channels"]) - 1),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (added - text_2["projection_dim"]) // SIZES,
        "projection_class_embeddings_input_dim": added,
    }
    predicts = prediction_type or ("v_prediction" if "v_pred" in tensors else "epsilon")
    scheduler = scheduler_config(predicts) | {"rescale_betas_zero_snr": "ztsnr" in tensors}
    if any(name in tensors for name in EDM):
        scheduler["_class_name"] = "EDMEulerScheduler"
    return {
        "unet": unet,
        "vae": vae,
        "text_encoder": clip_config(tensors, XL_CLIP),
        TEXT_2: text_2,
        "scheduler": scheduler,
        "tokenizer": TOKENIZER,
        "tokenizer_2": TOKENIZER | {"pad_token": "!"},
    }


def is_second(tensors: Shapes) -> bool:
    """Stable Diffusion 2.x carries OpenCLIP instead of CLIP."""
    return any(name.startswith(OPEN_CLIP) for name in tensors)


def is_ldm(tensors: Shapes) -> bool:
    """Whether all networks of Stable Diffusion 1.x, 2.x or XL are in the file."""
    needed = (UNET + "input_blocks.0.0.weight", VAE + "decoder.conv_in.weight")
    text = any(name.startswith((CLIP, OPEN_CLIP)) for name in tensors)
    plain = text and UNET + "label_emb.0.0.weight" not in tensors
    return (plain or is_xl(tensors)) and all(name in tensors for name in needed)


def is_xl(tensors: Shapes) -> bool:
    """Stable Diffusion XL carries two text encoders, and what adds a pooled text and sizes to the timestep."""
    needed = (XL_OPEN_CLIP + "text_projection", UNET + "label_emb.0.0.weight")
    return any(name.startswith(XL_CLIP) for name in tensors) and all(name in tensors for name in needed)


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
    depths = [count(tensors, re.escape(f"{UNET}input_blocks.{i}.1.transformer_blocks.") + r"(\d+)\.") for i in starts]
    depths = [depth or 1 for depth in depths]  # where nothing attends
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": tensors[UNET + "input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors[UNET + "out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": (downs[0] if downs else inputs) - 1,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "transformer_layers_per_block": depths if len(set(depths)) > 1 else depths[0],
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


def clip_config(tensors: Shapes, prefix: str) -> dict[str, Any]:
    """CLIPTextModel's in 1.x and XL."""
    where = prefix + ("text_model." if any(name.startswith(prefix + "text_model.") for name in tensors) else "")
    layers = count(tensors, re.escape(where) + r"encoder\.layers\.(\d+)\.")
    wide = tensors[where + "encoder.layers.0.mlp.fc1.weight"].shape[0]
    return text_config(tensors, where + "embeddings.token_embedding.weight", layers, wide, "quick_gelu")


def open_clip_config(tensors: Shapes, prefix: str, unused: int) -> dict[str, Any]:
    """CLIPTextModel's in 2.x, which does not use the last block, and in XL."""
    layers = count(tensors, re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.") - unused
    wide = tensors[prefix + "transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    return text_config(tensors, prefix + "token_embedding.weight", layers, wide, "gelu")


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
