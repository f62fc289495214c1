"""Stable Diffusion XL equals diffusers' pipelines on both engines: texts, sizes, the UNet, pictures."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from noisette import modes
from noisette.adapters import with_clip_skip
from noisette.checkpoint import Checkpoint, locate
from noisette.engines import openvino, torch_engine
from noisette.errors import UserError
from noisette.families import sdxl
from noisette.generate import generate
from noisette.journal import Journal
from noisette.lora import read_lora
from noisette.mapped import MappedTensors
from noisette.motion import along
from noisette.noise import Noise
from noisette.plan import plan
from noisette.recipe import Recipe
from noisette.sampling import SAMPLERS
from tests import tiny
from tests.test_families_sd import check

STEPS, SEED, SIDE = 4, 1024, 64
PROMPT, NEGATIVE = "a green alien, 4k!!", "red house"
ENGINES: dict[str, Any] = {"torch": torch_engine, "openvino": openvino}
KINDS = {
    "text2img": diffusers.StableDiffusionXLPipeline,
    "img2img": diffusers.StableDiffusionXLImg2ImgPipeline,
    "inpainting": diffusers.StableDiffusionXLInpaintPipeline,
}
SCHEDULERS = {"ddim": diffusers.DDIMScheduler, "euler": diffusers.EulerDiscreteScheduler}
BASE = np.random.RandomState(0).randint(0, 256, (SIDE, SIDE, 3), np.uint8)
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[16:48, 16:64] = 255
both_engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))


@cache
def saved(style: str) -> tuple[Path, Any]:
    """A folder and diffusers' pipeline of the same weights."""
    folder = Path(mkdtemp())
    return folder, tiny.save(style, folder)


def model(style: str, engine: str, found: Checkpoint | None = None) -> sdxl.StableDiffusionXL:
    """Our model of those weights."""
    found = found or locate(str(saved(style)[0]))
    return sdxl.load(ENGINES[engine].load(found), found)


