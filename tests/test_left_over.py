"""Weights that do not fit their configuration: both engines refuse them in one line, naming tensor and file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from noisette import optimized
from noisette.adapters import with_clip_skip
from noisette.checkpoint import Checkpoint, locate
from noisette.engines import openvino, torch_engine, torch_video
from noisette.errors import UserError
from tests import tiny, tiny_clips

FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
Load = Callable[[Checkpoint], Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny.save("sd1", folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(saved, tmp_path / "model"))


def on_openvino(checkpoint: Checkpoint) -> Any:
    networks = openvino.load(checkpoint)
    networks.wait()
    return networks


@pytest.fixture(params=[torch_engine.load, on_openvino], ids=["torch", "openvino"])
def load(request: pytest.FixtureRequest) -> Load:
    return request.param  # type: ignore[no-any-return]


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("unet", "up_blocks.7.resnets.0.conv1.weight"),
        ("vae", "encoder.mid_block.resnets.2.conv1.weight"),
        ("vae", "decoder.mid_block.resnets.2.conv1.weight"),
        ("text_encoder", "text_model.encoder.layers.2.mlp.fc1.weight"),
    ],
)
def test_a_tensor_left_over_is_refused(network: str, name: str, folder: Path, load: Load) -> None:
    path = folder / FILES[network]
    rewrite(path, lambda tensors: tensors.update({name: torch.zeros(2, 2)}))
    with pytest.raises(UserError) as caught:
        load(locate(str(folder)))
    assert str(caught.value) == f"{network}: {path} holds 1 tensors unknown to its config, first {name}"


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("unet", "conv_out.bias"),
        ("vae", "encoder.conv_out.bias"),
        ("vae", "decoder.conv_out.bias"),
        ("text_encoder", "encoder.layers.1.mlp.fc1.bias"),
    ],
)
def test_a_tensor_that_is_missing_is_named_with_its_file(network: str, name: str, folder: Path, load: Load) -> None:
    path = folder / FILES[network]
    there = next(known for known in load_file(path) if known.removeprefix("text_model.") == name)
    rewrite(path, lambda tensors: tensors.pop(there))
    with pytest.raises(UserError, match=rf"^{network}: tensor (text_model\.)?{name} \[.*\] is missing from {path}$"):
        load(locate(str(folder)))


def test_a_type_that_is_not_computed_with_is_named(folder: Path, load: Load) -> None:
    def squeeze(tensors: dict[str, torch.Tensor]) -> None:
        tensors["conv_out.bias"] = tensors["conv_out.bias"].to(torch.float8_e4m3fn)

    rewrite(folder / FILES["unet"], squeeze)
    with pytest.raises(UserError, match=r"tensor conv_out.bias is stored as F8_E4M3; convert it to F16 or F32"):
        load(locate(str(folder)))


def test_what_other_uses_leave_in_a_text_encoder_is_no_matter(folder: Path, load: Load) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        tensors["logit_scale"] = torch.ones(1)

    rewrite(folder / FILES["text_encoder"], add)
    load(locate(str(folder)))


def test_layers_that_clip_skip_leaves_out_are_no_matter(folder: Path, load: Load) -> None:
    assert load(with_clip_skip(locate(str(folder)), 1)).encode_text(np.array([[1, 2]]), None).shape == (1, 2, 32)


def test_a_file_that_can_not_be_read_is_one_line(folder: Path) -> None:
    path = folder / FILES["unet"]
    path.unlink()
    path.symlink_to(folder / "nowhere")
    with pytest.raises(UserError, match=rf"{path} can't be read: No such file"):
        locate(str(folder))


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_damaged_int8_networks_say_how_to_make_them_again(folder: Path, suffix: str) -> None:
    checkpoint = locate(str(folder))
    at = optimized.folder_of(checkpoint)
    at.mkdir(parents=True)
    (at / optimized.REPORT).write_text("{}")
    networks = on_openvino(checkpoint)
    tensors = checkpoint.tensors("unet")
    from noisette.engines.openvino.engine import build_graph
    from noisette.mapped import MappedTensors

    for name in optimized.NETWORKS:
        network = name.partition("_")[0]
        tensors = checkpoint.tensors(network)
        graph = build_graph(name, checkpoint.configs[network], MappedTensors(tensors), tensors, "")
        openvino.engine.ov.save_model(graph, at / f"{name}.xml")
    del networks
    damaged = at / f"unet{suffix}"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"unet.xml is damaged: python3 -m noisette optimize"):
        openvino.load(checkpoint, precision="int8").wait()


@pytest.mark.parametrize("network", ["text_encoder", "transformer"])
def test_models_of_whole_clips_are_held_to_their_configurations_too(network: str, tmp_path: Path) -> None:
    """transformers would make a missing tensor up, with a warning."""
    tiny_clips.save(tiny_clips.wan("text"), tmp_path)
    (path,) = (tmp_path / network).glob("*.safetensors")
    whole = load_file(path)
    save_file(whole | {"extra.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=rf"{network}: .* holds 1 tensors unknown to its config, first extra.weight"):
        torch_video.load(locate(str(tmp_path)))
    name = next(name for name in whole if "norm" in name and name.endswith("weight"))
    save_file({known: tensor for known, tensor in whole.items() if known != name}, path)
    with pytest.raises(UserError, match=rf"tensor {name} is missing|can't be loaded as"):
        torch_video.load(locate(str(tmp_path)))
