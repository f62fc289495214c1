"""Samplers: plain functions of one signature that walk from noise to a picture.

A noise level is a pair (alpha, sigma) with x_t = alpha * x0 + sigma * noise. In that form one function serves
variance-preserving models (alpha^2 + sigma^2 = 1), EDM (alpha = 1) and flow matching (alpha + sigma = 1), zero
terminal SNR (alpha = 0) included; Euler and DDIM are the same step.

    sampler(denoise, x, levels, noise, callback) -> x

`denoise(x, level)` gives the model's x0. `levels` are n + 1 from noisy to clean. `noise()` gives unit normals of
x's shape. `callback(i, x, x0)` is called after step i and returns the x to go on with: there the known region of
an inpainting is held, and progress is counted. x is only added and multiplied: NumPy and torch both do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

X = Any  # a NumPy array or a torch tensor


class Level(NamedTuple):
    """How much signal and how much noise: x_t = alpha * x0 + sigma * noise."""

    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """lambda = log(alpha / sigma), half the log signal-to-noise ratio; infinite at the ends."""
        if self.alpha == 0 or self.sigma == 0:
            return -math.inf if self.alpha == 0 else math.inf
        return math.log(self.alpha / self.sigma)


Denoise = Callable[[X, Level], X]
Levels = Sequence[Level]
Draw = Callable[[], X]
Callback = Callable[[int, X, X], X]


def keep(i: int, x: X, x0: X) -> X:
    """The callback that changes nothing."""
    return x


def euler_step(x: X, x0: X, now: Level, then: Level) -> X:
    """The noise in x stays, its share changes: DDIM with eta = 0 (Song et al. 2021, eq. 12)."""
    ratio = then.sigma / now.sigma
    return ratio * x + (then.alpha - now.alpha * ratio) * x0


def ancestral_step(x: X, x0: X, now: Level, then: Level, noise: Draw) -> X:
    """A draw from the DDPM posterior q(x_then | x_now, x0): DDIM with eta = 1 (Song et al. 2021, eq. 16)."""
    kept = then.sigma * now.alpha / (then.alpha * now.sigma)
    x = euler_step(x, x0, now, Level(then.alpha, then.sigma * kept))
    return x + then.sigma * math.sqrt(1 - kept * kept) * noise() if then.sigma > 0 else x


def euler(denoise: Denoise, x: X, levels: Levels, noise: Draw, callback: Callback = keep) -> X:
    """Euler on the probability-flow ODE (Karras et al. 2022, algorithm 1 without churn), which is DDIM."""
    for i, (now, then) in enumerate(itertools.pairwise(levels)):
        x0 = denoise(x, now)
        x = callback(i, euler_step(x, x0, now, then), x0)
    return x


def euler_ancestral(denoise: Denoise, x: X, levels: Levels, noise: Draw, callback: Callback = keep) -> X:
    """Ancestral sampling: each step is a draw from the DDPM posterior (Ho et al. 2020, eq. 7)."""
    for i, (now, then) in enumerate(itertools.pairwise(levels)):
        x0 = denoise(x, now)
        x = callback(i, ancestral_step(x, x0, now, then, noise), x0)
    return x


def heun(denoise: Denoise, x: X, levels: Levels, noise: Draw, callback: Callback = keep) -> X:
    """Heun's second-order method in sigma / alpha (Karras et al. 2022, algorithm 1); two evaluations a step."""
    for i, (now, then) in enumerate(itertools.pairwise(levels)):
        x0 = denoise(x, now)
        after = euler_step(x, x0, now, then)
        if then.sigma > 0 and now.alpha > 0:
            slope = (x - now.alpha * x0) / now.sigma
            slope2 = (after - then.alpha * denoise(after, then)) / then.sigma
            width = then.sigma / then.alpha - now.sigma / now.alpha
            after = then.alpha * (x / now.alpha + width * (slope + slope2) / 2)
        x = callback(i, after, x0)
    return x


def dpmpp_2m(denoise: Denoise, x: X, levels: Levels, noise: Draw, callback: Callback = keep) -> X:
    """DPM-Solver++(2M): the last two x0 extrapolated (Lu et al. 2022b, algorithm 2)."""
    before = None
    for i, (now, then) in enumerate(itertools.pairwise(levels)):
        x0 = denoise(x, now)
        x = callback(i, euler_step(x, extrapolate(x0, before, levels, i), now, then), x0)
        before = x0
    return x


def extrapolate(x0: X, before: X | None, levels: Levels, i: int) -> X:
    """x0 half a step ahead in log-SNR, from this and the previous one; x0 itself where either step is infinite."""
    if before is None:
        return x0
    last, now, then = (level.log_snr for level in levels[i - 1 : i + 2])
    if math.isinf(last) or math.isinf(then):
        return x0
    return x0 + (then - now) / (2 * (now - last)) * (x0 - before)


