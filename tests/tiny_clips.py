"""Tiny random checkpoints of the models of whole clips, as diffusers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

WORDS = ("<pad>", "</s>", "<unk>", "a", "cat", "red", "dog", "runs", "blurry", "sea")


def tokenizer() -> PreTrainedTokenizerFast:
    """Words by blanks, </s> behind, as T5's."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def wan(style: str) -> Any:
    """A Wan pipeline: "text", "two" (by noise level), "image" (with CLIP) or "both" (2.2 5B)."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.9, 1.1, 1.0, 0.8],
    )  # fmt: skip
    text: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    encoder = UMT5EncoderModel(UMT5Config(vocab_size=len(WORDS), **text)).eval()
    image: dict[str, Any] = {"image_dim": 16, "added_kv_proj_dim": 24} if style == "image" else {}
    settings: dict[str, Any] = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "out_channels": 4,
        "in_channels": 12 if style == "image" else 4, "text_dim": 16, "freq_dim": 32, "ffn_dim": 32,
        "num_layers": 2, "rope_max_seq_len": 32,
    }  # fmt: skip
    parts: dict[str, Any] = {
        "tokenizer": tokenizer(),
        "text_encoder": encoder,
        "vae": vae,
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
        "transformer": WanTransformer3DModel(**settings, **image),
    }
    if style == "two":
        parts |= {"transformer_2": WanTransformer3DModel(**settings), "boundary_ratio": 0.875}
    if style == "image":
        vision = CLIPVisionConfig(
            hidden_size=16, projection_dim=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            image_size=32, patch_size=8,
        )  # fmt: skip
        parts["image_encoder"] = CLIPVisionModel(vision).eval()
        parts["image_processor"] = CLIPImageProcessor(crop_size=32, size=32)
        return WanImageToVideoPipeline(**parts)
    return WanPipeline(**parts, expand_timesteps=style == "both")


def ltx(style: str) -> Any:
    """An LTX pipeline: "text", or "denoising", whose VAE denoises a last time."""
    torch.manual_seed(0)
    denoises = style == "denoising"
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False), upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1), timestep_conditioning=denoises, patch_size=1, patch_size_t=1,
        encoder_causal=True, decoder_causal=False,
    )  # fmt: skip
    vae.latents_mean, vae.latents_std = torch.linspace(-0.2, 0.2, 8), torch.linspace(0.8, 1.2, 8)
    text = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, num_layers=2, caption_channels=16,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
        max_image_seq_len=4096, shift_terminal=0.1,
    )  # fmt: skip
    return LTXPipeline(
        tokenizer=tokenizer(), text_encoder=T5EncoderModel(text).eval(), vae=vae.eval(), scheduler=scheduler,
        transformer=transformer,
    )  # fmt: skip


def of_images(pipeline: Any) -> Any:
    """The image-to-video pipeline of the same parts."""
    kind = LTXImageToVideoPipeline if isinstance(pipeline, LTXPipeline) else WanImageToVideoPipeline
    if isinstance(pipeline, kind):
        return pipeline
    extra = {"expand_timesteps": pipeline.config.expand_timesteps} if kind is WanImageToVideoPipeline else {}
    return kind(**{name: part for name, part in pipeline.components.items() if part is not None}, **extra)


def save(pipeline: Any, folder: Path) -> Path:
    """As `from_pretrained` takes it."""
    pipeline.save_pretrained(folder)
    return folder
