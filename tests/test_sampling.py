"""Samplers proved twice: on a Gaussian, whose denoiser has a closed form, and step by step against diffusers."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from noisette.noise import Noise
from noisette.recipe import SAMPLERS as NAMES
from noisette.sampling import SAMPLERS, Level, along, keep
from noisette.schedules import CLEAN, flow_levels, make_levels, make_table

MEAN, SPREAD = 0.7, 0.4
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TABLE = make_table()
DETERMINISTIC = {"euler": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 2}
STOCHASTIC = ("euler_ancestral", "dpmpp_2m_sde", "dpmpp_sde")


def gaussian(x: Any, level: Level) -> Any:
    """E[x0 | x] for x0 ~ N(MEAN, SPREAD^2)."""
    alpha, sigma = level
    return (MEAN * sigma**2 + SPREAD**2 * alpha * x) / (alpha**2 * SPREAD**2 + sigma**2)


def exact(x: Any, levels: list[Level]) -> Any:
    """Where the probability-flow ODE of the Gaussian leads x: the quantile stays."""
    first, last = levels[0], levels[-1]
    deviation = [math.sqrt((level.alpha * SPREAD) ** 2 + level.sigma**2) for level in (first, last)]
    return last.alpha * MEAN + (x - first.alpha * MEAN) * deviation[1] / deviation[0]


def no_noise() -> Any:
    raise AssertionError("a deterministic sampler drew noise")


def test_names_are_those_of_the_recipe() -> None:
    assert tuple(SAMPLERS) == NAMES


@pytest.mark.parametrize("name", list(DETERMINISTIC))
def test_order_of_convergence(name: str) -> None:
    x = np.array([-1.0, 0.3, 2.0])
    errors = []
    for n in (20, 40, 80):
        log_snr = np.linspace(-2, 2, n + 1)
        levels = [Level(1 / math.hypot(1, math.exp(-v)), math.exp(-v) / math.hypot(1, math.exp(-v))) for v in log_snr]
        errors.append(np.abs(SAMPLERS[name](gaussian, x, levels, no_noise) - exact(x, levels)).max())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] > DETERMINISTIC[name] - 0.25, orders


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", [*DETERMINISTIC, *STOCHASTIC])
def test_mean_and_spread_of_a_gaussian(name: str, zero_snr: bool) -> None:
    levels = make_levels(make_table(rescale_betas_zero_snr=zero_snr), 100, "trailing")
    stream = Noise(0)
    first = stream.normal((20_000,)) * math.hypot(*levels[0])
    found = SAMPLERS[name](gaussian, first, levels, lambda: stream.normal((20_000,)))
    assert found.mean() == pytest.approx(MEAN, abs=0.03)
    assert found.std() == pytest.approx(SPREAD, abs=0.04)


def test_dpmpp_sde_varies_as_much_as_it_should_in_few_steps() -> None:
    """Its two noises within a step lie on one Brownian path: apart, a fifth of the variance was lost at 20 steps."""
    stream, wide = Noise(0), 100_000

    def denoise(x: Any, level: Level) -> Any:  # of x0 ~ N(0, 1)
        return level.alpha * x / (level.alpha**2 + level.sigma**2)

    for levels in (make_levels(TABLE, 20, "trailing"), make_levels(TABLE, 20, "karras", "trailing")):
        first = stream.normal((wide,)) * math.hypot(*levels[0])
        found = SAMPLERS["dpmpp_sde"](denoise, first, levels, lambda: stream.normal((wide,)))
        assert found.var() > 0.92


def test_the_noise_of_a_whole_path_is_a_unit_and_has_its_parts_shares() -> None:
    now, middle, then = Level(0.6, 0.8), Level(0.8, 0.6), Level(0.96, 0.28)
    begin, half, end = (sigma / alpha for alpha, sigma in (now, middle, then))
    first, second = along(1.0, 0.0, now, middle, then), along(0.0, 1.0, now, middle, then)
    assert first**2 + second**2 == pytest.approx(1)
    assert first**2 / second**2 == pytest.approx((begin - half) / (half - end))


def test_lcm_draws_the_mean_noised_again() -> None:
    levels = make_levels(TABLE, 4, "trailing")
    stream = Noise(0)
    found = SAMPLERS["lcm"](gaussian, stream.normal((4,)), levels, lambda: stream.normal((4,)))
    again = Noise(0)
    x = again.normal((4,))
    for now, then in pairwise(levels):
        x0 = gaussian(x, now)
        x = x0 if then == CLEAN else then.alpha * x0 + then.sigma * again.normal((4,))
    np.testing.assert_allclose(found, x, rtol=1e-6)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_scaling_does_not_matter(name: str) -> None:
    """Variance preserving, EDM (alpha = 1) and flow (alpha + sigma = 1) are the same walk in other units."""
    levels = make_levels(TABLE, 8, "karras", "trailing")
    results = []
    for norm in (lambda a, s: 1.0, lambda a, s: a, lambda a, s: a + s):
        scaled = [Level(a / norm(a, s), s / norm(a, s)) for a, s in levels]
        stream = Noise(3)
        x = stream.normal((64,)) * math.hypot(*levels[0]) / norm(*levels[0])
        results.append(SAMPLERS[name](gaussian, x, scaled, lambda s=stream: s.normal((64,))))
    np.testing.assert_allclose(results[1], results[0], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(results[2], results[0], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_flow_matching_from_pure_noise(name: str) -> None:
    """alpha = 0 at the start and sigma = 0 at the end are ordinary levels."""
    stream = Noise(1)
    x = SAMPLERS[name](
        gaussian, stream.normal((256,)), flow_levels(np.linspace(1, 0.05, 20), 2.0), lambda: stream.normal((256,))
    )
    assert np.isfinite(x).all()
    assert x.mean() == pytest.approx(MEAN, abs=0.15)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_torch_tensors_give_the_same(name: str) -> None:
    levels = make_levels(TABLE, 6, "trailing")
    ours, theirs = Noise(5), Noise(5)
    array = SAMPLERS[name](gaussian, ours.normal((32,)), levels, lambda: ours.normal((32,)))
    tensor = SAMPLERS[name](
        gaussian,
        torch.from_numpy(theirs.normal((32,))),
        levels,
        lambda: torch.from_numpy(theirs.normal((32,))),
    )
    np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_callback_is_called_after_each_step_and_its_x_goes_on(name: str) -> None:
    levels = make_levels(TABLE, 5, "trailing")
    seen = []

    def clear(i: int, x: Any, x0: Any) -> Any:
        seen.append(i)
        return keep(i, x, x0) * 0

    stream = Noise(0)
    end = SAMPLERS[name](gaussian, stream.normal((8,)), levels, lambda: stream.normal((8,)), clear)
    assert seen == [0, 1, 2, 3, 4]
    assert not end.any()


@pytest.mark.parametrize("name", list(DETERMINISTIC))
def test_what_the_callback_holds_is_where_the_walk_goes_on(name: str) -> None:
    """Held on another path for the first half of the steps, a deterministic sampler then stays on that path."""
    levels, half = make_levels(TABLE, 60, "karras", "trailing"), 30
    start, other = np.array([-1.0, 0.5]), np.array([1.5, -0.7])
    path = [exact(other, [levels[0], level]) for level in levels]

    def hold(i: int, x: Any, x0: Any) -> Any:
        return path[i + 1] if i < half else x

    found = SAMPLERS[name](gaussian, start, levels, no_noise, hold)
    plain = SAMPLERS[name](gaussian, other, levels, no_noise)
    np.testing.assert_allclose(found, path[-1], atol=2 * np.abs(plain - path[-1]).max() + 5e-3)


def network(x: Any, t: float) -> Any:
    """Any smooth function of x and the timestep stands for the network's noise prediction."""
    return x * (0.3 + 0.5 * math.sin(t / 300)) + 0.1 * math.cos(t / 100)


