"""int8: made once from a model's own trajectories, used only when asked, near float32, run without nncf."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from diffusers import MotionAdapter
from openvino import opset13 as ops

from noisette import cli, optimized
from noisette import optimize as making
from noisette.checkpoint import locate
from noisette.engines.openvino import load, quantize
from noisette.errors import UserError
from noisette.noise import noise
from noisette.plan import plan
from noisette.recipe import Recipe, from_mapping, parse
from tests import tiny
from tests.process import run_python


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, object]]:
    """A tiny checkpoint, the cache in which its int8 networks lie, and the report on them."""
    folder, cache = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("cache")
    tiny.save("sd1", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOISETTE_CACHE", str(cache))
        patch.setattr(making, "HELD_OUT", ("a fox",))
        patch.setattr(making, "HELD_OUT_STEPS", 2)
        report = making.optimize(str(folder), 2, lambda line: None)
    return folder, cache, report


@pytest.mark.slow
def test_stable_diffusion_xl_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(making, "HELD_OUT", ("a fox",))
    monkeypatch.setattr(making, "HELD_OUT_STEPS", 1)
    tiny.save("sdxl", tmp_path / "model")
    report = making.optimize(str(tmp_path / "model"), 1, lambda line: None)
    assert 20 < report["psnr"]["mean"] < 80


@pytest.fixture
def folder(made: tuple[Path, Path, dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOISETTE_CACHE", str(made[1]))
    return made[0]


def test_it_stays_near_float32_and_is_not_the_same(folder: Path) -> None:
    sample, context = noise(0, (2, 4, 8, 8)), noise(1, (2, 77, 32))
    wanted, found = (
        load(locate(str(folder)), precision=p).denoise(sample, 500.0, context) for p in ("float32", "int8")
    )
    error = np.abs(found - wanted).mean() / np.abs(wanted).mean()
    assert 1e-4 < error < 0.1


def test_weights_are_stored_as_int8(folder: Path) -> None:
    for path in optimized.files_of(locate(str(folder))).values():
        types = [n.get_element_type().get_type_name() for n in ov.Core().read_model(path).get_ops()
                 if n.get_type_name() == "Constant"]  # fmt: skip
        assert types.count("i8") > 5


def test_the_report_is_kept_beside(made: tuple[Path, Path, dict[str, object]], folder: Path) -> None:
    assert optimized.report_of(locate(str(folder))) == made[2]
    assert set(made[2]) >= {"float_layers", "psnr", "decoder_psnr", "step_ratio", "decode_ratio"}
    assert not list(made[1].glob("optimized/*.part"))


def test_running_it_needs_no_nncf(folder: Path, tmp_path: Path) -> None:
    arguments = ["--prompt", "a cat", "--model", str(folder), "--steps", "1", "--precision", "int8", "--out",
                 str(tmp_path), "--seed", "1"]  # fmt: skip
    run_python(
        "import sys; sys.modules['nncf'] = None; from noisette.cli import run;"
        f"assert run('image', {arguments}) == 0; assert 'torch' not in sys.modules"
    )
    from noisette.metadata import read_metadata

    provenance = read_metadata(next(tmp_path.glob("*.png")))["provenance"]
    assert provenance["precision"] == "int8"
    assert provenance["optimized"] == optimized.folder_of(locate(str(folder))).name


def test_without_it_int8_is_one_line_naming_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "empty"))
    tiny.save("sd1", tmp_path / "model")
    with pytest.raises(UserError, match=r"python3 -m noisette optimize .*model$"):
        plan(Recipe(model=str(tmp_path / "model"), precision="int8", engine="openvino"))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"engine": "torch"}, "--engine openvino"),
        ({"engine": "openvino", "lora": "a.safetensors"}, "can't be merged"),
    ],
)
def test_what_int8_does_not_go_with(fields: dict[str, str], line: str, folder: Path) -> None:
    with pytest.raises(UserError, match=line):
        plan(Recipe(model=str(folder), precision="int8", **fields))


def test_int8_does_not_go_with_motion_modules(folder: Path, tmp_path: Path) -> None:
    """It asked for `noisette optimize`, however often that was run."""
    asked = Recipe(model=str(folder), precision="int8", num_frames=5, img_w=64, img_h=64, prompt="a cat", seed="1")
    widths = locate(str(folder)).configs["unet"]["block_out_channels"]
    motion = MotionAdapter(
        block_out_channels=widths, motion_layers_per_block=1, motion_num_attention_heads=4, motion_norm_num_groups=8
    )
    motion.save_pretrained(tmp_path / "motion")
    with pytest.raises(UserError, match=r"does not go with motion modules .*--motion_adapter none"):
        plan(replace(asked, motion_adapter=str(tmp_path / "motion")), download=False)
    assert plan(replace(asked, motion_adapter="none"), download=False).engine == "openvino"


def test_other_weights_are_not_served_by_it(folder: Path, tmp_path: Path) -> None:
    pipeline = tiny.save("sd1", tmp_path)
    assert optimized.files_of(locate(str(tmp_path)))  # the same weights elsewhere
    pipeline.unet.conv_out.bias.data += 1
    pipeline.unet.save_pretrained(tmp_path / "unet")
    assert not optimized.files_of(locate(str(tmp_path)))


@pytest.mark.parametrize("count", ["0", "257", "-1", "many"])
def test_a_strange_number_of_pictures_is_one_line(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run("optimize", ["noisette-1", f"--pictures={count}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_nncf_it_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="requirements-torch"):
        making.optimize("noisette-1", 1, print)


def test_short_names_of_precisions() -> None:
    assert [parse("precision", name) for name in ("fp32", "bf16", "fp16", "int8")] == [
        "float32", "bfloat16", "float16", "int8",
    ]  # fmt: skip
    with pytest.raises(UserError):
        from_mapping({"precision": "int4"})


def two_layers() -> ov.Model:
    """Two linear layers of 8 to 8."""
    first = x = ops.parameter([1, 8], np.float32, name="x")
    x.output(0).get_tensor().set_names({"x"})
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        layer = ops.matmul(x, ops.constant(rng.standard_normal((8, 8)).astype(np.float32)), False, True)
        layer.set_friendly_name(name)
        x = ops.relu(layer)
    return ov.Model([ops.result(x)], [first], "two")


def test_multiplications_are_counted() -> None:
    assert quantize.multiplications(two_layers(), {"x": np.zeros((1, 8), np.float32)}) == {"one": 64, "two": 64}


def test_a_layer_put_back_is_float_again() -> None:
    samples = [{"x": np.random.default_rng(i).standard_normal((1, 8)).astype(np.float32)} for i in range(8)]
    wanted = quantize.outputs(two_layers(), samples)
    int8 = quantize.calibrated(two_layers(), samples, [])
    back = quantize.unquantized(int8, two_layers(), ["one", "two"])
    assert quantize.squared_error(quantize.outputs(int8, samples), wanted) > 1e-6
    assert quantize.squared_error(quantize.outputs(back, samples), wanted) < 1e-10


def test_groups() -> None:
    assert quantize.group_of("down_blocks.0.resnets.1.conv1") == "down_blocks.0.resnets.1"
    assert quantize.group_of("down_blocks.0.resnets.1.conv_shortcut") == "down_blocks.0.resnets.1.conv_shortcut"
    assert quantize.group_of("mid_block.resnets.0.time_emb_proj") == "time embedding"
    assert quantize.group_of("decoder.conv_in") == "decoder.conv_in"
