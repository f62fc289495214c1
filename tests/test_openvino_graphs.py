"""The graphs against diffusers and transformers: random weights of every build, several sizes each."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from noisette.engines.openvino import text, unet, vae
from noisette.engines.openvino.engine import build_graph, run
from noisette.engines.openvino.graph import Weights
from noisette.errors import UserError
from noisette.tensors import check_all_used

CORE = ov.Core()
TOLERANCE = 2e-5
SMALL = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"layers_per_block": 2},
    "sd2": {"attention_head_dim": (4, 8), "use_linear_projection": True, "upcast_attention": True},
    "inpaint": {"in_channels": 9},
    "sdxl": {
        "attention_head_dim": (4, 8),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 68,
    },
    "noisette-1": {
        "in_channels": 16,
        "out_channels": 16,
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (4, 8, 4),
        "resnet_time_scale_shift": "scale_shift",
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 4,
    },
    "only-cross": {
        "only_cross_attention": (True, False),
        "downsample_padding": 0,
        "mid_block_scale_factor": 2,
    },
    "projected-text": {"encoder_hid_dim": 24, "encoder_hid_dim_type": "text_proj", "act_fn": "gelu"},
    "no-mid-attention": {"mid_block_type": "UNetMidBlock2D", "center_input_sample": True, "freq_shift": 1},
}


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """Norms and biases away from their 1 and 0, so that each of them counts."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return module.eval()


