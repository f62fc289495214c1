"""Original files: names and configurations equal to diffusers' conversion, weights to the last bit."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders import single_file_utils as theirs
from safetensors.torch import save_file
from transformers import CLIPTextConfig

from noisette import checkpoint
from noisette.engines import openvino, torch_engine
from noisette.errors import UserError
from noisette.families import sdxl
from noisette.ldm_keys import REFINER, UNET, XL_CLIP, XL_OPEN_CLIP
from noisette.mapped import MappedTensors, as_float32
from noisette.noise import noise
from noisette.sampling import SAMPLERS
from tests import tiny_ldm
from tests.tiny import MERGES, clip_tokenizer

DDCONFIG = {
    "ch": 32,
    "ch_mult": [1, 1, 2, 2],
    "num_res_blocks": 2,
    "z_channels": 4,
    "in_channels": 3,
    "out_ch": 3,
}


def original_config(second: bool, in_channels: int) -> dict[str, Any]:
    """The yaml that belongs to a file of `tiny_ldm`."""
    unet: dict[str, Any] = {
        "in_channels": in_channels, "out_channels": 4, "model_channels": 64, "attention_resolutions": [1],
        "num_res_blocks": 2, "channel_mult": [1, 2], "transformer_depth": 1, "context_dim": 64,
    }  # fmt: skip
    unet |= {"num_head_channels": 64, "use_linear_in_transformer": True} if second else {"num_heads": 8}
    stage = {"params": {"ddconfig": DDCONFIG | {"resolution": 256}}}
    return {"model": {"params": {"unet_config": {"params": unet}, "first_stage_config": stage}}}


@pytest.mark.parametrize(("second", "in_channels"), [(False, 4), (False, 9), (True, 4), (True, 9)])
def test_weights_and_configurations_equal_diffusers(second: bool, in_channels: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = tiny_ldm.write(file, second, in_channels)
    found = checkpoint.locate(str(file))
    assert found.kind == ("sd" if in_channels == 4 else "sd-inpaint")
    ours = torch_engine.load(found)

    config = original_config(second, in_channels)
    unet_config = theirs.create_unet_diffusers_config_from_ldm(config, dict(tensors))
    vae_config = theirs.create_vae_diffusers_config_from_ldm(config, dict(tensors))
    for name, value in unet_config.items():
        if name != "sample_size" and value is not None:
            assert list_of(ours.unet.config[name]) == list_of(value), name
    for name in (
        "block_out_channels",
        "latent_channels",
        "layers_per_block",
        "scaling_factor",
        "up_block_types",
    ):
        assert list_of(ours.vae.config[name]) == list_of(vae_config[name]), name

    same(ours.unet.state_dict(), theirs.convert_ldm_unet_checkpoint(dict(tensors), unet_config))
    same(ours.vae.state_dict(), theirs.convert_ldm_vae_checkpoint(dict(tensors), vae_config))
    text = theirs.convert_ldm_clip_checkpoint(dict(tensors))
    if second:
        text = theirs.convert_open_clip_checkpoint(ours.text, dict(tensors))
    text = {n.removeprefix("text_model."): t for n, t in text.items() if "position_ids" not in n}
    text.pop("text_projection.weight", None)
    same({n.removeprefix("text_model."): t for n, t in ours.text.state_dict().items()}, text)


def list_of(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def same(ours: dict[str, torch.Tensor], converted: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == converted.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, converted[name]), name


@pytest.mark.parametrize("second", [False, True])
def test_whole_pipeline_from_single_file(second: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tiny_ldm.write(file, second)
    found = checkpoint.locate(str(file))
    networks = torch_engine.load(found)
    folder = tmp_path / "configs"
    StableDiffusionPipeline(
        vae=networks.vae,
        text_encoder=networks.text,
        tokenizer=clip_tokenizer(),
        unet=networks.unet,
        scheduler=DDIMScheduler.from_config(found.configs["scheduler"]),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    pipe = StableDiffusionPipeline.from_single_file(str(file), config=str(folder), safety_checker=None)
    same(dict(networks.unet.state_dict()), dict(pipe.unet.state_dict()))
    same(dict(networks.vae.state_dict()), dict(pipe.vae.state_dict()))
    same(dict(networks.text.state_dict()), dict(pipe.text_encoder.state_dict()))


@pytest.mark.parametrize("in_channels", [4, 9])
def test_xl_weights_and_configurations_equal_diffusers(in_channels: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = tiny_ldm.write_xl(file, in_channels)
    found = checkpoint.locate(str(file))
    assert found.kind == ("sdxl" if in_channels == 4 else "sdxl-inpaint")
    unet = found.configs["unet"]
    assert unet["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D"]
    assert (unet["transformer_layers_per_block"], unet["attention_head_dim"]) == ([1, 2], [1, 2])
    assert (unet["cross_attention_dim"], unet["addition_time_embed_dim"], unet["sample_size"]) == (192, 16, 128)
    assert found.configs["vae"]["scaling_factor"] == 0.13025
    assert [found.configs[name]["pad_token"] for name in ("tokenizer", "tokenizer_2")] == ["<|endoftext|>", "!"]
    text_2 = found.configs["text_encoder_2"]
    assert (text_2["num_hidden_layers"], text_2["hidden_act"], text_2["projection_dim"]) == (3, "gelu", 40)

    ours = torch_engine.load(found)
    same(ours.unet.state_dict(), theirs.convert_ldm_unet_checkpoint(dict(tensors), dict(ours.unet.config)))
    vae_config = dict(ours.vae.config)
    same(ours.vae.state_dict(), theirs.convert_ldm_vae_checkpoint(dict(tensors), vae_config))
    first = theirs.convert_ldm_clip_checkpoint(dict(tensors), remove_prefix=XL_CLIP)
    second = theirs.convert_open_clip_checkpoint(ours.texts["text_encoder_2"], dict(tensors), prefix=XL_OPEN_CLIP)
    for network, converted in (("text_encoder", first), ("text_encoder_2", second)):
        got = ours.texts[network].state_dict()
        same(
            {n.removeprefix("text_model."): t for n, t in got.items()},
            {n.removeprefix("text_model."): t for n, t in converted.items()},
        )


@pytest.mark.parametrize("engine", [torch_engine, openvino])
def test_an_xl_file_equals_its_folder(engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "merges.txt.gz").write_bytes(gzip.compress("\n".join(MERGES).encode()))
    monkeypatch.setattr(checkpoint, "CLIP_MERGES", tmp_path / "merges.txt.gz")
    file, folder = tmp_path / "model.safetensors", tmp_path / "folder"
    tiny_ldm.write_xl(file)
    networks = torch_engine.load(checkpoint.locate(str(file)))
    StableDiffusionXLPipeline(
        vae=networks.vae,
        text_encoder=networks.text,
        text_encoder_2=networks.texts["text_encoder_2"],
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(pad_token="!"),
        unet=networks.unet,
        scheduler=DDIMScheduler.from_config(checkpoint.locate(str(file)).configs["scheduler"]),
        add_watermarker=False,
    ).save_pretrained(folder)
    made = []
    for where in (file, folder):
        found = checkpoint.locate(str(where))
        model = sdxl.load(engine.load(found), found)
        prompt = model.encode_prompt("a green alien!!", "red house")
        levels = model.levels(2, "model", "euler")
        denoise = model.denoiser(prompt, 5.0, 0.0, (0.0, 1.0), levels)
        x = np.float32(np.hypot(*levels[0])) * noise(1, (1, 4, 8, 8))
        made.append(model.decode(SAMPLERS["euler"](denoise, x, levels, lambda: None)))
    np.testing.assert_allclose(made[0], made[1], atol=1e-5)
    assert made[0].std() > 1e-3


def test_xl_files_say_what_they_predict(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tiny_ldm.write_xl(file)
    plain = checkpoint.locate(str(file)).configs["scheduler"]
    assert (plain["prediction_type"], plain["rescale_betas_zero_snr"]) == ("epsilon", False)
    tiny_ldm.write_xl(file, v_pred=torch.zeros(0), ztsnr=torch.zeros(0))
    other = checkpoint.locate(str(file)).configs["scheduler"]
    assert (other["prediction_type"], other["rescale_betas_zero_snr"]) == ("v_prediction", True)


def test_an_xl_projection_of_half_precision_lies_transposed(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = tiny_ldm.write_xl(file)
    name = XL_OPEN_CLIP + "text_projection"
    want = tensors[name].T.bfloat16().float().numpy()
    save_file(tensors | {name: tensors[name].bfloat16()}, file)
    stored = checkpoint.locate(str(file)).tensors("text_encoder_2")
    np.testing.assert_array_equal(as_float32(MappedTensors(stored)("text_projection.weight")), want)
    np.testing.assert_array_equal(torch_engine.read(stored["text_projection.weight"]).float().numpy(), want)


def test_other_files_of_xl_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = tiny_ldm.write_xl(file)
    save_file({name: t for name, t in tensors.items() if not name.startswith(XL_CLIP)}, file)
    with pytest.raises(UserError, match=r"is not Stable Diffusion 1.x, 2.x or XL"):
        checkpoint.locate(str(file))
    refiner = {name.replace(XL_OPEN_CLIP, REFINER): t for name, t in tensors.items() if not name.startswith(XL_CLIP)}
    save_file(refiner, file)
    with pytest.raises(UserError, match="is a refiner"):
        checkpoint.locate(str(file))
    save_file(tensors | {"edm_mean": torch.zeros(4)}, file)
    with pytest.raises(UserError, match="EDMEulerScheduler's noise levels"):
        checkpoint.locate(str(file))
    save_file(tensors | {UNET + "label_emb.0.0.weight": torch.zeros(256, 137)}, file)
    with pytest.raises(UserError, match="sizes 136 wide for a UNet that takes 137"):
        checkpoint.locate(str(file))


def test_what_shapes_do_not_say(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tiny_ldm.write(file, second=True)
    assert checkpoint.locate(str(file)).configs["scheduler"]["prediction_type"] == "v_prediction"
    assert checkpoint.locate(str(file)).configs["unet"]["sample_size"] == 96
    base = checkpoint.locate(str(file), prediction_type="epsilon").configs
    assert (base["scheduler"]["prediction_type"], base["unet"]["sample_size"]) == ("epsilon", 64)
    assert base["tokenizer"]["pad_token"] == "!"
    tiny_ldm.write(file, second=False)
    first = checkpoint.locate(str(file)).configs
    assert (first["scheduler"]["prediction_type"], first["unet"]["sample_size"]) == ("epsilon", 64)


def test_text_encoder_of_1x_has_its_activation(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tiny_ldm.write(file, second=False)
    config = CLIPTextConfig(**checkpoint.locate(str(file)).configs["text_encoder"])
    assert (config.hidden_act, config.num_attention_heads, config.num_hidden_layers) == ("quick_gelu", 1, 2)


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down.weight": torch.zeros(3)}, file)
    with pytest.raises(UserError, match="not Stable Diffusion 1"):
        checkpoint.locate(str(file))


def test_a_unet_that_takes_neither_4_nor_9_channels_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pix2pix.safetensors"
    tiny_ldm.write(file, second=False, in_channels=8)
    with pytest.raises(UserError, match="8 input channels"):
        checkpoint.locate(str(file))
