"""What training is tested on: a small configuration, four discs, a package of icons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from noisette.train import (
    data,
)
from noisette.train.config import read_config


def tiny() -> dict[str, dict[str, Any]]:
    """The shipped configuration at a size for tests."""
    config = read_config(None)
    config["data"] |= {"side": 32, "aspects": [0.25, 4.0], "canvases": 1, "pairs": 3}
    config["autoencoder"] |= {"channels": [8, 16, 16], "latent_channels": 4}
    config["autoencoder"] |= {"sides": [16, 32], "minutes": [0.01, 0.01], "batch": [4, 2]}
    config["denoiser"] |= {
        "channels": [32, 32],
        "attention": [False, True],
        "heads": [2, 2],
        "batch": 4,
    }
    config["denoiser"] |= {"minutes": 0.02, "compiled": False}
    config["decoder"] |= {"batch": 2, "minutes": 0.01, "compiled": False, "critic": 8, "critic_alone": 0}
    config["upscale"] |= {"channels": 8, "layers": 1, "pictures": 2, "patch": 16, "batch": 2, "minutes": 0.01}
    config["log"] |= {"every": 1}
    return config


def disc(colour: tuple[int, int, int], side: int = 32) -> np.ndarray:
    """A cut-out: a disc of one colour."""
    rows, columns = np.ogrid[:side, :side]
    inside = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side / 3) ** 2
    return np.where(inside[..., None], np.array([*colour, 255]), 0).astype(np.uint8)


def toy_pictures() -> tuple[list[dict[str, Any]], np.ndarray]:
    """Four discs: two coloured, a held-out one, a grey one."""
    colours = [(220, 30, 30), (40, 90, 220), (40, 200, 60), (120, 120, 120)]
    entries = [
        {"label": f"disc{i}", "tags": ["round"], "described": ["a flat thing"], "group": 3, "held_out": i == 2}
        for i in range(len(colours))
    ]
    return entries, np.stack([disc(colour) for colour in colours])


def vector_package(folder: Path, colour: str) -> None:
    """An unpacked iconify package of three icons, one of them a flag."""
    body = f'<circle cx="8" cy="8" r="6" fill="{colour}"/>'
    icons = {name: {"body": body} for name in ("disc", "circle", "flag-x")}
    (folder / "package").mkdir(parents=True)
    data.write_json(folder / "package" / "icons.json", {"icons": icons, "width": 16, "height": 16})
