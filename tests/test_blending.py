"""Feather, colour match, Poisson blending: against brute force, known shifts and a sparse solver."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from noisette.blending import color_shift, distance, feathered, lower, membrane, poisson, raise_, showing


def blob(height: int, width: int, seed: int, share: float = 0.5) -> np.ndarray:
    field = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), 4)
    return field > np.quantile(field, 1 - share)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 20), st.integers(0, 2**32))
def test_distance_is_exact(height: int, width: int, most: int, seed: int) -> None:
    inside = blob(height, width, seed)
    if inside.all():
        assert (distance(inside, most) == most + 1).all()
        return
    true = np.minimum(scipy.ndimage.distance_transform_edt(inside), most + 1)
    np.testing.assert_allclose(distance(inside, most), true, rtol=1e-6)


def test_a_feather_rises_inside_and_only_there() -> None:
    repaint = np.zeros((60, 60), np.bool_)
    repaint[10:50, 10:] = True  # up to the picture's right edge, where nothing is kept
    weight = feathered(repaint, 8)
    assert (weight[~repaint] == 0).all()
    assert (weight[repaint] > 0).all()
    assert (np.diff(weight[30, 10:19]) > 0).all()
    assert (weight[18:42, 18:] == 1).all()
    assert np.array_equal(feathered(repaint, 0), repaint.astype(np.float32))
    thin = np.zeros((20, 20), np.bool_)
    thin[9:12] = True
    assert (feathered(thin, 16)[10] == 1).all()
    assert showing(np.array([0, 0.125, 0.25, 1], np.float32)).tolist() == [0, 0.5, 1, 1]


def test_the_colour_shift_is_read_off_the_rim_alone() -> None:
    draw = np.random.default_rng(0)
    base = draw.uniform(50, 200, (80, 80, 3)).astype(np.float32)
    repaint = np.zeros((80, 80), np.bool_)
    repaint[30:50, 30:50] = True
    painted = base - np.array([3, -5, 8], np.float32)
    painted[repaint] = 255  # new content
    painted[22:58, 22:58] = 0  # the cells around the mask are the model's own
    painted[:10] = 77  # far away
    assert color_shift(base, painted, repaint, 8) == pytest.approx([3, -5, 8], abs=1e-3)
    painted[:, :, 0] = 0
    assert color_shift(base, painted, repaint, 8) == pytest.approx([16, -5, 8], abs=1e-3)
    assert color_shift(base, painted, np.ones_like(repaint), 8).tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [(1, 9), (2, 2), (7, 40), (64, 64), (45, 130)])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_the_membrane_is_that_of_a_sparse_solver(size: tuple[int, int], share: float) -> None:
    unknown = blob(*size, seed=size[0], share=share)
    unknown.flat[0] = False
    known = np.random.default_rng(1).uniform(-100, 100, (*size, 3)).astype(np.float32)
    found = membrane(known, unknown, tolerance=1e-7)
    assert np.array_equal(found[~unknown], known[~unknown])
    np.testing.assert_allclose(found, solved(known, unknown), atol=1e-2)


def solved(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """The same by a direct sparse solution, row by row."""
    height, width = unknown.shape
    numbers = np.cumsum(unknown).reshape(unknown.shape) - 1
    matrix = scipy.sparse.lil_matrix((unknown.sum(), unknown.sum()))
    right = np.zeros((unknown.sum(), known.shape[2]))
    for y, x in np.argwhere(unknown):
        i = numbers[y, x]
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < width:
                matrix[i, i] += 1
                if unknown[v, u]:
                    matrix[i, numbers[v, u]] -= 1
                else:
                    right[i] += known[v, u]
    result = known.copy()
    if len(right):
        result[unknown] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right).reshape(right.shape)
    return result


def test_the_default_tolerance_is_below_a_step_of_eight_bits() -> None:
    unknown = np.zeros((150, 200), np.bool_)
    unknown[10:, 30:190] = True  # open to the bottom: Neumann
    y, x = np.mgrid[:150, :200]
    harmonic = (x**2 - y**2 + 3 * x)[..., None].astype(np.float32) / 300
    closed = unknown.copy()
    closed[-1] = False
    assert np.abs(membrane(harmonic, closed) - harmonic).max() < 0.1
    assert np.abs(membrane(harmonic, unknown) - membrane(harmonic, unknown, 1e-9)).max() < 0.1


def test_restriction_is_the_transposed_prolongation() -> None:
    draw = np.random.default_rng(0)
    for shape in ((5, 8, 1), (1, 2, 1), (6, 7, 1)):
        fine = draw.standard_normal(shape)
        down = lower(fine)
        coarse = draw.standard_normal(down.shape)
        assert (down * coarse).sum() == pytest.approx((fine * raise_(coarse, shape)).sum())


def test_poisson_keeps_gradients_and_takes_a_constant_shift_away() -> None:
    base = np.random.default_rng(0).uniform(0, 255, (50, 60, 3)).astype(np.float32)
    repaint = np.zeros((50, 60), np.bool_)
    repaint[20:, 20:40] = True
    shifted = base + np.array([20, -10, 5], np.float32)
    np.testing.assert_allclose(poisson(base, shifted, repaint)[repaint], base[repaint], atol=0.1)
    for nothing in (np.ones_like(repaint), np.zeros_like(repaint)):
        assert np.array_equal(poisson(base, shifted, nothing), shifted)
