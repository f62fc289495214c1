"""The decoder once more, on what the denoiser gives: its guesses of latents are softer than any encoder's.

The encoder stays, so latents mean what they meant. Half of what the decoder sees are latents as encoded, so that
edits of a base stay as sharp as they were. Beside the error of its pictures it is told by a critic of small patches
whether they could be real ones (Isola et al. 2017; Esser et al. 2021): soft edges and blocks could not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from noisette.train import autoencoder, denoiser
from noisette.train.checkpoint import Run
from noisette.train.config import Config
from noisette.train.data import read_pictures
from noisette.train.examples import draw, make_examples
from noisette.train.fast import quickened

PARTS = ("decoder", "post_quant_conv")


class Critic(nn.Module):
    """Whether patches of some 46 pixels are real: positive where they are, [B, 1, H/8, W/8]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [3, channels, 2 * channels, 4 * channels]
        self.halvings = nn.ModuleList(nn.Conv2d(before, after, 4, 2, 1) for before, after in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[2:])
        self.last = nn.Conv2d(widths[-1], 1, 4, 1, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, H, W] in [-1, 1]."""
        x = F.leaky_relu(self.halvings[0](pixels), 0.2)
        for halving, norm in zip(list(self.halvings)[1:], self.norms, strict=True):
            x = F.leaky_relu(norm(halving(x)), 0.2)
        return self.last(x)


def train(folder: Path, config: Config) -> None:
    """Trains for the configured minutes, from the last checkpoint if there is one; prints PSNR before and after."""
    settings, log = config["decoder"], config["log"]
    torch.manual_seed(config["data"]["seed"])
    batches = denoiser.Batches(folder, config)
    entries, cut_outs = read_pictures(folder)
    examples = make_examples(entries, cut_outs, config["data"])
    square = [i for i, latents in batches.latents.items() if latents.shape[1] == latents.shape[2]]
    before = autoencoder.trained(folder, config)
    network = autoencoder.trained(folder, config).train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in PARTS)
    critic = Critic(settings["critic"]).to(memory_format=torch.channels_last)
    guess = Guess(folder, config, batches.states.shape[-1])
    both = nn.ModuleDict({"autoencoder": network, "critic": critic})
    taught = [parameter for parameter in both.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        taught, lr=settings["learning_rate"], betas=(0.5, 0.99), weight_decay=0.0, fused=True
    )
    run = Run(folder, "decoder", both, optimizer, ema=0.995)
    run.resume()
    decode = quickened(network.decoder, settings["compiled"])
    judged = quickened(critic, False)
    for minutes in run.steps(settings["minutes"], log["checkpoint_minutes"], log["every"]):
        for group in optimizer.param_groups:
            left = 1 - minutes / settings["minutes"]
            group["lr"] = settings["learning_rate"] * min(1, (run.step + 1) / 30) * max(0.02, left)
        rows = [square[row] for row in run.rng.choice(len(square), settings["batch"])]
        pixels = autoencoder.to_pixels(np.stack([draw(examples[row], cut_outs) for row in rows]))
        x0 = torch.from_numpy(np.stack([batches.latents[row] for row in rows]).astype(np.float32))
        said = [batches.captions[row][0] for row in rows]
        context = torch.from_numpy(batches.states[said].astype(np.float32))
        share = torch.from_numpy(run.rng.random(len(rows)) * settings["noisiest"])
        share[run.rng.random(len(rows)) < 0.5] = 0
        latents = guess(x0, context, (share * 1000).long())
        drawn = decode(network.post_quant_conv(latents)).float()
        error = autoencoder.loss_of(drawn - pixels, latents)
        fooling = settings["critic_weight"] if run.step > settings["critic_alone"] else 0.0
        run.update(error + criticism(critic, judged, drawn, pixels, fooling), len(rows))
    run.averaged()
    compare(before, network, guess, batches, examples, cut_outs, square)


def criticism(
    critic: Critic, judged: Callable[..., torch.Tensor], drawn: torch.Tensor, real: torch.Tensor, fooling: float
) -> torch.Tensor:
    """The hinge loss of both sides (Lim and Ye 2017): the critic learns from the last two terms, alone.

    The first, weighted by `fooling`, reaches what has drawn `drawn` and leaves the critic as it is.
    """
    critic.requires_grad_(False)
    fooled = -judged(drawn).float().mean()
    critic.requires_grad_(True)
    false, true = judged(drawn.detach()).float(), judged(real).float()
    return fooling * fooled + F.relu(1 + false).mean() + F.relu(1 - true).mean()


class Guess:
    """What the trained denoiser makes of noised latents in one evaluation."""

    def __init__(self, folder: Path, config: Config, text_width: int) -> None:
        self.network = denoiser.build(config, text_width).eval()
        self.network.load_state_dict(torch.load(folder / "denoiser.pt", weights_only=True)["averages"])
        levels = denoiser.table(config)
        self.alphas, self.sigmas = (torch.from_numpy(v.astype(np.float32)) for v in (levels.alphas, levels.sigmas))
        stored = np.load(folder / "whitening.npz")
        self.mean, self.deviation = (torch.from_numpy(stored[name])[:, None, None] for name in ("mean", "deviation"))

    @torch.no_grad()
    def __call__(self, x0: torch.Tensor, context: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Whitened latents [B, C, h, w] to the decoder's own latents; those at timestep 0 are left as they are."""
        alpha, sigma = (values[timesteps][:, None, None, None] for values in (self.alphas, self.sigmas))
        x = (alpha * x0 + sigma * torch.randn(x0.shape)).contiguous(memory_format=torch.channels_last)
        guessed = alpha * x - sigma * self.network(x, timesteps, context).sample
        latents = torch.where(timesteps[:, None, None, None] > 0, guessed, x0)
        return (latents * self.deviation + self.mean).float()


@torch.no_grad()
def compare(
    before: AutoencoderKL,
    after: AutoencoderKL,
    guess: Guess,
    batches: denoiser.Batches,
    examples: list[denoiser.Example],
    cut_outs: np.ndarray,
    square: list[int],
) -> None:
    """Prints the PSNR of 40 pictures from their latents, and from what the denoiser guesses of them, by both."""
    for what, timestep in (("encoded", 0), ("guessed", 400)):
        found = []
        for row in np.random.default_rng(0).permutation(square)[:40]:
            pixels = autoencoder.to_pixels(draw(examples[row], cut_outs)[None])
            context = torch.from_numpy(batches.states[[batches.captions[row][0]]].astype(np.float32))
            x0 = torch.from_numpy(batches.latents[row][None].astype(np.float32))
            latents = guess(x0, context, torch.tensor([timestep]))
            decoded = (network.decode(latents).sample.clamp(-1, 1) for network in (before, after))
            found.append([10 * torch.log10(4 / (picture - pixels).square().mean()).item() for picture in decoded])
        old, new = np.mean(found, axis=0)
        print(f"decoder, latents as {what}: {new:.2f} dB, {old:.2f} before", flush=True)


def load_trained(network: AutoencoderKL, folder: Path) -> None:
    """Puts the decoder trained here, if there is one, into the autoencoder."""
    if (folder / "decoder.pt").exists():
        averages = torch.load(folder / "decoder.pt", weights_only=True)["averages"]
        prefix = "autoencoder."
        network.load_state_dict({k.removeprefix(prefix): v for k, v in averages.items() if k.startswith(prefix)})
