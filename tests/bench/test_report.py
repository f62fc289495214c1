"""Reports: what the page, the sheet and the table say is what the files hold; looked at in a real browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisette.bench.entries import read_entries
from noisette.bench.places import axes_of, fullest
from noisette.bench.references import with_reference
from noisette.bench.report import report
from noisette.cli import main, recipe_from, recipe_parser
from noisette.errors import UserError
from noisette.names import reserve
from noisette.reading import Picture
from noisette.recipe import Recipe
from noisette.record import save

SAMPLERS, STEPS, SEEDS = ("euler", "heun"), (5, 10, 20), ("0", "1")


def write(folder: Path, picture: np.ndarray, **fields: Any) -> Path:
    """A file as `image` writes it, of any pixels."""
    weights = fields.pop("weights", "a")
    recipe = Recipe(**{"prompt": "a cat", "img_w": 64, "img_h": 64, **fields})
    path = reserve(folder, recipe.prompt, "text2img", int(recipe.seed), recipe.num_inference_steps or 1)
    facts = {
        "seconds": 0.1 * (recipe.num_inference_steps or 1),
        "engine": "openvino",
        "size": [64, 64],
        "model_hash": weights,
    }
    save(path, Picture(picture), {"recipe": recipe.to_json(), "provenance": {**facts, "versions": {"numpy": "2"}}})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures: noise of sigma 60 / steps on a gradient, so 20 steps are nearest to the clean one."""
    folder = tmp_path_factory.mktemp("a study")
    y, x = np.mgrid[0:64, 0:64]
    clean = np.stack([x * 4, y * 4, 255 - x * 2], axis=-1)
    for sampler in SAMPLERS:
        for steps in STEPS:
            for seed in SEEDS:
                noise = np.random.default_rng(int(seed)).normal(0, 60 / steps, clean.shape)
                tint = (0, 30, 0) if sampler == "heun" else (0, 0, 0)
                picture = np.clip(clean + noise + tint, 0, 255).astype(np.uint8)
                write(folder, picture, sampler=sampler, num_inference_steps=steps, seed=seed)
    return folder


def data_of(page: Path) -> dict[str, Any]:
    """The data inside a page."""
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_axes_are_found_and_ordered(folder: Path) -> None:
    entries, strangers = read_entries(folder)
    assert strangers == []
    assert axes_of(entries) == {"num_inference_steps": [5, 10, 20], "sampler": ["euler", "heun"], "seed": ["0", "1"]}


def test_the_report_holds_every_picture(folder: Path) -> None:
    made = report(folder, rows="sampler", columns="num_inference_steps")
    data = data_of(made.html)
    assert (made.pictures, len(data["entries"]), data["rows"]) == (12, 12, "sampler")
    assert (data["x"], data["series"]) == ("num_inference_steps", "sampler")
    assert {(folder / entry["f"]).name for entry in data["entries"]} == {p.name for p in folder.glob("a_cat*.png")}
    assert data["common"]["prompt"] == "a cat"
    assert data["environment"]["numpy"] == ["2"]
    text = made.html.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=[\"']?https?:|url\(|@import|fetch\(|XMLHttpRequest", text)
    with made.table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["sampler"] for row in rows} == set(SAMPLERS)
    with Image.open(made.sheet) as sheet:
        assert sheet.size[0] > 3 * 160
        assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 1000
    again = report(folder, rows="sampler", columns="num_inference_steps")
    assert again.pictures == 12  # the sheet is no picture of the study


