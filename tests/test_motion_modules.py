"""Motion modules: equal to diffusers' AnimateDiffPipeline, and whole where that drops a part of the UNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline, AnimateDiffVideoToVideoPipeline, MotionAdapter
from PIL import Image

from noisette import adapters, engines, video
from noisette.errors import UserError
from noisette.generate import sample
from noisette.plan import plan
from noisette.recipe import Recipe
from tests import tiny

FRAMES = 5


def adapter(unet: Any) -> MotionAdapter:
    """Random motion modules for a tiny UNet, large enough that they matter."""
    torch.manual_seed(3)
    made = MotionAdapter(
        block_out_channels=unet.config.block_out_channels,
        motion_layers_per_block=1,
        motion_num_attention_heads=4,
        motion_norm_num_groups=8,
        motion_max_seq_length=8,
        use_motion_mid_block=True,
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("motion")
    pipeline = tiny.save("sd1", place / "sd1")
    adapter(pipeline.unet).save_pretrained(place / "sd1" / "motion_adapter")
    pipeline = tiny.save("bert", place / "bert")
    adapter(pipeline.unet).save_pretrained(place / "bert" / "motion_adapter")
    return place


def recipe(folder: Path, style: str, **settings: Any) -> Recipe:
    defaults: dict[str, Any] = {
        "prompt": "a red cat", "negative_prompts": "house", "model": str(folder / style), "img_w": 64, "img_h": 64,
        "num_inference_steps": 3, "guidance_scale": 4.0, "sampler": "ddim", "seed": "11", "num_frames": FRAMES,
        "engine": "torch",
    }  # fmt: skip
    return Recipe(**{**defaults, **settings})


def latents_of(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, Any]:
    """The latents [1, C, F, h, w] of our own run."""
    found = []

    def watched(mode: str, job: Any) -> Any:
        found.append(sample(mode, job))
        return found[-1]

    monkeypatch.setattr("noisette.generate.sample", watched)
    planned = plan(recipe)
    next(video.make(planned, engines.load(planned)))
    return np.asarray(found[0][0])


def test_a_clip_is_the_same_after_a_picture() -> None:
    """One set of networks draws the still and then the clip, which stayed noise while one graph served any length.

    With the built-in modules: tiny ones do not show it.
    """
    planned = plan(Recipe(prompt="alien", num_frames=16, motion="spin", engine="openvino", seed="1"))
    fresh, used = engines.load(planned), engines.load(planned)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 16, 16, 16)).astype(np.float32)
    states = rng.normal(size=(16, 32, 384)).astype(np.float32)
    used.denoise(x[:2], 900.0, states[:2])
    found, wanted = (networks.denoise(x, 500.0, states, num_frames=16) for networks in (used, fresh))
    assert np.abs(found - wanted).max() < 1e-5


def animate(folder: Path, kind: Any) -> Any:
    made = kind.from_pretrained(
        folder / "sd1", motion_adapter=MotionAdapter.from_pretrained(folder / "sd1" / "motion_adapter")
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_text2video_equals_animatediff(folder: Path, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = animate(folder, AnimateDiffPipeline)(
        "a red cat", negative_prompt="house", num_frames=FRAMES, width=64, height=64, num_inference_steps=3,
        guidance_scale=scale, generator=torch.Generator().manual_seed(11), output_type="latent",
    ).frames  # fmt: skip
    words = {"negative_prompts": ""} if scale == 1 else {}
    ours = latents_of(recipe(folder, "sd1", guidance_scale=scale, **words), monkeypatch)
    assert ours.shape == (1, 4, FRAMES, 8, 8)
    assert np.abs(ours - theirs.numpy()).max() < 1e-3
    still = latents_of(recipe(folder, "sd1", guidance_scale=scale, motion="0", **words), monkeypatch)
    assert np.abs(still - theirs.numpy()).max() > 0.1


def test_video2video_equals_animatediff(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fractions import Fraction

    from noisette import codecs

    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 256, (FRAMES, 64, 64, 3)).astype(np.uint8))
    codecs.encode(tmp_path / "a.mkv", frames, codecs.CODECS["ffv1"], (64, 64), Fraction(8))
    theirs = animate(folder, AnimateDiffVideoToVideoPipeline)(
        [Image.fromarray(frame) for frame in frames], "a red cat", negative_prompt="house", width=64, height=64,
        num_inference_steps=4, guidance_scale=4.0, strength=0.5, generator=torch.Generator().manual_seed(11),
        output_type="latent",
    ).frames  # fmt: skip
    asked = recipe(
        folder, "sd1", base_video=str(tmp_path / "a.mkv"), num_frames=None, strength=0.5, num_inference_steps=4
    )
    assert np.abs(latents_of(asked, monkeypatch) - theirs.numpy()).max() < 1e-3


def test_the_text_embedding_that_diffusers_drops_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With modules whose last layer is zero a clip is its frames alone, pooled text and all."""
    still = MotionAdapter.from_pretrained(folder / "bert" / "motion_adapter")
    for name, parameter in still.named_parameters():
        if "proj_out" in name:
            torch.nn.init.zeros_(parameter)
    still.save_pretrained(folder / "still")
    asked = recipe(folder, "bert", motion_adapter=str(folder / "still"), sampler="euler")
    tied = latents_of(asked, monkeypatch)
    picture = plan(recipe(folder, "bert", num_frames=None, sampler="euler"))
    networks = engines.load(picture)
    x = np.ascontiguousarray(tied[:, :, 2])
    model = __import__("noisette.families.stable_diffusion", fromlist=["load"]).load(networks, picture.checkpoint)
    prompt = model.encode_prompt("a red cat", "house")
    levels = model.levels(3, "model", "euler")
    one = model.denoiser(prompt, 4.0, 0.0, (0.0, 1.0), levels)(x, levels[1])
    clip = plan(asked)
    moving = __import__("noisette.families.stable_diffusion", fromlist=["load"]).load(
        engines.load(clip), clip.checkpoint
    )
    many = moving.denoiser(prompt, 4.0, 0.0, (0.0, 1.0), levels)(tied, levels[1])
    assert np.abs(many[:, :, 2] - one).max() < 1e-4


