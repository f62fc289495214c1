"""`noisette verify`: kept pixels against the base on disk, without a model, and beside the re-rendering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisette import output, verify
from noisette.bench.rerun import recipe_of
from noisette.cli import run as command
from noisette.errors import UserError
from noisette.metadata import read_metadata
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


def test_a_picture_after_an_enlarged_one_is_verified_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Enlarging takes no networks: those of the next picture, of the same model, are still to be loaded."""
    out = ["--out", str(tmp_path), "--seed", "1", "--lenient"]
    assert command("image", ["--prompt", "alien", "-W", "64", "-H", "64", "--steps", "2", *out]) == 0
    (small,) = tmp_path.glob("alien-text2img-*.png")
    assert command("image", ["--base_img", str(small), "--upscale", "2", *out]) == 0
    (large,) = tmp_path.glob("*-upscale-*.png")
    assert command("image", ["--prompt", "alien", "--base_img", str(large), "--steps", "4", *out]) == 0
    (edited,) = tmp_path.glob("alien-img2img-*.png")
    assert command("verify", [str(large), str(edited), str(small)]) == 0
    assert "3 files: 3 identical" in capsys.readouterr().err


def test_kept_pixels_are_checked_without_a_model(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = verify_kept(made)
    assert verdict.good
    assert verdict.kept is not None
    assert (verdict.kept.count, verdict.kept.differing) == (64 * 64 - 32 * 32, 0)
    assert command("verify", ["--kept", str(made)]) == 0
    assert "proved; 3,072 kept pixels, none differs" in capsys.readouterr().out


def test_one_changed_kept_pixel_is_found(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(made, (20, 20))
    assert verify_kept(made).good  # white in the mask
    change(made, (0, 63))
    assert not verify_kept(made).good
    assert command("verify", ["--kept", str(made)]) == 1
    assert "NOT PROVED; 1 of 3,072 kept pixels differ" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["base", "mask"])
def test_an_input_that_changed_or_went_proves_nothing(
    name: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the file equals the base as it is now, and where the mask has become one that no run would take."""
    path = made.parents[1] / f"{name}.png"
    for change in (lambda: Image.new({"base": "RGB", "mask": "L"}[name], (64, 64)).save(path), path.unlink):
        change()
        assert command("verify", ["--kept", str(made)]) == 1
        said = capsys.readouterr().out
        assert f": NOT PROVED; --{name}_img {path} " in said
        assert ("is gone" if not path.exists() else "has changed since") in said
        assert verify_file(made).word == "not repeatable"


def test_another_count_or_hash_than_recorded_is_not_proved(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = read_metadata(made)
    assert verify_kept(made).good
    for recorded in ({"count": 3071}, {"sha256": "sha256:0"}):
        tampered = {**claims, "kept": {**claims["kept"], **recorded}}
        monkeypatch.setattr(verify, "read_metadata", lambda path, tampered=tampered: tampered)
        verdict = verify_kept(made)
        assert not verdict.good
        assert verdict.word == "NOT PROVED"
        assert "the file records" in verdict.to_text()
        monkeypatch.setattr(verify, "compare", lambda *given: (np.inf, []))
        assert not verify_file(made).good


@pytest.fixture
def relative(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file made in a folder of its own, from paths relative to it."""
    monkeypatch.chdir(made.parents[1])
    return write(Path(), strict_mask=True).absolute()


def test_inputs_are_found_from_another_folder_and_after_a_move(
    relative: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_metadata(relative)["recipe"]["base_img"] == "base.png"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (64, 64)).save(elsewhere / "base.png")  # of the same name, and no input
    monkeypatch.chdir(elsewhere)
    assert verify_kept(relative).good
    moved = relative.parents[1].rename(elsewhere / "moved")
    assert verify_kept(moved / "out" / relative.name).good
    for name in ("base.png", "mask.png"):
        (moved / name).rename(moved / "out" / name)
    assert verify_kept(moved / "out" / relative.name).good


def test_a_file_can_be_made_again_from_another_folder(
    relative: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recipe_of(relative).base_img == "base.png"
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert recipe_of(relative).base_img == str(relative.parents[1] / "base.png")
    monkeypatch.setattr(verify, "compare", lambda path, planned, *given: (np.inf, [str(planned.recipe.base_img)]))
    assert verify_file(relative).good


def test_an_input_can_be_named(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = (made.parents[1] / "base.png").rename(tmp_path / "renamed.png")
    assert command("verify", ["--kept", str(made)]) == 1
    assert "base.png is gone: --base_img PATH says where it is now" in capsys.readouterr().out
    assert command("verify", ["--kept", str(made), "--base_img", str(base)]) == 0
    assert command("verify", ["--kept", str(made), "--base_img", str(made)]) == 1
    assert f"NOT PROVED; --base_img {made} is not the file it was made from" in capsys.readouterr().out
    assert command("verify", ["--kept", str(made), "--base_img", str(base), "--base_video", str(base)]) == 2
    assert "was made without one" in capsys.readouterr().err


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


def test_a_folder_is_checked_whatever_else_lies_in_it(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = write(made.parents[1])
    Image.new("RGB", (8, 8)).save(made.parent / "another program's.png")
    assert command("verify", ["--kept", str(made.parent)]) == 0
    said = capsys.readouterr()
    assert "another program's.png: not made here" in said.out
    assert f"{free}: nothing kept" in said.out
    assert f"{made}: proved" in said.out
    assert all(part in said.err for part in ("3 files: ", "1 proved", "1 nothing kept", "1 not made here"))
    (made.parent / "damaged.png").write_bytes(made.read_bytes()[:40])
    assert command("verify", ["--kept", str(made.parent)]) == 1
    assert "damaged.png: not checked; " in capsys.readouterr().out


def test_a_folder_with_nothing_to_check_is_an_error(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(made.parents[1])
    Image.new("RGB", (8, 8)).save(made.parent / "another program's.png")
    made.unlink()
    assert command("verify", ["--kept", str(made.parent)]) == 2
    assert "holds no pictures with kept pixels" in capsys.readouterr().err
