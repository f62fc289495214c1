"""Schedules against diffusers' schedulers, and against what they promise."""

import itertools
import math

import diffusers
import numpy as np
import pytest
from scipy import stats

from noisette.recipe import SCHEDULES
from noisette.sampling import Level
from noisette.schedules import (
    RATIOS,
    SPACINGS,
    beta_quantile,
    flow_levels,
    from_strength,
    make_levels,
    make_table,
)

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TABLE = make_table()


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("rescale", [False, True])
def test_table_equals_diffusers(beta_schedule: str, rescale: bool) -> None:
    theirs = diffusers.DDIMScheduler(
        beta_start=0.0008, beta_end=0.012, beta_schedule=beta_schedule, rescale_betas_zero_snr=rescale
    )
    ours = make_table(beta_schedule, 0.0008, 0.012, 1000, rescale)
    np.testing.assert_allclose(ours.alphas**2, theirs.alphas_cumprod, rtol=2e-5, atol=1e-7)


def test_zero_terminal_snr_ends_in_pure_noise() -> None:
    assert make_table(rescale_betas_zero_snr=True).level(999) == Level(0.0, 1.0)


@pytest.mark.parametrize("n", [2, 7, 25, 50, 999])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_spacings_equal_ddim(spacing: str, n: int) -> None:
    offset = 1 if spacing == "leading" else 0
    theirs = diffusers.DDIMScheduler(**SD, timestep_spacing=spacing, steps_offset=offset)
    theirs.set_timesteps(n)
    assert np.array_equal(SPACINGS[spacing](n, 1000, offset), theirs.timesteps.numpy())


@pytest.mark.parametrize("name", list(RATIOS))
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ratio_schedules_equal_euler(name: str, spacing: str) -> None:
    theirs = diffusers.EulerDiscreteScheduler(**SD, timestep_spacing=spacing, **{f"use_{name}_sigmas": True})
    theirs.set_timesteps(12)
    levels = make_levels(TABLE, 12, name, spacing)
    ratios = [level.sigma / level.alpha for level in levels]
    np.testing.assert_allclose(ratios, theirs.sigmas, rtol=2e-5)
    timesteps = [TABLE.timestep(level) for level in levels[:-1]]
    np.testing.assert_allclose(timesteps, theirs.timesteps, atol=5e-3)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "model"])
@pytest.mark.parametrize("n", [1, 3, 30])
def test_every_schedule_goes_down_to_a_clean_picture(name: str, n: int) -> None:
    levels = make_levels(TABLE, n, name, "trailing")
    ratios = [level.sigma / level.alpha for level in levels]
    assert len(levels) == n + 1
    assert all(a > b for a, b in itertools.pairwise(ratios))
    assert levels[-1] == Level(1.0, 0.0)
    for level in levels:
        assert math.hypot(*level) == pytest.approx(1)


def test_beta_quantile_equals_scipy() -> None:
    p = np.linspace(0, 1, 101)
    np.testing.assert_allclose(beta_quantile(p, 0.6), stats.beta.ppf(p, 0.6, 0.6), atol=2e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_levels_equal_diffusers(shift: float) -> None:
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(10, sigmas=np.linspace(1, 0.1, 10))
    sigmas = [level.sigma for level in flow_levels(np.linspace(1, 0.1, 10), shift)]
    np.testing.assert_allclose(sigmas, theirs.sigmas, atol=1e-6)


@pytest.mark.parametrize("table", [TABLE, make_table(rescale_betas_zero_snr=True)])
def test_timestep_undoes_level(table: object) -> None:
    for t in (0, 1, 500, 998, 999):
        assert table.timestep(table.level(t)) == t  # type: ignore[attr-defined]
    for t in (0.5, 333.25, 997.5):
        assert table.timestep(table.level(t)) == pytest.approx(t, abs=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.5, 5), (0.34, 3), (0.0, 0)])
def test_strength_keeps_the_last_steps(strength: float, steps: int) -> None:
    levels = make_levels(TABLE, 10, "trailing")
    kept = from_strength(levels, strength)
    assert len(kept) == steps + 1
    assert kept == levels[10 - steps :]
