"""Original files: names and configurations equal to diffusers' conversion, weights to the last bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.loaders import single_file_utils as theirs
from safetensors.torch import save_file
from transformers import CLIPTextConfig

from noisette import checkpoint
from noisette.engines import torch_engine
from noisette.errors import UserError
from tests import tiny_ldm
from tests.tiny import clip_tokenizer

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
