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
    assert "m.png is white all over" in line


def test_an_inverted_mask_is_a_line_with_its_flag() -> None:
    (line,) = lint(Mask(255 - spot(), "m.png"))
    assert "looks inverted" in line
    assert "--invert_mask" in line
    half = np.zeros((20, 20), np.uint8)
    half[:, 9:] = 255  # as when outpainting: over half, but only half the rim
    assert lint(Mask(half)) == []


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
