"""Where painted meets kept: exactness, feather, soft masks, colour match, Poisson, and what is said of the seam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisette.errors import UserError
from noisette.finish import off_canvas, on_canvas, visible_steps
from noisette.modes import hold
from noisette.plan import Plan
from noisette.reading import Picture
from noisette.sizes import native_area
from tests.stub import planned, run

SIDE = 96


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A smooth base, a mask of a square, and one that is a ramp from black to white."""
    y, x = np.mgrid[:SIDE, :SIDE]
    square = np.zeros((SIDE, SIDE), np.uint8)
    square[24:72, 24:72] = 255
    ramp = np.clip(x * 4 - 64, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([60 + x, 90 + y, 200 - x], axis=-1).astype(np.uint8)).save(tmp_path / "base.png")
    Image.fromarray(square).save(tmp_path / "mask.png")
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    return {"base_img": str(tmp_path / "base.png"), "mask_img": str(tmp_path / "mask.png")}


def pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(name)).astype(int)


def made(asked: Plan) -> tuple[np.ndarray, dict[str, Any]]:
    (result,) = run(asked)
    return result.picture.data.astype(int), result.facts


@pytest.mark.parametrize(
    "fields", [{"strict_mask": True}, {"feather": 0}, {"feather": 12}, {"blend": "poisson"}, {"soft_mask": True}]
)
def test_outside_is_exact_by_each_of_these(fields: dict[str, Any], files: dict[str, str], tmp_path: Path) -> None:
    asked = planned(tmp_path, **files, **fields)
    assert asked.exact
    data, _ = made(asked)
    base, kept = pixels(files["base_img"]), pixels(files["mask_img"]) == 0
    assert np.array_equal(data[kept], base[kept])
    assert np.abs(data - base).max() > 50


def test_without_them_a_rim_outside_is_soft(files: dict[str, str], tmp_path: Path) -> None:
    asked = planned(tmp_path, **files)
    assert not asked.exact
    changed = (made(asked)[0] != pixels(files["base_img"])).any(axis=-1)
    assert changed[20, 40]
    assert not changed[10, 40]


def test_a_feather_makes_the_step_smaller_and_says_so(files: dict[str, str], tmp_path: Path) -> None:
    hard, soft = (made(planned(tmp_path, **files, feather=feather))[1]["seam"] for feather in (0, 12))
    assert (hard["metric"], hard["pairs"]) == ("CIEDE2000", 4 * 48)
    assert hard["untouched"]["mean"] < 2
    assert hard["pasted"] == soft["pasted"]
    assert hard["written"]["mean"] > 20
    assert soft["written"]["mean"] < 3


def test_a_window_without_context_meets_what_lies_around_it(files: dict[str, str], tmp_path: Path) -> None:
    """A window of white alone had no edge: no feather, no colours to match, and no seam in the report."""
    data, facts = made(planned(tmp_path, **files, feather=12, crop="0"))
    first_row = np.abs(data - pixels(files["base_img"]))[24, 24:72]
    assert first_row.mean() < 10
    assert facts["seam"]["pairs"] == 4 * 48
    assert facts["seam"]["written"]["mean"] < 3


def sticker(files: dict[str, str], tmp_path: Path) -> str:
    """The base with nothing but a disc in the middle of the mask to be seen of it."""
    y, x = np.mgrid[:SIDE, :SIDE]
    alpha = ((x - 48) ** 2 + (y - 48) ** 2 < 14**2).astype(np.uint8) * 255
    Image.fromarray(np.dstack([pixels(files["base_img"]).astype(np.uint8), alpha])).save(tmp_path / "sticker.png")
    return str(tmp_path / "sticker.png")


@pytest.mark.parametrize("fields", [{"feather": 12}, {"feather": 12, "blend": "poisson"}, {}])
def test_transparency_is_feathered_as_colour_is(
    fields: dict[str, Any], files: dict[str, str], tmp_path: Path
) -> None:
    files |= {"base_img": sticker(files, tmp_path)}
    data, facts = made(planned(tmp_path, **files, **fields))
    across = data[48, :, 3]
    assert across[:24].max() == 0  # without a promise too: the model was shown white there, which would be a ring
    assert np.abs(np.diff(across[:36])).max() < 80
    assert across[38] == 255
    assert facts["seam"]["written"]["mean"] < facts["seam"]["pasted"]["mean"]


def test_poisson_does_not_take_the_white_of_what_is_transparent(files: dict[str, str], tmp_path: Path) -> None:
    """The stub's picture is black and white by cells, its mean a middle grey; on nothing it stays so."""
    files |= {"base_img": sticker(files, tmp_path)}
    plain, blended = (made(planned(tmp_path, **files, feather=2, blend=b))[0] for b in ("alpha", "poisson"))
    inside = pixels(files["mask_img"]) > 0
    assert np.array_equal(blended[inside], plain[inside])


