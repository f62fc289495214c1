"""The torch engine: weights that fit or are named, precisions, devices, old names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from noisette.checkpoint import locate
from noisette.engines import tiled, torch_engine
from noisette.errors import UserError
from noisette.noise import noise
from tests import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.save("sd1", tmp_path)
    return tmp_path


def rewrite(path: Path, change: Any) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_a_tensor_of_another_shape_is_named_with_both(folder: Path) -> None:
    def widen(tensors: dict[str, torch.Tensor]) -> None:
        tensors["conv_in.weight"] = torch.zeros(32, 5, 3, 3)

    rewrite(folder / "unet" / "diffusion_pytorch_model.safetensors", widen)
    with pytest.raises(UserError, match=r"unet: tensor conv_in.weight is \[32, 5, 3, 3\] .* \[32, 4, 3, 3\]"):
        torch_engine.load(locate(str(folder)))


def test_a_missing_tensor_is_named(folder: Path) -> None:
    rewrite(folder / "text_encoder" / "model.safetensors", lambda tensors: tensors.pop("final_layer_norm.bias"))
    with pytest.raises(UserError, match=r"text_encoder: tensor .*final_layer_norm.bias \[32\] is missing"):
        torch_engine.load(locate(str(folder)))


def test_an_unknown_block_is_one_line(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    config["down_block_types"][0] = "MadeUpBlock2D"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="MadeUpBlock2D"):
        torch_engine.load(locate(str(folder)))


def test_names_of_old_autoencoders(folder: Path) -> None:
    want = torch_engine.load(locate(str(folder))).decode_image(noise(0, (1, 4, 8, 8)))
    new_to_old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".attentions." in name]:
            old = name
            for new, before in new_to_old.items():
                old = old.replace(new, before)
            tensors[old] = tensors.pop(name)

    rewrite(folder / "vae" / "diffusion_pytorch_model.safetensors", age)
    got = torch_engine.load(locate(str(folder))).decode_image(noise(0, (1, 4, 8, 8)))
    np.testing.assert_array_equal(got, want)


def test_text_encoders_of_published_names(folder: Path) -> None:
    ids = np.array([[5, 6, 7]])
    want = torch_engine.load(locate(str(folder))).encode_text(ids, None)

    def prefix(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors["text_model." + name.removeprefix("text_model.")] = tensors.pop(name)

    rewrite(folder / "text_encoder" / "model.safetensors", prefix)
    np.testing.assert_array_equal(torch_engine.load(locate(str(folder))).encode_text(ids, None), want)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_stays_near(folder: Path, precision: str) -> None:
    found = locate(str(folder))
    sample, context = noise(0, (2, 4, 8, 8)), noise(1, (2, 77, 32))
    want = torch_engine.load(found).denoise(sample, 500.0, context)
    got = torch_engine.load(found, precision=precision).denoise(sample, 500.0, context)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_half_precision_files_load_as_float32(folder: Path) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})

    for path in folder.glob("*/*.safetensors"):
        rewrite(path, halve)
    networks = torch_engine.load(locate(str(folder)))
    assert {p.dtype for p in networks.unet.parameters()} == {torch.float32}


def test_what_is_not_there_is_said(folder: Path) -> None:
    found = locate(str(folder))
    with pytest.raises(UserError, match="--precision int8"):
        torch_engine.load(found, precision="int8")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"--device cuda is not available here: .*cpu"):
            torch_engine.load(found, device="cuda")


def test_large_pictures_pass_the_autoencoder_in_tiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = torch_engine.load(locate(str(folder)))
    monkeypatch.setattr(tiled, "WHOLE_AREA", 64 * 64)
    networks.decode_image(noise(0, (1, 4, 8, 8)))
    assert not networks.vae.use_tiling
    assert networks.decode_image(noise(0, (1, 4, 8, 16))).shape == (1, 3, 64, 128)
    assert networks.vae.use_tiling
