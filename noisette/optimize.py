"""`noisette optimize MODEL`: int8 networks for --precision int8, calibrated on the model's own trajectories.

Pictures of PROMPTS are drawn with the float32 networks, at step counts that differ so that the whole range of
noise levels is met; what the UNet and the decoder were given on the way calibrates them. Pictures of other
prompts then tell what it cost (PSNR against float32) and what it brought (time of a step).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import checkpoint as checkpoints
from noisette.errors import UserError
from noisette.generate import generate
from noisette.optimized import NETWORKS, REPORT, folder_of
from noisette.plan import Plan, find_model, plan
from noisette.recipe import Recipe
from noisette.verify import decibels

if TYPE_CHECKING:
    from noisette.engines import Array, Ids
    from noisette.reading import Picture

PROMPTS = (
    "a red apple", "a green alien", "a cat", "a house by a lake, photograph", "an old car", "a tree in autumn",
    "a blue bird", "a guitar, oil painting", "an owl at night", "a pizza", "a rocket", "a portrait of a woman, 4k",
    "a castle on a hill", "a bowl of fruit", "a city street in the rain", "a white horse",
)  # fmt: skip
HELD_OUT = ("a fox", "a rose", "a robot", "a sailing ship")
FEWEST_STEPS, DIFFERENT = 6, 5  # picture i takes 6 + i % 5 steps
SAMPLES = 96  # of the UNet's calls, at most
HELD_OUT_STEPS = 25


@dataclass
class Recorder:
    """Networks that remember what the UNet and the decoder were given."""

    networks: Any
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    latents: list[Array] = field(default_factory=list)

    def encode_text(self, ids: Ids, attention_mask: Ids | None) -> Any:
        return self.networks.encode_text(ids, attention_mask)

    def text_states(self, network: str, ids: Ids) -> Any:
        return self.networks.text_states(network, ids)

    def denoise(self, *given: Any) -> Array:
        self.calls.append(given)
        return self.networks.denoise(*given)

    def decode_image(self, latents: Array) -> Array:
        self.latents.append(latents)
        return self.networks.decode_image(latents)


def optimize(model: str, pictures: int, say: Callable[[str], object]) -> dict[str, Any]:
    """Makes and keeps the int8 networks of a model, and returns the report on them. Raises UserError."""
    if find_spec("nncf") is None:
        raise UserError("noisette optimize needs nncf: pip3 install -r requirements-torch.txt")
    from noisette.engines import openvino as engine

    checkpoint = checkpoints.fetch(find_model(model)[0])
    networks = engine.load(checkpoint)
    recorder = Recorder(networks)
    say(f"drawing {pictures} pictures to calibrate on")
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(pictures)]
    for i, prompt in enumerate(prompts):
        draw(picture_plan(model, prompt, i, FEWEST_STEPS + i % DIFFERENT, "float32"), recorder)
    report: dict[str, Any] = {"model": model, "pictures": pictures, "float_layers": {}}
    folder = folder_of(checkpoint)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, suffix=".part"))
    except OSError as error:
        raise UserError(f"{folder.parent} can't be written: {error.strerror}; NOISETTE_CACHE names another") from None
    try:
        for name in NETWORKS:
            samples = sampled(recorder, name)
            say(f"quantizing {name} on {len(samples)} samples")
            report["float_layers"][name] = networks.optimize(name, samples, part / f"{name}.xml")
        (part / REPORT).write_text(json.dumps(report), encoding="utf-8")
        replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    say("comparing with float32 on prompts that it was not calibrated on")
    report |= compare(model, networks, recorder, say)
    part_of_report = folder / f"{REPORT}.{os.getpid()}"
    part_of_report.write_text(json.dumps(report), encoding="utf-8")
    part_of_report.replace(folder / REPORT)
    return report


def picture_plan(model: str, prompt: str, seed: int, steps: int, precision: str) -> Plan:
    """One picture at the model's native size on the openvino engine, everything else by default."""
    side = find_model(model)[0].native_side
    recipe = Recipe(
        model=model, prompt=prompt, seed=str(seed), num_inference_steps=steps, img_w=side, img_h=side,
        engine="openvino", precision=precision,
    )  # fmt: skip
    return plan(recipe, download=False)


def draw(planned: Plan, networks: Any) -> Picture:
    """The picture of a plan for one."""
    return next(generate(planned, networks)).picture


def sampled(recorder: Recorder, network: str) -> list[Any]:
    """At most SAMPLES of what a network was given, evenly over all trajectories."""
    every: Sequence[Any] = recorder.calls if network == "unet" else [(latents,) for latents in recorder.latents]
    return [every[i] for i in np.unique(np.linspace(0, len(every) - 1, SAMPLES).astype(int))]


def replace(part: Path, folder: Path) -> None:
    """Puts a finished folder in the place of an older one of the same weights."""
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)


def compare(model: str, networks: Any, recorder: Recorder, say: Callable[[str], object]) -> dict[str, Any]:
    """PSNR of held-out pictures and decoded latents against float32, and the share of its time that int8 takes."""
    from noisette.engines import openvino as engine

    small = engine.load(checkpoints.fetch(find_model(model)[0]), precision="int8")
    psnr = []
    for i, prompt in enumerate(HELD_OUT):
        plans = (picture_plan(model, prompt, 1000 + i, HELD_OUT_STEPS, name) for name in ("float32", "int8"))
        psnr.append(decibels(*(draw(p, n) for p, n in zip(plans, (networks, small), strict=True))))
        say(f"{prompt}: {psnr[-1]:.1f} dB")
    decoded = [n.decode_image(recorder.latents[-1]) for n in (networks, small)]
    return {
        "psnr": {"mean": float(np.mean(psnr)), "least": min(psnr), "prompts": list(HELD_OUT)},
        "decoder_psnr": float(-10 * np.log10(np.mean((decoded[0] - decoded[1]) ** 2) / 4)),
        "step_ratio": ratio(networks.denoise, small.denoise, recorder.calls[0]),
        "decode_ratio": ratio(networks.decode_image, small.decode_image, (recorder.latents[-1],)),
    }


def ratio(plain: Callable[..., Any], other: Callable[..., Any], given: tuple[Any, ...], rounds: int = 5) -> float:
    """Time of `other` over that of `plain`, taking turns; medians."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, spent in zip((plain, other), times, strict=True):
            begun = time.perf_counter()
            call(*given)
            spent.append(time.perf_counter() - begun)
    return statistics.median(times[1]) / statistics.median(times[0])
