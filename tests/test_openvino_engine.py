"""The engine on whole checkpoints: the pipeline's numbers, its cache, and what it never imports."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from noisette.checkpoint import locate
from noisette.engines.openvino import cache as cache_module
from noisette.engines.openvino import load
from noisette.engines.openvino.cache import float32_copy
from noisette.errors import UserError
from noisette.mapped import MappedTensors, as_float32
from noisette.tensors import read_header
from tests import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "bert"
    tiny.save("bert", path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache_module, "SPARE_BYTES", 0)  # whatever the disk has
    monkeypatch.setattr(cache_module, "SPARE_SHARE", 0)
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


def prediction(folder: Path) -> np.ndarray:
    """One denoising step and what surrounds it, so that every network has run."""
    networks = load(locate(str(folder)))
    rng = np.random.default_rng(0)
    context = networks.encode_text(np.array([[1, 2, 3, 0]]), np.array([[1, 1, 1, 0]]))
    mean, _ = networks.encode_image(rng.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32))
    return networks.decode_image(networks.denoise(mean, 500.0, context))


@pytest.mark.parametrize("style", ["sd1", "sd2", "inpaint", "bert"])
def test_networks_equal_the_pipeline(style: str, tmp_path: Path, cache: Path) -> None:
    pipeline = tiny.save(style, tmp_path / style)
    networks = load(locate(str(tmp_path / style)))
    ids, mask = np.array([[1, 2, 3, 4, 0], [5, 6, 0, 0, 0]]), np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    mask = mask if style == "bert" else None
    context = networks.encode_text(ids, mask)
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((2, pipeline.unet.config.in_channels, 8, 12), np.float32)
    pixels = rng.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    latents = sample[:1, : pipeline.vae.config.latent_channels]
    with torch.inference_mode():
        states = pipeline.text_encoder(torch.tensor(ids), None if mask is None else torch.tensor(mask))[0]
        noise = pipeline.unet(torch.tensor(sample), 321, states).sample
        posterior = pipeline.vae.encode(torch.tensor(pixels)).latent_dist
        decoded = pipeline.vae.decode(torch.tensor(latents)).sample
    np.testing.assert_allclose(context, states.numpy(), atol=5e-5)
    np.testing.assert_allclose(networks.denoise(sample, 321.0, context), noise.numpy(), atol=5e-5)
    mean, logvar = networks.encode_image(pixels)
    np.testing.assert_allclose(mean, posterior.mean.numpy(), atol=5e-5)
    np.testing.assert_allclose(logvar, posterior.logvar.numpy(), atol=5e-5)
    np.testing.assert_allclose(networks.decode_image(latents), decoded.numpy(), atol=5e-5)


def test_each_prompt_has_its_own_context(folder: Path, cache: Path) -> None:
    networks = load(locate(str(folder)))
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((1, 16, 4, 4), np.float32)
    prompts = [rng.standard_normal((1, 6, 32), np.float32) for _ in range(6)]
    first = [networks.denoise(sample, 5.0, prompt) for prompt in prompts]
    again = [networks.denoise(sample, 5.0, prompt) for prompt in prompts]
    np.testing.assert_array_equal(first, again)
    assert len({array.tobytes() for array in first}) == len(prompts)


def test_the_cache_is_used_and_gives_the_same_numbers(folder: Path, cache: Path) -> None:
    built = prediction(folder)
    blobs = {path: path.stat().st_mtime_ns for path in cache.glob("*.blob")}
    assert len(blobs) == 5
    np.testing.assert_array_equal(prediction(folder), built)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*.blob")} == blobs


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_blob_is_built_again(damage: str, folder: Path, cache: Path) -> None:
    built = prediction(folder)
    for path in cache.glob("*.blob"):
        data = bytearray(path.read_bytes())
        if damage == "flip":
            data[len(data) // 2] ^= 1
        path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b"", "other": b"x" * 999}[damage])
    np.testing.assert_array_equal(prediction(folder), built)
    np.testing.assert_array_equal(prediction(folder), built)


def test_other_weights_under_the_same_name_are_compiled_anew(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "model"
    made = tiny.save("bert", folder)
    before = prediction(folder)
    with torch.no_grad():
        made.unet.conv_out.bias += 1
    made.unet.save_pretrained(folder / "unet")
    assert not np.array_equal(prediction(folder), before)
    assert len(list(cache.glob("*.blob"))) == 5


def test_without_a_writable_cache_it_works(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("NOISETTE_CACHE", str(blocked))
    assert np.isfinite(prediction(folder)).all()


def test_processes_share_the_cache(folder: Path, cache: Path) -> None:
    call = f"t.prediction(pathlib.Path({str(folder)!r})).sum()"
    code = f"import pathlib, tests.test_openvino_engine as t; print({call})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def one(_: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(one, range(3)))) == 1
    assert not list(cache.glob("*.part"))


def test_no_torch_is_imported(folder: Path, cache: Path) -> None:
    code = f"""