def dpmpp_2m_sde(denoise: Denoise, x: X, levels: Levels, noise: Draw, callback: Callback = keep) -> X:
    """SDE-DPM-Solver++(2M), midpoint form, eta = 1 (Lu et al. 2022b, eq. 18, and k-diffusion)."""
    before = None
    for i, (now, then) in enumerate(itertools.pairwise(levels)):
        x0 = denoise(x, now)
        x = callback(i, ancestral_step(x, extrapolate(x0, before, levels, i), now, then, noise), x0)
        before = x0
    return x


def dpmpp_sde(denoise: Denoise, x: X, levels: Levels, noise: Draw, callback: Callback = keep) -> X:
    """SDE-DPM-Solver++ of second order with the midpoint r = 1/2 (k-diffusion); two evaluations a step.

    The way to the midpoint and the whole step meet the same Brownian motion: apart, their noises would not cancel
    where they should, and the samples would vary too little.
    """
    for i, (now, then) in enumerate(itertools.pairwise(levels)):
        x0 = denoise(x, now)
        if now.alpha > 0 and then.sigma > 0:
            middle = Level(math.sqrt(now.alpha * then.alpha), math.sqrt(now.sigma * then.sigma))
            first = noise()
            better = denoise(ancestral_step(x, x0, now, middle, given(first)), middle)
            after = ancestral_step(x, better, now, then, given(along(first, noise(), now, middle, then)))
        else:
            after = ancestral_step(x, x0, now, then, noise)
        x = callback(i, after, x0)
    return x


def given(drawn: X) -> Draw:
    """Noise that is drawn already."""
    return lambda: drawn


def along(first: X, second: X, now: Level, middle: Level, then: Level) -> X:
    """Unit noise of now to then on the Brownian path whose noise is `first` to the middle and `second` from there.

    The path runs in sigma / alpha, as k-diffusion's BrownianTreeNoiseSampler has it.
    """
    begin, half, end = (level.sigma / level.alpha for level in (now, middle, then))
    share = (begin - half) / (begin - end)
    return math.sqrt(share) * first + math.sqrt(1 - share) * second


def unipc(denoise: Denoise, x: X, levels: Levels, noise: Draw, callback: Callback = keep) -> X:
    """UniPC-2 with B(h) = exp(-h) - 1, predicting x0 (Zhao et al. 2023, algorithms 5 and 6).

    Each evaluation also corrects the step that led to it, at no further cost. The correction is added to what the
    callback made of that step, so that what it holds stays held.
    """
    before = x0 = guess = None
    for i, (now, then) in enumerate(itertools.pairwise(levels)):
        new = denoise(x, now)
        if guess is not None:
            last = levels[i - 1]
            x = x + (now.alpha - last.alpha * now.sigma / last.sigma) * (unipc_x0(before, x0, new, levels, i) - guess)
        before, x0 = x0, new
        guess = extrapolate(x0, before, levels, i)
        x = callback(i, euler_step(x, guess, now, then), x0)
    return x


def unipc_x0(before: X | None, x0: X, new: X, levels: Levels, i: int) -> X:
    """UniC: the x0 that the step from levels[i-1] to levels[i] asks for, now that x0 at its end is known (`new`)."""
    now, then = levels[i - 1], levels[i]
    h = then.log_snr - now.log_snr
    if math.isinf(h):
        return x0
    if before is None or math.isinf(levels[i - 2].log_snr):
        return x0 + (new - x0) / 2
    ratio = (levels[i - 2].log_snr - now.log_snr) / h
    phi = math.expm1(-h)
    first = (phi / -h - 1) / phi
    second = 2 * ((phi / -h - 1) / -h - 0.5) / phi
    old = (second - first) / (ratio - 1)
    return x0 + old * (before - x0) / ratio + (first - old) * (new - x0)


def lcm(denoise: Denoise, x: X, levels: Levels, noise: Draw, callback: Callback = keep) -> X:
    """Multistep consistency sampling: jump to x0, noise it again (Luo et al. 2023, algorithm 3)."""
    for i, then in enumerate(levels[1:]):
        x0 = denoise(x, levels[i])
        x = then.alpha * x0 + then.sigma * noise() if then.sigma > 0 else then.alpha * x0
        x = callback(i, x, x0)
    return x


SAMPLERS: dict[str, Callable[..., X]] = {
    "euler": euler,
    "ddim": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_sde": dpmpp_sde,
    "unipc": unipc,
    "lcm": lcm,
}
