"""The image encoder: latents of a picture to the text states its caption would have, and to a vector beside texts.

It looks at the autoencoder's latents, which are there whenever a base picture is, and is so small that NumPy runs
it (noisette/image_prompt.py). With it a picture can stand where a text does: an image prompt. What its second head
gives lies in the space of pooled captions (InfoNCE, van den Oord et al. 2018; Radford et al. 2021): the measure of
how well a picture fits a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from noisette.train import autoencoder
from noisette.train.checkpoint import Run
from noisette.train.compose import on_white
from noisette.train.config import Config
from noisette.train.data import read_pictures, write_json
from noisette.train.denoiser import Batches
from noisette.train.text import encode, lengths, load_text_encoder, pooled

SIDE = 16  # latents along each side of what it sees
STRIDES = (1, 2, 2, 2)
LOOKED_AT = 200  # pictures


class ImageEncoder(nn.Module):
    """Four convolutions, a hidden layer, and two heads: states [tokens, width] and a unit vector [width]."""

    def __init__(self, latent_channels: int, settings: dict[str, list[int] | int], tokens: int, width: int) -> None:
        super().__init__()
        channels = [latent_channels, *settings["channels"]]
        self.tokens, self.width = tokens, width
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride, padding=1)
            for before, after, stride in zip(channels[:-1], channels[1:], STRIDES, strict=True)
        )
        self.hidden = nn.Linear(channels[-1] * 4, settings["hidden"])
        self.rank = nn.Linear(settings["hidden"], settings["rank"])
        self.states = nn.Linear(settings["rank"], tokens * width)
        self.embedding = nn.Linear(settings["hidden"], width)

    @property
    def config(self) -> dict[str, Any]:
        """What the weights don't tell."""
        return {"tokens": self.tokens, "width": self.width, "strides": list(STRIDES), "side": SIDE}

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened latents [B, C, 16, 16] to states [B, T, width] and unit vectors [B, width]."""
        x = latents
        for conv in self.convs:
            x = F.silu(conv(x))
        x = F.silu(self.hidden(x.flatten(1)))
        states = self.states(self.rank(x)).unflatten(1, (self.tokens, self.width))
        return states, F.normalize(self.embedding(x), dim=1)


def build(folder: Path, config: Config) -> ImageEncoder:
    """The network for the texts in `folder`."""
    _, tokens, width = np.load(folder / "text.npy", mmap_mode="r").shape
    return ImageEncoder(config["autoencoder"]["latent_channels"], config["image_encoder"], tokens, width)


def train(folder: Path, config: Config) -> None:
    """Trains for the configured minutes, from the last checkpoint if there is one; prints what held-out concepts get.

    Needs the denoiser's latents (`noisette train denoiser`).
    """
    settings, log = config["image_encoder"], config["log"]
    torch.manual_seed(config["data"]["seed"])
    batches = Batches(folder, config)
    square = [i for i, latents in batches.latents.items() if latents.shape[1] == latents.shape[2]]
    latents = np.stack([batches.latents[i] for i in square])
    tokenizer, _ = load_text_encoder(folder / "packages" / "minilm", config["data"]["window"])
    count = lengths(tokenizer, batches.texts)
    network = build(folder, config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["learning_rate"], weight_decay=0.05, fused=True)
    run = Run(folder, "image_encoder", network, optimizer, ema=0.999)
    run.resume()
    for minutes in run.steps(settings["minutes"], log["checkpoint_minutes"], log["every"]):
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * min(
                1, (run.step + 1) / 50, 2 - 2 * minutes / settings["minutes"]
            )
        rows = run.rng.choice(len(square), settings["batch"])
        spread = settings["noise"] * run.rng.random((len(rows), 1, 1, 1)).astype(np.float32)
        x = latents[rows].astype(np.float32) + spread * run.rng.normal(size=latents[rows].shape).astype(np.float32)
        plain = [batches.captions[square[row]][0] for row in rows]
        said = [run.rng.choice(batches.captions[square[row]]) for row in rows]
        states, vectors = network(torch.from_numpy(x))
        wanted = torch.from_numpy(batches.states[plain].astype(np.float32))
        texts = torch.from_numpy(pooled(batches.states[said], count[said]))
        scores = vectors @ texts.T / settings["temperature"]
        same = torch.arange(len(rows))
        contrast = (F.cross_entropy(scores, same) + F.cross_entropy(scores.T, same)) / 2
        run.update(F.mse_loss(states, wanted) / wanted.var() + settings["contrast"] * contrast, len(rows))
    run.averaged()
    judge(network, folder, config)


@torch.inference_mode()
def judge(network: ImageEncoder, folder: Path, config: Config) -> None:
    """Prints how often a picture's own label is the nearest of all, or among the nearest five."""
    entries, cut_outs = read_pictures(folder)
    groups = config["data"]["groups"]
    whitening = np.load(folder / "whitening.npz")
    encode_latents, _ = autoencoder.compiled(autoencoder.trained(folder, config))
    tokenizer, encoder = load_text_encoder(folder / "packages" / "minilm", config["data"]["window"])
    labels = [entry["label"] for entry in entries]
    states = np.concatenate([encode(tokenizer, encoder, labels[i : i + 64]) for i in range(0, len(labels), 64)])
    texts = pooled(states, lengths(tokenizer, labels))
    for what in (False, True):
        rows = [i for i, entry in enumerate(entries) if entry["group"] in groups and entry["held_out"] == what]
        rows = [int(row) for row in np.random.default_rng(0).permutation(rows)[:LOOKED_AT]]
        latents = np.concatenate([encode_latents(on_white(cut_outs[row])[None]) for row in rows])
        white = (latents - whitening["mean"][:, None, None]) / whitening["deviation"][:, None, None]
        scores = network(torch.from_numpy(white.astype(np.float32)))[1].numpy() @ texts.T
        ranks = (scores > scores[range(len(rows)), rows][:, None]).sum(1)
        kind = "held-out" if what else "taught"
        first, five = (ranks == 0).mean(), (ranks < 5).mean()
        print(f"image encoder, {kind}: of {len(labels)} labels the own is first for {first:.3f}, in 5 for {five:.3f}")


def export(folder: Path, config: Config, target: Path) -> None:
    """Writes float16 weights and config.json to `target`."""
    network = build(folder, config)
    network.load_state_dict(torch.load(folder / "image_encoder.pt", weights_only=True)["averages"])
    target.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)
    write_json(target / "config.json", network.config)
    print(f"export: {target}, {(target / 'model.safetensors').stat().st_size / 1e6:.0f} MB", flush=True)
