"""The family equals diffusers' pipelines: random checkpoints, same seed, same sampler, latents to 1e-3."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from noisette import modes
from noisette.checkpoint import locate
from noisette.engines import openvino, tiled, torch_engine
from noisette.families import stable_diffusion
from noisette.families.stable_diffusion import StableDiffusion, rescale, weigh
from noisette.noise import Noise
from noisette.recipe import Recipe
from noisette.sampling import SAMPLERS
from noisette.schedules import CLEAN
from tests import tiny

STEPS, SEED, SIDE, TOLERANCE = 5, 1024, 64, 1e-3
PROMPT, NEGATIVE = "a green alien, 4k", "red house"
SCHEDULERS = {
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}
KEPT = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
BASE = np.random.RandomState(0).randint(0, 256, (SIDE, SIDE, 3), np.uint8)
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[16:48, 16:64] = 255


@cache
def models(style: str) -> tuple[StableDiffusion, Any]:
    """Our model and diffusers' pipeline of the same weights."""
    folder = Path(mkdtemp())
    pipe = tiny.save(style, folder)
    found = locate(str(folder))
    pipe.set_progress_bar_config(disable=True)
    return stable_diffusion.load(torch_engine.load(found), found), pipe


def ours(style: str, mode: str, sampler: str, seeds: tuple[int, ...] = (SEED,), **fields: Any) -> np.ndarray:
    """Final latents by the way that `generate` goes."""
    model, _ = models(style)
    recipe = Recipe(
        prompt=PROMPT, negative_prompts=NEGATIVE, num_inference_steps=STEPS, sampler=sampler,
        schedule="model", **{"guidance_scale": 5.0, **fields},
    )  # fmt: skip
    base = (BASE.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    mask = (MASK / 255).astype(np.float32)[None, None]
    prompt = model.encode_prompt(recipe.prompt, recipe.negative_prompts)
    streams = [Noise(seed) for seed in seeds]
    job = SchedulerLevels(model, prompt, recipe, streams, seeds, SIDE, SIDE, base, mask)
    start = modes.MODES[mode](job)
    return start.end(SAMPLERS[sampler](start.denoise, start.x, start.levels, start.noise, start.callback))


class SchedulerLevels(modes.Job):
    """A job at the levels that diffusers' own scheduler of the sampler would visit."""

    def levels(self) -> list[Any]:
        if self.recipe.sampler in ("ddim", "euler"):
            return super().levels()
        scheduler = SCHEDULERS[self.recipe.sampler].from_config(self.model.scheduler)
        scheduler.set_timesteps(self.recipe.num_inference_steps)
        return [*(self.model.table.level(float(t)) for t in scheduler.timesteps), CLEAN]


def theirs(style: str, kind: Any, sampler: str, seeds: tuple[int, ...] = (SEED,), **arguments: Any) -> np.ndarray:
    """Final latents of a diffusers pipeline."""
    parts = {name: part for name, part in models(style)[1].components.items() if name != "image_encoder"}
    parts["scheduler"] = SCHEDULERS[sampler].from_config(parts["scheduler"].config)
    pipe = kind(**{**parts, **KEPT})
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    result = pipe(
        prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, output_type="latent",
        num_images_per_prompt=len(seeds), generator=generators, **{"guidance_scale": 5.0, **arguments},
    )  # fmt: skip
    return result.images.numpy()


def check(a: np.ndarray, b: np.ndarray) -> None:
    assert a.shape == b.shape
    assert np.isfinite(b).all()
    assert np.abs(b).max() > 0.1
    assert np.abs(a - b).max() <= TOLERANCE


TEXT2IMG = [("sd1", sampler) for sampler in SCHEDULERS] + [
    ("sd1-v", "euler"),
    ("sd2", "dpmpp_2m"),
    ("bert", "ddim"),
]


@pytest.mark.parametrize(("style", "sampler"), TEXT2IMG)
def test_text2img(style: str, sampler: str) -> None:
    want = theirs(style, diffusers.StableDiffusionPipeline, sampler, height=SIDE, width=SIDE)
    check(ours(style, "text2img", sampler), want)


@pytest.mark.parametrize(
    ("style", "sampler"), [("sd1", "ddim"), ("sd1", "unipc"), ("sd2", "euler"), ("bert", "ddim")]
)
def test_img2img(style: str, sampler: str) -> None:
    image = Image.fromarray(BASE)
    want = theirs(style, diffusers.StableDiffusionImg2ImgPipeline, sampler, image=image, strength=0.6)
    check(ours(style, "img2img", sampler, strength=0.6), want)


INPAINTING = [("sd1", sampler, 1.0) for sampler in SCHEDULERS]
INPAINTING += [("sd2", "dpmpp_2m", 0.6), ("inpaint", "ddim", 1.0), ("inpaint", "dpmpp_2m", 0.6)]


@pytest.mark.parametrize(("style", "sampler", "strength"), INPAINTING)
def test_inpainting(style: str, sampler: str, strength: float) -> None:
    pictures = {"image": Image.fromarray(BASE), "mask_image": Image.fromarray(MASK)}
    kind = diffusers.StableDiffusionInpaintPipeline
    want = theirs(style, kind, sampler, **pictures, strength=strength, height=SIDE, width=SIDE)
    check(ours(style, "inpainting", sampler, strength=strength), want)


def test_inpainting_of_16_channels_keeps_the_known_region() -> None:
    model, _ = models("bert")
    x = ours("bert", "inpainting", "euler", strength=1.0)
    base = (BASE.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    known = model.encode_image(base, [Noise(SEED)])
    kept = modes.latent_mask((MASK / 255).astype(np.float32)[None, None], x.shape)[0, 0] == 0
    assert x.shape == (1, 16, 4, 4)
    np.testing.assert_allclose(x[..., kept], known[..., kept], atol=1e-6)
    assert np.abs(x - known)[..., ~kept].min() > 0


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_guidance_rescale(share: float) -> None:
    kind = diffusers.StableDiffusionPipeline
    want = theirs("sd2", kind, "ddim", height=SIDE, width=SIDE, guidance_rescale=share)
    check(ours("sd2", "text2img", "ddim", guidance_rescale=share), want)


def test_no_guidance() -> None:
    kind = diffusers.StableDiffusionPipeline
    want = theirs("sd1", kind, "ddim", height=SIDE, width=SIDE, guidance_scale=1.0)
    check(ours("sd1", "text2img", "ddim", guidance_scale=1.0), want)


def test_a_batch_equals_diffusers_and_its_pictures_alone() -> None:
    seeds = (7, 8)
    arguments = {"image": Image.fromarray(BASE), "strength": 0.6}
    want = theirs("sd1", diffusers.StableDiffusionImg2ImgPipeline, "ddim", seeds, **arguments)
    together = ours("sd1", "img2img", "ddim", seeds, strength=0.6)
    check(together, want)
    for i, seed in enumerate(seeds):
        alone = ours("sd1", "img2img", "ddim", (seed,), strength=0.6)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-4)


def test_pictures_in_and_out() -> None:
    model, pipe = models("bert")
    latents = Noise(1).normal((2, 16, 4, 4))
    with torch.no_grad():
        want = pipe.vae.decode(torch.from_numpy(latents) / 0.5).sample.numpy()
    np.testing.assert_allclose(model.decode(latents), want, atol=1e-5)
    assert model.latent_shape(SIDE, 2 * SIDE) == (16, 8, 4)
    assert model.encode_image(want[:1], [Noise(1), Noise(2)]).shape == (2, 16, 4, 4)


def with_tiny_autoencoder(folder: Path, **config: Any) -> Any:
    """A checkpoint whose VAE is an AutoencoderTiny."""
    pipe = tiny.pipeline("sd1")
    torch.manual_seed(1)
    pipe.register_modules(vae=diffusers.AutoencoderTiny(**config).eval())
    pipe.save_pretrained(folder)
    return pipe


@pytest.mark.parametrize("engine", [torch_engine, openvino])
@pytest.mark.parametrize(("height", "width"), [(SIDE, SIDE), (SIDE, 3 * SIDE)])
def test_tiny_autoencoder_of_another_build(
    engine: Any, height: int, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three blocks, other widths in the decoder, scaled latents; a large picture goes through it in tiles."""
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    pipe = with_tiny_autoencoder(
        tmp_path, encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(12,) * 3,
        num_encoder_blocks=(2, 1, 1), num_decoder_blocks=(1, 2, 1), act_fn="silu", scaling_factor=0.7,
        latent_magnitude=5, latent_shift=0.25,
    )  # fmt: skip
    found = locate(str(tmp_path))
    assert found.vae_scale_factor == 4
    model = stable_diffusion.load(engine.load(found), found)
    pixels = Noise(5).normal((1, 3, height, width)).clip(-1, 1)
    with torch.no_grad():
        latents = pipe.vae.encode(torch.from_numpy(pixels)).latents
        back = pipe.vae.decode(latents).sample.numpy()
    whole = model.encode_image(pixels, [Noise(0)])
    np.testing.assert_allclose(whole, latents.numpy() * 0.7, atol=1e-5)
    np.testing.assert_allclose(model.decode(whole), back, atol=1e-5)
    monkeypatch.setattr(tiled, "WHOLE_AREA", SIDE * SIDE)
    monkeypatch.setattr(torch_engine, "TINY_SIDE", SIDE)
    found.configs["vae"]["sample_size"] = SIDE
    assert model.decode(whole).shape == back.shape
    # between two fades tiles are what the whole is, but for the last pixels that see beyond them
    np.testing.assert_allclose(model.decode(whole)[..., :20, :20], back[..., :20, :20], atol=1e-4)


def test_tiny_autoencoder(tmp_path: Path) -> None:
    pipe = with_tiny_autoencoder(
        tmp_path, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4,
    )  # fmt: skip
    found = locate(str(tmp_path))
    model = stable_diffusion.load(torch_engine.load(found), found)
    pixels = Noise(5).normal((1, 3, SIDE, SIDE)).clip(-1, 1)
    with torch.no_grad():
        latents = pipe.vae.encode(torch.from_numpy(pixels)).latents
        back = pipe.vae.decode(latents).sample.numpy()
    stream = Noise(0)
    encoded = model.encode_image(pixels, [stream])
    np.testing.assert_allclose(encoded, latents.numpy(), atol=1e-5)
    np.testing.assert_allclose(model.decode(encoded), back, atol=1e-5)
    assert stream.normal((3,)).tolist() == Noise(0).normal((3,)).tolist(), "nothing may be drawn"


@pytest.mark.parametrize("style", ["sd1", "sd2", "bert"])
def test_prompt_states(style: str) -> None:
    model, pipe = models(style)
    got = model.encode_prompt(PROMPT, NEGATIVE)
    want = pipe.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE)
    np.testing.assert_allclose(got.positive, want[0].detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(got.negative, want[1].detach().numpy(), atol=1e-5)


def test_long_prompts_go_window_by_window() -> None:
    model, _ = models("sd1")
    room = model.tokenizer.window - 2
    short, more = "a " * room, "b c d"
    long = model.encode_prompt(short + more, NEGATIVE)
    assert long.cut == ()
    assert long.positive.shape == long.negative.shape == (1, 2 * 77, 32)
    np.testing.assert_allclose(long.positive[:, :77], model.encode_prompt(short).positive, atol=1e-5)
    np.testing.assert_allclose(long.positive[:, 77:], model.encode_prompt(more).positive, atol=1e-5)
    np.testing.assert_allclose(long.negative[:, 77:], model.encode_prompt("").positive, atol=1e-5)


def test_a_one_window_encoder_reports_what_it_cut() -> None:
    model, _ = models("bert")
    got = model.encode_prompt("cat " * 30 + "red house", "alien")
    assert got.positive.shape == (1, 32, 32)
    assert got.cut == ("red house", "")


def test_weights_keep_the_mean_and_move_their_tokens() -> None:
    model, _ = models("sd1")
    plain = model.encode_prompt("a red cat").positive
    same = model.encode_prompt("a (red:1.0) cat").positive
    np.testing.assert_array_equal(plain, same)
    heavy = model.encode_prompt("a (red:1.5) cat").positive
    np.testing.assert_allclose(heavy.mean(), plain.mean(), rtol=1e-4)
    ids = model.tokenizer.weighted("a (red:1.5) cat")
    token = 1 + [weight for _, weight in ids].index(1.5)
    factor = heavy[0, 0] / plain[0, 0]
    np.testing.assert_allclose(heavy[0, token] / plain[0, token], 1.5 * factor, rtol=1e-4)


def test_weigh_leaves_plain_windows_alone() -> None:
    states = Noise(0).normal((2, 3, 4))
    weights = np.ones((2, 3), np.float32)
    weights[1, 1] = 2
    out = weigh(states, weights)
    np.testing.assert_array_equal(out[0], states[0])
    np.testing.assert_allclose(out[1].mean(), states[1].mean(), rtol=1e-5)
    assert out.dtype == np.float32


def test_rescale_brings_back_the_contrast() -> None:
    guided, cond = 3 * Noise(0).normal((2, 4, 8, 8)), Noise(1).normal((2, 4, 8, 8))
    np.testing.assert_allclose(rescale(guided, cond, 1.0).std((1, 2, 3)), cond.std((1, 2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(rescale(guided, cond, 0.0), guided)


class Counting:
    """The denoising network with the batch sizes it was asked for."""

    def __init__(self, inside: Any) -> None:
        self.inside, self.batches = inside, []

    def denoise(self, sample: Any, timestep: float, context: Any) -> Any:
        self.batches.append(len(sample))
        return self.inside.denoise(sample, timestep, context)


@pytest.mark.parametrize(
    ("start", "end", "batches"),
    [
        (0.0, 1.0, [2] * 5),
        (0.2, 0.8, [1, 2, 2, 2, 1]),
        (0.0, 0.4, [2, 2, 1, 1, 1]),
        (0.6, 1.0, [1, 1, 1, 2, 2]),
    ],
)
def test_guidance_interval(start: float, end: float, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = models("sd1")
    counting = Counting(model.networks)
    prompt = model.encode_prompt(PROMPT, NEGATIVE)
    monkeypatch.setattr(model, "networks", counting)
    levels = model.levels(STEPS, "model", "ddim")
    denoise = model.denoiser(prompt, 5.0, 0.0, (start, end), levels)
    SAMPLERS["ddim"](denoise, Noise(0).normal((1, 4, 8, 8)), levels, lambda: None)
    assert counting.batches == batches
