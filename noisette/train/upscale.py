"""The upscaler: a small network that doubles a picture's sides, taught on vector pictures rendered at both sizes.

Half of what it sees has been through the autoencoder, since that is what it will be given: it learns to take
away that softness together with the pixels.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from noisette.train import autoencoder
from noisette.train.checkpoint import Run
from noisette.train.compose import on_colour, on_white
from noisette.train.config import Config
from noisette.train.data import fetch, read_pictures

SETS = ("noto", "fluent-flat")
COLOURED = 0.5  # share laid on a colour


class Upscaler(nn.Module):
    """Convolutions at the small size, then four pixels from each, added to the picture drawn larger.

    Shi et al. 2016 (sub-pixel convolution), Dong et al. 2016 (small filters), Wang et al. 2021 (compact VGG style).
    """

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers))
        self.last = nn.Conv2d(channels, 12, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, 3, 2 H, 2 W], both about [-1, 1]."""
        x = F.relu(self.first(pixels))
        for conv in self.body:
            x = x + F.relu(conv(x))
        larger = F.interpolate(pixels, scale_factor=2, mode="bilinear", align_corners=False)
        return larger + F.pixel_shuffle(self.last(x), 2)


def prepare(folder: Path, config: Config) -> None:
    """Writes large.npy [N, 2 side, 2 side, 3] and small.npy [2, N, side, side, 3]: shrunk, and autoencoded then."""
    if (folder / "small.npy").exists():
        return
    from noisette.train.vectors import names, render

    settings, side = config["upscale"], config["data"]["side"]
    rng = np.random.default_rng(config["data"]["seed"])
    large = []
    for key in SETS:
        package = fetch(folder, key, config["packages"][key])
        known = names(package)
        wanted = [known[i] for i in sorted(rng.choice(len(known), settings["pictures"], replace=False))]
        drawn = render(package, wanted, 2 * side)
        large += [on_colour(c, rng) if rng.random() < COLOURED else on_white(c) for c in drawn]
    encode, decode = autoencoder.compiled(autoencoder.trained(folder, config))
    small = np.zeros((2, len(large), side, side, 3), np.uint8)
    for row, picture in enumerate(large):
        small[0, row] = halve(picture)
        small[1, row] = decode(encode(small[:1, row]))[0]
    np.save(folder / "large.npy", np.stack(large))
    np.save(folder / "small.npy", small)
    print(f"upscale: {len(large)} pictures", flush=True)


def halve(picture: np.ndarray) -> np.ndarray:
    """Half the sides, each pixel the mean of four."""
    size = (picture.shape[1] // 2, picture.shape[0] // 2)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def train(folder: Path, config: Config) -> None:
    """Trains for the configured minutes, from the last checkpoint if there is one; one in 20 is held out."""
    prepare(folder, config)
    settings, log = config["upscale"], config["log"]
    torch.manual_seed(config["data"]["seed"])
    network = Upscaler(settings["channels"], settings["layers"]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["learning_rate"], weight_decay=0.0, fused=True)
    run = Run(folder, "upscale", network, optimizer, ema=0.99)
    run.resume()
    large, small = np.load(folder / "large.npy", mmap_mode="r"), np.load(folder / "small.npy", mmap_mode="r")
    _, shaded = read_pictures(folder)
    held_out = -(-len(large) // 20)
    for minutes in run.steps(settings["minutes"], log["checkpoint_minutes"], log["every"]):
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * max(0.02, 1 - minutes / settings["minutes"])
        pairs = [
            draw(large[:-held_out], small[:, :-held_out], shaded, settings, run.rng) for _ in range(settings["batch"])
        ]
        given, wanted = (autoencoder.to_pixels(np.stack(side)) for side in zip(*pairs, strict=True))
        difference = network(given) - wanted
        across = (difference[..., 1:] - difference[..., :-1]).abs().mean()
        down = (difference[:, :, 1:] - difference[:, :, :-1]).abs().mean()
        run.update(difference.abs().mean() + 0.5 * (across + down), len(pairs))
    compare(run.averaged(), large[-held_out:], small[:, -held_out:])


def draw(
    large: np.ndarray, small: np.ndarray, shaded: np.ndarray, settings: dict[str, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A patch and the same at twice the size, turned and mirrored at random; of several the one with most edges.

    A share comes from the shaded pictures, whose own size is the larger one there.
    """
    side = int(settings["patch"])
    if rng.random() < settings["shaded"]:
        wanted = on_white(shaded[rng.integers(len(shaded))])
        given = halve(wanted)
    else:
        row = rng.integers(len(large))
        wanted, given = large[row], small[rng.integers(2), row]
    places = rng.integers(0, given.shape[0] - side + 1, (3, 2))
    top, left = max(places, key=lambda place: given[place[0] :, place[1] :][:side, :side].std())
    patch = given[top : top + side, left : left + side]
    larger = wanted[2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
    turns = rng.integers(4)
    if rng.random() < 0.5:
        patch, larger = patch[:, ::-1], larger[:, ::-1]
    return np.rot90(patch, turns).copy(), np.rot90(larger, turns).copy()


@torch.inference_mode()
def compare(network: nn.Module, large: np.ndarray, small: np.ndarray) -> None:
    """Prints the PSNR on held-out pictures beside Lanczos', for shrunk ones and those through the autoencoder."""
    for name, given in zip(("shrunk", "through the autoencoder"), small, strict=True):
        found: dict[str, list[float]] = {"network": [], "Lanczos": []}
        for picture, wanted in zip(given, large, strict=True):
            drawn = (network(autoencoder.to_pixels(picture[None]))[0].permute(1, 2, 0).numpy() + 1) * 127.5
            lanczos = Image.fromarray(picture).resize(wanted.shape[1::-1], Image.Resampling.LANCZOS)
            for which, result in (("network", drawn.clip(0, 255)), ("Lanczos", np.asarray(lanczos, np.float32))):
                found[which].append(10 * np.log10(255**2 / ((result - wanted) ** 2).mean()))
        print(f"upscale, {name}: " + ", ".join(f"{k} {np.mean(v):.2f} dB" for k, v in found.items()), flush=True)


def export(folder: Path, config: Config, target: Path) -> None:
    """Writes config.json and model.safetensors (float16) into `target`."""
    averages = torch.load(folder / "upscale.pt", weights_only=True)["averages"]
    target.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in averages.items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)
    settings = {key: config["upscale"][key] for key in ("channels", "layers")}
    (target / "config.json").write_text(json.dumps({"scale": 2, **settings}, indent=2) + "\n", encoding="utf-8")
