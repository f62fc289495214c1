"""What of a base goes on into a picture that is painted all anew, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisette import output
from tests.stub import planned, run

MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}


def profile(space: bytes) -> bytes:
    """The header of an ICC profile of a colour space."""
    return bytes(16) + space + bytes(108)


def written(folder: Path, mode: str, icc_profile: bytes, **fields: Any) -> tuple[Image.Image, tuple[str, ...]]:
    """The file of a run on a base of this mode, and the plan's notes."""
    deep = mode == "I;16"
    values = np.random.default_rng(0).integers(0, 65536 if deep else 256, (64, 48, MODES[mode]))
    data = values.astype(np.uint16 if deep else np.uint8)
    image = Image.fromarray(data[..., 0] if data.shape[2] == 1 else data)
    image.save(folder / "base.png", icc_profile=icc_profile, dpi=(300, 300))
    asked = planned(folder / "out", base_img=str(folder / "base.png"), **fields)
    (result,) = run(asked)
    with Image.open(output.write(asked, result).path) as file:
        file.load()
    return file, asked.notes


@pytest.mark.parametrize("fields", [{}, {"variation": True, "image_prompt": 0.0}])
@pytest.mark.parametrize(
    ("mode", "dropped"),
    [("L", "grey, profile"), ("LA", "transparency, grey, profile"), ("I;16", "grey, 16 bits, profile")],
)
def test_what_is_dropped_is_said_and_no_grey_profile_is_left(
    fields: dict[str, Any], mode: str, dropped: str, tmp_path: Path
) -> None:
    file, notes = written(tmp_path, mode, profile(b"GRAY"), **fields)
    assert f"all of the base is painted anew, as opaque RGB of 8 bits: dropped is its {dropped}" in notes
    assert file.mode == "RGB"
    assert "icc_profile" not in file.info
    assert file.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_profile_of_rgb_goes_on(tmp_path: Path) -> None:
    file, notes = written(tmp_path, "RGB", profile(b"RGB "))
    assert file.info["icc_profile"] == profile(b"RGB ")
    assert not any("dropped" in note for note in notes)
    file, notes = written(tmp_path, "RGBA", profile(b"RGB "))
    assert any(note.endswith("dropped is its transparency") for note in notes)
