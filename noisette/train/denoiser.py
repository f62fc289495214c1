"""The denoiser: a diffusers UNet on the latents, v-prediction with zero terminal SNR, text in two ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from noisette.schedules import Table, make_table
from noisette.train import autoencoder
from noisette.train.checkpoint import Run
from noisette.train.config import Config


def build(config: Config, text_width: int = 384) -> UNet2DConditionModel:
    """The UNet: text by cross-attention at every level and, pooled, through the time embedding."""
    settings = config["denoiser"]
    levels = len(settings["channels"])
    channels = config["autoencoder"]["latent_channels"]
    network = UNet2DConditionModel(
        sample_size=config["data"]["side"] // 2 ** (len(config["autoencoder"]["channels"]) - 1),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=settings["channels"],
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=text_width,
        attention_head_dim=settings["heads"],
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=6,
    )
    return network.to(memory_format=torch.channels_last)


def table(config: Config) -> Table:
    """The noise levels: Stable Diffusion's, rescaled to end in pure noise (Lin et al. 2023)."""
    scheduler = config["scheduler"]
    return make_table("scaled_linear", scheduler["beta_start"], scheduler["beta_end"], 1000, True)


@torch.inference_mode()
def encode_pictures(folder: Path, config: Config) -> None:
    """Writes latents.npy [2, N, C, h, w] (as they are, mirrored), whitened by channel, and whitening.npz."""
    if (folder / "latents.npy").exists():
        return
    network = autoencoder.build(config)
    network.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True)["averages"])
    network.eval()
    pictures = np.load(folder / "pictures.npy")
    both = []
    for mirrored in (False, True):
        batches = np.array_split(pictures[:, :, ::-1] if mirrored else pictures, -(-len(pictures) // 16))
        encoded = [
            autoencoder.encode(network, autoencoder.to_pixels(np.ascontiguousarray(b))).numpy() for b in batches
        ]
        both.append(np.concatenate(encoded))
    latents = np.stack(both)
    mean = latents.mean((0, 1, 3, 4))
    deviation = latents.std((0, 1, 3, 4))
    np.savez(folder / "whitening.npz", mean=mean, deviation=deviation)
    white = (latents - mean[:, None, None]) / deviation[:, None, None]
    part = folder / "latents.part.npy"
    np.save(part, white.astype(np.float16))
    part.replace(folder / "latents.npy")
    print(f"denoiser: {len(pictures)} pictures encoded", flush=True)


def train(folder: Path, config: Config) -> None:
    """Trains for the configured minutes, from the last checkpoint if there is one."""
    encode_pictures(folder, config)
    settings, log = config["denoiser"], config["log"]
    torch.manual_seed(config["data"]["seed"])
    latents = np.load(folder / "latents.npy")
    states = np.load(folder / "text.npy", mmap_mode="r")
    caption_of = np.load(folder / "caption_of.npy")
    network = build(config, states.shape[-1])
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings["learning_rate"], betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    run = Run(folder, "denoiser", network, optimizer, settings["ema"])
    run.resume()
    levels = table(config)
    alphas, sigmas = (torch.from_numpy(values.astype(np.float32)) for values in (levels.alphas, levels.sigmas))
    batch = settings["batch"]
    for _ in run.steps(settings["minutes"], log["checkpoint_minutes"], log["every"], batch):
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * min(1, (run.step + 1) / settings["warm_up"])
        rows = run.rng.integers(0, latents.shape[1], batch)
        x0 = torch.from_numpy(latents[run.rng.integers(0, 2, batch), rows].astype(np.float32))
        texts = caption_of[rows, run.rng.integers(0, caption_of.shape[1], batch)]
        texts[run.rng.random(batch) < settings["empty"]] = 0  # text 0 is the empty one
        context = torch.from_numpy(states[texts].astype(np.float32))
        timesteps = logit_normal(run.rng, batch, settings["timestep_mean"], settings["timestep_deviation"])
        run.update(v_loss(network, x0, context, timesteps, alphas, sigmas))


def logit_normal(rng: np.random.Generator, count: int, mean: float, deviation: float) -> torch.Tensor:
    """Timesteps 0 to 999, dense where the work is (Esser et al. 2024, eq. 19)."""
    share = 1 / (1 + np.exp(-rng.normal(mean, deviation, count)))
    return torch.from_numpy(np.clip((share * 1000).astype(np.int64), 0, 999))


def v_loss(
    network: UNet2DConditionModel,
    x0: torch.Tensor,
    context: torch.Tensor,
    timesteps: torch.Tensor,
    alphas: torch.Tensor,
    sigmas: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of v = alpha * noise - sigma * x0 (Salimans and Ho 2022, appendix D)."""
    noise = torch.randn(x0.shape)
    alpha, sigma = alphas[timesteps][:, None, None, None], sigmas[timesteps][:, None, None, None]
    x = (alpha * x0 + sigma * noise).contiguous(memory_format=torch.channels_last)
    return F.mse_loss(network(x, timesteps, context).sample, alpha * noise - sigma * x0)