def walk(scheduler: Any, n: int, name: str, stream: Noise) -> tuple[Any, Any]:
    """The scheduler's own loop over n steps, and our sampler on the scheduler's own levels with the same draws."""
    scheduler.set_timesteps(n)
    draws: list[torch.Tensor] = []
    start = torch.from_numpy(stream.normal((1, 4, 8, 8))).double()

    def randn(shape: Any, **_: Any) -> torch.Tensor:
        draws.append(torch.from_numpy(stream.normal(tuple(shape))).double())
        return draws[-1]

    timesteps = scheduler.timesteps.double().numpy()
    levels = [scheduler_level(scheduler, i, float(t)) for i, t in enumerate(timesteps)]
    last = CLEAN
    if isinstance(scheduler, diffusers.DDIMScheduler):
        final = float(scheduler.final_alpha_cumprod)
        last = Level(math.sqrt(final), math.sqrt(1 - final))
    if isinstance(scheduler, diffusers.HeunDiscreteScheduler):  # lists each level but the first twice
        levels = levels[::2]
    x = start * scheduler_scale(scheduler, levels[0])
    with pytest.MonkeyPatch.context() as patch:
        module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", randn)
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t)
            x = scheduler.step(network(scaled, float(t)), t, x).prev_sample
    levels = [*levels, last]
    table_t = {level: float(t) for level, t in zip(levels, np.unique(timesteps)[::-1], strict=False)}

    def denoise(x: Any, level: Level) -> Any:
        return (x - level.sigma * network(x, table_t[level])) / level.alpha

    given = iter(draws)
    ours = SAMPLERS[name](denoise, start * math.hypot(*levels[0]), levels, lambda: next(given))
    return ours, x