def ours(style: str, engine: str, mode: str, sampler: str, **fields: Any) -> np.ndarray:
    """Final latents by the way that `generate` goes."""
    found = model(style, engine)
    recipe = Recipe(**{
        "prompt": PROMPT, "negative_prompts": NEGATIVE, "num_inference_steps": STEPS, "sampler": sampler,
        "schedule": "model", "guidance_scale": 5.0, **fields,
    })  # fmt: skip
    base = (BASE.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    mask = (MASK / 255).astype(np.float32)[None, None]
    prompt = found.encode_prompt(recipe.prompt, recipe.negative_prompts)
    start = modes.MODES[mode](modes.Job(found, prompt, recipe, [Noise(SEED)], (), SIDE, SIDE, base, mask))
    return start.end(SAMPLERS[sampler](start.denoise, start.x, start.levels, start.noise, start.callback))


def theirs(style: str, mode: str, sampler: str, **arguments: Any) -> np.ndarray:
    """Final latents of the diffusers pipeline of a mode."""
    unused = ("image_encoder", "feature_extractor")
    parts = {name: part for name, part in saved(style)[1].components.items() if name not in unused}
    parts["scheduler"] = SCHEDULERS[sampler].from_config(parts["scheduler"].config)
    pipe = KINDS[mode](**parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    if mode == "text2img":
        arguments |= {"height": SIDE, "width": SIDE}
    result = pipe(**{
        "prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "output_type": "latent",
        "generator": torch.Generator().manual_seed(SEED), "guidance_scale": 5.0, **arguments,
    })  # fmt: skip
    return result.images.numpy()


@both_engines
@pytest.mark.parametrize("negative", [NEGATIVE, ""])
def test_texts_equal_diffusers(engine: str, negative: str) -> None:
    got = model("sdxl", engine).encode_prompt(PROMPT, negative)
    with torch.no_grad():
        want = saved("sdxl")[1].encode_prompt(PROMPT, None, "cpu", 1, True, negative or None)
    for mine, other in zip((got.positive, got.negative, got.pooled, got.negative_pooled), want, strict=True):
        np.testing.assert_allclose(mine, other.numpy(), atol=1e-4)
    assert got.positive.shape == (1, 77, 80)
    assert got.pooled.shape == (1, 20)
    assert np.abs(got.negative).max() == 0 if not negative else np.abs(got.negative).max() > 0.1


def test_an_empty_negative_prompt_is_encoded_where_the_model_says_so(tmp_path: Path) -> None:
    pipe = tiny.pipeline("sdxl")
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    pipe.save_pretrained(tmp_path)
    got = model("sdxl", "torch", locate(str(tmp_path))).encode_prompt(PROMPT)
    with torch.no_grad():
        want = pipe.encode_prompt(PROMPT, None, "cpu", 1, True)
    np.testing.assert_allclose(got.negative, want[1].numpy(), atol=1e-4)
    np.testing.assert_allclose(got.negative_pooled, want[3].numpy(), atol=1e-4)
    assert np.abs(got.negative).max() > 0.1


def test_long_prompts_go_window_by_window_and_the_first_is_pooled() -> None:
    found = model("sdxl", "torch")
    short = "a " * 75
    long, first = found.encode_prompt(short + "b c d"), found.encode_prompt(short)
    assert long.positive.shape == long.negative.shape == (1, 2 * 77, 80)
    np.testing.assert_allclose(long.positive[:, :77], first.positive, atol=1e-5)
    np.testing.assert_allclose(long.pooled, first.pooled, atol=1e-5)
    # the second tokenizer takes each "!" for itself, the first one pairs: one text, two window counts
    assert found.encode_prompt("!! " * 60).positive.shape == (1, 2 * 77, 80)


@both_engines
def test_one_evaluation_of_the_unet_is_told_the_size(engine: str) -> None:
    found, pipe = model("sdxl", engine), saved("sdxl")[1]
    conditions = found.encode_prompt(PROMPT, NEGATIVE)
    sample = Noise(0).normal((2, 4, 8, 16))
    states, (pooled, time_ids) = found.told(conditions, sample, guided=True)
    want = pipe._get_add_time_ids((64, 128), (0, 0), (64, 128), torch.float32, 20)
    np.testing.assert_array_equal(time_ids, np.repeat(want.numpy(), 2, axis=0))
    np.testing.assert_array_equal(states, np.concatenate([conditions.negative, conditions.positive]))
    np.testing.assert_array_equal(pooled, np.concatenate([conditions.negative_pooled, conditions.pooled]))
    added = {"text_embeds": torch.from_numpy(pooled), "time_ids": torch.from_numpy(time_ids)}
    with torch.no_grad():
        expected = pipe.unet(torch.from_numpy(sample), 421, torch.from_numpy(states), added_cond_kwargs=added).sample
    got = found.networks.denoise(sample, 421.0, states, (pooled, time_ids))
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-4)
    other = found.networks.denoise(sample, 421.0, states, (pooled, time_ids + 64))
    assert np.abs(other - got).max() > 1e-3


@both_engines
@pytest.mark.parametrize(("sampler", "negative"), [("ddim", NEGATIVE), ("euler", "")])
def test_text2img(engine: str, sampler: str, negative: str) -> None:
    want = theirs("sdxl", "text2img", sampler, negative_prompt=negative or None)
    check(ours("sdxl", engine, "text2img", sampler, negative_prompts=negative), want)


@both_engines
def test_img2img(engine: str) -> None:
    want = theirs("sdxl", "img2img", "ddim", image=Image.fromarray(BASE), strength=0.5)
    check(ours("sdxl", engine, "img2img", "ddim", strength=0.5), want)


@both_engines
@pytest.mark.parametrize(("style", "strength"), [("sdxl", 0.5), ("sdxl-inpaint", 1.0), ("sdxl-inpaint", 0.5)])
def test_inpainting(engine: str, style: str, strength: float) -> None:
    pictures = {"image": Image.fromarray(BASE), "mask_image": Image.fromarray(MASK)}
    want = theirs(style, "inpainting", "ddim", **pictures, strength=strength, height=SIDE, width=SIDE)
    check(ours(style, engine, "inpainting", "ddim", strength=strength), want)


def picture(tmp_path: Path, style: str, engine: str, **fields: Any) -> np.ndarray:
    """A finished picture [H, W, 3], all defaults of the family."""
    recipe = Recipe(
        prompt=PROMPT, model=str(saved(style)[0]), seed="7", num_inference_steps=STEPS, engine=engine, **fields
    )
    asked = plan(recipe, tmp_path)
    assert asked.family.name == "sdxl"
    networks = ENGINES[engine].load(asked.checkpoint)
    return np.asarray(next(generate(asked, networks)).picture.data)


@pytest.mark.parametrize("style", ["sdxl", "sdxl-inpaint"])
def test_a_strict_mask_keeps_its_pixels_and_engines_agree(style: str, tmp_path: Path) -> None:
    Image.fromarray(BASE).save(tmp_path / "base.png")
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    fields = {"base_img": str(tmp_path / "base.png"), "mask_img": str(tmp_path / "mask.png"), "strict_mask": True}
    made = [picture(tmp_path, style, engine, **fields) for engine in ENGINES]
    for data in made:
        np.testing.assert_array_equal(data[MASK == 0], BASE[MASK == 0])
        assert np.abs(data[MASK > 0].astype(int) - BASE[MASK > 0]).mean() > 5
    assert np.abs(made[0].astype(int) - made[1]).max() <= 2


def test_the_native_size_is_the_unets(tmp_path: Path) -> None:
    folder, _ = saved("sdxl")
    asked = plan(Recipe(prompt=PROMPT, model=str(folder), seed="1"), tmp_path)
    assert asked.checkpoint.native_side == SIDE
    published = json.loads((folder / "unet" / "config.json").read_text()) | {"sample_size": 128}
    large = tmp_path / "large"
    tiny.pipeline("sdxl").save_pretrained(large)
    (large / "unet" / "config.json").write_text(json.dumps(published))
    asked = plan(Recipe(prompt=PROMPT, model=str(large), seed="1"), tmp_path)
    assert (asked.size.width, asked.size.height, asked.size.hires) == (1024, 1024, False)


def test_half_precision_spares_the_autoencoder_where_it_overflows(tmp_path: Path) -> None:
    whole = locate(str(saved("sdxl")[0]))
    latents, sample = Noise(0).normal((1, 4, 8, 8)), Noise(1).normal((1, 4, 8, 8))
    want = torch_engine.load(whole).decode_image(latents)
    half = torch_engine.load(whole, precision="float16")
    np.testing.assert_array_equal(half.decode_image(latents), want)
    found = sdxl.load(half, whole)
    told = found.told(found.encode_prompt(PROMPT), sample, guided=False)
    assert half.denoise(sample, 10.0, *told).dtype == np.float32
    assert half.unet.dtype == torch.float16
    pipe = tiny.pipeline("sdxl")
    pipe.vae.register_to_config(force_upcast=False)
    pipe.save_pretrained(tmp_path)
    assert torch_engine.load(locate(str(tmp_path)), precision="float16").vae.dtype == torch.float16


@both_engines
def test_a_run_goes_on_from_its_journal(engine: str, tmp_path: Path) -> None:
    """The added condition belongs to the question: another prompt's pooled text is another one."""
    found = locate(str(saved("sdxl")[0]))
    networks = ENGINES[engine].load(found)
    made = []
    for prompt in (PROMPT, PROMPT, "red house"):
        journal = Journal(networks, tmp_path / "journal", 1)
        other = sdxl.load(journal, found)
        told = other.told(other.encode_prompt(prompt), Noise(0).normal((1, 4, 8, 8)), guided=False)
        made.append(journal.denoise(Noise(0).normal((1, 4, 8, 8)), 500.0, told[0] * 0, told[1]))
        journal.step()
        made.append(np.array(journal.recalled))
    np.testing.assert_array_equal(made[0], made[2])
    assert [int(made[i]) for i in (1, 3, 5)] == [0, 1, 0]
    assert np.abs(made[4] - made[0]).max() > 1e-4


@both_engines
def test_clip_skip_equals_diffusers(engine: str) -> None:
    whole = locate(str(saved("sdxl")[0]))
    got = model("sdxl", engine, with_clip_skip(whole, 1)).encode_prompt(PROMPT, NEGATIVE)
    pipe = saved("sdxl")[1]
    for prompt, states, pooled in (
        (PROMPT, got.positive, got.pooled),
        (NEGATIVE, got.negative, got.negative_pooled),
    ):
        with torch.no_grad():
            want, _, projected, _ = pipe.encode_prompt(prompt, None, "cpu", 1, False, clip_skip=1)
            without = pipe.encode_prompt(prompt, None, "cpu", 1, False)[0]
        np.testing.assert_allclose(states, want.numpy(), atol=1e-4)
        np.testing.assert_allclose(pooled, projected.numpy(), atol=1e-4)
        assert np.abs(states - without.numpy()).max() > 1e-2


def test_clip_skip_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--clip_skip 2 leaves no layer of the text encoder: at most 1"):
        plan(Recipe(model=str(saved("sdxl")[0]), clip_skip=2, seed="1"), tmp_path)


LAYER = "encoder.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("network", "down", "up"),
    [
        (
            "text_encoder",
            *(f"lora_te1_text_model_{LAYER.replace('.', '_')}.lora_{way}.weight" for way in ("down", "up")),
        ),
        (
            "text_encoder_2",
            *(f"lora_te2_text_model_{LAYER.replace('.', '_')}.lora_{way}.weight" for way in ("down", "up")),
        ),
        ("text_encoder", *(f"text_encoder.text_model.{LAYER}.lora_{part}.weight" for part in "AB")),
        ("text_encoder_2", *(f"text_encoder_2.text_model.{LAYER}.lora_{part}.weight" for part in "AB")),
    ],
)
def test_a_lora_finds_its_text_encoder(network: str, down: str, up: str, tmp_path: Path) -> None:
    found = locate(str(saved("sdxl")[0]))
    width = found.configs[network]["hidden_size"]
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, width), np.float32), rng.standard_normal((width, 3), np.float32)
    save_file({down: a, up: b}, tmp_path / "lora.safetensors")
    merged = openvino.load(found, loras=[(tmp_path / "lora.safetensors", 0.7)])
    pipe = tiny.pipeline("sdxl")
    with torch.no_grad():
        getattr(pipe, network).get_submodule(name_in(getattr(pipe, network))).weight += 0.7 * torch.tensor(b @ a)
        want = pipe.encode_prompt(PROMPT, None, "cpu", 1, True, NEGATIVE)
    got = sdxl.load(merged, found).encode_prompt(PROMPT, NEGATIVE)
    np.testing.assert_allclose(got.positive, want[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(got.pooled, want[2].numpy(), atol=1e-4)
    plain = model("sdxl", "openvino").encode_prompt(PROMPT, NEGATIVE)
    assert np.abs(plain.positive - got.positive).max() > 1e-2


def name_in(encoder: torch.nn.Module) -> str:
    """LAYER as the installed transformers calls it."""
    return next(name for name, _ in encoder.named_modules() if name.endswith(LAYER))


def test_a_lora_of_the_unet_in_original_names(tmp_path: Path) -> None:
    """kohya's files for Stable Diffusion XL name the UNet's layers as the original code does."""
    found = locate(str(saved("sdxl")[0]))
    names = {
        "input_blocks_1_1_transformer_blocks_0_attn1_to_q":
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "input_blocks_2_0_op": "down_blocks.0.downsamplers.0.conv",
        "middle_block_1_transformer_blocks_1_ff_net_2": "mid_block.attentions.0.transformer_blocks.1.ff.net.2",
        "middle_block_2_emb_layers_1": "mid_block.resnets.1.time_emb_proj",
        "output_blocks_3_1_transformer_blocks_0_attn2_to_out_0":
            "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0",
        "output_blocks_2_0_in_layers_2": "up_blocks.1.resnets.0.conv1",
    }  # fmt: skip
    weights, parts, wanted = MappedTensors(found.tensors("unet")), {}, {}
    rng = np.random.default_rng(0)
    for old, new in names.items():
        weight = np.asarray(weights(f"{new}.weight"))
        down = rng.standard_normal((2, *weight.shape[1:]), np.float32)
        up = rng.standard_normal((len(weight), 2, *(1 for _ in weight.shape[2:])), np.float32)
        parts |= {f"lora_unet_{old}.lora_down.weight": down, f"lora_unet_{old}.lora_up.weight": up}
        wanted[new] = weight + np.tensordot(up.reshape(len(weight), 2), down, 1)
    save_file(parts, tmp_path / "lora.safetensors")
    lora = read_lora(tmp_path / "lora.safetensors", 1.0, {"unet": found.tensors("unet")})
    get = lora.merged("unet", weights)
    for new, expected in wanted.items():
        np.testing.assert_allclose(get(f"{new}.weight"), expected, atol=1e-4)
    save_file({"lora_unet_middle_block_0_nowhere.lora_down.weight": down}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="for a layer that this model does not have"):
        read_lora(tmp_path / "other.safetensors", 1.0, {"unet": found.tensors("unet")})


def test_pooled_texts_travel_with_the_prompts() -> None:
    """Three prompts over five frames: each frame its own, the last frame's and the first's as if alone."""
    family = model("sdxl", "torch")
    texts = ["a cat", "a red house", "a tree"]
    three = family.encode_prompt(texts, "blue")
    travelled = three.for_frames(lambda states: along(states, [0, 2, 4], 5, loop=False))
    assert len(travelled.positive) == len(travelled.pooled) == 5
    assert len(travelled.negative) == len(travelled.negative_pooled) == 1
    for frame, text in zip((0, 2, 4), texts, strict=True):
        alone = family.encode_prompt(text, "blue")
        np.testing.assert_allclose(travelled.positive[frame], alone.positive[0], atol=1e-5)
        np.testing.assert_allclose(travelled.pooled[frame], alone.pooled[0], atol=1e-5)
    assert np.abs(travelled.pooled[1] - travelled.pooled[0]).max() > 1e-3


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        locate(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_checkpoints_are_one_line(tmp_path: Path) -> None:
    def copy(name: str, part: str, **changes: Any) -> Path:
        folder = tmp_path / name
        tiny.pipeline("sdxl").save_pretrained(folder)
        path = folder / part
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return folder

    assert "states 96 wide for a UNet that takes 80" in refused(
        copy("wide", "text_encoder_2/config.json", hidden_size=64)
    )
    assert "76 wide for a UNet that takes 68" in refused(
        copy("pooled", "text_encoder_2/config.json", projection_dim=28)
    )
    assert "addition_embed_type None does not run" in refused(
        copy("plain", "unet/config.json", addition_embed_type=None)
    )
    refiner = copy("refiner", "model_index.json", text_encoder=[None, None], tokenizer=[None, None])
    assert "is a refiner" in refused(refiner)
    edm = copy("edm", "scheduler/scheduler_config.json", _class_name="EDMDPMSolverMultistepScheduler")
    assert "EDMDPMSolverMultistepScheduler's noise levels does not run" in refused(edm)
    assert "shifted by latents_mean" in refused(copy("shifted", "vae/config.json", latents_mean=[0.1] * 4))
    missing = copy("missing", "model_index.json")
    shutil.rmtree(missing / "text_encoder_2")
    assert "has no text_encoder_2" in refused(missing)
