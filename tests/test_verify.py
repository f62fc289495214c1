"""`noisette verify`: kept pixels against the base on disk, without a model, and beside the re-rendering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisette import output, verify
from noisette.cli import run as command
from noisette.errors import UserError
from noisette.plan import plan
from noisette.recipe import Recipe
from noisette.verify import verify_file, verify_kept
from tests import stub


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A file of the stub, kept exactly outside a square; its base is base.png."""
    y, x = np.mgrid[:64, :64]
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(np.stack([60 + x, 90 + y, 200 - x], axis=-1).astype(np.uint8)).save(tmp_path / "base.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return write(tmp_path, strict_mask=True)


def write(folder: Path, **fields: Any) -> Path:
    files = {"base_img": str(folder / "base.png"), "mask_img": str(folder / "mask.png")}
    asked = stub.planned(folder / "out", **files, **fields)
    return output.write(asked, stub.run(asked)[0]).path


def change(path: Path, place: tuple[int, int]) -> None:
    """One pixel by one step, the metadata left as they are."""
    with Image.open(path) as image:
        info = image.info
        pixels = np.array(image)
    pixels[place] ^= 1
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for name in ("noisette", "parameters"):
        if name in info:
            chunks.add_itxt(name, info[name])
    Image.fromarray(pixels).save(path, pnginfo=chunks)


def test_kept_pixels_are_checked_without_a_model(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = verify_kept(made)
    assert verdict.good
    assert verdict.kept is not None
    assert (verdict.kept.count, verdict.kept.differing) == (64 * 64 - 32 * 32, 0)
    assert command("verify", ["--kept", str(made)]) == 0
    assert "not rendered; 3,072 kept pixels, none differs" in capsys.readouterr().out


def test_one_changed_kept_pixel_is_found(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(made, (20, 20))
    assert verify_kept(made).good  # white in the mask
    change(made, (0, 63))
    assert not verify_kept(made).good
    assert command("verify", ["--kept", str(made)]) == 1
    assert "NOT PROVED, 1 of 3,072 kept pixels differ" in capsys.readouterr().out


def test_a_base_that_changed_or_went_is_said(made: Path) -> None:
    change(made.parents[1] / "base.png", (0, 0))
    verdict = verify_kept(made)
    assert not verdict.good
    assert any("has changed since" in reason for reason in verdict.why)
    (made.parents[1] / "base.png").unlink()
    assert verify_kept(made).word == "not repeatable"


def test_both_answers_stand_beside_each_other(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A re-rendering that comes out otherwise says nothing of the kept pixels."""
    monkeypatch.setattr(verify, "compare", lambda *given: (5.0, []))
    verdict = verify_file(made)
    assert verdict.word == "different"
    assert verdict.kept is not None
    assert verdict.kept.differing == 0
    monkeypatch.setattr(verify, "compare", lambda *given: (np.inf, []))
    assert verify_file(made).good
    change(made, (0, 0))
    assert not verify_file(made).good


def test_a_file_that_was_made_leniently_can_be_made_again(made: Path, tmp_path: Path) -> None:
    asked = Recipe(prompt="alien", seed="1", base_img=str(made.parents[1] / "base.png"), upscale=2)
    planned = plan(asked, tmp_path / "out", lenient=True, download=False)
    (result,) = stub.run(planned)
    assert verify_file(output.write(planned, result).path).word == "identical"


def test_inverted_soft_and_outpainted_masks_are_understood(made: Path) -> None:
    folder = made.parents[1]
    for fields in ({"invert_mask": True, "feather": 3}, {"soft_mask": True}, {"outpaint": "left=9,bottom=5"}):
        verdict = verify_kept(write(folder, **fields))
        assert verdict.good
        assert verdict.kept is not None
        assert verdict.kept.count > 0


def test_a_file_without_kept_pixels_says_so(made: Path) -> None:
    with pytest.raises(UserError, match="no kept pixels to check: it was made without --strict_mask"):
        verify_kept(write(made.parents[1]))


def test_a_folder_is_checked_for_those_that_kept_pixels(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = write(made.parents[1])
    assert command("verify", ["--kept", str(made.parent)]) == 0
    out = capsys.readouterr().out
    assert made.name in out
    assert free.name not in out
    made.unlink()
    assert command("verify", ["--kept", str(made.parent)]) == 2
    assert "holds no pictures with kept pixels" in capsys.readouterr().err
