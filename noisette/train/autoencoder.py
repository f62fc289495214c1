"""The autoencoder: a diffusers AutoencoderKL without randomness, 16 pixels to a latent along each side."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from noisette.engines.openvino import vae
from noisette.engines.openvino.graph import Weights
from noisette.train import wavelet
from noisette.train.checkpoint import Run, load_start
from noisette.train.compose import on_colour, on_white
from noisette.train.config import Config
from noisette.train.data import read_pictures


def build(config: Config) -> AutoencoderKL:
    """The network, started as a wavelet transform.

    One group in each normalization: with few channels to a group the absolute colour is lost.
    """
    settings = config["autoencoder"]
    blocks = len(settings["channels"])
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=settings["channels"],
        layers_per_block=1,
        latent_channels=settings["latent_channels"],
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=config["data"]["side"],
        scaling_factor=1.0,
    )
    wavelet.start(network)
    return network.to(memory_format=torch.channels_last)


def trained(folder: Path, config: Config) -> AutoencoderKL:
    """The network with the averaged weights of the last checkpoint, for use; without one, those of `--start`."""
    network = build(config)
    if (folder / "autoencoder.pt").exists() or not load_start(network, folder, "vae"):
        network.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True)["averages"])
    return network.eval()


def encode(network: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Pixels [B, 3, H, W] in [-1, 1] to latents [B, C, H/16, W/16]: the posterior's mean."""
    return network.encode(pixels).latent_dist.mean


def compiled(network: AutoencoderKL) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Encoder uint8 [B, H, W, 3] -> latents and decoder latents -> uint8, by openvino: thrice as fast as torch."""
    tensors = {name: np.ascontiguousarray(value.numpy()) for name, value in network.state_dict().items()}
    config, weights = dict(network.config), Weights(tensors.__getitem__, "vae")
    core, settings = ov.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    encoder = core.compile_model(vae.build_encoder(config, weights), "CPU", settings)
    decoder = core.compile_model(vae.build_decoder(config, weights), "CPU", settings)

    def encode_all(pictures: np.ndarray) -> np.ndarray:
        moments = encoder({"pixels": to_pixels(pictures).contiguous().numpy()})["moments"]
        return np.split(moments, 2, axis=1)[0]

    def decode_all(latents: np.ndarray) -> np.ndarray:
        pixels = decoder({"latents": latents})["pixels"].transpose(0, 2, 3, 1)
        return ((pixels + 1) * 127.5).round().clip(0, 255).astype(np.uint8)

    return encode_all, decode_all


def to_pixels(pictures: np.ndarray) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(pictures.astype(np.float32)) / 127.5 - 1
    return pixels.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def loss_of(difference: Tensor, latents: Tensor) -> Tensor:
    """Squared error for colour, absolute error of values and of their gradients for edges, and of 8x8 means."""
    across = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    down = (difference[:, :, 1:] - difference[:, :, :-1]).abs().mean()
    coarse = F.avg_pool2d(difference, 8).abs().mean()
    values = 4 * difference.square().mean() + difference.abs().mean()
    return values + 0.5 * (across + down) + 2 * coarse + 1e-4 * latents.square().mean()


def train(folder: Path, config: Config) -> None:
    """Trains for the configured minutes, from the last checkpoint if there is one, and prints the held-out PSNR."""
    settings, log = config["autoencoder"], config["log"]
    torch.manual_seed(config["data"]["seed"])
    network = build(config)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings["learning_rate"], betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    run = Run(folder, "autoencoder", network, optimizer, ema=0.99)
    run.resume()
    entries, pictures = read_pictures(folder)
    held_out = np.array([entry["held_out"] for entry in entries])
    ends = np.cumsum(settings["minutes"]).tolist()
    for minutes in run.steps(ends[-1], log["checkpoint_minutes"], log["every"]):
        stage = bisect.bisect(ends, minutes)
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * min(1, (run.step + 1) / 30) * max(0.02, 1 - minutes / ends[-1])
        rows = run.rng.choice(np.flatnonzero(~held_out), settings["batch"][stage])
        pixels = to_pixels(draw(pictures[rows], settings["coloured"], run.rng))
        pixels = F.interpolate(pixels, (settings["sides"][stage],) * 2, mode="area")
        latents = encode(network, pixels)
        spread = latents.detach().std((0, 2, 3), keepdim=True)
        noisy = latents + settings["noise"] * spread * torch.randn(latents.shape)
        run.update(loss_of(network.decode(noisy).sample - pixels, latents), len(rows))
    test = np.stack([on_white(picture) for picture in pictures[held_out]])
    print(f"autoencoder: {psnr(run.averaged(), test):.2f} dB on {len(test)} held-out pictures", flush=True)


def draw(cut_outs: np.ndarray, coloured: float, rng: np.random.Generator) -> np.ndarray:
    """A batch uint8 [B, side, side, 3]: half of the cut-outs mirrored, a share of them on a colour."""
    turned = [cut_out[:, ::-1] if rng.random() < 0.5 else cut_out for cut_out in cut_outs]
    return np.stack([on_colour(c, rng) if rng.random() < coloured else on_white(c) for c in turned])


@torch.inference_mode()
def psnr(network: AutoencoderKL, pictures: np.ndarray) -> float:
    """Mean PSNR in dB of the reconstructions."""
    values = []
    for picture in pictures:
        pixels = to_pixels(picture[None])
        error = (network.decode(encode(network, pixels)).sample.clamp(-1, 1) - pixels).square().mean()
        values.append(10 * torch.log10(4 / error).item())
    return float(np.mean(values))
