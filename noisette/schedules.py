"""Schedules: which noise levels a run visits. A table of training levels in, n + 1 sampling levels out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from noisette.sampling import Level

Floats = NDArray[np.float64]

CLEAN = Level(1.0, 0.0)
LEAST_ALPHA = 2.0**-12  # diffusers' stand-in for alpha = 0 where a ratio sigma / alpha must stay finite


@dataclass(frozen=True)
class Table:
    """The noise levels a model was trained on, by timestep; alphas^2 + sigmas^2 = 1."""

    alphas: Floats
    sigmas: Floats

    @property
    def size(self) -> int:
        """The number of training timesteps."""
        return len(self.alphas)

    @property
    def ratios(self) -> Floats:
        """sigma / alpha by timestep: k-diffusion's and EDM's sigma, finite also at zero terminal SNR."""
        return self.sigmas / np.maximum(self.alphas, LEAST_ALPHA)

    def level(self, timestep: float) -> Level:
        """The level at a timestep, between two of them by interpolating log(sigma / alpha)."""
        index = round(timestep)
        if abs(timestep - index) < 1e-4:
            return Level(float(self.alphas[index]), float(self.sigmas[index]))
        return from_ratio(math.exp(np.interp(timestep, np.arange(self.size), np.log(self.ratios))))

    def timestep(self, level: Level) -> float:
        """The timestep of a level: whole on the table's own levels, fractional between them."""
        ratio = math.log(level.sigma / max(level.alpha, LEAST_ALPHA * math.hypot(*level)))
        found = float(np.interp(ratio, np.log(self.ratios), np.arange(self.size)))
        return float(round(found)) if abs(found - round(found)) < 1e-4 else found


def from_ratio(ratio: float) -> Level:
    """The variance-preserving level with sigma / alpha = ratio."""
    alpha = 1 / math.hypot(1, ratio)
    return Level(alpha, ratio * alpha)


def make_table(
    beta_schedule: str = "scaled_linear",
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    num_train_timesteps: int = 1000,
    rescale_betas_zero_snr: bool = False,
) -> Table:
    """The table of a diffusers scheduler config: linear, scaled_linear or squaredcos_cap_v2 betas.

    With `rescale_betas_zero_snr` the square roots of alpha-bar are shifted and scaled so that the last is 0
    (Lin et al. 2023, algorithm 1).
    """
    if beta_schedule == "squaredcos_cap_v2":
        time = np.arange(num_train_timesteps + 1) / num_train_timesteps
        bar = np.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    elif beta_schedule == "linear":
        betas = np.linspace(beta_start, beta_end, num_train_timesteps)
    else:
        betas = np.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps) ** 2
    alphas = np.sqrt(np.cumprod(1 - betas))
    if rescale_betas_zero_snr:
        alphas = (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])
    return Table(alphas, np.sqrt(1 - alphas**2))


def leading(n: int, size: int, offset: int) -> Floats:
    """Every (size // n)-th timestep from `offset` up (Lin et al. 2023, table 2)."""
    return np.minimum(np.arange(n)[::-1] * (size // n) + offset, size - 1).astype(float)


def trailing(n: int, size: int, offset: int) -> Floats:
    """From the last timestep down in even strides: the first step starts from pure noise."""
    return np.round(np.arange(n, 0, -1) * (size / n)) - 1


def linspace(n: int, size: int, offset: int) -> Floats:
    """Both ends of the training range and evenly between."""
    return np.round(np.linspace(0, size - 1, n)[::-1])


def simple(n: int, size: int, offset: int) -> Floats:
    """Even strides through the table from its end, rounded down (ComfyUI)."""
    return size - 1 - np.floor(np.arange(n) * (size / n))


def sgm_uniform(n: int, size: int, offset: int) -> Floats:
    """n + 1 even timesteps over the range without the last (Stability's generative-models)."""
    return np.linspace(size - 1, 0, n + 1)[:-1]


SPACINGS: dict[str, Callable[[int, int, int], Floats]] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "simple": simple,
    "sgm_uniform": sgm_uniform,
}


def karras(n: int, low: float, high: float) -> Floats:
    """Ratios even in sigma^(1/7) (Karras et al. 2022, eq. 5)."""
    return np.linspace(high ** (1 / 7), low ** (1 / 7), n) ** 7


def exponential(n: int, low: float, high: float) -> Floats:
    """Ratios even in log sigma."""
    return np.exp(np.linspace(math.log(high), math.log(low), n))


def beta(n: int, low: float, high: float) -> Floats:
    """Ratios at the quantiles of Beta(0.6, 0.6): dense at both ends (Lee et al. 2024)."""
    return low + beta_quantile(np.linspace(1, 0, n), 0.6) * (high - low)


def beta_quantile(p: Floats, a: float) -> Floats:
    """The quantile function of Beta(a, a), from its integral in x = sin^2(theta), to about 1e-6."""
    theta = np.linspace(0, math.pi / 2, 200_001)
    middles = (theta[1:] + theta[:-1]) / 2
    mass = np.concatenate([[0.0], np.cumsum((np.sin(middles) * np.cos(middles)) ** (2 * a - 1))])
    return np.sin(np.interp(p * mass[-1], mass, theta)) ** 2


RATIOS: dict[str, Callable[[int, float, float], Floats]] = {
    "karras": karras,
    "exponential": exponential,
    "beta": beta,
}


def make_levels(
    table: Table, n: int, schedule: str, spacing: str = "leading", offset: int = 0, last: Level = CLEAN
) -> list[Level]:
    """The n + 1 levels of a run of n steps, noisy to clean, ending at `last`.

    `schedule` is one of SPACINGS, or one of RATIOS, which reach from the first to the last level of `spacing`,
    as in diffusers. Fewer levels come back where steps outnumber distinct timesteps.
    """
    if schedule in RATIOS:
        first = SPACINGS[spacing](n, table.size, offset)
        ratios = np.interp(first[[-1, 0]], np.arange(table.size), table.ratios)
        return [from_ratio(float(ratio)) for ratio in RATIOS[schedule](n, *ratios)] + [last]
    timesteps = SPACINGS[schedule](n, table.size, offset)
    return [table.level(float(t)) for t in timesteps] + [last]


def flow_levels(sigmas: Floats, shift: float = 1.0, terminal: float | None = None) -> list[Level]:
    """Rectified flow: alpha = 1 - sigma, shifted towards noise (Esser et al. 2024, eq. 23), then a clean level.

    `sigmas` fall from 1. `terminal`: they are stretched so that the last one is this (LTX-Video); a single one is 1.
    """
    shifted = shift * sigmas / (1 + (shift - 1) * sigmas)
    if terminal and len(shifted) > 1:
        shifted = 1 - (1 - shifted) * ((1 - terminal) / (1 - shifted[-1]))
    return [*(Level(1 - float(sigma), float(sigma)) for sigma in shifted), CLEAN]


def from_strength(levels: list[Level], strength: float) -> list[Level]:
    """The last int(n * strength) steps: where img2img begins (diffusers' get_timesteps)."""
    n = len(levels) - 1
    return levels[n - min(int(n * strength), n) :]