@pytest.mark.parametrize(("style", "motion"), [("sd1", ""), ("bert", ""), ("bert", "0.5")])
def test_both_engines_make_the_same_clip(
    folder: Path, style: str, motion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (
        latents_of(recipe(folder, style, engine=engine, motion=motion, sampler="euler"), monkeypatch)
        for engine in ("torch", "openvino")
    )
    assert np.abs(one - other).max() < 2e-3 * np.abs(one).max()


def test_an_adapter_for_another_unet_is_refused(folder: Path) -> None:
    other = MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=4
    )
    other.save_pretrained(folder / "other")
    with pytest.raises(UserError, match=r"made for a UNet of widths \[8, 16\], this one has \[32, 64\]"):
        plan(recipe(folder, "sd1", motion_adapter=str(folder / "other")))


@pytest.mark.parametrize("loop", [False, True])
def test_long_clips_go_through_windows_and_an_exact_first_frame_is_held(
    folder: Path, loop: bool, tmp_path: Path
) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "base.png")
    asked = recipe(
        folder, "sd1", num_frames=11, loop=loop, base_img=str(tmp_path / "base.png"), strict_first_frame=True,
        img_w=None, img_h=None, strength=0.7,
    )  # fmt: skip
    planned = plan(asked, out=tmp_path)
    saved = video.write(planned, next(video.make(planned, engines.load(planned))))
    assert saved.proved
    assert saved.kept is not None
    assert saved.kept.count == 64 * 64


def test_an_adapter_from_the_hub_is_planned_by_its_configuration_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noisette import checkpoint, hub

    source = folder / "sd1" / "motion_adapter"
    asked = []

    def download(model: str, names: list[str]) -> Path:
        asked.append((model, names))
        for name in names:
            (tmp_path / name).write_bytes((source / name).read_bytes())
        return tmp_path

    monkeypatch.setattr(hub, "download", download)
    plain = checkpoint.locate(str(folder / "sd1"))
    found = adapters.with_motion(plain, "someone/motion")
    assert asked == [("someone/motion", ["config.json"])]
    assert found.downloads == ("someone/motion/diffusion_pytorch_model.safetensors",)
    checkpoint.fetch(found)
    assert asked[1:] == [("someone/motion", ["diffusion_pytorch_model.safetensors"])]
    assert adapters.with_motion(plain, "someone/motion").downloads == ()
