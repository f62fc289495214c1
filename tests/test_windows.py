"""Only-masked inpainting: where the windows lie, what they cost, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from noisette.errors import UserError
from noisette.sizes import size_for
from noisette.windows import boxes, check_crop, grow, regions, windows_for
from tests.stub import planned, run


def spots(width: int, height: int, *places: tuple[int, int, int, int]) -> np.ndarray:
    repaint = np.zeros((height, width), np.bool_)
    for left, top, right, bottom in places:
        repaint[top:bottom, left:right] = True
    return repaint


def test_regions_are_boxes_around_pixels_that_touch() -> None:
    places = (100, 50, 140, 80), (3000, 2000, 3010, 2500), (0, 2990, 1, 3000)
    assert sorted(regions(spots(4000, 3000, *places))) == sorted(places)
    corner = spots(8, 8, (0, 0, 4, 4), (4, 4, 8, 8))
    assert regions(corner) == [(0, 0, 8, 8)]
    assert regions(spots(1, 1, (0, 0, 1, 1))) == [(0, 0, 1, 1)]


def test_a_u_around_a_spot_is_told_apart_from_it() -> None:
    repaint = spots(64, 64, (2, 2, 6, 60), (2, 56, 60, 60), (56, 2, 60, 60), (28, 10, 34, 20))
    assert sorted(regions(repaint)) == [(2, 2, 60, 60), (28, 10, 34, 20)]
    assert boxes(repaint, 0, 0) == [(2, 2, 60, 60)]  # their boxes meet, so they share one


def test_a_box_has_context_is_square_and_stays_in_the_picture() -> None:
    assert grow((100, 100, 110, 130), 20, 0.1, 400, 400) == (70, 80, 140, 150)
    assert grow((0, 100, 10, 130), 20, 0.1, 400, 400) == (0, 80, 70, 150)
    assert grow((100, 10, 300, 30), 0, 0, 400, 40) == (100, 0, 300, 40)
    assert grow((200, 200, 300, 280), None, 0.1, 900, 900) == (150, 140, 350, 340)
    assert grow((200, 200, 300, 300), 3, 0.1, 900, 900) == (190, 190, 310, 310)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 40), st.integers(0, 2**32), st.data())
def test_boxes_hold_every_masked_pixel_once(
    width: int, height: int, count: int, seed: int, data: st.DataObject
) -> None:
    draw = np.random.default_rng(seed)
    repaint = np.zeros((height, width), np.bool_)
    repaint[draw.integers(0, height, count + 1), draw.integers(0, width, count + 1)] = True
    found = boxes(repaint, data.draw(st.sampled_from([None, 0, 3, 16])), data.draw(st.sampled_from([0, 0.2])))
    times = np.zeros((height, width), int)
    for left, top, right, bottom in found:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        times[top:bottom, left:right] += 1
    assert times.max() == 1
    assert (times[repaint] == 1).all()


def test_auto_crops_when_the_mask_is_small_and_the_picture_large() -> None:
    def canvases(repaint: np.ndarray, crop: str = "auto") -> list[tuple[int, int]]:
        whole = size_for(repaint.shape[1], repaint.shape[0], 512, 8, None)
        found = windows_for(repaint, crop, whole, 512, 8)
        return [(window.size.canvas_width, window.size.canvas_height) for window in found]

    small = spots(4000, 3000, (100, 50, 180, 90))
    assert canvases(small) == [(512, 512)]
    assert canvases(small, "off") == [(592, 440)]
    assert canvases(spots(4000, 3000, (100, 50, 180, 90), (3000, 2000, 3100, 2100))) == [(512, 512)] * 2
    assert canvases(spots(4000, 3000, (100, 50, 3000, 2500))) == [(592, 440)]
    native = spots(512, 512, (100, 50, 120, 90))
    assert canvases(native) == [(512, 512)]
    assert windows_for(native, "auto", size_for(512, 512, 512, 8, None), 512, 8)[0].size.width == 512
    assert windows_for(native, "32", size_for(512, 512, 512, 8, None), 512, 8)[0].size.width == 104


@pytest.mark.parametrize("count", [3, 15])
def test_small_spots_have_small_windows_however_many_they_are(count: int) -> None:
    """Nine on 4000x3000 were one window, the whole picture, composed at a fourteenth of its size."""
    places = [(4000 * i // count + 90, 3000 * j // count + 90) for i in range(count) for j in range(count)]
    repaint = spots(4000, 3000, *((x, y, x + 40, y + 40) for x, y in places))
    for crop in ("32", "auto"):
        windows = windows_for(repaint, crop, size_for(4000, 3000, 256, 16, 2.0), 256, 16)
        assert [window.size.width for window in windows] == [40 + 2 * 32] * count**2


def test_a_window_without_context_still_has_a_rim_where_paint_meets_the_base() -> None:
    (window,) = windows_for(spots(400, 400, (100, 100, 220, 220)), "0", size_for(400, 400, 256, 16, 2.0), 256, 16)
    assert (window.left, window.top, window.size.width, window.size.height) == (80, 80, 160, 160)
    assert (220 - window.left) / window.size.scale == 256 - 2 * 16


@pytest.mark.parametrize("crop", ["on", "-3", "1.5", "", "100000"])
def test_a_strange_crop_is_one_line(crop: str) -> None:
    with pytest.raises(UserError, match="neither auto nor off nor a number"):
        check_crop(crop)


def test_a_photograph_costs_a_native_picture_for_each_region(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    base = draw.integers(0, 256, (1000, 1400, 3)).astype(np.uint8)
    mask = spots(1400, 1000, (100, 50, 160, 90), (900, 700, 950, 790))
    Image.fromarray(base).save(tmp_path / "base.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    files = {"base_img": str(tmp_path / "base.png"), "mask_img": str(tmp_path / "mask.png")}
    asked = planned(tmp_path, **files, strict_mask=True, seed="3-4")
    native = asked.checkpoint.native_side
    assert [w.size.canvas_width * w.size.canvas_height for w in asked.windows] == [native**2] * 2
    assert asked.evaluated_steps == 2 * 2 * 2
    assert asked.describe()["windows"][0] == {"box": [68, 8, 124, 124], "canvas": [native, native]}
    assert "crop       auto: " in asked.to_text()
    for result in run(asked):
        data = result.picture.data
        assert np.array_equal(data[~mask], base[~mask])
        painted = data[mask].astype(int)
        assert (np.abs(painted - base[mask]).max(axis=1) > 0).mean() > 0.9
    whole = planned(tmp_path, **files, strict_mask=True, crop="off")
    assert [w.describe()["box"] for w in whole.windows] == [[0, 0, 1400, 1000]]
    assert "off: the whole picture" in whole.to_text()


def test_windows_are_the_same_in_a_batch_and_alone(tmp_path: Path) -> None:
    Image.new("RGB", (1400, 1000), (90, 120, 40)).save(tmp_path / "base.png")
    mask = spots(1400, 1000, (100, 100, 160, 160), (900, 700, 960, 760))
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    files = {"base_img": str(tmp_path / "base.png"), "mask_img": str(tmp_path / "mask.png")}
    both = run(planned(tmp_path, **files, sampler="euler_ancestral", batch_size=2, seed="3-4"))
    again = run(planned(tmp_path, **files, sampler="euler_ancestral", seed="4"))
    assert np.array_equal(both[1].picture.data, again[0].picture.data)
