"""From a result to a file: what it says of itself, where it goes, and the proof that it holds what it should."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette import __version__, names, record
from noisette.optimized import folder_of
from noisette.reading import resolve
from noisette.recipe import INPUTS

if TYPE_CHECKING:
    from noisette.generate import Result
    from noisette.plan import Plan

PACKAGES = {"torch": ("torch", "diffusers", "transformers"), "openvino": ("openvino",)}


@cache
def versions(engine: str) -> dict[str, str]:
    """What computed: Python, NumPy and the engine's packages."""
    packages = {package: version(package) for package in ("numpy", *PACKAGES[engine])}
    return {"python": platform.python_version(), **packages}


def inputs(plan: Plan) -> dict[str, Any]:
    """Absolute path, so that another folder finds them, and SHA-256 of the base, the mask and LoRA files."""
    named = {name: getattr(plan.recipe, name) for name in INPUTS}
    files = {name: resolve(path) for name, path in named.items() if path}
    files |= {f"lora {i}": path for i, (path, _) in enumerate(plan.loras)}
    return {name: {"path": str(path), "sha256": record.file_hash(path)} for name, path in files.items()}


def metadata(plan: Plan, seed: int, seconds: float, facts: dict[str, Any]) -> dict[str, Any]:
    """What a file says of itself: the recipe of just this picture or clip, and how it came about."""
    recipe = plan.picture_recipe(seed).to_json()
    provenance = {
        "noisette": __version__,
        "mode": plan.mode,
        "size": [plan.size.width, plan.size.height],
        "canvas": [plan.size.canvas_width, plan.size.canvas_height],
        "windows": [window.describe() for window in plan.windows],
        **({"scene": plan.scene.describe()} if plan.scene else {}),
        "engine": plan.engine,
        "precision": plan.recipe.precision,
        **({"optimized": folder_of(plan.checkpoint).name} if plan.recipe.precision == "int8" else {}),
        "device": plan.recipe.device,
        "processor": platform.processor() or platform.machine(),
        "model_hash": plan.checkpoint.weights_hash,
        "weights": plan.checkpoint.weight_hashes,
        "inputs": inputs(plan),
        "versions": versions(plan.engine),
        "seconds": round(seconds, 3),
        **facts,
    }
    return {"recipe": recipe, "provenance": provenance}


def checkpoint_of(plan: Plan) -> Path:
    """Where a run with --checkpoint_every keeps its answers: named by its recipe and weights."""
    key = json.dumps([plan.recipe.to_json(), plan.checkpoint.weights_hash, inputs(plan)], sort_keys=True)
    return plan.out / "checkpoints" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.journal"


def write(plan: Plan, result: Result) -> record.Saved:
    """Saves a result under the next free name; pixels kept exactly are proved on the file."""
    steps = plan.recipe.num_inference_steps
    assert steps is not None
    path = names.reserve(plan.out, plan.recipe.prompt, plan.mode, result.seed, steps)
    return record.save(
        path,
        result.picture,
        metadata(plan, result.seed, result.seconds, result.facts),
        base=plan.base if plan.exact else None,
        repaint=plan.mask.repaint if plan.exact and plan.mask else None,
    )
