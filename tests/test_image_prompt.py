"""Image prompts: NumPy's encoder is torch's, and a base stands for the prompt as far as it is asked to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from noisette import engines, image_prompt
from noisette.errors import UserError
from noisette.generate import generate
from noisette.plan import plan
from noisette.recipe import Recipe
from noisette.train.data import write_json
from noisette.train.image_encoder import ImageEncoder
from tests import tiny

SETTINGS = {"channels": [8, 8, 16, 16], "hidden": 24, "rank": 6}


def write_encoder(folder: Path, tokens: int, width: int) -> ImageEncoder:
    """A random image encoder as `noisette train export` leaves it."""
    torch.manual_seed(3)
    network = ImageEncoder(16, SETTINGS, tokens, width).eval()
    folder.mkdir(parents=True)
    save_file({name: value.half() for name, value in network.state_dict().items()}, folder / "model.safetensors")
    write_json(folder / "config.json", network.config)
    return network.half().float()


def test_numpy_encodes_as_torch_does(tmp_path: Path) -> None:
    network = write_encoder(tmp_path / "encoder", 5, 12)
    latents = np.random.default_rng(0).normal(size=(3, 16, 16, 16)).astype(np.float32)
    states, vectors = image_prompt.load(tmp_path / "encoder").encode(latents)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(latents))
    np.testing.assert_allclose(states, wanted[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(vectors, wanted[1].numpy(), atol=1e-5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny checkpoint with an image encoder beside it, and a base picture."""
    tiny.save("bert", tmp_path / "model")
    config = plan(Recipe(model=str(tmp_path / "model"), seed="1"), tmp_path).checkpoint.configs
    encoder = config["text_encoder"]
    write_encoder(tmp_path / "model-image-encoder", 32, encoder["hidden_size"])
    shades = np.linspace(0, 255, 64 * 96 * 3).reshape(96, 64, 3).astype(np.uint8)
    Image.fromarray(shades).save(tmp_path / "base.png")
    return tmp_path / "model"


def drawn(model: Path, **fields: object) -> np.ndarray:
    base = str(model.parent / "base.png")
    recipe = {"model": str(model), "base_img": base, "seed": "1", "num_inference_steps": 2, "guidance_scale": 2.0}
    planned = plan(Recipe(**(recipe | fields)), model.parent)
    (result,) = generate(planned, engines.load(planned))
    assert ("image_encoder" in result.facts) == bool(planned.recipe.image_prompt)
    return result.picture.data.astype(int)


def test_at_one_the_prompt_is_forgotten_and_at_nothing_the_base(model: Path) -> None:
    assert (drawn(model, prompt="cat", image_prompt=1.0) == drawn(model, prompt="house", image_prompt=1.0)).all()
    assert (drawn(model, prompt="cat", image_prompt=0.0) == drawn(model, prompt="cat")).all()
    assert (drawn(model, prompt="cat", image_prompt=0.0) != drawn(model, prompt="house", image_prompt=0.0)).any()
    assert (drawn(model, prompt="cat", image_prompt=1.0) != drawn(model, prompt="cat", image_prompt=0.0)).any()


def test_a_variation_looks_at_its_base_unless_told_not_to(model: Path, tmp_path: Path) -> None:
    base = str(tmp_path / "base.png")
    filled = plan(Recipe(model=str(model), base_img=base, variation=True, seed="1"), tmp_path).recipe
    assert filled.image_prompt == 1.0
    said = plan(Recipe(prompt="cat", model=str(model), base_img=base, variation=True, seed="1"), tmp_path).recipe
    assert said.image_prompt is not None
    assert 0 < said.image_prompt < 1
    assert plan(Recipe(prompt="cat", model=str(model), base_img=base, seed="1"), tmp_path).recipe.image_prompt is None


def test_without_a_base_or_an_encoder_it_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--image_prompt 0.5 needs --base_img"):
        plan(Recipe(model=str(model), image_prompt=0.5), tmp_path)
    base = str(tmp_path / "base.png")
    (tmp_path / "model-image-encoder" / "config.json").unlink()
    with pytest.raises(UserError, match="needs an image encoder"):
        plan(Recipe(model=str(model), base_img=base, image_prompt=0.5), tmp_path)


def test_a_damaged_encoder_is_one_line(model: Path) -> None:
    (model.parent / "model-image-encoder" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="no image encoder that can be read"):
        drawn(model, image_prompt=0.5)
