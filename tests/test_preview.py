"""Previews: guesses in a file, by either decoder, gone when the picture is there and changing nothing in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image

from noisette import cli, engines, hub, output, pixels
from noisette.errors import UserError
from noisette.generate import generate
from noisette.plan import plan
from noisette.preview import Previews
from noisette.preview import tiny as small_decoder
from noisette.recipe import Recipe
from noisette.record import read_recipe
from tests import tiny

SIDE = {"img_w": 64, "img_h": 64}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd1")
    tiny.save("sd1", folder)
    return folder


@pytest.fixture(scope="module")
def small(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AutoencoderTiny for the model's latents."""
    folder = tmp_path_factory.mktemp("taesd")
    torch.manual_seed(0)
    vae = AutoencoderKL.from_pretrained(model / "vae").config
    levels = len(vae["block_out_channels"])
    AutoencoderTiny(
        latent_channels=vae["latent_channels"],
        encoder_block_out_channels=(8,) * levels,
        decoder_block_out_channels=(8,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
        scaling_factor=0.7,
    ).save_pretrained(folder)
    return folder


def test_guesses_are_shown_and_the_picture_stays_the_same(model: Path, tmp_path: Path) -> None:
    asked = tiny.planned(model, tmp_path, preview_every=2, **SIDE)
    previews, seen = Previews(asked), []

    def look(seeds: Any, decode: Any, i: int, x0: np.ndarray) -> None:
        previews(seeds, decode, i, x0)
        if previews.path(3).exists():
            seen.append(np.asarray(Image.open(previews.path(3))))
            previews.remove([3])

    networks = engines.load(asked)
    (shown,) = generate(asked, networks, look=look)
    (plain,) = generate(tiny.planned(model, tmp_path, **SIDE), networks)
    assert len(seen) == 2  # after steps 2 and 4 of 4
    assert not np.array_equal(*seen)
    assert seen[0].shape == shown.picture.data.shape
    assert np.array_equal(shown.picture.data, plain.picture.data)


def test_the_last_guess_is_the_picture(model: Path, tmp_path: Path) -> None:
    asked = tiny.planned(model, tmp_path, preview_every=4, sampler="euler", **SIDE)
    previews = Previews(asked)
    (result,) = generate(asked, engines.load(asked), look=previews)
    assert np.array_equal(np.asarray(Image.open(previews.path(3))), result.picture.data)


def test_a_small_decoder_decodes_as_diffusers(model: Path, small: Path, tmp_path: Path) -> None:
    asked = tiny.planned(model, tmp_path, preview_every=4, preview_decoder=str(small), sampler="euler", **SIDE)
    latents = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    reference = AutoencoderTiny.from_pretrained(small).eval()
    with torch.no_grad():
        wanted = reference.decode(torch.from_numpy(latents) / reference.config.scaling_factor).sample.numpy()
    found = small_decoder(Path(str(asked.recipe.preview_decoder)))(latents)
    assert np.abs(found - wanted).max() < 1e-4
    previews = Previews(asked)
    previews([3, 4], lambda x: pytest.fail("the VAE is not asked"), 3, latents)
    for seed, picture in zip((3, 4), found, strict=True):
        assert np.array_equal(np.asarray(Image.open(previews.path(seed))), pixels.from_model(picture))


def test_nothing_of_it_is_left(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--prompt", "alien", "--model", str(model), "--seed", "1,2", "--steps", "3", "--preview-every", "1"]
    arguments += ["--img_w", "64", "--img_h", "64", "--engine", "torch", "--out", str(tmp_path)]
    assert cli.run("image", arguments) == 0
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["alien-text2img-1-3its-0.png", "alien-text2img-2-3its-0.png"]
    recipe = read_recipe(str(tmp_path / files[0]))
    assert (recipe.preview_every, recipe.preview_decoder) == (0, None)
    assert "alien-text2img-1-3its-preview.png" in capsys.readouterr().err


def test_decoders_that_do_not_fit(model: Path, small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--preview_decoder vae needs --preview_every"):
        tiny.planned(model, tmp_path, preview_decoder="vae", **SIDE)
    with pytest.raises(UserError, match=r"--preview_decoder .*nowhere: no folder with config.json"):
        tiny.planned(model, tmp_path, preview_every=1, preview_decoder=str(tmp_path / "nowhere"), **SIDE)
    with pytest.raises(UserError, match=r"no folder with config.json"):
        tiny.planned(model, tmp_path, preview_every=1, preview_decoder=str(model), **SIDE)
    with pytest.raises(UserError, match="is made for latents of 4 channels, this model's have 16"):
        plan(Recipe(prompt="a", seed="1", preview_every=1, preview_decoder=str(small)), tmp_path)
    (tmp_path / "kl").mkdir()
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (tmp_path / "kl" / name).write_bytes((model / "vae" / name).read_bytes())
    with pytest.raises(UserError, match="is of class AutoencoderKL: AutoencoderTiny is read"):
        tiny.planned(model, tmp_path, preview_every=1, preview_decoder=str(tmp_path / "kl"), **SIDE)


def test_an_interrupted_run_leaves_no_preview(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        assert list(tmp_path.glob("*-preview.png"))
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cli.make(tiny.planned(model, tmp_path, preview_every=1, **SIDE), as_json=False)
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_are_told_before_anything_runs(small: Path, model: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "torn")
    config = json.loads((small / "config.json").read_text(encoding="utf-8"))
    config["decoder_block_out_channels"][0] = 16
    (tmp_path / "torn" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    asked = tiny.planned(model, tmp_path, preview_every=1, preview_decoder=str(tmp_path / "torn"), **SIDE)
    with pytest.raises(UserError, match=r"preview: tensor decoder\.layers\.0\.weight is .*, its config asks for"):
        Previews(asked)


def test_what_shows_nothing_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--preview_every 5 has no effect on 4 steps"):
        tiny.planned(model, tmp_path, preview_every=5, **SIDE)


def test_the_plan_alone_downloads_no_decoder(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(where: str, names: list[str]) -> Path:
        raise UserError(f"downloading {where} failed")

    monkeypatch.setattr(hub, "download", download)
    recipe = Recipe(model=str(model), seed="1", preview_every=1, preview_decoder="someone/taesd")
    assert plan(recipe, tmp_path, download=False).recipe.preview_decoder == "someone/taesd"
    with pytest.raises(UserError, match=r"--preview_decoder someone/taesd: downloading .* vae is the model's own"):
        plan(recipe, tmp_path)
