"""What a file says of itself, to us and to other tools."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from noisette.errors import UserError
from noisette.metadata import SAMPLERS, SCHEDULES, parameters_text, parse_parameters, png_info, read_metadata
from noisette.recipe import SAMPLERS as RECIPE_SAMPLERS
from noisette.recipe import SCHEDULES as RECIPE_SCHEDULES
from noisette.recipe import from_mapping

RECIPE: dict[str, Any] = {
    "prompt": "alien, (green:1.3)",
    "negative_prompts": "blurry, text: any",
    "num_inference_steps": 25,
    "sampler": "dpmpp_2m",
    "schedule": "karras",
    "guidance_scale": 7.5,
    "seed": "1024",
    "img_w": 512,
    "img_h": 768,
    "model": "noisette-1",
}
TEXT = """alien, (green:1.3)
Negative prompt: blurry, text: any
Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 1024, Size: 512x768, \
Model hash: 0123456789, Model: noisette-1, Version: noisette 0.1.0"""


def file_with(path: Path, **texts: str) -> Path:
    chunks = PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text)
    Image.new("L", (1, 1)).save(path, pnginfo=chunks)
    return path


def test_the_text_that_other_tools_read() -> None:
    provenance = {"model_hash": "sha256:0123456789abcdef", "noisette": "0.1.0"}
    assert parameters_text(RECIPE, (512, 768), provenance) == TEXT


def test_values_are_quoted_as_automatic1111_does() -> None:
    last = parameters_text(RECIPE | {"model": "models/a, b.safetensors"}, (8, 8), {}).split("\n")[-1]
    assert 'Model: "a, b"' in last


def test_the_text_comes_back_as_the_recipe() -> None:
    found = parse_parameters(Path("a.png"), TEXT)
    assert found["recipe"] == RECIPE
    assert found["left_out"] == {"Model hash": "0123456789", "Version": "noisette 0.1.0"}
    assert from_mapping(found["recipe"]).seed == "1024"


def test_every_sampler_has_its_name_there() -> None:
    assert set(SAMPLERS) == set(RECIPE_SAMPLERS)
    assert set(SCHEDULES) < set(RECIPE_SCHEDULES)


def test_a_file_of_automatic1111_is_mapped_as_far_as_it_goes(tmp_path: Path) -> None:
    text = (
        "a cat\non a <lora:x:1> mat\nNegative prompt: dog\nbird\nSteps: 20, Sampler: DPM++ 2M SDE Karras,"
        " CFG scale: 7, Seed: 42, Size: 640x512, Model hash: abc, Model: v1-5,"
        " Denoising strength: 0.7, Clip skip: 2,"
        ' Lora hashes: "x: 1, y: 2"'
    )
    found = read_metadata(file_with(tmp_path / "a.png", parameters=text))
    assert found["recipe"] == {
        "prompt": "a cat\non a <lora:x:1> mat",
        "negative_prompts": "dog\nbird",
        "num_inference_steps": 20,
        "sampler": "dpmpp_2m_sde",
        "schedule": "karras",
        "guidance_scale": 7.0,
        "seed": "42",
        "img_w": 640,
        "img_h": 512,
    }
    left_out = {"Model": "v1-5", "Model hash": "abc", "Denoising strength": "0.7", "Clip skip": "2"}
    assert found["left_out"] == left_out | {"Lora hashes": "x: 1, y: 2"}


@pytest.mark.parametrize("prompt", ["плюш 漢字 🦑", 'quote " and \\ and , : \n newline', "lone \udcff surrogate"])
def test_any_prompt_comes_back(tmp_path: Path, prompt: str) -> None:
    chunks = png_info({"recipe": {"prompt": prompt}}, (1, 1))
    Image.new("L", (1, 1)).save(tmp_path / "a.png", pnginfo=chunks)
    assert read_metadata(tmp_path / "a.png") == {"recipe": {"prompt": prompt}}
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["parameters"].startswith(prompt.replace("\udcff", "?"))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"x"', "__import__('os')", '{"recipe": 1}', '{"recipe": {"seed": NaN}}', "[" * 100_000],
)
def test_garbage_is_a_user_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError) as error:
        read_metadata(file_with(tmp_path / "a.png", noisette=text))
    assert "\n" not in str(error.value)


def test_a_file_without_a_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="carries no recipe"):
        read_metadata(file_with(tmp_path / "a.png", Comment="hello"))
    with pytest.raises(UserError, match="no line with Steps"):
        read_metadata(file_with(tmp_path / "a.png", parameters="hello"))


@given(st.text(max_size=200))
def test_any_text_is_mapped_or_a_user_error(text: str) -> None:
    with contextlib.suppress(UserError):
        parse_parameters(Path("a.png"), text)
    assert json.dumps(parse_parameters(Path("a.png"), text + "\nSteps: 1, Sampler: Euler, Seed: 2"))
