"""What a command line becomes: sizes, modes, defaults; and each mistake as one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from noisette.catalog import FAMILIES
from noisette.errors import UserError
from noisette.plan import mode_of, plan
from noisette.recipe import SAMPLERS, SCHEDULES, Recipe, check, from_mapping, parse_seeds
from noisette.sizes import size_for, written_size
from tests import tiny


@pytest.mark.parametrize(
    ("text", "count", "seeds"),
    [("1024", 1, [1024]), ("1,2,5-7", 1, [1, 2, 5, 6, 7]), ("8", 3, [8, 9, 10]), ("", 1, []), ("3, 1", 1, [3, 1])],
)
def test_seeds(text: str, count: int, seeds: list[int]) -> None:
    assert parse_seeds(text, count) == seeds


@pytest.mark.parametrize("text", ["abc", "1-", "-1", "5-2", "1.5", ",", "1,,x", "99999999999999999999"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(UserError, match="--seed"):
        parse_seeds(text)


def test_recipe_survives_json() -> None:
    recipe = Recipe(prompt="a (red:1.2) cat", seed="7", img_w=512, strict_mask=True, guidance_scale=1.5)
    assert from_mapping(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"guidance_scale": float("nan")}, "finite"),
        ({"strength": 1.5}, "out of range"),
        ({"num_inference_steps": 0}, "out of range"),
        ({"num_inference_steps": True}, "type int"),
        ({"prompt": "x" * 10_001}, "10,000"),
        ({"img_w": 513}, "512 and 520"),
        ({"sampler": "dpmpp2m"}, "did you mean 'dpmpp_2m'"),
        ({"smapler": "euler"}, "did you mean 'sampler'"),
        ({"prompt": 3}, "type str"),
        ({"variation_seed": "5"}, "1 and 0, where each seed needs its strength"),
        ({"variation_strength": "0.5"}, "0 and 1"),
        ({"variation_seed": "5,6", "variation_strength": "0.5"}, "2 and 1"),
        ({"variation_seed": "5", "variation_strength": "1.5"}, "--variation_strength 1.5 is out of range: 0 to 1"),
        ({"variation_seed": "5", "variation_strength": "nan"}, "finite"),
        ({"variation_seed": "x", "variation_strength": "0.5"}, "--variation_seed 'x' is not a seed"),
    ],
)
def test_bad_recipes(values: dict[str, object], word: str) -> None:
    with pytest.raises(UserError, match=word):
        from_mapping(values)


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ({}, "text2img"),
        ({"base_img": "b.png"}, "img2img"),
        ({"base_img": "b.png", "mask_img": "m.png"}, "inpainting"),
        ({"base_img": "b.png", "variation": True}, "variation"),
        ({"base_img": "b.png", "mask_img": "m.png", "variation": True}, "variation"),
    ],
)
def test_modes(values: dict[str, object], mode: str) -> None:
    assert mode_of(Recipe(**values)) == mode  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"mask_img": "m.png"}, {"variation": True}, {"strength": 0.5}, {"fit": "pad"}])
def test_what_needs_a_base_says_so(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="needs --base_img"):
        mode_of(Recipe(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "base", "native", "size"),
    [
        ((None, None), None, 512, (512, 512)),
        ((None, 768), None, 512, (512, 768)),
        ((None, None), None, 1024, (1024, 1024)),
        ((None, None), (427, 640), 512, (427, 640)),
        ((None, 320), (427, 640), 512, (216, 320)),
        ((256, None), (640, 427), 512, (256, 168)),
        ((512, 768), (427, 640), 512, (512, 768)),
    ],
)
def test_written_size(
    asked: tuple[int | None, int | None], base: tuple[int, int] | None, native: int, size: tuple[int, int]
) -> None:
    assert written_size(Recipe(img_w=asked[0], img_h=asked[1]), base, (native, native)) == size  # type: ignore[arg-type]


def test_stable_diffusion_draws_512x768_directly_and_larger_by_hires() -> None:
    assert not size_for(512, 768, 512, 8, None).hires
    size = size_for(1024, 1536, 512, 8, None)
    assert size.hires
    assert (size.canvas_width, size.canvas_height) == (416, 624)


def test_an_aspect_beyond_the_models_is_hires() -> None:
    assert not size_for(256, 512, 256, 16, 2.0).hires
    assert size_for(256, 520, 256, 16, 2.0).hires


@given(st.integers(1, 4096), st.integers(1, 4096), st.sampled_from([8, 16]), st.sampled_from([None, 2.0]))
def test_canvas_keeps_to_the_grid_and_the_aspect(width: int, height: int, grid: int, aspect: float | None) -> None:
    size = size_for(width, height, 256, grid, aspect)
    assert size.canvas_width % grid == size.canvas_height % grid == 0
    if size.hires:
        area = size.canvas_width * size.canvas_height
        assert area <= (256 + grid) ** 2 * 2
        for side, inner in zip((width, height), size.inner, strict=True):
            assert abs(inner * size.scale - side) <= size.scale / 2 or inner == 1
        assert size.inner[0] <= size.canvas_width
        assert size.inner[1] <= size.canvas_height
    else:
        assert width <= size.canvas_width < width + grid
        assert height <= size.canvas_height < height + grid


def test_names_of_the_catalog_are_known_to_the_recipe() -> None:
    for family in FAMILIES.values():
        assert set(family.samplers) <= set(SAMPLERS)
        assert set(family.schedules) <= set(SCHEDULES)


@pytest.fixture
def edit(tmp_path: Path) -> dict[str, str]:
    """A base and a mask of the same size."""
    Image.fromarray(np.full((64, 48, 3), 90, np.uint8)).save(tmp_path / "base.png")
    mask = np.zeros((64, 48), np.uint8)
    mask[10:30, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return {"base_img": str(tmp_path / "base.png"), "mask_img": str(tmp_path / "mask.png"), "prompt": "a cat"}


def planned(tmp_path: Path, **values: object) -> object:
    return plan(check(Recipe(**values)), out=tmp_path / "out", download=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"strength": 0.01}, "less than one step"),
        ({"negative_prompts": "blur", "guidance_scale": 1.0}, "no effect"),
        ({"model": "noisete-1"}, "did you mean 'noisette-1'"),
        ({"model": "./nothing"}, "no model ./nothing"),
        ({"model": "weights.ckpt"}, "pickle"),
        ({"base_img": "nowhere.png"}, "not there"),
        ({"variation": True, "sampler": "heun"}, "euler_ancestral does"),
        ({"engine": "openvino", "device": "cuda"}, "--engine torch"),
        ({"guidance_start": 0.8, "guidance_end": 0.2}, "lies after"),
    ],
)
def test_mistakes_are_found_before_any_weight_is_read(
    tmp_path: Path, edit: dict[str, str], values: dict[str, object], word: str
) -> None:
    with pytest.raises(UserError, match=word):
        planned(tmp_path, **{**edit, **values})
    assert not (tmp_path / "out").exists()


def test_what_this_machine_has_not_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noisette import checkpoint, hub
    from noisette.engines import openvino

    def never(*_: object) -> Path:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(hub, "find", never)
    monkeypatch.setattr(hub, "download", never)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="--device cuda is not available here"):
            plan(Recipe(model="someone/model", device="cuda", seed="1"), tmp_path)
    tiny.save("sd1", tmp_path / "model")
    monkeypatch.setattr(checkpoint, "fetch", never)
    monkeypatch.setattr(openvino.engine, "precisions", lambda: ["float32"])
    asked = Recipe(model=str(tmp_path / "model"), engine="openvino", precision="bfloat16", seed="1")
    asked = replace(asked, preview_every=1, preview_decoder="someone/taesd")
    with pytest.raises(UserError, match="--precision bfloat16 does not run on this processor: float32 do"):
        plan(asked, tmp_path)
    assert plan(asked, tmp_path, download=False).recipe.precision == "bfloat16"  # to run elsewhere


def test_variation_accepts_strength_zero(tmp_path: Path, edit: dict[str, str]) -> None:
    assert planned(tmp_path, **edit, variation=True, strength=0.0).mode == "variation"  # type: ignore[attr-defined]


def test_a_mask_of_another_size_needs_fit(tmp_path: Path, edit: dict[str, str]) -> None:
    Image.new("L", (64, 64), 255).save(edit["mask_img"])
    with pytest.raises(UserError, match=r"64x64.*48x64"):
        planned(tmp_path, **edit)
    assert planned(tmp_path, **edit, fit="crop").mask.size == (48, 64)  # type: ignore[attr-defined]


def test_a_fit_that_cuts_the_white_away_says_so(tmp_path: Path, edit: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"mask\.png is empty at 128x8: --fit crop leaves nothing to repaint"):
        planned(tmp_path, **edit, img_w=128, img_h=8)


def test_lenient_turns_an_idle_argument_into_a_note(tmp_path: Path) -> None:
    recipe = Recipe(prompt="a cat", negative_prompts="blur", guidance_scale=1.0)
    notes = plan(recipe, out=tmp_path, lenient=True, download=False).notes
    assert any("--negative_prompts has no effect" in note for note in notes)


ENLARGING = {"mask_img": None, "prompt": "", "upscale": 2}
IDLE = {
    "--prompt a cat": {**ENLARGING, "prompt": "a cat"},
    "--negative_prompts blur": {**ENLARGING, "negative_prompts": "blur"},
    "--num_inference_steps 99": {**ENLARGING, "num_inference_steps": 99},
    "--sampler heun": {**ENLARGING, "sampler": "heun"},
    "--variation_seed 5": {**ENLARGING, "variation_seed": "5", "variation_strength": "0.5"},
    "2 seeds": {**ENLARGING, "seed": "1,2"},
    "3 seeds": {**ENLARGING, "seed": "1", "count": 3},
    "--upscaler lanczos": {"upscaler": "lanczos"},
    "--hires off": {"hires": "off"},
    "--strict_mask False has no effect: --feather 5": {"feather": 5, "strict_mask": False},
    "--strict_mask False has no effect: --variation True": {"variation": True, "strict_mask": False},
}


@pytest.mark.parametrize("said", IDLE)
def test_an_argument_without_effect_is_an_error_or_a_note(said: str, tmp_path: Path, edit: dict[str, str]) -> None:
    recipe = check(Recipe(**{**edit, **IDLE[said]}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=said):
        plan(recipe, tmp_path, download=False)
    assert any(said in note for note in plan(recipe, tmp_path, lenient=True, download=False).notes)


@pytest.mark.parametrize(
    "values",
    [
        ENLARGING,
        {**ENLARGING, "seed": "1"},
        {**ENLARGING, "upscaler": "lanczos"},
        {**ENLARGING, "prompt": "a cat", "sampler": "heun", "seed": "1,2", "refine": 0.5},
        {"strict_mask": False},
        {"strict_mask": True, "feather": 5},
        {"mask_img": None, "strict_mask": False},
        {"img_w": 512, "img_h": 512, "mask_img": None, "upscaler": "lanczos"},
    ],
)
def test_what_has_an_effect_is_no_error(values: dict[str, object], tmp_path: Path, edit: dict[str, str]) -> None:
    planned(tmp_path, **{**edit, **values})


def test_the_recipe_in_an_enlarged_file_can_be_enlarged_again(tmp_path: Path, edit: dict[str, str]) -> None:
    made = plan(Recipe(base_img=edit["base_img"], upscale=2), tmp_path, download=False)
    assert plan(made.picture_recipe(made.seeds[0]), tmp_path, download=False).recipe.seed == str(made.seeds[0])


def test_hires_has_no_say_in_windows(tmp_path: Path, edit: dict[str, str]) -> None:
    values = {**edit, "img_w": 512, "img_h": 512, "fit": "stretch", "hires": "off"}
    with pytest.raises(UserError, match="--hires off has no effect in the windows of --crop 9"):
        planned(tmp_path, **values, crop="9")
    assert planned(tmp_path, **values, crop="off")  # type: ignore[truthy-bool]


def test_a_model_of_squares_composes_one_and_its_ground_goes_on(tmp_path: Path) -> None:
    tall = plan(Recipe(prompt="alien", img_w=512, img_h=768, seed="1"), tmp_path).size
    assert (tall.width, tall.height, tall.canvas_width, tall.canvas_height) == (512, 768, 256, 256)
    assert tall.continued
    assert not plan(Recipe(prompt="alien", img_w=512, img_h=512, seed="1"), tmp_path).size.continued


def test_hires_off_composes_what_is_asked_and_says_what_that_risks(tmp_path: Path) -> None:
    asked = Recipe(prompt="alien", img_w=496, img_h=768, seed="1", hires="off")
    made = plan(asked, tmp_path)
    assert (made.size.canvas_width, made.size.canvas_height, made.size.hires) == (496, 768, False)
    assert any("--hires off" in note for note in made.notes)
    with pytest.raises(UserError, match="--hires off has no effect at 256x256: auto composes the same"):
        plan(Recipe(prompt="alien", img_w=256, img_h=256, seed="1", hires="off"), tmp_path)
    with pytest.raises(UserError, match="nothing to refine"):
        plan(Recipe(prompt="alien", img_w=512, img_h=512, seed="1", hires="off", refine=0.3), tmp_path)


def test_hires_off_with_a_base_diffuses_it_at_its_own_size(tmp_path: Path) -> None:
    Image.new("RGB", (427, 640), "teal").save(tmp_path / "base.png")
    asked = {"base_img": str(tmp_path / "base.png"), "prompt": "a cat"}
    assert planned(tmp_path, **asked).size.hires  # type: ignore[attr-defined]
    size = planned(tmp_path, **asked, hires="off").size  # type: ignore[attr-defined]
    assert (size.canvas_width, size.canvas_height, size.hires) == (432, 640, False)
    with pytest.raises(UserError, match="--hires off does not go with --upscale 2"):
        planned(tmp_path, base_img=asked["base_img"], upscale=2, hires="off")