def scheduler_level(scheduler: Any, i: int, t: float) -> Level:
    """The level of the scheduler's i-th step, from its sigmas where it has them, else from its table."""
    if hasattr(scheduler, "sigmas") and not isinstance(scheduler, diffusers.DDIMScheduler):
        ratio = float(scheduler.sigmas[i])
        return Level(1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))
    alpha = float(scheduler.alphas_cumprod[int(t)])
    return Level(math.sqrt(alpha), math.sqrt(1 - alpha))


def scheduler_scale(scheduler: Any, first: Level) -> float:
    """How the scheduler scales unit noise for a start equal to ours: EDM ones by sqrt(sigma^2 + 1)."""
    is_edm = isinstance(
        scheduler,
        diffusers.EulerDiscreteScheduler
        | diffusers.EulerAncestralDiscreteScheduler
        | diffusers.HeunDiscreteScheduler,
    )
    return 1 / first.alpha if is_edm else 1.0


CASES: list[tuple[str, Callable[[], Any]]] = [
    (
        "ddim",
        lambda: diffusers.DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    ),
    ("euler", lambda: diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="trailing")),
    ("euler", lambda: diffusers.EulerDiscreteScheduler(**SD, use_karras_sigmas=True)),
    ("euler_ancestral", lambda: diffusers.EulerAncestralDiscreteScheduler(**SD, timestep_spacing="trailing")),
    ("heun", lambda: diffusers.HeunDiscreteScheduler(**SD, timestep_spacing="trailing")),
    ("dpmpp_2m", lambda: diffusers.DPMSolverMultistepScheduler(**SD, timestep_spacing="trailing")),
    ("dpmpp_2m", lambda: diffusers.DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True)),
    ("dpmpp_2m_sde", lambda: diffusers.DPMSolverMultistepScheduler(**SD, algorithm_type="sde-dpmsolver++")),
    ("unipc", lambda: diffusers.UniPCMultistepScheduler(**SD, timestep_spacing="trailing")),
    ("lcm", lambda: diffusers.LCMScheduler(**SD)),
]


@pytest.mark.parametrize(("name", "make"), CASES, ids=[f"{i}-{name}" for i, (name, _) in enumerate(CASES)])
@pytest.mark.parametrize("n", [5, 20])
def test_equals_diffusers(name: str, make: Callable[[], Any], n: int) -> None:
    """On the scheduler's own levels with the same noise: the end differs by 1e-4 of its size at most.

    dpmpp_sde stands in diffusers as DPMSolverSDEScheduler, which ignores its generator: the Gaussian is its proof.
    """
    ours, theirs = walk(make(), n, name, Noise(11))
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    assert difference <= 1e-4, float(difference)
