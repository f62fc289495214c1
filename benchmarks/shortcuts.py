"""What cheaper ways to a picture cost and bring: int8, kept features, a guidance interval, fewer steps.

    python3 benchmarks/shortcuts.py [MODEL] [--pictures 20] [--steps 25] [--side N] [--threads N] [--only int8 …]

Each row changes one thing about a recipe. PSNR is against the unchanged recipe's picture at float32, time is
that of sampling and decoding over the unchanged one's. The rows take turns, picture by picture. int8 needs
`noisette optimize MODEL` first, and is left out otherwise. On a busy machine use --threads 1: processor seconds
are compared, not wall time.
"""  # fmt: skip

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from noisette import engines
from noisette.generate import generate
from noisette.optimized import files_of
from noisette.plan import find_model, plan
from noisette.reading import Picture
from noisette.recipe import Recipe
from noisette.verify import decibels

SUBJECTS = (
    "fox", "rose", "robot", "sailing ship", "crown", "frog", "bicycle", "mushroom", "banana", "heart",
    "castle", "penguin", "umbrella", "lemon", "violin", "snowman", "cactus", "elephant", "balloon", "key",
)  # fmt: skip
FULL = "full, float32"


def rows(steps: int) -> dict[str, dict[str, Any]]:
    """Name -> what is changed of the recipe."""
    return {
        FULL: {},
        "int8": {"precision": "int8"},
        "step_cache 2": {"step_cache": 2},
        "step_cache 3": {"step_cache": 3},
        "step_cache 5": {"step_cache": 5},
        "int8, step_cache 2": {"precision": "int8", "step_cache": 2},
        "guidance_end 0.8": {"guidance_end": 0.8},
        "guidance_end 0.6": {"guidance_end": 0.6},
        "guidance 0.1 to 0.8": {"guidance_start": 0.1, "guidance_end": 0.8},
        f"{steps // 2} steps": {"num_inference_steps": steps // 2},
        f"{steps * 2 // 3} steps": {"num_inference_steps": steps * 2 // 3},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="noisette-1")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--side", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", default=[], help="words that a row's name holds")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    checkpoint = find_model(args.model)[0]
    side = args.side or checkpoint.native_side
    chosen = {
        name: changes
        for name, changes in rows(args.steps).items()
        if (name == FULL or not args.only or any(word in name for word in args.only))
        and (changes.get("precision") != "int8" or files_of(checkpoint))
    }
    recipe = Recipe(model=args.model, num_inference_steps=args.steps, img_w=side, img_h=side, engine="openvino")
    psnr, ratios = compare(recipe, chosen, args.pictures)
    load = f", load {os.getloadavg()[0] / (os.cpu_count() or 1):.1f} a core" if hasattr(os, "getloadavg") else ""
    print(
        f"{args.model}, {side}x{side}, {args.steps} steps, {args.pictures} pictures, threads: {args.threads}{load}\n"
    )
    print("| | time | PSNR dB, mean | least |\n|---|---|---|---|")
    for name in chosen:
        values = "| | |" if name == FULL else f"| {statistics.mean(psnr[name]):.1f} | {min(psnr[name]):.1f} |"
        print(f"| {name} | {statistics.median(ratios[name]):.2f} {values}")


def compare(
    recipe: Recipe, chosen: dict[str, dict[str, Any]], pictures: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """PSNR and share of the full recipe's time by row, picture by picture."""
    loaded = {p: engines.load(plan(replace(recipe, precision=p), download=False))
              for p in {changes.get("precision", "float32") for changes in chosen.values()}}  # fmt: skip
    psnr: dict[str, list[float]] = {name: [] for name in chosen}
    ratios: dict[str, list[float]] = {name: [] for name in chosen}
    for i in range(-1, pictures):  # the first one warms up
        made = {}
        for name, changes in chosen.items():
            asked = replace(recipe, prompt=f"a {SUBJECTS[i % len(SUBJECTS)]}", seed=str(1001 + i), **changes)
            made[name] = draw(asked, loaded[asked.precision])
        for name, (picture, spent) in made.items() if i >= 0 else ():
            psnr[name].append(decibels(made[FULL][0], picture))
            ratios[name].append(spent / made[FULL][1])
    return psnr, ratios


def draw(recipe: Recipe, networks: Any) -> tuple[Picture, float]:
    """The picture, and the processor seconds it took."""
    planned = plan(recipe, download=False)
    begun = time.process_time()
    result = next(generate(planned, networks))
    return result.picture, time.process_time() - begun


if __name__ == "__main__":
    main()
