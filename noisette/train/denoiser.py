"""The denoiser: a diffusers UNet on the latents, v-prediction with zero terminal SNR, text in two ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from noisette.schedules import Table, make_table
from noisette.train import autoencoder
from noisette.train.checkpoint import Run
from noisette.train.config import Config
from noisette.train.data import read_pictures
from noisette.train.examples import KINDS, draw, make_examples


def build(config: Config, text_width: int = 384) -> UNet2DConditionModel:
    """The UNet: text by cross-attention at the lower levels and, pooled, through the time embedding."""
    settings = config["denoiser"]
    attention = settings["attention"]
    channels = config["autoencoder"]["latent_channels"]
    network = UNet2DConditionModel(
        sample_size=config["data"]["side"] // 2 ** (len(config["autoencoder"]["channels"]) - 1),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=settings["channels"],
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attention],
        up_block_types=["CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)],
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


def encode_examples(folder: Path, config: Config) -> None:
    """Writes latents.npy [N, C, h, w] of all examples, whitened by channel, and whitening.npz."""
    if (folder / "latents.npy").exists():
        return
    encode, _ = autoencoder.compiled(autoencoder.trained(folder, config))
    entries, cut_outs = read_pictures(folder)
    examples = make_examples(entries, cut_outs, config["data"])
    encoded = []
    for first in range(0, len(examples), 16):
        batch = [draw(example, cut_outs[example.picture]) for example in examples[first : first + 16]]
        encoded.append(encode(np.stack(batch)))
    latents = np.concatenate(encoded)
    mean = latents.mean((0, 2, 3))
    deviation = latents.std((0, 2, 3))
    np.savez(folder / "whitening.npz", mean=mean, deviation=deviation)
    white = (latents - mean[:, None, None]) / deviation[:, None, None]
    part = folder / "latents.part.npy"
    np.save(part, white.astype(np.float16))
    part.replace(folder / "latents.npy")
    print(f"denoiser: {len(examples)} pictures encoded", flush=True)


def train(folder: Path, config: Config, saved: Callable[[float], None]) -> None:
    """Trains for the configured minutes, from the last checkpoint if there is one; `saved` as in Run.steps."""
    encode_examples(folder, config)
    settings, log = config["denoiser"], config["log"]
    torch.manual_seed(config["data"]["seed"])
    examples = make_examples(*read_pictures(folder), config["data"])
    latents = np.load(folder / "latents.npy")
    states = np.load(folder / "text.npy", mmap_mode="r")
    texts = {text: i for i, text in enumerate(json.loads((folder / "captions.json").read_text(encoding="utf-8")))}
    captions = [[texts[text] for text in example.captions] for example in examples]
    rows_of = {kind: [i for i, example in enumerate(examples) if example.kind == kind] for kind in KINDS}
    network = build(config, states.shape[-1])
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings["learning_rate"], betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    run = Run(folder, "denoiser", network, optimizer, settings["ema"])
    run.resume()
    levels = table(config)
    alphas, sigmas = (torch.from_numpy(values.astype(np.float32)) for values in (levels.alphas, levels.sigmas))
    for minutes in run.steps(settings["minutes"], log["checkpoint_minutes"], log["every"], saved):
        warm, cold = (run.step + 1) / settings["warm_up"], (settings["minutes"] - minutes) / settings["cool_down"]
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * min(1, warm, cold)
        kinds = run.rng.choice(KINDS, settings["batch"], p=[settings["shares"][kind] for kind in KINDS])
        rows = [run.rng.choice(rows_of[kind]) for kind in kinds]
        x0 = torch.from_numpy(latents[rows].astype(np.float32))
        said = np.array([run.rng.choice(captions[row]) for row in rows])
        said[run.rng.random(len(rows)) < settings["empty"]] = 0  # text 0 is the empty one
        context = torch.from_numpy(states[said].astype(np.float32))
        timesteps = logit_normal(run.rng, len(rows), settings["timestep_mean"], settings["timestep_deviation"])
        run.update(v_loss(network, x0, context, timesteps, alphas, sigmas), len(rows))


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
