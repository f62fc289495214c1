"""What mask pictures mean, and what is said of dubious ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisette.errors import UserError
from noisette.masks import Mask, check_same_size, lint, mask_of, read_mask
from noisette.reading import Picture


def spot(size: int = 20) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    values = np.zeros((size, size), np.uint8)
    values[5:10, 5:10] = 255
    return values


def test_white_is_128_and_more() -> None:
    assert Mask(np.array([[0, 127, 128, 255]], np.uint8)).repaint.tolist() == [[False, False, True, True]]
    deep = Picture(np.array([[[0], [32_767], [32_768], [65_535]]], np.uint16), "I;16")
    assert mask_of(deep).repaint.tolist() == [[False, False, True, True]]
    assert mask_of(deep).inverted().repaint.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_the_same_mask_in_any_mode(tmp_path: Path, mode: str) -> None:
    Image.fromarray(spot()).convert(mode).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert np.array_equal(mask.values, spot())
    assert mask.carrier == "grey"
    assert lint(mask) == []


@pytest.mark.parametrize("colour", [0, 77, 255])
def test_one_colour_on_nothing_is_a_mask_in_alpha(colour: int) -> None:
    data = np.full((20, 20, 4), colour, np.uint8)
    data[..., 3] = spot()
    mask = mask_of(Picture(data, "RGBA"))
    assert np.array_equal(mask.values, spot())
    (line,) = lint(mask)
    assert "alpha" in line
    assert "--invert_mask" in line


def test_black_and_white_on_nothing_is_grey() -> None:
    data = np.zeros((20, 20, 2), np.uint8)
    data[..., 0] = spot()
    data[2:12, 2:12, 1] = 255
    assert np.array_equal(mask_of(Picture(data, "LA")).values, spot())


def test_a_photograph_with_holes_is_repainted_in_the_holes() -> None:
    data = np.random.default_rng(0).integers(0, 256, (20, 20, 4)).astype(np.uint8)
    data[..., 3] = 255 - spot()
    mask = mask_of(Picture(data, "RGBA"))
    assert np.array_equal(mask.values, spot())
    (line,) = lint(mask)
    assert "holes" in line


def test_an_empty_mask_is_an_error() -> None:
    with pytest.raises(UserError, match=r"m\.png is empty, its brightest pixel is 127: .*128"):
        lint(Mask(np.full((4, 4), 127, np.uint8), "m.png"))


def test_a_full_mask_is_a_line() -> None:
    (line,) = lint(Mask(np.full((4, 4), 255, np.uint8), "m.png"))
    assert "m.png is white all over: all is repainted, as without --mask_img" in line


def test_an_inverted_mask_is_a_line_with_its_flag() -> None:
    (line,) = lint(Mask(255 - spot(), "m.png"))
    assert "looks inverted" in line
    assert "--invert_mask" in line
    half = np.zeros((20, 20), np.uint8)
    half[:, 9:] = 255  # as when outpainting: over half, but only half the rim
    assert lint(Mask(half)) == []


def test_each_way_out_of_an_empty_mask_is_named() -> None:
    full, black, dim = (Mask(np.full((4, 4), value, np.uint8), "m.png") for value in (255, 0, 100))
    for mask, said in (
        (full.inverted(), "its darkest pixel is 255: leave --invert_mask out, or paint black .127 and less"),
        (black, "brightest pixel is 0: paint white .*, or leave --mask_img out to repaint all"),
        (dim, "brightest pixel is 100: --soft_mask to make grey a strength, or paint white"),
        (Mask(full.values, "m.png", soft=True).inverted(), "leave --invert_mask out, or paint black .254 and less"),
    ):
        with pytest.raises(UserError, match=said):
            lint(mask)


def test_lines_of_an_inverted_mask_say_to_leave_the_flag_out() -> None:
    (line,) = lint(Mask(spot(), "m.png").inverted())
    assert "is black and repainted by --invert_mask" in line
    assert "leave --invert_mask out if white is what should change" in line
    (line,) = lint(Mask(np.zeros((4, 4), np.uint8), "m.png").inverted())
    assert "black all over: all is repainted by --invert_mask" in line
    for carrier, painted in (("opaque", "transparent"), ("holes", "opaque")):
        line, *_ = lint(Mask(255 - spot(), "m.png", carrier).inverted())
        assert f"{painted} is repainted by --invert_mask; leave --invert_mask out for the opposite" in line
    line, *_ = lint(Mask(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (8, 1)), "m.png").inverted())
    assert "less than 128 is repainted, more is kept" in line


def test_translucent_specks_and_soft_edges_make_no_holes() -> None:
    y, x = np.mgrid[:64, :64]
    soft = np.clip((20 - np.hypot(y - 32, x - 32)) * 128 + 128, 0, 255).astype(np.uint8)
    assert ((soft > 0) & (soft < 255)).any()
    speck = np.full_like(soft, 255)
    speck[0, 0] = 254
    drawn = np.clip((28 - np.hypot(y - 32, x - 32)) * 128 + 128, 0, 255).astype(np.uint8)  # the rest is nothing
    for alpha in (speck, drawn):
        mask = mask_of(Picture(np.stack([soft, alpha], axis=-1), "LA"))
        assert mask.carrier == "grey"
        assert np.array_equal(mask.repaint, soft >= 128)


def test_grey_is_a_line() -> None:
    values = spot()
    values[0, 0] = 1
    (line,) = lint(Mask(values, "m.png"))
    assert "almost black and white: 1 of its 400" in line
    (line,) = lint(Mask(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (8, 1)), "m.png"))
    assert "m.png is grey: 248 of its 256" in line


def test_another_size_is_an_error_with_both() -> None:
    base = Picture(np.zeros((3, 4, 3), np.uint8))
    check_same_size(base, Mask(np.zeros((3, 4), np.uint8)))
    with pytest.raises(UserError, match=r"m\.png is 3x4, the base 4x3: .*--fit"):
        check_same_size(base, Mask(np.zeros((4, 3), np.uint8), "m.png"))
