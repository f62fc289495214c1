"""Tiles: they cover, they overlap, and where each tile would say the same the whole says it too."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from noisette.sampling import Level
from noisette.tiles import ramp, starts, tiled

LEVEL = Level(0.8, 0.6)


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(8, 16, 4), (16, 16, 4), (17, 16, 4), (40, 16, 4), (100, 16, 8)]
)
def test_tiles_cover_and_share(length: int, tile: int, overlap: int) -> None:
    found = starts(length, tile, overlap)
    assert found[0] == 0
    assert found[-1] + min(tile, length) == length
    assert all(0 < b - a <= tile - overlap for a, b in itertools.pairwise(found))


def test_the_weights_are_even_about_the_middle_and_never_nought() -> None:
    assert (ramp(5) == ramp(5)[::-1]).all()
    assert ramp(6).min() > 0


def test_a_denoiser_that_sees_points_only_gives_the_same_in_tiles() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 20, 37)).astype(np.float32)
    whole = tiled(lambda x, level: np.tanh(x) * level.alpha, 16, 4)(x, LEVEL)
    np.testing.assert_allclose(whole, np.tanh(x) * LEVEL.alpha, atol=1e-6)


def test_no_tile_is_larger_than_asked() -> None:
    sizes = set()

    def denoise(x: np.ndarray, level: Level) -> np.ndarray:
        sizes.add(x.shape[-2:])
        return x

    tiled(denoise, 16, 4)(np.zeros((1, 4, 40, 12), np.float32), LEVEL)
    assert sizes == {(16, 12)}
