"""The decoder once more, on what the denoiser gives: its guesses of latents are softer than any encoder's.

The encoder stays, so latents mean what they meant. Half of what the decoder sees are latents as encoded, so that
edits of a base stay as sharp as they were.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from noisette.train import autoencoder, denoiser
from noisette.train.checkpoint import Run
from noisette.train.config import Config
from noisette.train.data import read_pictures
from noisette.train.examples import draw, make_examples

PARTS = ("decoder", "post_quant_conv")


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
    guess = Guess(folder, config, batches.states.shape[-1])
    taught = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        taught, lr=settings["learning_rate"], betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    run = Run(folder, "decoder", network, optimizer, ema=0.99)
    run.resume()
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
        run.update(autoencoder.loss_of(network.decode(latents).sample - pixels, latents), len(rows))
    run.averaged()
    compare(before, network, guess, batches, examples, cut_outs, square)


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
        network.load_state_dict(torch.load(folder / "decoder.pt", weights_only=True)["averages"])