def test_a_faint_soft_mask_shows_faintly_on_what_is_transparent(files: dict[str, str], tmp_path: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 1, np.uint8)).save(tmp_path / "faint.png")
    asked = planned(tmp_path, base_img=sticker(files, tmp_path), mask_img=str(tmp_path / "faint.png"), soft_mask=True)
    assert made(asked)[0][0, 0, 3] == 4  # 1 of 64, the strength from which paint shows fully, of 255


def test_a_step_of_transparency_is_a_step() -> None:
    data = np.full((2, 4, 2), 255, np.uint8)
    data[:, :2, 1] = 0
    inside = np.array([[False, False, True, True]] * 2)
    assert visible_steps(Picture(data, "LA"), inside) == pytest.approx([100, 100], abs=0.01)


def test_where_the_fading_ends_is_measured_too(files: dict[str, str], tmp_path: Path) -> None:
    for fields in ({"feather": 12}, {}):
        seam = made(planned(tmp_path, **files, **fields))[1]["seam"]
        assert seam["fading"] != seam["written"]
    hard = made(planned(tmp_path, **files, feather=0))[1]["seam"]
    assert hard["fading"] == hard["written"]


def test_what_is_scaled_to_a_canvas_keeps_its_aspect(tmp_path: Path) -> None:
    """427x640 was drawn on all of 208x320, 2.6 % out of shape."""
    base = np.zeros((640, 427, 3), np.uint8)
    base[200:400, 100:300] = 255
    Image.fromarray(base).save(tmp_path / "base.png")
    asked = planned(tmp_path, base_img=str(tmp_path / "base.png"))
    assert asked.size == native_area(427, 640, 256, 16)
    shown, _ = on_canvas(asked, asked.windows[0])
    assert shown.shape == (1, 3, 320, 208)
    across, down = (shown[0, 0, 150] > 0).sum(), (shown[0, 0, :, 100] > 0).sum()
    assert abs(int(across) - int(down)) <= 1
    again = off_canvas(shown[0], asked.size, "lanczos")
    assert np.abs(again.astype(int) - base).mean() < 2


def test_a_strict_mask_is_soft_inside_unless_told_otherwise(files: dict[str, str], tmp_path: Path) -> None:
    soft, hard = (made(planned(tmp_path, **files, strict_mask=True, feather=f))[1]["seam"] for f in (None, 0))
    assert soft["written"]["mean"] < 0.5 * hard["written"]["mean"]


def test_poisson_closes_the_step_without_a_feather(files: dict[str, str], tmp_path: Path) -> None:
    plain, blended = (made(planned(tmp_path, **files, feather=0, blend=b))[1] for b in ("alpha", "poisson"))
    assert blended["seam"]["written"]["mean"] < 0.3 * plain["seam"]["written"]["mean"]


def test_the_colour_shift_is_recorded_and_can_be_left_out(files: dict[str, str], tmp_path: Path) -> None:
    """The stub shows kept cells as their means, so there is next to no shift to find."""
    _, facts = made(planned(tmp_path, **files, strict_mask=True))
    assert np.abs(facts["color_shift"]).max() <= 1
    assert "color_shift" not in made(planned(tmp_path, **files, strict_mask=True, color_match=False))[1]


def test_a_soft_mask_changes_more_where_it_is_brighter(files: dict[str, str], tmp_path: Path) -> None:
    files |= {"mask_img": str(tmp_path / "ramp.png")}
    asked = planned(tmp_path, **files, soft_mask=True, num_inference_steps=8)
    data, _ = made(asked)
    base, ramp = pixels(files["base_img"]), pixels(files["mask_img"])
    change = np.abs(data - base).mean(axis=(0, 2))
    assert (change[ramp[0] == 0] == 0).all()
    assert 0 < change[20] < change[60]
    assert not any("grey" in note for note in asked.notes)
    assert any("--soft_mask" in note for note in planned(tmp_path, **files).notes)


def test_a_cell_is_held_until_its_share_of_the_steps_begins() -> None:
    """Levin and Fried 2023: with four steps a strength of 0.5 is free for the last two, that is after step 1."""
    mask = np.array([0, 0.25, 0.5, 0.75, 1], np.float32)
    held = hold(lambda i: np.zeros(5), mask, 4, lambda i, x, x0: x)
    free = [held(i, np.ones(5), np.ones(5)).tolist() for i in range(4)]
    assert free == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [0, 1, 1, 1, 1]]


def test_a_black_and_white_mask_is_the_same_soft_or_not(files: dict[str, str], tmp_path: Path) -> None:
    plain, soft = (made(planned(tmp_path, **files, feather=3, soft_mask=s))[0] for s in (False, True))
    assert np.array_equal(plain, soft)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"feather": 3}, "--feather 3 needs --base_img and --mask_img"),
        ({"blend": "poisson"}, "--blend poisson needs --base_img and --mask_img"),
        ({"color_match": False}, "--color_match False needs"),
        ({"soft_mask": True}, "--soft_mask True needs"),
        ({"crop": "auto"}, "--crop auto needs"),
        ({"feather": 257}, "0 to 256"),
        ({"blend": "poison"}, "did you mean 'poisson'"),
    ],
)
def test_mistakes(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        planned(tmp_path, **fields)
