"""Sheets: one picture of each prompt, seeds 0, 1, 2, …, nothing selected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from noisette import engines
from noisette.generate import generate
from noisette.plan import plan
from noisette.recipe import Recipe
from noisette.train.config import Config
from noisette.train.export import export

COLUMNS = 8


def while_training(folder: Path, config: Config) -> Callable[[float], None]:
    """What to call after each checkpoint of the denoiser: every `sheet_minutes` it draws sheet-MINUTES.png."""
    last = 0.0

    def saved(minutes: float) -> None:
        nonlocal last
        if minutes - last >= config["log"]["sheet_minutes"]:
            last = minutes
            export(folder, config, folder / "preview")
            prompts = config["log"]["sheet"]
            draw(folder / "preview", prompts, config["data"]["side"], folder / f"sheet-{minutes:.0f}.png")

    return saved


def draw(model: Path, prompts: list[str], side: int, target: Path, tile: int | None = None) -> None:
    """Draws a sheet with the model in the folder `model`, pictures of `side` pixels shown at `tile`."""
    tile = tile or side
    sheet = Image.new("RGB", (COLUMNS * tile, -(-len(prompts) // COLUMNS) * tile), "white")
    settings: dict[str, Any] = {"img_w": side, "img_h": side, "guidance_scale": 3.0, "sampler": "euler_ancestral"}
    networks = None
    for seed, prompt in enumerate(prompts):
        planned = plan(Recipe(model=str(model), prompt=prompt, seed=str(seed), **settings))
        networks = networks or engines.load(planned)
        (result,) = generate(planned, networks)
        shown = result.picture.to_pil().resize((tile, tile), Image.Resampling.LANCZOS)
        sheet.paste(shown, (seed % COLUMNS * tile, seed // COLUMNS * tile))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, quality=90)
    print(f"sheet: {target}", flush=True)