def test_a_store_of_another_version_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, np.zeros((64, 64, 3), np.uint8), seed="1")
    (tmp_path / "store.json").write_text('{"format": 99}')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="is a store of format 99, this noisette knows 1"):
        report(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_shown_first_is_there_where_fields_move_together(tmp_path: Path) -> None:
    """Guidance from 0 to 1 and from 0.2 to 0.8, not from 0 to 0.8, which is the first value of each."""
    dark = np.zeros((64, 64, 3), np.uint8)
    for start, end in ((0.0, 1.0), (0.2, 0.8)):
        for sampler in SAMPLERS:
            fields = {"guidance_start": start, "guidance_end": end, "num_inference_steps": 5}
            for seed in SEEDS:
                write(tmp_path, dark, seed=seed, sampler=sampler, **fields)
    made = report(tmp_path, rows="sampler", columns="seed")
    with Image.open(made.sheet) as sheet:
        assert (np.asarray(sheet.convert("L")) < 8).mean() > 0.2
    entries, _ = read_entries(tmp_path)
    assert fullest(entries, axes_of(entries), ["guidance_start", "guidance_end"]) == {
        "guidance_start": 0.0,
        "guidance_end": 1.0,
    }
    if browser() is not None:
        playwright = pytest.importorskip("playwright.sync_api")
        with playwright.sync_playwright() as play:
            chromium = play.chromium.launch(executable_path=str(browser()), args=["--no-sandbox"])
            page = chromium.new_page()
            page.goto(made.html.as_uri())
            assert page.locator("#grid img").count() == 4
            chromium.close()


def test_the_plot_asks_what_the_grid_asks(folder: Path) -> None:
    data = data_of(report(folder, rows="seed", columns="num_inference_steps").html)
    assert (data["x"], data["series"]) == ("num_inference_steps", "seed")
    data = data_of(report(folder, rows="num_inference_steps", columns="sampler").html)
    assert (data["x"], data["series"]) == ("num_inference_steps", "sampler")


def test_mixed_weights_are_told(tmp_path: Path) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    for seed in SEEDS:
        write(tmp_path, grey, seed=seed)
    assert not any("weights" in note for note in data_of(report(tmp_path).html)["notes"])
    write(tmp_path, grey, seed="0", weights="b")
    (note,) = [note for note in data_of(report(tmp_path).html)["notes"] if "weights" in note]
    assert note.startswith("2 sets of weights")


def test_the_command_is_the_recipe(folder: Path) -> None:
    import shlex

    for entry in read_entries(folder)[0]:
        words = shlex.split(entry.command())
        assert recipe_from(recipe_parser("image", "image.py").parse(words[2:])) == entry.recipe


def test_a_command_survives_any_prompt(tmp_path: Path) -> None:
    import shlex

    prompt = '--it\'s "a" $HOME `x` </script> \\ é\nline'
    write(tmp_path, np.zeros((64, 64, 3), np.uint8), prompt=prompt, seed="1", num_inference_steps=2)
    made = report(tmp_path)
    (entry,) = data_of(made.html)["entries"]
    assert recipe_from(recipe_parser("image", "image.py").parse(shlex.split(entry["c"])[2:])).prompt == prompt
    assert made.html.read_text(encoding="utf-8").count("</script>") == 2


def test_the_reference_is_the_same_place_with_other_values(folder: Path) -> None:
    entries = with_reference(read_entries(folder)[0], {"num_inference_steps": 20}, folder)
    at = {(e.recipe.sampler, e.recipe.num_inference_steps, e.recipe.seed): e.pair for e in entries}
    assert at["euler", 20, "0"] == {}
    for sampler in SAMPLERS:
        for seed in SEEDS:
            assert 20 < at[sampler, 5, seed]["psnr"] < at[sampler, 10, seed]["psnr"] < 45
            assert at[sampler, 5, seed]["ssim"] < at[sampler, 10, seed]["ssim"] < 1
    with pytest.raises(UserError, match=r"no axis here; did you mean 'num_inference_steps'"):
        with_reference(entries, {"num_inference_step": 20}, folder)
    with pytest.raises(UserError, match="steps=21: no cell is there; there are: 5, 10, 20"):
        with_reference(entries, {"num_inference_steps": 21}, folder)


def test_an_axis_without_effect_is_said(tmp_path: Path) -> None:
    for schedule in ("karras", "beta"):
        write(tmp_path, np.zeros((64, 64, 3), np.uint8), schedule=schedule, seed="1", num_inference_steps=2)
    assert any("axis schedule changes nothing" in note for note in report(tmp_path).notes)


def test_strangers_are_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("report*", "sheet*"))
    Image.new("RGB", (8, 8)).save(tmp_path / "copy" / "holiday.png")
    (tmp_path / "copy" / "torn.png").write_bytes(b"\x89PNG\r\n")
    made = report(tmp_path / "copy")
    assert made.pictures == 12
    assert any(note == "left out, for they carry no recipe: 2 of 14 files" for note in made.notes)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("nowhere", "not a folder"),
        (".", "holds no pictures"),
        ("study --rows smapler", "--rows names an unknown field 'smapler'; did you mean 'sampler'?"),
        ("study --rows guidance_scale", "guidance_scale is no axis here"),
        ("study --rows nope", "--rows names an unknown field 'nope'"),
        ("study --reference steps=20,10", "one value is needed"),
        ("study --reference steps", "--reference 'steps' is no NAME=VALUE"),
        ("study --reference stesp=20", "--reference names an unknown field 'stesp'; did you mean 'steps'?"),
        ("study --reference sampler=euler steps=9", "no cell is there; there are: 5, 10, 20"),
    ],
)
def test_mistakes(
    words: str, wanted: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    first = words.split()[0]
    place = {"study": str(folder), ".": str(tmp_path / "empty")}.get(first, first)
    assert main(["report", place, *words.split()[1:]]) == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert error.count("\n") == 1


def browser() -> Path | None:
    """Chromium as a Linux distribution installs it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    return Path(found) if found else None


@pytest.mark.skipif(browser() is None, reason="no chromium here")
def test_the_page_works_in_a_browser_and_on_a_phone(folder: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    made = report(folder, rows="sampler", columns="num_inference_steps", reference={"num_inference_steps": 20})
    errors: list[str] = []
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(browser()), args=["--no-sandbox"])
        for name, width, height in (("desk", 1280, 900), ("phone", 390, 844)):
            page = chromium.new_page(viewport={"width": width, "height": height})
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
            page.goto(made.html.as_uri())
            assert page.locator("#grid img").count() == 6
            assert page.locator("#grid thead th").all_inner_texts()[1:] == ["5", "10", "20"]
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.locator("#plot circle").count() == 4
            page.select_option("select[aria-label=seed]", "all")
            assert page.locator("#grid img").count() == 12
            page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
            page.locator("#grid button").first.click()
            assert page.locator("#detail code").inner_text().startswith("python3 image.py")
            seen = page.locator("#large img").get_attribute("src")
            page.keyboard.press("ArrowRight")
            assert page.locator("#large img").get_attribute("src") != seen
            page.evaluate("document.querySelector('#large img').decode()")
            assert page.evaluate("document.querySelector('#large img').naturalWidth") == 64
            page.screenshot(path=tmp_path / f"{name}-one.png")
            page.locator("#close").click()
            page.locator("#rows th", has_text="psnr").click()
            first = page.locator("#rows tbody tr").first.inner_text()
            assert first.split()[0] == "5"
            with page.expect_download() as download:
                page.locator("#csv").click()
            assert download.value.path().read_text().count("\n") == 13
            page.close()
        chromium.close()
    assert errors == []
