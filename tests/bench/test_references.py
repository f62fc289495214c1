"""Numbers to a reference and to a base: partners by what was asked for, and each measured once."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisette.bench.places import Place, as_asked, axes_of, partners
from noisette.bench.report import report
from noisette.bench.store import Store
from noisette.cli import main
from noisette.errors import UserError
from noisette.metadata import read_metadata
from noisette.recipe import Recipe
from tests.bench.test_sweep import SMALL


def test_a_field_left_open_is_open_where_it_came_to_several_values() -> None:
    told = [
        (Recipe(model="a", sampler="euler", strength=0.5), ("sampler", "strength")),
        (Recipe(model="b", sampler="heun", strength=0.5), ("sampler", "strength")),
        (Recipe(model="b", sampler="ddim", strength=0.5), ("strength",)),
    ]
    asked = as_asked(told)
    assert [recipe.sampler for recipe in asked] == [None, None, "ddim"]
    assert [recipe.strength for recipe in asked] == [0.5, 0.5, 0.5]
    assert axes_of([Place(recipe, ()) for recipe in asked[:2]]) == {"model": ["a", "b"]}


def test_partners_differ_in_the_named_fields_alone() -> None:
    fields = [("euler", 2), ("euler", 4), ("heun", 2)]
    places = [Place(Recipe(sampler=sampler, num_inference_steps=steps), ()) for sampler, steps in fields]
    assert partners(places, {"num_inference_steps": 4}) == [places[1], places[1], None]
    with pytest.raises(UserError, match="sampler=heun num_inference_steps=4: no cell has all of these values"):
        partners(places, {"sampler": "heun", "num_inference_steps": 4})


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The table of a report."""
    with (folder / "table.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_nobody_asked_for_is_no_axis(tmp_path: Path) -> None:
    """The default strength of a moved still is 0.5 at 2 steps and 0.25 at 4, and of models the samplers differ."""
    base = tmp_path / "base.png"
    Image.new("RGB", (64, 64), "red").save(base)
    flags = [*SMALL, "--num_frames", "2", "--base_img", str(base), "--strict_first_frame", "--codec", "ffv1"]
    axes = ["steps=2,4", "--reference", "steps=4"]
    assert main(["sweep", *flags, "--out", str(tmp_path / "out"), "--sweep", *axes]) == 0
    strengths = {read_metadata(path)["recipe"]["strength"] for path in Store(tmp_path / "out").done().values()}
    assert len(strengths) == 2
    two, four = rows_of(tmp_path / "out")
    assert "strength" not in two
    assert float(two["psnr"]) > 0  # though its first frame is equal
    assert four["psnr"] == ""


def test_a_picture_is_measured_against_its_base_and_its_reference(tmp_path: Path) -> None:
    base, out = tmp_path / "base.png", tmp_path / "out"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(base)
    flags = [*SMALL, "--base_img", str(base), "--steps", "4", "--out", str(out)]
    assert main(["sweep", *flags, "--sweep", "strength=0.25,1", "--reference", "strength=1"]) == 0
    near, far = rows_of(out)
    assert float(near["base_psnr"]) > float(far["base_psnr"])
    assert 0 < float(near["base_perceptual"]) < float(far["base_perceptual"])
    assert {"base_ssim", "base_delta_e"} <= set(near)
    assert float(near["perceptual"]) > 0
    assert far["perceptual"] == ""
    kept = out / "derived"
    assert len(list(kept.glob("*~base.json"))) == 2
    for path in kept.glob("*~base.json"):
        path.unlink()
    Image.new("RGB", (64, 64), "blue").save(base)
    report(out)
    assert "base_psnr" not in rows_of(out)[0]  # the file is another one by now


def test_a_reference_may_lie_among_the_cells_that_are_there(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    assert main(["sweep", *SMALL, *out, "--sampler", "heun", "--sweep", "steps=1"]) == 0
    arguments = ["--sampler", "ddim", *out, "--sweep", "steps=1,2"]
    assert main(["sweep", *SMALL, *arguments, "--reference", "sampler=heun", "steps=1"]) == 0
    assert main(["sweep", *SMALL, *arguments, "--reference", "sampler=heun", "steps=3"]) == 2
    assert len(Store(tmp_path).done()) == 3


def test_pictures_of_another_size_are_no_partners(tmp_path: Path) -> None:
    arguments = ["--steps", "1", "--out", str(tmp_path), "--sweep", "img_w=64,72", "--reference", "img_w=64"]
    assert main(["sweep", "--prompt", "alien", "-H", "64", *arguments]) == 0
    assert "1 of 2 have no such partner of their size" in (tmp_path / "report.html").read_text(encoding="utf-8")