def arrays_of(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def compile_model(model: ov.Model) -> ov.CompiledModel:
    return CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", UNETS)
def test_unet_equals_diffusers(name: str) -> None:
    reference = randomized(UNet2DConditionModel(**(SMALL | UNETS[name])))
    config, arrays = dict(reference.config), arrays_of(reference)
    weights = Weights(arrays.__getitem__, "unet")
    context_graph, step_graph = unet.build_unet(config, weights)
    context_model, step_model = compile_model(context_graph), compile_model(step_graph)
    shallow_model = compile_model(unet.shallow(step_graph))
    check_all_used("unet", arrays, weights.used, "a file")
    rng = np.random.default_rng(0)
    for batch, height, width, tokens, timestep in [
        (2, 16, 16, 7, 999),
        (1, 8, 24, 32, 1),
        (2, 13, 18, 5, 421.5),
    ]:
        sample = rng.standard_normal((batch, config["in_channels"], height, width), np.float32)
        context = rng.standard_normal((batch, tokens, config["encoder_hid_dim"] or 32), np.float32)
        inputs, added = {"context": context}, {}
        if config["addition_embed_type"] == "text_time":
            pooled = rng.standard_normal((batch, 20), np.float32)
            sizes = np.array([[64, 64, 0, 0, 64, 64]] * batch, np.float32)
            inputs["added_features"] = unet.added_features(config, pooled, sizes)
            added = {"text_embeds": torch.tensor(pooled), "time_ids": torch.tensor(sizes)}
        with torch.inference_mode():
            args = torch.tensor(sample), torch.tensor(timestep), torch.tensor(context)
            expected = reference(*args, added_cond_kwargs=added).sample.numpy()
        carried = run(context_model, inputs)
        features = unet.time_features(config, timestep)
        found = run(step_model, {"sample": sample, "time_features": features, **carried})
        np.testing.assert_allclose(found["prediction"], expected, atol=TOLERANCE * max(1.0, np.abs(expected).max()))
        given = {"sample": sample, "time_features": features, "deep": found["deep"], **carried}
        needed = {port.any_name for port in shallow_model.inputs}
        again = run(shallow_model, {name: array for name, array in given.items() if name in needed})["prediction"]
        np.testing.assert_allclose(again, found["prediction"], atol=TOLERANCE)
    assert len(needed) < len(given)
    assert len(shallow_model.get_runtime_model().get_ops()) < len(step_model.get_runtime_model().get_ops()) / 2


KL = {"norm_num_groups": 8, "latent_channels": 4}
VAES: dict[str, dict[str, Any]] = {
    "sd1": {"block_out_channels": (16, 32, 32), "layers_per_block": 2},
    "noisette-1": {
        "block_out_channels": (16, 16, 32, 32, 48),
        "layers_per_block": 1,
        "latent_channels": 16,
        "mid_block_add_attention": False,
    },
    "no-quant-conv": {"block_out_channels": (16, 32), "use_quant_conv": False, "use_post_quant_conv": False},
}


@pytest.mark.parametrize("name", VAES)
def test_autoencoder_kl_equals_diffusers(name: str) -> None:
    blocks = len(VAES[name]["block_out_channels"])
    kinds = {
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
    }
    reference = randomized(AutoencoderKL(**(KL | kinds | VAES[name])))
    arrays = arrays_of(reference)
    weights = Weights(arrays.__getitem__, "vae")
    encoder = compile_model(vae.build_encoder(reference.config, weights))
    decoder = compile_model(vae.build_decoder(reference.config, weights))
    check_all_used("vae", arrays, weights.used, "a file")
    rng, factor = np.random.default_rng(0), 2 ** (blocks - 1)
    for batch, height, width in [(1, 4, 4), (2, 3, 6)]:
        latents = rng.standard_normal((batch, reference.config.latent_channels, height, width), np.float32)
        pixels = rng.uniform(-1, 1, (batch, 3, height * factor, width * factor)).astype(np.float32)
        with torch.inference_mode():
            decoded = reference.decode(torch.tensor(latents)).sample.numpy()
            posterior = reference.encode(torch.tensor(pixels)).latent_dist
        np.testing.assert_allclose(run(decoder, {"latents": latents})["pixels"], decoded, atol=TOLERANCE)
        mean, logvar = np.split(run(encoder, {"pixels": pixels})["moments"], 2, axis=1)
        np.testing.assert_allclose(mean, posterior.mean.numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(np.clip(logvar, -30, 20), posterior.logvar.numpy(), atol=TOLERANCE)


def test_autoencoder_tiny_equals_diffusers() -> None:
    channels = {"encoder_block_out_channels": (16, 16, 16), "decoder_block_out_channels": (16, 16, 16)}
    reference = AutoencoderTiny(**channels, num_encoder_blocks=(1, 2, 2), num_decoder_blocks=(2, 2, 1)).eval()
    config = dict(reference.config) | {"_class_name": "AutoencoderTiny"}
    arrays = arrays_of(reference)
    weights = Weights(arrays.__getitem__, "vae")
    encoder = compile_model(vae.build_encoder(config, weights))
    decoder = compile_model(vae.build_decoder(config, weights))
    check_all_used("vae", arrays, weights.used, "a file")
    for height, width in [(8, 8), (5, 9)]:
        latents, pixels = torch.randn(1, 4, height, width), torch.rand(2, 3, 4 * height, 4 * width) * 2 - 1
        with torch.inference_mode():
            decoded, encoded = reference.decode(latents).sample, reference.encode(pixels).latents
        got = run(decoder, {"latents": latents.numpy()})["pixels"]
        np.testing.assert_allclose(got, decoded.numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(
            run(encoder, {"pixels": pixels.numpy()})["moments"], encoded.numpy(), atol=TOLERANCE
        )


OTHER_TINY: dict[str, Any] = {  # nothing as it is by default
    "in_channels": 4, "out_channels": 4,
    "encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (16,) * 3,
    "num_encoder_blocks": (2, 1), "num_decoder_blocks": (1, 3, 2), "act_fn": "silu", "latent_channels": 6,
    "upsampling_scaling_factor": 3, "latent_magnitude": 5, "latent_shift": 0.25, "scaling_factor": 0.7,
}  # fmt: skip


def test_autoencoder_tiny_of_any_configuration_equals_diffusers() -> None:
    reference = randomized(AutoencoderTiny(**OTHER_TINY))
    config = dict(reference.config) | {"_class_name": "AutoencoderTiny"}
    arrays = arrays_of(reference)
    graphs = (build_graph(f"vae_{part}", config, arrays.__getitem__, arrays, "") for part in ("encoder", "decoder"))
    encoder, decoder = map(compile_model, graphs)
    latents, pixels = torch.randn(2, 6, 3, 5), torch.rand(2, 4, 6, 10) * 2 - 1
    with torch.inference_mode():
        decoded, encoded = reference.decode(latents).sample, reference.encode(pixels).latents
    assert decoded.shape == (2, 4, 27, 45)
    np.testing.assert_allclose(run(decoder, {"latents": latents.numpy()})["pixels"], decoded.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(run(encoder, {"pixels": pixels.numpy()})["moments"], encoded.numpy(), atol=TOLERANCE)


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "vocab_size": 99,
}


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_clip_equals_transformers(act: str) -> None:
    reference = randomized(CLIPTextModel(CLIPTextConfig(**SIZES, hidden_act=act, architectures=["CLIPTextModel"])))
    model = text_model(reference)
    for tokens in (77, 5):
        ids = np.random.default_rng(0).integers(0, 99, (2, tokens))
        with torch.inference_mode():
            expected = reference(torch.tensor(ids), output_hidden_states=True)
        got = run(model, {"ids": ids, "mask": np.ones_like(ids)})
        np.testing.assert_allclose(got["last"], expected.last_hidden_state.numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(got["hidden"], expected.hidden_states[-2].numpy(), atol=TOLERANCE)


def test_clip_with_projection_and_padding_equals_transformers() -> None:
    config = CLIPTextConfig(**SIZES, hidden_act="gelu", projection_dim=20, eos_token_id=98)
    reference = randomized(CLIPTextModelWithProjection(config))
    ids, mask = np.full((2, 9), 98), np.zeros((2, 9), np.int64)
    ids[0, :4], ids[1, :6] = [1, 2, 3, 98], [4, 5, 6, 7, 8, 98]
    mask[0, :4], mask[1, :6] = 1, 1
    with torch.inference_mode():
        expected = reference(torch.tensor(ids), torch.tensor(mask), output_hidden_states=True)
    got = run(text_model(reference), {"ids": ids, "mask": mask})
    for row, length in enumerate((4, 6)):
        wanted = expected.hidden_states[-2].numpy()[row, :length]
        np.testing.assert_allclose(got["hidden"][row, :length], wanted, atol=TOLERANCE)
    arrays = arrays_of(reference)
    pooled = got["last"][[0, 1], [3, 5]] @ arrays["text_projection.weight"].T
    np.testing.assert_allclose(pooled, expected.text_embeds.numpy(), atol=TOLERANCE)


def test_bert_equals_transformers() -> None:
    reference = randomized(BertModel(BertConfig(**SIZES, max_position_embeddings=64)))
    model = text_model(reference)
    for tokens, real in ((32, 7), (5, 5)):
        ids = np.random.default_rng(0).integers(0, 99, (2, tokens))
        mask = (np.arange(tokens) < real).astype(np.int64)[None].repeat(2, 0)
        with torch.inference_mode():
            expected = reference(torch.tensor(ids), torch.tensor(mask)).last_hidden_state.numpy()
        np.testing.assert_allclose(run(model, {"ids": ids, "mask": mask})["last"], expected, atol=TOLERANCE)


def text_model(reference: Any) -> ov.CompiledModel:
    config = reference.config.to_dict() | {"architectures": [type(reference).__name__]}
    return compile_model(text.build_text_encoder(config, Weights(arrays_of(reference).__getitem__, "text_encoder")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_computed_in_float32(dtype: torch.dtype) -> None:
    reference = randomized(UNet2DConditionModel(**SMALL)).to(dtype).float()
    arrays = {name: tensor.to(dtype) for name, tensor in reference.state_dict().items()}

    def get(name: str) -> np.ndarray:
        if dtype == torch.float16:
            return arrays[name].numpy()
        return arrays[name].view(torch.uint16).numpy().view(np.dtype(np.uint16, metadata={"type": "bfloat16"}))

    context_model, step_model = map(compile_model, unet.build_unet(reference.config, Weights(get, "unet")))
    sample, context = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 32)
    with torch.inference_mode():
        expected = reference(sample, 10, context).sample.numpy()
    features = unet.time_features(reference.config, 10)
    carried = run(context_model, {"context": context.numpy()})
    got = run(step_model, {"sample": sample.numpy(), "time_features": features, **carried})["prediction"]
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def tensors_and_config(**changes: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    reference = UNet2DConditionModel(**SMALL)
    return arrays_of(reference), dict(reference.config) | changes


def refused(arrays: dict[str, np.ndarray], config: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        build_graph("unet", config, arrays.__getitem__, arrays, "a file")
    return str(caught.value)


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    message = refused(*tensors_and_config(cross_attention_dim=48))
    assert "to_k.weight" in message
    assert "[32, 32]" in message
    assert "[32, 48]" in message


def test_a_missing_tensor_and_a_tensor_too_many_are_named() -> None:
    arrays, config = tensors_and_config()
    fewer = {name: array for name, array in arrays.items() if name != "conv_in.weight"}
    assert "conv_in.weight" in refused(fewer, config)
    assert "extra.weight" in refused(arrays | {"extra.weight": np.zeros(1, np.float32)}, config)


@pytest.mark.parametrize(
    "changes",
    [
        {"down_block_types": ("KDownBlock2D", "DownBlock2D")},
        {"up_block_types": ("UpBlock2D", "SimpleCrossAttnUpBlock2D")},
        {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
        {"class_embed_type": "timestep"},
        {"act_fn": "snake"},
    ],
)
def test_what_only_torch_can_is_named_and_torch_offered(changes: dict[str, Any]) -> None:
    message = refused(*tensors_and_config(**changes))
    assert "--engine torch" in message
    value = next(iter(changes.values()))
    assert (value if isinstance(value, str) else next(v for v in value if "Down" in v or "Up" in v)) in message or (
        "SimpleCrossAttnUpBlock2D" in message
    )
