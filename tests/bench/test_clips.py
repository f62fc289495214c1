"""Clips in sweeps and reports, their measures on clips whose motion is known, and files cut short."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisette import clips
from noisette.bench import clip_measures
from noisette.bench.axes import cells, read_sweep
from noisette.bench.cells import Cell, resolve
from noisette.bench.entries import read_entries
from noisette.bench.report import report
from noisette.bench.run import missing
from noisette.bench.store import Store
from noisette.bench.whole import is_whole_clip
from noisette.cli import main
from noisette.errors import UserError
from noisette.metadata import read_metadata
from noisette.reading import Picture
from tests.bench.test_report import browser, data_of

WALK = ["--prompt", "alien", "-W", "64", "-H", "64", "--walk_to", "5", "--num_frames", "4", "--steps", "1"]
CODECS = ("h264", "ffv1", "webp", "gif", "apng", "png")
AXES = [f"codec={','.join(CODECS)}"]


def hashes(folder: Path) -> dict[str, Any]:
    """address -> hashes of the frames that were made and of those the file decodes to."""
    found = {}
    for address, path in Store(folder).done().items():
        claims = read_metadata(path)
        found[address] = claims["pixels"], claims["decoded"]
    return found


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    assert main(["sweep", *WALK, "--out", str(folder), "--sweep", *AXES]) == 0
    return folder


def test_each_cell_is_a_clip_with_its_contact_sheet(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = Store(swept).done()
    assert len(done) == 6
    assert {path.suffix for path in done.values()} == {".mp4", ".mkv", ".webp", ".gif", ".apng", ".mov"}
    for path in done.values():
        assert path.with_name(f"{path.name}.png").exists()
        assert clips.probe(path).num_frames == 4
    assert not list(swept.rglob("*.clip"))
    assert main(["sweep", *WALK, "--out", str(swept), "--sweep", *AXES]) == 0
    assert "0 made, 6 were there" in capsys.readouterr().err


def test_a_cell_is_the_clip_that_video_makes(swept: Path, tmp_path: Path) -> None:
    assert main(["video", *WALK, "--seed", "0", "--codec", "ffv1", "--out", str(tmp_path)]) == 0
    (alone,) = tmp_path.glob("*.mkv")
    assert read_metadata(alone)["pixels"] in {pixels for pixels, _ in hashes(swept).values()}


def test_a_clip_cut_short_is_made_again(swept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(swept, folder)
    before = hashes(folder)
    for path in Store(folder).done().values():
        assert is_whole_clip(path)
        path.write_bytes(path.read_bytes()[:-40])
        assert not is_whole_clip(path)
    asked: list[Cell] = resolve(cells(read_sweep(AXES, [], given())))[0]
    assert len(missing(asked, Store(folder))) == 6
    assert main(["sweep", *WALK, "--out", str(folder), "--sweep", *AXES]) == 0
    assert hashes(folder) == before


def given() -> dict[str, Any]:
    """WALK as fields."""
    return {
        "prompt": "alien", "img_w": 64, "img_h": 64, "walk_to": "5", "num_frames": 4, "num_inference_steps": 1,
    }  # fmt: skip


def test_verify_and_rerun_take_a_store_of_clips(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(swept)]) == 0
    assert "6 files: 6 identical" in capsys.readouterr().err
    assert main(["rerun", str(next(swept.rglob("*.mkv"))), "--out", str(tmp_path)]) == 0
    (again,) = tmp_path.glob("*.mkv")
    assert read_metadata(again)["pixels"] in {pixels for pixels, _ in hashes(swept).values()}


def test_the_report_shows_clips(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(swept)]) == 0
    assert capsys.readouterr().err.endswith(": 6 clips\n")
    made = report(swept)
    data = data_of(made.html)
    assert made.pictures == 6
    assert {"flicker", "flow", "drift"} <= set(data["entries"][0]["n"])
    assert "flow" in data["measures"]
    assert all(entry["c"].startswith("python3 video.py") for entry in data["entries"])
    assert not any("changes nothing" in note for note in made.notes)  # a GIF shows other colours


def test_numbers_to_a_reference_are_of_frames(swept: Path) -> None:
    made = report(swept, reference={"codec": "ffv1"})
    pairs = {Path(entry["f"]).suffix: entry["n"].get("psnr") for entry in data_of(made.html)["entries"]}
    assert pairs[".mp4"] > 25  # lossy; the lossless ones are equal, which has no PSNR
    assert pairs[".mkv"] is pairs[".webp"] is pairs[".mov"] is pairs[".apng"] is None


@pytest.mark.skipif(browser() is None, reason="no chromium here")
def test_a_clip_plays_in_a_browser(swept: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    made = report(swept)
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(browser()), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.goto(made.html.as_uri())
        assert page.locator("#grid img").count() == 6
        page.locator("#grid button").first.click()  # h264
        page.wait_for_function("document.querySelector('#large video').currentTime > 0")
        page.keyboard.press("ArrowRight")  # ffv1, which no browser plays: its contact sheet
        page.wait_for_function("document.querySelector('#large img')?.naturalWidth === 256")
        page.screenshot(path=tmp_path / "clip.png")
        page.locator("#close").click()
        page.wait_for_function("document.querySelectorAll('#large > *').length === 0")
        chromium.close()


def test_measures_of_a_motion_that_is_known() -> None:
    y, x = np.mgrid[0:96, 0:96]
    texture = 128 + 60 * np.sin(x / 5) * np.cos(y / 7) + 40 * np.sin((x + y) / 11)
    first = np.repeat(texture[..., None], 3, axis=-1).astype(np.uint8)
    still = clip_measures.of_clip([first] * 4, Picture(first))
    assert (still["flicker"], still["flow"], still["drift"], still["first_frame"]) == (0, 0, 0, 0)
    larger = np.kron(first, np.ones((2, 2, 1), np.uint8))  # 192: flow is found at 128 and told in pixels of 192
    sliding = clip_measures.of_clip([np.roll(larger, 3 * i, axis=1) for i in range(4)], None)
    assert sliding["flow"] == pytest.approx(3, rel=0.15)
    assert "first_frame" not in sliding
    noise = np.random.default_rng(0).integers(-20, 21, (4, *first.shape))
    noisy = clip_measures.of_clip(np.clip(first + noise, 0, 255).astype(np.uint8), Picture(first))
    assert noisy["flicker"] > 5 > still["flicker"]
    assert noisy["first_frame"] == pytest.approx(np.abs(noise[0]).mean(), rel=0.1)
    assert clip_measures.flow(*[np.full((32, 32, 3), 9, np.uint8)] * 2) == 0


def test_pairs_of_clips() -> None:
    frames = [np.full((32, 32, 3), value, np.uint8) for value in (10, 20)]
    other = [np.full((32, 32, 3), value, np.uint8) for value in (20, 30)]
    assert clip_measures.of_pair(frames, other)["psnr"] == pytest.approx(20 * np.log10(255 / 10))
    one_equal = clip_measures.of_pair([*frames, frames[0]], [*other, frames[0]])["psnr"]
    assert one_equal == pytest.approx(10 * np.log10(255**2 / (100 * 2 / 3)))
    assert clip_measures.of_pair(frames, frames)["psnr"] == np.inf
    with pytest.raises(UserError, match="different length"):
        clip_measures.of_pair(frames, other[:1])


def test_measure_reads_clips(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(next(swept.rglob("*.mp4"))), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert {"flicker", "flow", "drift", "lightness"} <= set(numbers)
    assert main(["measure", str(swept / "cells")]) == 0
    assert "mean of 6: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--walk_to 5 --sweep crop=auto,off", "--crop is of pictures, --walk_to of clips"),
        ("--motion_adapter nowhere/at/all --sweep num_frames=2,4", "no folder with config.json"),
        ("--walk_to 5 --sweep codec=h265,ffv1", "did you mean 'h264'"),
        ("--walk_to 5 --steps 2 --sweep num_frames=1..4", "out of range: 2 to"),
        ("--sweep base_video=nowhere.mp4", "not there"),
        ("--walk_to 5 --strict_first_frame --sweep steps=1,2", "needs --base_img"),
    ],
)
def test_mistakes(words: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *words.split(), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_of_a_seed_stand_in_one_batch(tmp_path: Path) -> None:
    axes = ["seed=0..1", "steps=1"]
    fields = {name: value for name, value in given().items() if name != "num_inference_steps"}
    flags = [word for word in WALK if word not in ("--steps", "1")]
    assert main(["sweep", *flags, "--batch_size", "2", "--out", str(tmp_path / "two"), "--sweep", *axes]) == 0
    assert main(["sweep", *flags, "--out", str(tmp_path / "one"), "--sweep", *axes]) == 0
    one, two = ({at: made for at, (made, _) in hashes(tmp_path / name).items()} for name in ("one", "two"))
    assert one == two  # the frames that were made: a lossy encoder's bits may vary with its threads
    assert len(read_entries(tmp_path / "two")[0]) == len(resolve(cells(read_sweep(axes, [], fields)))[0]) == 2
