"""The sheet: one picture of each of the configuration's prompts, seeds 0, 1, 2, …, nothing selected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
            draw(folder / "preview", config, folder / f"sheet-{minutes:.0f}.png")

    return saved


def draw(model: Path, config: Config, target: Path) -> None:
    """Draws the sheet with the model in the folder `model` at its native size and writes it as a PNG."""
    side, prompts = config["data"]["side"], config["log"]["sheet"]
    sheet = Image.new("RGB", (COLUMNS * side, -(-len(prompts) // COLUMNS) * side), "white")
    settings = {"model": str(model), "img_w": side, "img_h": side, "guidance_scale": 3.0, "sampler": "euler"}
    networks = None
    for seed, prompt in enumerate(prompts):
        planned = plan(Recipe(prompt=prompt, seed=str(seed), **settings))
        networks = networks or engines.load(planned)
        (result,) = generate(planned, networks)
        sheet.paste(result.picture.to_pil(), (seed % COLUMNS * side, seed // COLUMNS * side))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
    print(f"sheet: {target}", flush=True)
