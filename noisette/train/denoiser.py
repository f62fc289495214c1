"""The denoiser: a diffusers UNet on the latents, v-prediction with zero terminal SNR, text in two ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from noisette.schedules import Table, make_table
from noisette.train import autoencoder
from noisette.train.checkpoint import Run, load_start
from noisette.train.config import Config
from noisette.train.data import read_pictures
from noisette.train.examples import KINDS, Example, draw, make_examples
from noisette.train.fast import plain_attention, quickened


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
    """Writes latents.npz and whitening.npz: all examples' latents, whitened by channel, in `Examples`' order.

    Those of `--start`'s autoencoder stay as they are: they are white, and its other networks were taught them.
    """
    if (folder / "latents.npz").exists():
        return
    encode, _ = autoencoder.compiled(autoencoder.trained(folder, config))
    entries, cut_outs = read_pictures(folder)
    examples = make_examples(entries, cut_outs, config["data"])
    groups = by_canvas(examples)
    latents = []
    for rows in groups.values():
        parts = [rows[first : first + 16] for first in range(0, len(rows), 16)]
        latents.append(np.concatenate([encode(np.stack([draw(examples[i], cut_outs) for i in p])) for p in parts]))
    pooled = np.concatenate([part.transpose(1, 0, 2, 3).reshape(part.shape[1], -1) for part in latents], 1)
    if (folder / "autoencoder.pt").exists():
        mean, deviation = pooled.mean(1), pooled.std(1)
    else:
        mean, deviation = np.zeros(len(pooled), np.float32), np.ones(len(pooled), np.float32)
    np.savez(folder / "whitening.npz", mean=mean, deviation=deviation)
    white = [((part - mean[:, None, None]) / deviation[:, None, None]).astype(np.float16) for part in latents]
    part = folder / "latents.part.npz"
    np.savez(part, *white)
    part.replace(folder / "latents.npz")
    print(f"denoiser: {len(examples)} pictures encoded", flush=True)


def by_canvas(examples: list[Example]) -> dict[tuple[float, float], list[int]]:
    """The examples' numbers by their canvas: what may stand in one batch."""
    groups: dict[tuple[float, float], list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(example.canvas, []).append(i)
    return groups


class Batches:
    """Batches of latents and captions: drawn by kind and by how common a thing is, of one canvas each."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.settings = config["denoiser"]
        entries, cut_outs = read_pictures(folder)
        examples = make_examples(entries, cut_outs, config["data"])
        self.states = np.load(folder / "text.npy", mmap_mode="r")
        self.texts: list[str] = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
        texts = {text: i for i, text in enumerate(self.texts)}
        self.captions = [[texts[text] for text in example.captions] for example in examples]
        stored = np.load(folder / "latents.npz")
        self.latents = {}
        self.rows: dict[tuple[str, tuple[float, float]], tuple[list[int], list[int]]] = {}
        for name, (canvas, numbers) in zip(stored.files, by_canvas(examples).items(), strict=True):
            self.latents |= dict(zip(numbers, stored[name], strict=True))
            for i in numbers:
                common = entries[examples[i].picture]["label"] in config["data"]["common"]
                self.rows.setdefault((examples[i].kind, canvas), ([], []))[common].append(i)

    def draw(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [B, C, h, w] and text states [B, T, width] of a batch."""
        settings = self.settings
        kinds = rng.choice(KINDS, settings["batch"], p=[settings["shares"][kind] for kind in KINDS])
        square = (1.0, 1.0)
        if kinds[0] == "aspect":
            others = [canvas for kind, canvas in self.rows if kind == "aspect"]
            picked = ("aspect", others[rng.integers(len(others))])
            numbers = [self.one_of(picked, rng) for _ in kinds]
        else:
            kinds = ["white" if kind == "aspect" or (kind, square) not in self.rows else kind for kind in kinds]
            numbers = [self.one_of((kind, square), rng) for kind in kinds]
        said = np.array([rng.choice(self.captions[i]) for i in numbers])
        said[rng.random(len(said)) < settings["empty"]] = 0  # text 0 is the empty one
        x0 = np.stack([self.latents[i] for i in numbers]).astype(np.float32)
        return torch.from_numpy(x0), torch.from_numpy(self.states[said].astype(np.float32))

    def one_of(self, group: tuple[str, tuple[float, float]], rng: np.random.Generator) -> int:
        """An example of a kind and canvas: a common thing in `common_share` of all draws."""
        others, common = self.rows[group]
        pool = common if not others or (common and rng.random() < self.settings["common_share"]) else others
        return int(rng.choice(pool))


def train(folder: Path, config: Config, saved: Callable[[float], None]) -> None:
    """Trains for the configured minutes; `saved` as in Run.steps.

    From the last checkpoint if there is one, else from the model of `--start`, else from nothing.
    """
    encode_examples(folder, config)
    settings, log = config["denoiser"], config["log"]
    torch.manual_seed(config["data"]["seed"])
    batches = Batches(folder, config)
    network = build(config, batches.states.shape[-1])
    load_start(network, folder, "unet")
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings["learning_rate"], betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    run = Run(folder, "denoiser", network, optimizer, settings["ema"])
    run.resume()
    plain_attention(network)
    predict = quickened(network, settings["compiled"])
    levels = table(config)
    alphas, sigmas = (torch.from_numpy(values.astype(np.float32)) for values in (levels.alphas, levels.sigmas))
    for minutes in run.steps(settings["minutes"], log["checkpoint_minutes"], log["every"], saved):
        warm, cold = (run.step + 1) / settings["warm_up"], (settings["minutes"] - minutes) / settings["cool_down"]
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * min(1, warm, cold)
        x0, context = batches.draw(run.rng)
        timesteps = logit_normal(run.rng, len(x0), settings["timestep_mean"], settings["timestep_deviation"])
        run.update(v_loss(predict, x0, context, timesteps, alphas, sigmas), len(x0))


def logit_normal(rng: np.random.Generator, count: int, mean: float, deviation: float) -> torch.Tensor:
    """Timesteps 0 to 999, dense where the work is (Esser et al. 2024, eq. 19)."""
    share = 1 / (1 + np.exp(-rng.normal(mean, deviation, count)))
    return torch.from_numpy(np.clip((share * 1000).astype(np.int64), 0, 999))


def v_loss(
    predict: Callable[..., Any],
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
    return F.mse_loss(predict(x, timesteps, context).sample.float(), alpha * noise - sigma * x0)
