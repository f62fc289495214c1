"""LoRA files in every naming scheme merge to the weights that their authors' own libraries give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from noisette.checkpoint import Checkpoint, locate
from noisette.engines.openvino import load
from noisette.errors import UserError
from noisette.lora import read_lora
from noisette.mapped import MappedTensors
from tests import tiny

UNET = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
TEXT = "text_model.encoder.layers.1.self_attn.q_proj"
RANK = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("models") / "sd1"
    tiny.save("sd1", folder)
    return locate(str(folder))


def factors(width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((RANK, width), np.float32), rng.standard_normal((width, RANK), np.float32)


def weights(checkpoint: Checkpoint, network: str, name: str, *loras: tuple[Path, float]) -> np.ndarray:
    get = MappedTensors(checkpoint.tensors(network))
    names = {n: checkpoint.tensors(n) for n in ("unet", "text_encoder")}
    for path, scale in loras:
        get = read_lora(path, scale, names).merged(network, get)
    return np.asarray(get(name))


@pytest.mark.parametrize(
    ("network", "name", "down", "up", "alpha"),
    [
        ("unet", f"{UNET}.to_q", f"unet.{UNET}.to_q.lora_A.weight", f"unet.{UNET}.to_q.lora_B.weight", ""),
        (
            "unet",
            f"{UNET}.to_q",
            f"unet.{UNET}.to_q.lora.down.weight",
            f"unet.{UNET}.to_q.lora.up.weight",
            "",
        ),
        (
            "unet",
            f"{UNET}.to_out.0",
            f"unet.{UNET}.processor.to_out_lora.down.weight",
            f"unet.{UNET}.processor.to_out_lora.up.weight",
            "",
        ),
        (
            "unet",
            f"{UNET}.to_k",
            f"base_model.model.{UNET}.to_k.lora_A.weight",
            f"base_model.model.{UNET}.to_k.lora_B.weight",
            "",
        ),
        (
            "unet",
            f"{UNET}.to_out.0",
            "lora_unet_" + f"{UNET}.to_out.0".replace(".", "_") + ".lora_down.weight",
            "lora_unet_" + f"{UNET}.to_out.0".replace(".", "_") + ".lora_up.weight",
            "lora_unet_" + f"{UNET}.to_out.0".replace(".", "_") + ".alpha",
        ),
        (
            "text_encoder",
            TEXT,
            f"text_encoder.{TEXT}.lora_A.weight",
            f"text_encoder.{TEXT}.lora_B.weight",
            "",
        ),
        (
            "text_encoder",
            TEXT,
            f"text_encoder.{TEXT}.lora_linear_layer.down.weight",
            f"text_encoder.{TEXT}.lora_linear_layer.up.weight",
            "",
        ),
        (
            "text_encoder",
            TEXT,
            "lora_te_" + TEXT.replace(".", "_") + ".lora_down.weight",
            "lora_te_" + TEXT.replace(".", "_") + ".lora_up.weight",
            "lora_te_" + TEXT.replace(".", "_") + ".alpha",
        ),
    ],
)
def test_every_naming_scheme(
    network: str, name: str, down: str, up: str, alpha: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    a, b = factors()
    save_file(
        {down: a, up: b} | ({alpha: np.float32([1.5])[0:1].reshape(())} if alpha else {}),
        tmp_path / "l.safetensors",
    )
    base = weights(checkpoint, network, f"{name}.weight")
    got = weights(checkpoint, network, f"{name}.weight", (tmp_path / "l.safetensors", 0.7))
    scale = 0.7 * (1.5 / RANK if alpha else 1.0)
    np.testing.assert_allclose(got, base + scale * (b @ a), atol=1e-5)
    other = weights(checkpoint, network, next(iter(checkpoint.tensors(network))), (tmp_path / "l.safetensors", 0.7))
    assert np.isfinite(other).all()


def test_convolutions_with_and_without_a_middle(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    name = "down_blocks.0.resnets.0.conv1"
    key = "lora_unet_" + name.replace(".", "_")
    base = weights(checkpoint, "unet", f"{name}.weight")
    out, width = base.shape[:2]
    down, up = (
        rng.standard_normal((RANK, width, 3, 3), np.float32),
        rng.standard_normal((out, RANK, 1, 1), np.float32),
    )
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, tmp_path / "conv.safetensors")
    expected = torch.nn.functional.conv2d(torch.tensor(down).permute(1, 0, 2, 3), torch.tensor(up)).permute(
        1, 0, 2, 3
    )
    got = weights(checkpoint, "unet", f"{name}.weight", (tmp_path / "conv.safetensors", 1.0))
    np.testing.assert_allclose(got, base + expected.numpy(), atol=1e-5)

    down, mid = down[:, :, :1, :1].copy(), rng.standard_normal((RANK, RANK, 3, 3), np.float32)
    parts = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.lora_mid.weight": mid}
    save_file(parts, tmp_path / "mid.safetensors")
    got = weights(checkpoint, "unet", f"{name}.weight", (tmp_path / "mid.safetensors", 1.0))
    x = rng.standard_normal((1, width, 5, 5), np.float32)
    steps = torch.tensor(x)
    for kernel, padding in ((down, 0), (mid, 1), (up, 0)):
        steps = torch.nn.functional.conv2d(steps, torch.tensor(kernel), padding=padding)
    whole = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(got - base), padding=1)
    np.testing.assert_allclose(whole.numpy(), steps.numpy(), atol=1e-3)


def test_two_loras_add_and_a_scale_of_zero_changes_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path, (a, b), name = tmp_path / "l.safetensors", factors(), f"{UNET}.to_q.weight"
    save_file({f"unet.{UNET}.to_q.lora_A.weight": a, f"unet.{UNET}.to_q.lora_B.weight": b}, path)
    base = weights(checkpoint, "unet", name)
    np.testing.assert_allclose(
        weights(checkpoint, "unet", name, (path, 1), (path, -0.5)), base + b @ a / 2, atol=1e-5
    )
    np.testing.assert_array_equal(weights(checkpoint, "unet", name, (path, 0.0)), base)


def test_alpha_in_the_header_counts(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path, (a, b), name = tmp_path / "l.safetensors", factors(), f"{UNET}.to_q.weight"
    settings = json.dumps({"unet.r": RANK, "unet.lora_alpha": 6})
    parts = {f"unet.{UNET}.to_q.lora_A.weight": a, f"unet.{UNET}.to_q.lora_B.weight": b}
    save_file(parts, path, {"lora_adapter_metadata": settings})
    base = weights(checkpoint, "unet", name)
    np.testing.assert_allclose(weights(checkpoint, "unet", name, (path, 1.0)), base + 2 * (b @ a), atol=1e-5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"unet.nowhere.to_q.lora_A.weight": (3, 32)}, "nowhere"),
        ({f"unet.{UNET}.to_q.lora_A.weight": (3, 32)}, "half"),
        (
            {f"unet.{UNET}.to_q.lora_A.weight": (3, 16), f"unet.{UNET}.to_q.lora_B.weight": (32, 3)},
            r"\[32, 32\]",
        ),
        ({"lora_unet_conv_in.hada_w1_a": (3, 32)}, "another kind"),
        ({}, "no LoRA"),
    ],
)
def test_what_does_not_fit_is_one_line(
    parts: dict[str, tuple[int, ...]], message: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "l.safetensors"
    save_file({name: np.zeros(shape, np.float32) for name, shape in parts.items()}, path)
    with pytest.raises(UserError, match=message):
        weights(checkpoint, "unet", f"{UNET}.to_q.weight", (path, 1.0))


def test_the_engine_merges_at_load(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    path, (a, b) = tmp_path / "l.safetensors", factors()
    save_file({f"unet.{UNET}.to_q.lora_A.weight": a, f"unet.{UNET}.to_q.lora_B.weight": b}, path)
    pipeline = tiny.pipeline("sd1")
    with torch.no_grad():
        pipeline.unet.get_submodule(f"{UNET}.to_q").weight += 0.5 * torch.tensor(b @ a)
        sample, context = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 32)
        expected = pipeline.unet(sample, 10, context).sample.numpy()
    networks = load(checkpoint, loras=[(path, 0.5)])
    np.testing.assert_allclose(networks.denoise(sample.numpy(), 10.0, context.numpy()), expected, atol=5e-5)
    plain = load(checkpoint).denoise(sample.numpy(), 10.0, context.numpy())
    assert np.abs(plain - expected).max() > 1e-3