import sys
from noisette.checkpoint import locate
from noisette.engines.openvino import load
from noisette.engines.openvino import cache as cache_module
from noisette.engines.openvino.cache import float32_copy
import numpy as np
networks = load(locate({str(folder)!r}))
networks.denoise(np.zeros((1, 16, 4, 4), np.float32), 1.0, networks.encode_text(np.array([[1, 2]]), None))
print([name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_precision_is_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match="float32"):
        load(locate(str(folder)), precision="int3")


def test_after_an_error_what_has_not_begun_is_dropped(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end = [], threading.Event()

    def compiled(core: Any, build: Any, properties: Any, folder: Path, group: str, key: str) -> Any:
        begun.append(group.partition("-")[0])
        if begun[-1] == "text_encoder":
            raise UserError("damaged")
        end.wait(60)
        return None, None

    monkeypatch.setattr("noisette.engines.openvino.engine.compiled", compiled)
    networks = load(locate(str(folder)))
    with pytest.raises(UserError, match="damaged"):
        networks.encode_text(np.array([[1, 2]]), None)
    end.set()
    networks._pool.shutdown()
    assert set(begun) <= {"unet", "text_encoder", "unet_context"}  # two at a time, and a third beside the failure


def test_kept_features_serve_until_the_next_full_step(folder: Path, cache: Path) -> None:
    networks = load(locate(str(folder)))
    rng = np.random.default_rng(0)
    context = rng.standard_normal((1, 6, 32), np.float32)
    first, then = (rng.standard_normal((1, 16, 4, 4), np.float32) for _ in range(2))
    full = networks.denoise(first, 500.0, context)
    np.testing.assert_allclose(networks.denoise(first, 500.0, context, reuse=True), full, atol=1e-5)
    kept = networks.denoise(then, 400.0, context, reuse=True)
    assert np.abs(kept - networks.denoise(then, 400.0, context)).max() > 1e-3


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A checkpoint in half precision."""
    tiny.pipeline("bert").to(torch.float16).save_pretrained(tmp_path / "half")
    return tmp_path / "half"


def test_a_large_network_in_half_precision_is_kept_as_float32(
    half: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prediction(half)
    for path in cache.glob("*.blob"):
        path.unlink()
    monkeypatch.setattr("noisette.engines.openvino.cache.LARGEST", 0)  # compiled forms are not kept
    monkeypatch.setattr("noisette.engines.openvino.engine.LARGEST", 0)
    written = []
    write = cache_module.write_float32
    monkeypatch.setattr(cache_module, "write_float32", lambda file, ts: (written.append(set(ts)), write(file, ts)))
    disk = threading.Event()
    monkeypatch.setattr("noisette.engines.openvino.cache.os.fsync", lambda file: disk.wait(60))
    np.testing.assert_array_equal(prediction(half), small)
    disk.set()
    settled()
    assert written.count(set(locate(str(half)).tensors("unet"))) == 1  # its two graphs share it, on the disk or not
    copies = {path: path.stat().st_ino for path in cache.glob("unet-*.safetensors")}
    assert len(copies) == 1
    np.testing.assert_array_equal(prediction(half), small)
    assert {path: path.stat().st_ino for path in cache.glob("unet-*.safetensors")} == copies
    assert not [*cache.glob("*.part"), *cache.glob("*.blob")]


def settled() -> None:
    """Waits until the disk has what is being written."""
    for thread in [thread for thread in threading.enumerate() if thread.name.startswith("settle")]:
        thread.join()


def test_a_copy_serves_at_once_and_others_when_the_disk_has_it(
    half: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = locate(str(half)).tensors("unet")
    disk = threading.Event()
    monkeypatch.setattr("noisette.engines.openvino.cache.os.fsync", lambda file: disk.wait(60))
    first = float32_copy(tensors, cache, "unet-y", [])
    path = next(cache.glob("unet-y-*"))
    name = next(iter(tensors))
    np.testing.assert_array_equal(MappedTensors(first)(name), as_float32(MappedTensors(tensors)(name)))
    with pytest.raises(UserError, match="cut short"):  # as after a power cut
        read_header(path)
    disk.set()
    settled()
    assert read_header(path) == first


def test_a_torn_copy_is_written_again_and_an_old_one_goes(half: Path, cache: Path) -> None:
    tensors = locate(str(half)).tensors("unet")
    wanted = {name: as_float32(MappedTensors(tensors)(name)) for name in tensors}
    assert {tensor.dtype for tensor in tensors.values()} == {"F16"}

    def copied(files: list[int]) -> None:
        found = float32_copy(tensors, cache, "unet-x", files)
        assert {tensor.dtype for tensor in found.values()} == {"F32"}
        for name, array in wanted.items():
            np.testing.assert_array_equal(MappedTensors(found)(name), array)
        settled()

    copied([1])
    path = next(cache.glob("unet-x-*"))
    assert read_header(path)
    path.write_bytes(path.read_bytes()[:-5])
    copied([1])
    copied([2])
    assert len(list(cache.glob("unet-x-*"))) == 1
    assert not path.exists()


@pytest.mark.parametrize(("total", "free", "kept"), [(50, 20, True), (50, 4, False), (10, 3, False), (50, 3, False)])
def test_a_copy_that_would_fill_the_disk_is_not_written(
    total: int, free: int, kept: bool, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 GB and a tenth of the disk stay free."""
    tensors = locate(str(half)).tensors("unet")
    usage = SimpleNamespace(total=total * 10**9, free=free * 10**9, used=0)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: usage)
    found = float32_copy(tensors, tmp_path / "copies", "unet-x", [])
    settled()
    assert (found is not tensors) == kept
    assert len(list((tmp_path / "copies").iterdir())) == kept


def test_the_least_recently_used_copies_go_beyond_their_bytes(
    half: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = locate(str(half)).tensors("unet")

    def used(group: str) -> None:
        float32_copy(tensors, cache, group, [])
        settled()

    used("unet-a")
    one = next(cache.iterdir()).stat().st_size
    monkeypatch.setattr(cache_module, "COPIES", 3 * one)
    (cache / "torn.part").write_bytes(bytes(one))
    for age, name in ((9, "torn.part"), (3, next(cache.glob("unet-a-*")).name)):
        os.utime(cache / name, (time.time() - age, time.time() - age))
    used("unet-b")
    used("unet-a")
    held = MappedTensors(read_header(next(cache.glob("unet-b-*"))))
    held.map()
    os.utime(next(cache.glob("unet-b-*")), (1, 1))
    name = next(iter(tensors))
    used("unet-c")
    used("unet-d")
    assert {path.name[:6] for path in cache.iterdir()} == {"unet-a", "unet-c", "unet-d"}
    np.testing.assert_array_equal(held(name), as_float32(MappedTensors(tensors)(name)))  # in use elsewhere
    monkeypatch.setattr(cache_module, "COPIES", one // 2)
    assert float32_copy(tensors, cache, "unet-e", []) is tensors
    assert len(list(cache.iterdir())) == 3


def test_a_copy_taken_away_by_another_process_is_done_without(
    half: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prediction(half)
    for path in cache.glob("*.blob"):
        path.unlink()
    monkeypatch.setattr("noisette.engines.openvino.cache.LARGEST", 0)
    monkeypatch.setattr("noisette.engines.openvino.engine.LARGEST", 0)

    def stolen(*given: Any) -> Any:
        found = float32_copy(*given)
        settled()
        next(iter(found.values())).path.unlink()
        return found

    monkeypatch.setattr("noisette.engines.openvino.engine.float32_copy", stolen)
    np.testing.assert_array_equal(prediction(half), small)


def test_a_copy_whose_part_is_taken_away_is_done_without(
    half: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = cache_module.write_float32

    def stolen(file: Any, tensors: Any) -> None:
        write(file, tensors)
        next(cache.glob("*.part")).unlink()

    monkeypatch.setattr(cache_module, "write_float32", stolen)
    tensors = locate(str(half)).tensors("unet")
    assert float32_copy(tensors, cache, "unet-x", []) is tensors
    assert not list(cache.iterdir())


def test_where_no_copy_can_be_written_the_weights_serve_as_they_are(half: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    tensors = locate(str(half)).tensors("unet")
    assert float32_copy(tensors, tmp_path / "file" / "openvino", "unet-x", []) is tensors
