"""Outpainting: what the flag means, and that the base stays where it was, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisette import output
from noisette.errors import UserError
from noisette.sizes import Margins, margins
from tests.stub import planned, run


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("left=128,top=64", Margins(128, 64, 0, 0)),
        ("right=1, bottom=2", Margins(0, 0, 1, 2)),
        ("105x50", Margins(2, 0, 3, 0)),
        ("100x57", Margins(0, 3, 0, 4)),
    ],
)
def test_margins(text: str, found: Margins) -> None:
    assert margins(text, (100, 50)) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("left", "neither sides as left=128"),
        ("left=1,lef=2", "neither sides"),
        ("left=1,left=2", "neither sides"),
        ("left=-1", "neither sides"),
        ("", "neither sides"),
        ("left=0", "adds nothing"),
        ("100x50", "adds nothing"),
        ("99x60", "smaller than the base, 100x50"),
        ("left=999999,top=999999", "at most 100,000,000"),
    ],
)
def test_strange_margins_are_one_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        margins(text, (100, 50))


@pytest.mark.parametrize(("mode", "channels"), [("L", 0), ("RGB", 3), ("RGBA", 4), ("I;16", 0)])
def test_the_base_stays_and_the_rest_is_new(mode: str, channels: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    deep = mode == "I;16"
    shape = (50, 70, channels) if channels else (50, 70)
    base = draw.integers(0, 65536 if deep else 256, shape).astype(np.uint16 if deep else np.uint8)
    Image.fromarray(base).save(tmp_path / "base.png")
    asked = planned(tmp_path / "out", base_img=str(tmp_path / "base.png"), outpaint="left=20,top=8,bottom=3")
    assert (asked.mode, asked.size.width, asked.size.height) == ("inpainting", 90, 61)
    (result,) = run(asked)
    saved = output.write(asked, result)
    assert saved.proved
    assert saved.kept is not None
    assert saved.kept.count == 50 * 70
    assert "-inpainting-" in saved.path.name
    written = np.asarray(Image.open(saved.path))
    assert written.dtype == base.dtype
    assert np.array_equal(written[8:58, 20:90], base)
    assert "untouched" not in result.facts["seam"]
    if mode == "RGBA":
        assert (written[:, 0, 3] == 255).all()  # the base's transparency ends within the feather


def test_the_rims_pixels_are_not_drawn_out_into_the_new(tmp_path: Path) -> None:
    """The paint faded in over copies of the base's outermost pixels: a band of streaks around a photograph."""
    stripes = np.zeros((48, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "base.png")
    asked = planned(tmp_path, base_img=str(tmp_path / "base.png"), outpaint="bottom=48")
    (result,) = run(asked)
    steps = np.abs(np.diff(result.picture.data.astype(int), axis=1))
    assert np.median(steps[47]) == 255
    assert np.median(steps[51:56]) < 20


def test_with_a_mask_its_white_is_repainted_too(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (90, 120, 40)).save(tmp_path / "base.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 48:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = {"base_img": str(tmp_path / "base.png"), "mask_img": str(tmp_path / "mask.png")}
    asked = planned(tmp_path, **files, outpaint="80x64")
    assert asked.mask is not None
    assert asked.mask.repaint[0].tolist() == [True] * 8 + [False] * 48 + [True] * 24


@pytest.mark.parametrize("fields", [{"img_w": 128}, {"fit": "pad"}, {"variation": True}])
def test_what_does_not_go_with_it(fields: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not go with --outpaint left=8"):
        planned(tmp_path, base_img="base.png", outpaint="left=8", **fields)
    with pytest.raises(UserError, match="--outpaint left=8 needs --base_img"):
        planned(tmp_path, outpaint="left=8")
