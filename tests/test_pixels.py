"""Fit, padding, composite, and the way to and from a model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from noisette.errors import UserError
from noisette.pixels import (
    Mask,
    Picture,
    composite,
    continue_ground,
    fit,
    fit_mask,
    from_model,
    over,
    pad_to,
    resize,
    shown,
    soften,
    to_model,
)
from noisette.reading import CHANNELS

modes = st.sampled_from(list(CHANNELS))
sides = st.integers(1, 300)


def random_picture(mode: str, width: int, height: int, seed: int = 0) -> Picture:
    draw = np.random.default_rng(seed)
    deep = mode == "I;16"
    data = draw.integers(0, 65536 if deep else 256, (height, width, CHANNELS[mode]))
    return Picture(data.astype(np.uint16 if deep else np.uint8), mode, {"dpi": (300.0, 300.0)})


@settings(max_examples=60, deadline=None)
@given(modes, sides, sides, st.sampled_from(["crop", "pad", "stretch"]), sides, sides)
def test_fit_gives_the_size_in_the_same_mode(
    mode: str, width: int, height: int, how: str, to_width: int, to_height: int
) -> None:
    picture = random_picture(mode, width, height)
    fitted = fit(picture, to_width, to_height, how)
    assert fitted.size == (to_width, to_height)
    assert (fitted.mode, fitted.data.dtype, fitted.data.shape[2]) == (
        mode,
        picture.data.dtype,
        CHANNELS[mode],
    )
    assert fitted.info == picture.info
    assert fit(picture, width, height, how) is picture


def test_crop_cuts_the_middle_and_pad_repeats_the_edge() -> None:
    columns = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 8, axis=0)  # 16 wide, 8 high
    picture = Picture(columns, "L")
    assert np.array_equal(fit(picture, 8, 8, "crop").data, columns[:, 4:12])
    padded = fit(picture, 16, 12, "pad").data
    assert np.array_equal(padded[2:10], columns)
    assert np.array_equal(padded[0], columns[0])
    assert np.array_equal(padded[-1], columns[0])


def test_crop_of_an_extreme_shape_needs_no_huge_picture_in_between() -> None:
    assert fit(random_picture("L", 1, 20_000), 512, 512, "crop").size == (512, 512)


def test_resize_keeps_sixteen_bits_and_does_not_let_hidden_colours_bleed() -> None:
    deep = np.full((9, 9, 1), 12_345, np.uint16)
    assert np.array_equal(resize(deep, 30, 5), np.full((5, 30, 1), 12_345))
    data = np.zeros((8, 8, 4), np.uint8)
    data[:, :4] = (200, 0, 0, 255)
    data[:, 4:] = (0, 255, 0, 0)  # green that nobody sees
    assert resize(data, 4, 4)[..., 1].max() == 0


def test_padding_repeats_a_single_pixel_and_reflects_larger_pictures() -> None:
    assert (pad_to(np.full((1, 1, 3), 7, np.uint8), 64, 8) == 7).all()
    assert pad_to(np.array([[1, 2, 3]]), 5, 1).tolist() == [[1, 2, 3, 2, 1]]


def test_to_and_from_model_give_every_value_back() -> None:
    data = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    latents = to_model(Picture(data))
    assert latents.shape == (1, 3, 16, 16)
    assert latents.dtype == np.float32
    assert (latents.min(), latents.max()) == (-1, 1)
    assert np.array_equal(from_model(latents[0]), data)


def test_from_model_clips_and_rounds_halves_up() -> None:
    values = np.array([-3, -1, 0, 1, 3], np.float32)
    assert from_model(np.tile(values, (3, 1, 1)))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_from_model_refuses_numbers_that_are_not_finite(bad: float) -> None:
    image = np.zeros((3, 2, 2), np.float32)
    image[1, 0, 1] = bad
    with pytest.raises(UserError, match="not finite"):
        from_model(image)


def test_a_model_sees_real_colours_under_alpha_but_white_where_nothing_shows() -> None:
    data = np.array([[[10, 20, 30, 0], [10, 20, 30, 1], [10, 20, 30, 255]]], np.uint8)
    assert shown(Picture(data, "RGBA")).tolist() == [[[255] * 3, [10, 20, 30], [10, 20, 30]]]
    assert data[0, 0].tolist() == [10, 20, 30, 0]
    grey = Picture(np.array([[[0], [32_768], [65_535]]], np.uint16), "I;16")
    assert shown(grey)[0, :, 0].tolist() == pytest.approx([0, 127.5, 255], abs=0.01)


@settings(max_examples=60, deadline=None)
@given(modes, sides, sides, st.integers(0, 2**32))
def test_composite_keeps_every_byte_outside_and_paints_every_pixel_inside(
    mode: str, width: int, height: int, seed: int
) -> None:
    base = random_picture(mode, width, height, seed)
    before = base.data.copy()
    draw = np.random.default_rng(seed)
    painted = draw.integers(0, 256, (height, width, 3)).astype(np.uint8)
    repaint = draw.random((height, width)) < draw.random()
    result = composite(base, painted, repaint.astype(np.float32))
    assert (result.mode, result.info, result.data.dtype) == (base.mode, base.info, base.data.dtype)
    assert np.array_equal(result.data[~repaint], before[~repaint])
    assert np.array_equal(base.data, before)
    if result.alpha is not None:
        assert (result.alpha[repaint] == 255).all()
    if mode in ("RGB", "RGBA"):
        assert np.array_equal(result.data[repaint][:, :3], painted[repaint])
    else:
        luma = np.asarray(Image.fromarray(painted).convert("L")).astype(int)
        scale = 257 if mode == "I;16" else 1
        assert (np.abs(result.data[..., 0].astype(int) - luma * scale)[repaint] <= scale).all()


def test_grey_paint_is_exact() -> None:
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    everywhere = np.ones((16, 16), np.float32)
    for mode, scale in (("L", 1), ("I;16", 257)):
        result = composite(random_picture(mode, 16, 16), np.repeat(greys[..., None], 3, -1), everywhere)
        assert np.array_equal(result.data[..., 0], greys.astype(int) * scale)


def test_a_weight_mixes_colours_at_full_depth() -> None:
    deep = Picture(np.full((1, 2, 1), 12_345, np.uint16), "I;16")
    half = composite(deep, np.full((1, 2, 3), 100.0), np.array([[0.5, 0.25]], np.float32))
    assert half.data[0, :, 0].tolist() == [round((12_345 + 25_700) / 2), round((3 * 12_345 + 25_700) / 4)]


def test_transparency_ends_by_the_weight_and_hidden_colours_stay_hidden() -> None:
    base = Picture(np.array([[[43, 87, 135, 0], [100, 100, 100, 128], [100, 100, 100, 255]]], np.uint8), "RGBA")
    painted = np.full((1, 3, 3), 200, np.uint8)
    little = composite(base, painted, np.full((1, 3), 4 / 255, np.float32))
    assert little.data[0, 0].tolist() == [200, 200, 200, 4]
    assert little.data[0, 1].tolist() == [103, 103, 103, 130]  # (100 * 126 + 200 * 4) / 130
    assert little.data[0, 2].tolist() == [102, 102, 102, 255]
    assert (composite(base, painted, np.ones((1, 3), np.float32)).data == (200, 200, 200, 255)).all()


def test_over_a_ground_is_what_a_viewer_shows() -> None:
    half = Picture(np.array([[[255, 0], [255, 51], [255, 255]]], np.uint8), "LA")
    assert over(half, 0)[0, :, 0].tolist() == pytest.approx([0, 51, 255])
    assert (over(half, 255) == 255).all()


def test_composite_and_soften_are_exact_where_weights_are_0_and_1() -> None:
    base, painted = random_picture("RGB", 40, 40, 1), random_picture("RGB", 40, 40, 2).data
    repaint = np.zeros((40, 40), np.bool_)
    repaint[15:25, 15:25] = True
    weight = soften(repaint, 3)
    assert weight.dtype == np.float32
    assert (weight[repaint] == 1).all()
    assert (weight[0] == 0).all()
    assert 0 < weight[14, 20] < 1 or weight[13, 20] < 1
    blended = composite(base, painted, weight).data
    assert np.array_equal(blended[repaint], painted[repaint])
    assert np.array_equal(blended[weight == 0], base.data[weight == 0])


def test_a_mask_is_fitted_as_its_base_is() -> None:
    values = np.zeros((8, 16), np.uint8)
    values[:, 8:] = 255
    assert fit_mask(Mask(values), 8, 8, "crop").repaint[:, 5:].all()
    assert not fit_mask(Mask(values), 8, 8, "crop").repaint[:, :3].any()


@pytest.mark.parametrize(("width", "height"), [(60, 100), (130, 60)])
def test_a_square_is_continued_by_its_own_ground(width: int, height: int) -> None:
    square = np.full((60, 60, 3), (250, 252, 255), np.uint8)
    square[20:, 10:50] = (200, 30, 30)  # ends at the lower border, and stays sharp there
    grown = continue_ground(square, width, height)
    assert grown.shape == (height, width, 3)
    top, left = (height - 60) // 2, (width - 60) // 2
    red = (grown == (200, 30, 30)).all(axis=-1)
    assert red.sum() == 40 * 40
    assert red[top + 20 : top + 60, left + 10 : left + 50].all()
    assert (grown[0, 0] == grown[-1, -1]).all()
    assert np.abs(grown[0, 0].astype(int) - (250, 252, 255)).max() <= 1
