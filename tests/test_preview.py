"""Previews: guesses in a file, by either decoder, gone when the picture is there and changing nothing in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image

from noisette import cli, engines, pixels
from noisette.errors import UserError
from noisette.generate import generate
from noisette.plan import Plan, plan
from noisette.preview import Previews, tiny
from noisette.recipe import Recipe
from noisette.record import read_recipe
from tests import tiny as checkpoints

SIDE = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd1")
    checkpoints.save("sd1", folder)
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
    ).save_pretrained(folder)
    return folder


def planned(model: Path, out: Path, **fields: Any) -> Plan:
    values = {
        "prompt": "alien",
        "seed": "3",
        "num_inference_steps": 5,
        "engine": "torch",
        "img_w": SIDE,
        "img_h": SIDE,
    }
    return plan(Recipe(model=str(model), **{**values, **fields}), out)


def test_guesses_are_shown_and_the_picture_stays_the_same(model: Path, tmp_path: Path) -> None:
    asked = planned(model, tmp_path, preview_every=2)
    previews, seen = Previews(asked), []

    def look(seeds: Any, decode: Any, i: int, x0: np.ndarray) -> None:
        previews(seeds, decode, i, x0)
        if previews.path(3).exists():
            seen.append(np.asarray(Image.open(previews.path(3))))
            previews.remove(3)

    networks = engines.load(asked)
    (shown,) = generate(asked, networks, look=look)
    (plain,) = generate(planned(model, tmp_path), networks)
    assert len(seen) == 2  # after steps 2 and 4 of 5
    assert not np.array_equal(*seen)
    assert seen[0].shape == shown.picture.data.shape
    assert np.array_equal(shown.picture.data, plain.picture.data)


def test_the_last_guess_is_the_picture(model: Path, tmp_path: Path) -> None:
    asked = planned(model, tmp_path, preview_every=5, sampler="euler")
    previews = Previews(asked)
    (result,) = generate(asked, engines.load(asked), look=previews)
    assert np.array_equal(np.asarray(Image.open(previews.path(3))), result.picture.data)


def test_a_small_decoder_decodes_as_diffusers(model: Path, small: Path, tmp_path: Path) -> None:
    asked = planned(model, tmp_path, preview_every=5, preview_decoder=str(small), sampler="euler")
    latents = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    reference = AutoencoderTiny.from_pretrained(small).eval()
    with torch.no_grad():
        wanted = reference.decode(torch.from_numpy(latents)).sample.numpy()
    found = tiny(Path(str(asked.recipe.preview_decoder)), latents)
    assert np.abs(found - wanted).max() < 1e-4
    previews = Previews(asked)
    previews([3, 4], lambda x: pytest.fail("the VAE is not asked"), 4, latents)
    for seed, picture in zip((3, 4), found, strict=True):
        assert np.array_equal(np.asarray(Image.open(previews.path(seed))), pixels.from_model(picture))


def test_nothing_of_it_is_left(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--prompt", "alien", "--model", str(model), "--seed", "1,2", "--steps", "3", "--preview-every", "1"]
    arguments += ["--img_w", str(SIDE), "--img_h", str(SIDE), "--engine", "torch", "--out", str(tmp_path)]
    assert cli.run("image", arguments) == 0
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["alien-text2img-1-3its-0.png", "alien-text2img-2-3its-0.png"]
    recipe = read_recipe(str(tmp_path / files[0]))
    assert (recipe.preview_every, recipe.preview_decoder) == (0, None)
    assert "alien-text2img-1-3its-preview.png" in capsys.readouterr().err


def test_decoders_that_do_not_fit(model: Path, small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--preview_decoder vae needs --preview_every"):
        planned(model, tmp_path, preview_decoder="vae")
    with pytest.raises(UserError, match=r"--preview_decoder .*nowhere: no folder with config.json"):
        planned(model, tmp_path, preview_every=1, preview_decoder=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no folder with config.json"):
        planned(model, tmp_path, preview_every=1, preview_decoder=str(model))
    with pytest.raises(UserError, match="is made for latents of 4 channels, this model's have 16"):
        plan(Recipe(prompt="a", seed="1", preview_every=1, preview_decoder=str(small)), tmp_path)
    (tmp_path / "kl").mkdir()
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (tmp_path / "kl" / name).write_bytes((model / "vae" / name).read_bytes())
    with pytest.raises(UserError, match="is of class AutoencoderKL: AutoencoderTiny is read"):
        planned(model, tmp_path, preview_every=1, preview_decoder=str(tmp_path / "kl"))
