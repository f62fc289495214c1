"""What cheaper ways to a picture cost and bring: int8, kept features, a guidance interval, fewer steps.

    python3 benchmarks/shortcuts.py [MODEL] [--pictures 4] [--steps 25] [--side N] [--threads N] [--only int8 …]

Each row changes one thing about a recipe. PSNR is against the unchanged recipe's picture at float32, time is
that of sampling and decoding over the unchanged one's. The rows take turns, picture by picture, and what was
measured is kept: the same command goes on where it was stopped, and --pictures 20 adds sixteen to the first four.
int8 needs `noisette optimize MODEL` first, and is left out otherwise. On a busy machine use --threads 1: processor
seconds are compared, not wall time.
"""  # fmt: skip

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from noisette import engines
from noisette.checkpoint import cache_folder
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
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--side", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", default=[], help="words that a row's name holds")
    parser.add_argument("--results", type=Path, help="where each one is kept as it is measured (JSON lines)")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    checkpoint = find_model(args.model)[0]
    side = args.side or checkpoint.native_side
    chosen = {
        name: changes
        for name, changes in rows(args.steps).items()
        if (not args.only or any(word in name for word in args.only))
        and (changes.get("precision") != "int8" or files_of(checkpoint))
    }
    facts = [checkpoint.weights_hash, side, args.steps, args.threads]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    results = args.results or cache_folder() / "bench" / f"shortcuts-{name}.jsonl"
    recipe = Recipe(model=args.model, num_inference_steps=args.steps, img_w=side, img_h=side, engine="openvino")
    measure(recipe, chosen, args.pictures, results)
    found = read(results)
    load = f", load {os.getloadavg()[0] / (os.cpu_count() or 1):.1f} a core" if hasattr(os, "getloadavg") else ""
    print(
        f"{args.model}, {side}x{side}, {args.steps} steps, {args.pictures} pictures, threads: {args.threads}{load}\n"
    )
    print("| | time | PSNR dB, mean | least |\n|---|---|---|---|")
    for name in chosen:
        psnr, ratios = zip(*(found[name, i] for i in range(args.pictures)), strict=True)
        print(f"| {name} | {statistics.median(ratios):.2f} | {statistics.mean(psnr):.1f} | {min(psnr):.1f} |")


def read(results: Path) -> dict[tuple[str, int], tuple[float, float]]:
    """PSNR and share of the full recipe's time, by row and picture; a line cut short by a kill is left out."""
    found = {}
    for line in results.read_text(encoding="utf-8").splitlines() if results.is_file() else ():
        with suppress(ValueError):
            row, picture, psnr, ratio = json.loads(line)
            found[row, picture] = psnr, ratio
    return found


def measure(recipe: Recipe, chosen: dict[str, dict[str, Any]], pictures: int, results: Path) -> None:
    """Measures what `results` does not hold yet and adds it line by line, rows taking turns picture by picture."""
    known = read(results)
    todo = {i: [name for name in chosen if (name, i) not in known] for i in range(pictures)}
    if not any(todo.values()):
        return
    results.parent.mkdir(parents=True, exist_ok=True)
    precisions = {"float32", *(changes.get("precision", "float32") for changes in chosen.values())}
    loaded = {p: engines.load(plan(replace(recipe, precision=p), download=False)) for p in precisions}
    for name in [FULL, *chosen]:  # warms up
        changes = {} if name == FULL else chosen[name]
        asked = replace(recipe, prompt="a fox", seed="1", **{**changes, "num_inference_steps": 2})
        draw(asked, loaded[asked.precision])
    with results.open("a", encoding="utf-8") as file:
        file.write("\n")  # after what a kill may have cut
        for i, names in todo.items():
            asked = replace(recipe, prompt=f"a {SUBJECTS[i % len(SUBJECTS)]}", seed=str(1001 + i))
            if not names:
                continue
            whole, full_time = draw(asked, loaded["float32"])
            for name in names:
                changed = replace(asked, **chosen[name])
                picture, spent = draw(changed, loaded[changed.precision])
                file.write(json.dumps([name, i, decibels(whole, picture), spent / full_time]) + "\n")
                file.flush()


def draw(recipe: Recipe, networks: Any) -> tuple[Picture, float]:
    """The picture, and the processor seconds it took."""
    planned = plan(recipe, download=False)
    begun = time.process_time()
    result = next(generate(planned, networks))
    return result.picture, time.process_time() - begun


if __name__ == "__main__":
    main()
