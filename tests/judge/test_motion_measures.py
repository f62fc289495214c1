"""Measures of clips, on clips whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest

from noisette.judge.motion import motion_of
from noisette.moving import moved
from noisette.steadiness import first_frame_error, flicker, shift_between


def thing(side: int = 96) -> np.ndarray:
    """A spotted disc, a third of the picture, on white."""
    y, x = np.ogrid[:side, :side]
    inside = (x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 5) ** 2
    spots = np.random.default_rng(0).integers(0, 200, (side, side, 3))
    return np.where(inside[..., None], spots, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["slide left", "slide right", "slide up", "slide down", "zoom in", "zoom out"])
def test_the_motion_that_a_clip_was_made_with_is_found(name: str) -> None:
    assert motion_of(np.stack(list(moved(thing(), name, 16)))) == name


@pytest.mark.parametrize("name", ["shake", "bounce", "wave"])
def test_what_comes_back_is_still(name: str) -> None:
    assert motion_of(np.stack(list(moved(thing(), name, 16)))) == "still"


def test_a_shift_is_measured_to_the_pixel() -> None:
    assert shift_between(thing(), np.roll(thing(), (5, -3), (0, 1))) == (-3.0, 5.0)


def test_flicker_is_what_motion_does_not_explain() -> None:
    sliding = np.stack([np.roll(thing(), 2 * i, 1) for i in range(5)])
    noise = np.random.default_rng(1).integers(-20, 21, sliding.shape)
    assert flicker(sliding) < 0.5
    assert flicker(np.clip(sliding + noise, 0, 255).astype(np.uint8)) > 5


def test_first_frame_error() -> None:
    frames = np.stack([thing()] * 2)
    assert first_frame_error(frames, thing()) == 0
    assert first_frame_error(frames // 2, thing()) > 10
