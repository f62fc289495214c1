"""A declared stub family: latents are means of colours, and its denoiser always paints the same wild picture.

It stands at the seam that `generate` has for families (`load(networks, checkpoint)`), so that everything
around a model runs as it is: plan, windows, modes, samplers, finish, files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from noisette.checkpoint import Checkpoint
from noisette.generate import Result, generate
from noisette.noise import Noise
from noisette.plan import Plan, plan
from noisette.recipe import Recipe, check
from noisette.sampling import Denoise, Level
from noisette.schedules import flow_levels


class StubModel:
    """What `families.Model` asks for, without a network."""

    masked = False

    def __init__(self, cell: int) -> None:
        self.cell = cell

    def encode_prompt(self, prompts: str, negative: str) -> Any:
        return SimpleNamespace(cut=())

    def levels(self, num_inference_steps: int, schedule: str, sampler: str) -> list[Level]:
        return [
            Level(max(alpha, 1e-3), sigma)
            for alpha, sigma in flow_levels(np.linspace(1, 0, num_inference_steps + 1)[:-1])
        ]

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        return 3, height // self.cell, width // self.cell

    def encode_image(self, pixels: np.ndarray, streams: Sequence[Noise]) -> np.ndarray:
        _, height, width = self.latent_shape(pixels.shape[3], pixels.shape[2])
        means = pixels.reshape(1, 3, height, self.cell, width, self.cell).mean(axis=(3, 5))
        return np.repeat(means, len(streams), axis=0)

    def denoiser(self, *conditions: Any) -> Denoise:
        def wild(x: np.ndarray, level: Level) -> np.ndarray:
            rows, columns = np.indices(x.shape[2:])
            return np.broadcast_to(np.where((rows + columns) % 2, 1.5, -1.5), x.shape).astype(np.float32)

        return wild

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return latents.repeat(self.cell, axis=2).repeat(self.cell, axis=3)


def load(networks: Any, checkpoint: Checkpoint) -> StubModel:
    """What `generate` calls."""
    return StubModel(checkpoint.vae_scale_factor)


def planned(out: Path, **fields: Any) -> Plan:
    """The plan of a recipe for the built-in model, with the stub in place of its family."""
    values = {"prompt": "alien", "seed": "3", "num_inference_steps": 2, **fields}
    made = plan(check(Recipe(**values)), out, download=False)
    return replace(made, family=replace(made.family, module="tests.stub"))


def run(asked: Plan) -> list[Result]:
    """All pictures of a plan of `planned`."""
    return list(generate(asked, None))  # type: ignore[arg-type]
