"""What a model consists of: folders, files, the hub; what is refused, in one line and at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from noisette import checkpoint
from noisette.errors import UserError
from noisette.kinds import NETWORKS
from noisette.tensors import read_header
from tests import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny.save("sd2", folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, and a cache of its own."""
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refuse(model: Path | str, match: str) -> str:
    with pytest.raises(UserError, match=match) as error:
        checkpoint.fetch(checkpoint.locate(str(model)))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder(folder: Path) -> None:
    found = checkpoint.locate(str(folder))
    assert found.kind == "sd"
    assert found.weights["unet"] == (folder / "unet" / "diffusion_pytorch_model.safetensors",)
    assert found.weights["text_encoder"] == (folder / "text_encoder" / "model.safetensors",)
    assert set(found.tokenizer) == {"tokenizer.json", "tokenizer_config.json"}
    assert found.configs["tokenizer"]["pad_token"] == "!"
    assert found.configs["scheduler"]["prediction_type"] == "v_prediction"
    assert (found.native_side, found.vae_scale_factor) == (64, 8)
    assert checkpoint.locate(str(folder), "epsilon").configs["scheduler"]["prediction_type"] == "epsilon"


def test_a_sample_size_may_be_a_list(folder: Path) -> None:
    for network, sides in (("unet", [8, 8]), ("vae", [64, 64])):
        path = folder / network / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": sides}))
    found = checkpoint.locate(str(folder))
    assert found.native_side == 64
    from noisette.engines.openvino import load

    assert load(found).decode_image(np.zeros((1, 4, 8, 8), np.float32)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("network", NETWORKS)
def test_tensors_are_runs_of_bytes(folder: Path, network: str) -> None:
    found = checkpoint.locate(str(folder))
    (path,) = found.weights[network]
    data = path.read_bytes()
    stored = load_file(path)
    for tensor in found.tensors(network).values():
        array = np.frombuffer(data[tensor.start : tensor.end], np.float32).reshape(tensor.shape)
        np.testing.assert_array_equal(array, stored[tensor.name])
    assert len(found.tensors(network)) == len(stored)


def test_shards_and_variants(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    names = sorted(tensors)
    save_file(
        {name: tensors[name].astype(np.float16) for name in names},
        folder / "unet" / "diffusion_pytorch_model.fp16.safetensors",
    )
    assert checkpoint.locate(str(folder)).weights["unet"] == (path,)
    path.unlink()
    assert ".fp16." in checkpoint.locate(str(folder)).weights["unet"][0].name
    for i, half in enumerate((names[::2], names[1::2]), 1):
        shard = folder / "unet" / f"diffusion_pytorch_model-{i:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in half}, shard)
    found = checkpoint.locate(str(folder))
    assert len(found.weights["unet"]) == 2
    assert sorted(found.tensors("unet")) == names


def test_hashes_are_of_the_files_and_remembered(folder: Path, tmp_path: Path) -> None:
    found = checkpoint.locate(str(folder))
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    name = "vae/diffusion_pytorch_model.safetensors"
    assert found.weight_hashes[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(found.weight_hashes) == 3
    assert len(found.weights_hash) == 64
    memo = sorted((tmp_path / "cache" / "hashes").iterdir())[0]
    memo.write_text("0" * 64)
    assert "0" * 64 in checkpoint.locate(str(folder)).weight_hashes.values()
    memo.write_text("torn")
    assert checkpoint.locate(str(folder)).weights_hash == found.weights_hash
    for weights in found.weights.values():
        os.utime(weights[0], (1, 1))
    memo.write_text("0" * 64)
    assert checkpoint.locate(str(folder)).weights_hash == found.weights_hash


def test_an_unwritable_cache_only_costs_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "file"))
    assert len(checkpoint.locate(str(folder)).weights_hash) == 64


def test_nowhere_to_be_found(tmp_path: Path) -> None:
    refuse(tmp_path / "missing.safetensors", "no model .*missing.safetensors")
    refuse("neither-here-nor-there", "not a hub id")


@pytest.mark.parametrize("name", ["model.ckpt", "model.PT", "model.pth", "pytorch_model.bin"])
def test_pickles_are_refused_with_a_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02")
    assert "save_file" in refuse(tmp_path / name, "is a pickle")


def test_the_way_out_of_a_pickle_works(tmp_path: Path) -> None:
    import torch

    torch.save({"state_dict": {"a": torch.ones(2, 2).T, "step": 3}}, tmp_path / "old.ckpt")
    command = refuse(tmp_path / "old.ckpt", "pickle").partition('python3 -c "')[2].rstrip('"')
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
    assert list(read_header(tmp_path / "old.safetensors")) == ["a"]


def test_a_folder_of_pickles(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    assert "save_pretrained" in refuse(folder, "has unet only as a pickle")
    path.with_suffix(".bin").unlink()
    refuse(folder, "no weights for unet")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights(folder: Path, keep: int) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refuse(folder, "vae.*(cut short|no safetensors file)")


def test_a_longer_file(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes() + b"more")
    refuse(folder, "damaged or cut short")


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}',
        b"\xff\xfe",
    ],
)
def test_broken_headers(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    refuse(path, "no safetensors file|damaged")


def test_what_is_not_a_stable_diffusion_folder(folder: Path) -> None:
    index = folder / "model_index.json"
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    refuse(folder, "scheduler_config.json is damaged")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    refuse(folder, "has no scheduler")
    index.write_text(json.dumps({"_class_name": "FluxPipeline"}))
    refuse(folder, "is a FluxPipeline")
    index.unlink()
    refuse(folder, "model_index.json is missing")


@pytest.mark.parametrize(
    ("key", "value"),
    [("class_embed_type", "timestep"), ("time_cond_proj_dim", 256), ("addition_embed_type", "text_time")],
)
def test_unets_that_need_more_than_text(folder: Path, key: str, value: object) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    refuse(folder, f"{key} {value}")


def test_no_heavy_import() -> None:
    heavy = "numpy torch diffusers transformers tokenizers safetensors huggingface_hub"
    code = f"import sys, noisette.checkpoint; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"


# --- the hub, spoken to by its own client in a process of its own

LOCATE = """
import json, sys, time
from noisette import checkpoint, errors, kinds
try:
    found = checkpoint.locate(sys.argv[1])
    before = found.downloads
    if "fetch" in sys.argv:
        found = checkpoint.fetch(found)
        for network in kinds.NETWORKS:
            found.tensors(network)
    print(json.dumps([found.kind, before, checkpoint.locate(sys.argv[1]).downloads]))
except errors.UserError as error:
    print(json.dumps(str(error)))
"""


def ask(model: str, cache: Path, *more: str, **environment: str) -> object:
    settings = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | environment
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        settings.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", LOCATE, model, *more],
        cwd=ROOT,
        env=settings,
        text=True,
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client asks for; `root` is the one repository, owner/tiny."""

    root: Path
    asked: list[str]
    revision = "a" * 40

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        names = [p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()]
        if path.startswith("/api/models/owner/tiny/tree/"):
            files = [{"type": "file", "path": n, "size": (self.root / n).stat().st_size, "oid": n} for n in names]
            self.send(json.dumps(files).encode(), body)
        elif path.startswith("/api/models/owner/tiny"):
            siblings = [{"rfilename": name} for name in names]
            self.send(json.dumps({"id": "owner/tiny", "sha": self.revision, "siblings": siblings}).encode(), body)
        elif path.startswith("/owner/tiny/resolve/") and (name := path.split("/", 5)[5]) in names:
            data = (self.root / name).read_bytes()
            if body:
                self.asked.append(name)
            self.send(data, body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def send(self, data: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.revision)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(folder: Path) -> Iterator[str]:
    """The address of a hub that holds `folder`, with files beside that nobody needs."""
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"large")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"large")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"large")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"large")
    Hub.root, Hub.asked = folder, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_hub_fetches_only_what_is_needed(hub: str, tmp_path: Path) -> None:
    weights = [
        "owner/tiny/unet/diffusion_pytorch_model.safetensors",
        "owner/tiny/vae/diffusion_pytorch_model.safetensors",
        "owner/tiny/text_encoder/model.safetensors",
    ]
    assert ask("owner/tiny", tmp_path / "hf", HF_ENDPOINT=hub) == ["sd", weights, weights]
    assert not [name for name in Hub.asked if name.endswith(".safetensors")], "a plan downloads no weights"
    assert ask("owner/tiny", tmp_path / "hf", "fetch", HF_ENDPOINT=hub) == ["sd", weights, []]
    assert not [name for name in Hub.asked if "fp16" in name or "safety" in name or name.endswith((".bin", ".ckpt"))]
    assert ask("owner/tiny", tmp_path / "hf", "fetch", HF_HUB_OFFLINE="1") == ["sd", [], []]
    away = "http://127.0.0.1:9"
    assert ask("owner/tiny", tmp_path / "hf", "fetch", HF_ENDPOINT=away) == ["sd", [], []]


def test_hub_says_no_in_one_line(hub: str, tmp_path: Path) -> None:
    assert "neither a path nor a public model" in str(ask("owner/other", tmp_path / "hf", HF_ENDPOINT=hub))


def test_a_hub_out_of_reach_takes_seconds(tmp_path: Path) -> None:
    began = time.monotonic()
    said = str(ask("owner/tiny", tmp_path / "hf", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "no model owner/tiny" in said
    assert "out of reach" in said
    assert "\n" not in said
    assert time.monotonic() - began < 15
    assert "offline" in str(ask("owner/tiny", tmp_path / "hf", HF_HUB_OFFLINE="1"))
