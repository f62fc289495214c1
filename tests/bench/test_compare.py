"""Comparing, rerunning and verifying, over files and folders."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisette import clip_record
from noisette.bench.compare import compare, difference
from noisette.cli import main
from noisette.codecs import CODECS
from noisette.names import reserve
from noisette.reading import Picture, read
from noisette.recipe import Recipe
from tests.bench.test_report import browser

FLAGS = ["--prompt", "alien", "-W", "64", "-H", "64", "--steps", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures by noisette-1."""
    folder = tmp_path_factory.mktemp("made")
    assert main(["image", *FLAGS, "--seed", "1,2", "--out", str(folder)]) == 0
    return folder


def test_a_difference_is_where_it_is() -> None:
    a = np.full((8, 8, 3), 100, np.uint8)
    b = a.copy()
    b[2, 3, 1] = 164
    b[5, 5] = 132
    found = difference(Picture(a), Picture(b)).data[..., 0]
    assert found[2, 3] == 255
    assert found[5, 5] == 128
    assert (np.count_nonzero(found), found[0, 0]) == (2, 0)


def test_two_files(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = sorted(made.glob("*.png"))
    out = tmp_path / "out"
    assert main(["compare", str(a), str(b), "--out", str(out), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["recipe"] == {"seed": ["1", "2"]}
    assert facts["psnr"] < 60
    assert 0 < facts["differing"] <= 1
    assert "http" not in (out / "compare.html").read_text().replace("http-equiv", "")
    assert main(["compare", str(a), str(a), "--out", str(out)]) == 0
    assert "equal" in capsys.readouterr().out


@pytest.fixture
def clip_folders(tmp_path: Path) -> tuple[Path, Path]:
    """A clip of 24 frames in each, of one name and with one contact sheet; the second's frame 13 is black."""
    frames = [np.full((32, 32, 3), 100 + i, np.uint8) for i in range(24)]
    for folder, guidance in (("a", 1.0), ("b", 3.0)):
        place = reserve(tmp_path / folder, "a cat", "text2video", 1, 2, ".mkv")
        recipe = Recipe(prompt="a cat", seed="1", num_frames=24, guidance_scale=guidance, codec="ffv1")
        said = {"recipe": recipe.to_json(), "provenance": {}}
        black = [np.zeros_like(frame) if i == 13 and folder == "b" else frame for i, frame in enumerate(frames)]
        clip_record.save(place, black, 24, CODECS["ffv1"], (32, 32), Fraction(8), lambda said=said: said)
    (sheet,) = (tmp_path / "a").glob("*.png")
    assert sheet.read_bytes() == (tmp_path / "b" / sheet.name).read_bytes()  # it shows 16 of the 24
    return tmp_path / "a", tmp_path / "b"


def test_clips_are_compared_in_every_frame(
    clip_folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (next(folder.glob("*.mkv")) for folder in clip_folders)
    for one, other in ((a, b), clip_folders):
        assert main(["compare", str(one), str(other), "--out", str(tmp_path / "out"), "--json"]) == 1
        facts = json.loads(capsys.readouterr().out)
        assert (facts["a"], facts["equal"], facts["frame"]) == (str(a), False, 13)
        assert facts["recipe"] == {"guidance_scale": [1.0, 3.0]}
        assert (facts["largest"], facts["differing"]) == (113, pytest.approx(1 / 24))
        assert facts["psnr"] == pytest.approx(10 * np.log10(255**2 / (113**2 / 24)))
    assert main(["measure", str(a), "--reference", str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["psnr"] == pytest.approx(facts["psnr"])
    for sheet in tmp_path.rglob("*.mkv.png"):
        sheet.unlink()
    assert main(["compare", str(a), str(a), "--out", str(tmp_path / "out")]) == 0


def test_two_folders_by_name_and_by_recipe(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "b")
    by_name = compare(str(made), str(tmp_path / "b"), tmp_path / "out")
    assert (by_name.equal, len(by_name.pairs), by_name.notes) == (2, 2, ())
    for i, path in enumerate(sorted((tmp_path / "b").glob("*.png"))):
        path.rename(path.with_name(f"renamed {i}.png"))
    Image.new("RGB", (64, 64)).save(tmp_path / "b" / "holiday.png")
    by_recipe = compare(str(made), str(tmp_path / "b"), tmp_path / "out")
    assert (by_recipe.equal, len(by_recipe.pairs)) == (2, 2)
    assert by_recipe.notes == ("without a partner: 1 of 5 files",)


def test_rerun_makes_the_same_pixels_and_verify_says_so(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerun", str(made), "--out", str(tmp_path / "again")]) == 0
    for path in made.glob("*.png"):
        assert (read(path).data == read(tmp_path / "again" / path.name).data).all()
    assert main(["rerun", str(made), "--steps", "2", "--out", str(tmp_path / "more")]) == 0
    assert len(list((tmp_path / "more").glob("*-2its-*.png"))) == 2
    capsys.readouterr()
    assert main(["verify", str(made)]) == 0
    assert "2 files: 2 identical" in capsys.readouterr().err


def test_rerun_leaves_out_what_has_no_recipe(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made, tmp_path / "b")
    Image.new("RGB", (64, 64)).save(tmp_path / "b" / "holiday.png")
    assert main(["rerun", str(tmp_path / "b"), "--out", str(tmp_path / "again")]) == 0
    said = capsys.readouterr().err
    assert "left out, for they carry no recipe: 1 of 3 files" in said
    assert "2 files made again" in said


def test_verify_of_a_folder_finds_the_edited_one(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "b")
    path = sorted((tmp_path / "b").glob("*.png"))[0]
    with Image.open(path) as image:
        image.load()
        edited = image.copy()
        edited.paste((0, 0, 0), (0, 0, 32, 32))
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("noisette", image.info["noisette"])
        edited.save(path, pnginfo=info)
    assert main(["verify", str(tmp_path / "b")]) == 1
    said = capsys.readouterr()
    assert "its pixels were edited since" in said.out
    assert "1 identical, 1 different" in said.err or "1 different, 1 identical" in said.err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["compare", "a.png", "b"], "two files or two folders"),
        (["compare", "b", "c"], "no files of one name or one recipe"),
        (["compare", "a.png", "nowhere.png"], "not there"),
        (["compare", "a.png", "c/small.png"], "64x64 and 8x8"),
        (["compare", "a.png", "c/small.png"], "a.png and c/small.png: "),
        (["rerun", "a.png"], "carries no recipe"),
        (["rerun", "b"], "b holds no picture with a recipe"),
        (["rerun", "empty"], "holds no pictures"),
        (["verify", "empty"], "holds no pictures"),
    ],
)
def test_mistakes(
    words: list[str], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("b", "c", "empty"):
        (tmp_path / folder).mkdir()
    for name, side in (("a.png", 64), ("b/one.png", 64), ("c/small.png", 8)):
        Image.new("RGB", (side, side)).save(name)
    before = sorted(tmp_path.rglob("*"))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(browser() is None, reason="no chromium here")
def test_the_page_flickers(made: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    a, b = sorted(made.glob("*.png"))
    page_path = compare(str(a), str(b), tmp_path).html
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(browser()), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 390, "height": 844})
        page.goto(page_path.as_uri())
        assert page.locator("img").count() == 3
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=tmp_path / "compare-phone.png", full_page=True)
        second = page.locator("img").nth(1).get_attribute("src")
        page.locator("#flicker").click()
        page.wait_for_function(f"document.querySelector('img').src === {json.dumps(second)}")
        chromium.close()
