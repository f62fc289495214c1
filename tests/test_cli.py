"""image.py as a user runs it: the documented commands on the built-in model, and every mistake as one line."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from noisette.cli import main, run
from tests.process import ROOT, run_image

FAST = ("--num_inference_steps", "2", "--seed", "1024")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the documented names in it, spaces and all."""
    monkeypatch.chdir(tmp_path)
    edits = tmp_path / "out" / "edits"
    edits.mkdir(parents=True)
    y, x = np.mgrid[0:160, 0:120]
    base = np.stack([x * 2, y, 255 - x], axis=-1).astype(np.uint8)
    mask = np.zeros((160, 120), np.uint8)
    mask[40:90, 30:80] = 255
    Image.fromarray(base).save(edits / "asia grocery store.png")
    Image.fromarray(mask).save(edits / "AIsia store bw.png")
    return tmp_path


BASE = r"out\edits\asia grocery store.png"
MASK = "out/edits/AIsia store bw.png"


def one_line(arguments: list[str], capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    """The error of `image.py`: exit code 2, one line, nothing written."""
    before = sorted(folder.rglob("*"))
    assert run("image", arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "usage" not in error
    assert sorted(folder.rglob("*")) == before
    return error


def test_text2img_is_repeatable_and_never_overwrites(folder: Path) -> None:
    for _ in range(2):
        assert run("image", ["--prompt", "alien", "--img_h", "768", *FAST]) == 0
    first, second = (Image.open(f"out/alien-text2img-1024-2its-{n}.png") for n in (0, 1))
    assert first.size == (512, 768)
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_the_documented_edits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("image", ["--prompt", "4k, dslr", "--base_img", BASE, "--img_h", "768", *FAST]) == 0
    assert Image.open("out/4k,_dslr-img2img-1024-2its-0.png").size == (576, 768)
    assert run("image", ["--prompt", "alien", "--base_img", BASE, "--mask_img", MASK, *FAST]) == 0
    assert run("image", ["--prompt", "alien", "--base_img", BASE, "--variation", "True", *FAST]) == 0
    capsys.readouterr()
    strict = ["--prompt", "alien", "--base_img", BASE, "--mask_img", MASK, "--strict_mask", "True"]
    assert run("image", [*strict, "--seed", "7", "--steps", "2"]) == 0
    assert "16,700 kept pixels, none differs" in capsys.readouterr().out
    written = np.asarray(Image.open("out/alien-inpainting-7-2its-0.png"))
    base, mask = np.asarray(Image.open(folder / "out/edits/asia grocery store.png")), np.asarray(Image.open(MASK))
    assert np.array_equal(written[mask == 0], base[mask == 0])
    assert not np.array_equal(written[mask > 0], base[mask > 0])


def test_a_file_can_be_made_again_and_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("image", ["--prompt", "alien", "--base_img", BASE, "--mask_img", MASK, *FAST])
    made = "out/alien-inpainting-1024-2its-0.png"
    assert run("verify", [made]) == 0
    assert "identical" in capsys.readouterr().out
    assert run("image", ["--from", made, "--steps", "3"]) == 0
    assert Path("out/alien-inpainting-1024-3its-0.png").exists()
    Path(MASK).unlink()
    capsys.readouterr()
    assert run("verify", [made]) == 1
    assert "is gone" in capsys.readouterr().out
    assert run("inspect", [made]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["seed"] == "1024"


def test_plan_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    assert run("image", ["--prompt", "alien", "--plan", "--json", "--seed", "1-3"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["mode"], facts["size"], facts["seeds"]) == ("text2img", [512, 512], [1, 2, 3])
    assert sorted(folder.rglob("*")) == before


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height and ends there."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\x10IDAT"


MISTAKES = {
    "--base_img nowhere.png": "not there",
    "--base_img text.png": "not a picture",
    "--base_img cut.png": "cut short",
    "--base_img bomb.png": "at most",
    "--mask_img m.png": "needs --base_img",
    "--base_img base.png --mask_img small.png": "8x8",
    "--base_img base.png --mask_img black.png": "empty",
    "--img_w 500": "496 and 504",
    "--steps 0": "1 to 1000",
    "--steps 1001": "1 to 1000",
    "--steps 2.5": "whole number",
    "--base_img base.png --strength 0.1 --steps 5": "less than one step",
    "--model noisette-2": "did you mean 'noisette-1'",
    "--model=": "--model '' is unknown",
    "--base_img=": "--base_img is empty",
    "--base_img base.png --mask_img white.png --crop=": "--crop is empty: give it a value or leave it out",
    "--model nobody.safetensors": "no model",
    "--model old.ckpt": "pickle",
    "--model torn.safetensors": "torn.safetensors",
    "--sampler eulr": "did you mean 'euler'",
    "--schedule karas": "did you mean 'karras'",
    "--negative_prompts red --guidance_scale 1": "no effect",
    "--guidance_scale nan": "finite",
    "--guidance_scale inf": "finite",
    "--seed abc": "write 1024",
    "--base_img base.png --mask_img white.png --crop tight": "neither auto nor off nor a number",
    "--base_img base.png --mask_img white.png --feather 300": "0 to 256",
    "--base_img base.png --mask_img white.png --blend poison": "'poisson'? There are: alpha, poisson",
    "--base_img base.png --feather 3": "--feather 3 needs --mask_img or --outpaint",
    "--base_img base.png --invert_mask": "--invert_mask True needs --mask_img",
    "--feather 3": "--feather 3 needs --base_img and --mask_img",
    "--base_img base.png --outpaint up=3": "left=128,top=64",
    "--outpaint left=8": "needs --base_img",
    "--variation_seed 5": "where each seed needs its strength",
    "--strict_mask maybe": "neither True nor False",
    "--promt alien": "did you mean '--prompt'",
    "--num 3": "unknown flag '--num'",
    "--out base.png/x": "not a folder",
    "--from base.png": "base.png",
    "surplus": "unknown argument 'surplus'",
}


@pytest.mark.parametrize("words", list(MISTAKES))
def test_mistakes(words: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64), "blue").save("base.png")
    Image.new("L", (8, 8), 255).save("small.png")
    Image.new("L", (64, 64), 0).save("black.png")
    Image.new("L", (64, 64), 255).save("white.png")
    Path("text.png").write_text("this is text", encoding="utf-8")
    Path("cut.png").write_bytes(Path("base.png").read_bytes()[:60])
    Path("bomb.png").write_bytes(png_header(60_000, 60_000))
    Path("torn.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    Path("old.ckpt").write_bytes(b"\x80\x04.")
    assert MISTAKES[words] in one_line(["--prompt", "alien", *words.split()], capsys, folder)


def test_a_long_prompt_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "10,001 characters" in one_line(["--prompt", "x" * 10_001], capsys, folder)


def test_a_full_mask_is_a_note_and_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (120, 160), 255).save("white.png")
    assert run("image", ["--prompt", "alien", "--base_img", BASE, "--mask_img", "white.png", *FAST]) == 0
    assert "white all over" in capsys.readouterr().err


def test_strict_mask_false_is_false(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run("image", ["--prompt", "a", "--base_img", BASE, "--mask_img", MASK, "--strict_mask", "False", *FAST]) == 0
    )
    assert "kept pixels" not in capsys.readouterr().out


def test_a_missing_file_is_said_to_be_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("inspect", "verify"):
        assert main([command, "nowhere.png"]) == 2
        assert capsys.readouterr().err == f"noisette {command}: 'nowhere.png' is not there\n"


def test_unknown_commands_name_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verfy"]) == 2
    assert "did you mean 'verify'" in capsys.readouterr().err


def test_image_py_is_the_same_program(folder: Path) -> None:
    done = run_image("--prompt", "alien", "--seed", "x", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("image.py: --seed 'x'")


def test_plain_diffusers_draws_with_the_built_in_model() -> None:
    """No dtype given, no code of ours: the folder is a standard one."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(ROOT / "noisette/models/noisette-1", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    (picture,) = pipeline("alien", num_inference_steps=10, guidance_scale=3.0, generator=generator).images
    pixels = np.asarray(picture)
    assert pixels.shape == (256, 256, 3)
    assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] > 200).all()  # plain white corners
    assert pixels.std() > 20
