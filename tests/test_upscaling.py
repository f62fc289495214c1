"""The upscaler: its graph against the network that is trained, bands against the whole, sizes and aspects."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from noisette import output, pixels, upscaling
from noisette.engines.openvino import upscaler as graph
from noisette.errors import UserError
from noisette.reading import Picture
from noisette.train import upscale
from noisette.train.config import read_config
from noisette.verify import verify_file
from tests.stub import planned, run

IDLE = {"prompt": "", "num_inference_steps": None}  # what no enlarging reads


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A random upscaler, exported as training does it."""
    torch.manual_seed(0)
    network = upscale.Upscaler(8, 3)
    torch.nn.init.normal_(network.last.weight, std=0.1)
    state = {name: value.half().float() for name, value in network.state_dict().items()}
    torch.save({"averages": state}, tmp_path / "upscale.pt")
    config = read_config(None)
    config["upscale"] |= {"channels": 8, "layers": 3}
    upscale.export(tmp_path, config, tmp_path / "model")
    monkeypatch.setattr(upscaling, "FOLDER", tmp_path / "model")
    upscaling.enlarging.cache_clear()
    return tmp_path


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_graph_is_the_trained_network(folder: Path) -> None:
    network = upscale.Upscaler(8, 3)
    network.load_state_dict(torch.load(folder / "upscale.pt", weights_only=True)["averages"])
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 17, 24)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels[None]))[0].numpy()
    np.testing.assert_allclose(graph.double(folder / "model", pixels), expected, atol=1e-5)
    graph.load.cache_clear()
    gc.collect()  # the second time it comes from the cache on disk, whose memory has to be held
    np.testing.assert_allclose(graph.double(folder / "model", pixels), expected, atol=1e-5)


def test_bands_leave_no_trace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noise(100, 40).astype(np.float32)
    whole = upscaling.double(picture)
    monkeypatch.setattr(upscaling, "BAND", 32)
    assert np.abs(upscaling.double(picture) - whole).max() <= 1
    assert whole.shape == (200, 80, 3)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (16, 200), (32, 32), (20, 20)])
def test_any_size_is_met(folder: Path, width: int, height: int) -> None:
    for how in ("crop", "stretch"):
        assert upscaling.enlarge(noise(32, 32), width, height, "network", how).shape == (height, width, 3)


def test_the_same_size_is_the_same_picture(folder: Path) -> None:
    picture = noise(32, 32)
    assert (upscaling.enlarge(picture, 32, 32, "network", "crop") == picture).all()


def test_the_reach_covers_the_shipped_network() -> None:
    settings = read_config(None)["upscale"]
    assert settings["layers"] + 2 + 1 <= upscaling.REACH  # each convolution looks one pixel further, bilinear one


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_upscale_keeps_mode_and_says_by_what(mode: str, folder: Path, tmp_path: Path) -> None:
    deep = mode == "I;16"
    values = np.random.default_rng(0).integers(0, 65536 if deep else 256, (24, 40, 4))
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}[mode]
    data = values[..., :channels].astype(np.uint16 if deep else np.uint8)
    Image.fromarray(data[..., 0] if channels == 1 else data).save(tmp_path / "base.png", dpi=(72, 72))
    asked = planned(tmp_path / "out", **IDLE, base_img=str(tmp_path / "base.png"), upscale=3)
    assert asked.evaluated_steps == 0
    (result,) = run(asked)
    assert (result.picture.size, result.picture.mode) == ((120, 72), mode)
    assert result.picture.info["dpi"] == pytest.approx((72, 72), abs=0.1)
    assert result.facts["upscaler"].startswith("model ")
    saved = output.write(asked, result)
    assert saved.path.name == "untitled-upscale-3-25its-0.png"
    assert verify_file(saved.path).word == "identical"


def test_sixteen_bits_are_enlarged_by_the_network_at_their_depth(folder: Path) -> None:
    """They were brought up by Lanczos, and the file said that the network had done it."""
    deep = Picture(np.random.default_rng(0).integers(0, 65536, (24, 40, 1)).astype(np.uint16), "I;16")
    grey = Picture((deep.data // 257).astype(np.uint8), "L")
    by_network, by_name = (upscaling.larger(deep, 80, 48, how).data for how in ("network", "lanczos"))
    assert np.array_equal(by_name, pixels.fit(deep, 80, 48, "stretch").data)
    assert not np.array_equal(by_network, by_name)
    assert (by_network % 257 > 0).any()
    flat = upscaling.larger(grey, 80, 48, "network").data.astype(int)
    assert np.abs(by_network / 257 - flat).mean() < 2


def test_a_window_that_is_composed_larger_names_no_upscaler(tmp_path: Path) -> None:
    mask = np.zeros((600, 600), np.uint8)
    mask[40:80, 40:80] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = {"base_img": str(tmp_path / "mask.png"), "mask_img": str(tmp_path / "mask.png")}
    assert "upscaler" not in run(planned(tmp_path, **files))[0].facts
    assert "upscaler" in run(planned(tmp_path, **files, crop="off"))[0].facts


def test_an_enlarged_picture_can_be_refined(folder: Path, tmp_path: Path) -> None:
    """At native size there is nothing to refine; beyond it the stub's checkerboard comes out in every tile."""
    asked = planned(tmp_path, img_w=600, img_h=600, refine=0.5)
    assert asked.evaluated_steps == 2 + 1
    (plain,) = run(planned(tmp_path, img_w=600, img_h=600))
    (refined,) = run(asked)
    assert refined.picture.size == plain.picture.size == (600, 600)
    assert not np.array_equal(refined.picture.data, plain.picture.data)
    native = asked.checkpoint.native_side
    with pytest.raises(UserError, match=f"{native}x{native} is not enlarged"):
        planned(tmp_path, img_w=native, img_h=native, refine=0.5)
    with pytest.raises(UserError, match=r"less than one step: --refine 0\.5 is"):
        planned(tmp_path, img_w=600, img_h=600, refine=0.3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"img_w": 64}, "--img_w 64 does not go with --upscale 2"),
        ({"strength": 0.5}, "--strength 0.5 does not go with --upscale 2"),
        ({"variation": True}, "--variation True does not go with --upscale 2"),
        ({"base_img": None}, "--upscale 2 needs --base_img"),
        ({"upscale": 9}, "--upscale 9 is out of range: 2 to 8"),
    ],
)
def test_what_does_not_go_with_upscale(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "base.png")
    with pytest.raises(UserError, match=said):
        planned(tmp_path / "out", **({**IDLE, "base_img": str(tmp_path / "base.png"), "upscale": 2} | fields))
