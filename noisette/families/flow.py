"""What the rectified-flow families share: velocity to x0, guidance, noise levels from their schedulers' configs.

A flow model is trained at x = (1 - sigma) * x0 + sigma * noise and gives the velocity noise - x0 (Liu et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette.families.stable_diffusion import guided_levels, rescale
from noisette.sampling import Denoise, Level
from noisette.schedules import flow_levels

Array = NDArray[np.float32]
MULTISTEP = ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")
ALMOST = 1e-6  # diffusers' multistep schedulers begin so far below pure noise, where log(alpha) is finite
STEPS = 1000  # of training; a timestep is sigma * STEPS


def levels(scheduler: Mapping[str, Any], n: int, tokens: int = 0) -> list[Level]:
    """The n + 1 levels of a diffusers scheduler config. `tokens`: of the latents, where the shift depends on them."""
    if scheduler["_class_name"] in MULTISTEP:
        sigmas = np.linspace(1, 1 / STEPS, n + 1)[:-1]
        shift = float(scheduler.get("flow_shift", 1.0))
    elif scheduler.get("use_dynamic_shifting"):
        sigmas = np.linspace(1, 1 / n, n)
        shift = dynamic_shift(scheduler, tokens)
    else:
        shift = float(scheduler.get("shift", 1.0))
        lowest = shift / STEPS / (1 + (shift - 1) / STEPS)
        sigmas = np.linspace(1, lowest, n)
    found = flow_levels(sigmas, shift, scheduler.get("shift_terminal"))
    if scheduler["_class_name"] in MULTISTEP:
        found[0] = Level(ALMOST, 1 - ALMOST)
    return found


def dynamic_shift(scheduler: Mapping[str, Any], tokens: int) -> float:
    """exp(mu), where mu grows linearly with the number of tokens (Esser et al. 2024, section 5.3.2)."""
    low, high = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    least, most = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    return float(np.exp(least + (most - least) * (tokens - low) / (high - low)))


def timestep(scheduler: Mapping[str, Any], level: Level) -> float:
    """What the network is told of a level; diffusers' multistep schedulers cut it to a whole number."""
    t = level.sigma * STEPS
    return float(int(t)) if scheduler["_class_name"] in MULTISTEP else t


def straight(x: Array, level: Level) -> tuple[Array, Level]:
    """x and its level scaled so that alpha + sigma = 1, as flow models were trained; x0 is the same."""
    total = level.alpha + level.sigma
    if abs(total - 1) < 1e-9:
        return x, level
    return x / np.float32(total), Level(level.alpha / total, level.sigma / total)


def denoiser(
    velocity: Callable[[Array, Level, bool], Array],
    guidance_scale: float,
    guidance_rescale: float,
    guidance_interval: tuple[float, float],
    run: Sequence[Level],
) -> Denoise:
    """denoise(x, level) -> x0 from velocity(x, level, conditional), guided as Stable Diffusion's denoiser is."""
    guided_at = guided_levels(guidance_interval, run)

    def denoise(x: Array, level: Level) -> Array:
        x, level = straight(x, level)
        v = velocity(x, level, True)
        if guidance_scale > 1 and guided_at(level):
            uncond = velocity(x, level, False)
            guided = uncond + np.float32(guidance_scale) * (v - uncond)
            v = rescale(guided, v, guidance_rescale) if guidance_rescale else guided
        x0: Array = x - np.float32(level.sigma) * v
        return x0

    return denoise
