"""Wan and LTX-Video through the one loop: the frames are those of diffusers' own pipelines, to a rounding."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from noisette import codecs, engines, video
from noisette.cli import run
from noisette.errors import UserError
from noisette.plan import plan
from noisette.recipe import Recipe
from tests import tiny_clips

STYLES = {"wan": tiny_clips.wan, "ltx": tiny_clips.ltx}
SAMPLERS = {"wan": "unipc", "ltx": "euler"}
FRAMES = 9
ASKED: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, a clip, and a place for models."""
    place = tmp_path_factory.mktemp("clips")
    y, x = np.mgrid[:32, :64]
    Image.fromarray(np.stack([x * 4, y * 7, x + y], -1).astype(np.uint8)).save(place / "base.png")
    moving = [np.full((32, 64, 3), 20 * i, np.uint8) for i in range(FRAMES)]
    codecs.encode(place / "base.mkv", moving, codecs.CODECS["ffv1"], (64, 32), Fraction(8))
    return place


def saved(folder: Path, family: str, style: str) -> tuple[str, Any]:
    """The folder of a tiny model, and its pipeline."""
    pipeline = STYLES[family](style)
    place = folder / f"{family}-{style}"
    if not place.exists():
        tiny_clips.save(pipeline, place)
    pipeline.set_progress_bar_config(disable=True)
    return str(place), pipeline


def ours(model: str, **asked: Any) -> np.ndarray:
    """Our frames, uint8 [F, H, W, 3]."""
    made = {"model": model, "prompt": "a red cat", "negative_prompts": "blurry", "num_frames": FRAMES, "seed": "7"}
    planned = plan(Recipe(**{**made, **ASKED, **asked}))
    return np.stack(list(next(video.make(planned, engines.load(planned))).frames))


def theirs(pipeline: Any, **asked: Any) -> np.ndarray:
    """diffusers' frames, float [F, H, W, 3] of 0 to 255."""
    made = {"prompt": "a red cat", "negative_prompt": "blurry", "num_frames": FRAMES, "height": 32, "width": 64}
    generator = torch.Generator().manual_seed(7)
    frames = pipeline(**{**made, **ASKED, **asked}, generator=generator, output_type="np").frames[0]
    return np.asarray(frames, np.float32) * 255


@pytest.mark.parametrize(
    ("family", "style"), [("wan", "text"), ("wan", "two"), ("wan", "both"), ("ltx", "text"), ("ltx", "denoising")]
)
def test_text_to_video_equals_diffusers(family: str, style: str, folder: Path) -> None:
    model, pipeline = saved(folder, family, style)
    extra: dict[str, Any] = {"frame_rate": 12} if family == "ltx" else {}
    if style == "denoising":
        extra |= {"decode_timestep": 0.05, "decode_noise_scale": 0.025}
    frames = ours(model, img_w=64, img_h=32, sampler=SAMPLERS[family], **({"fps": 12.0} if extra else {}))
    expected = theirs(pipeline, **extra)
    assert expected.std() > 1
    assert np.abs(frames - expected).max() < 1.01


@pytest.mark.parametrize(("family", "style"), [("wan", "image"), ("wan", "both"), ("ltx", "text")])
def test_image_to_video_equals_diffusers(
    family: str, style: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.pipelines.wan import pipeline_wan_i2v

    mends = SimpleNamespace(fix_text=lambda text: text)  # which that pipeline always calls
    monkeypatch.setattr(pipeline_wan_i2v, "ftfy", mends, raising=False)
    model, pipeline = saved(folder, family, style)
    base = folder / "base.png"
    frames = ours(model, base_img=str(base), sampler=SAMPLERS[family])
    their = tiny_clips.of_images(pipeline)
    their.set_progress_bar_config(disable=True)
    expected = theirs(their, image=Image.open(base))
    assert np.abs(frames - expected).max() < 1.01
    assert np.abs(frames - ours(model, base_img=str(base), sampler=SAMPLERS[family], seed="8")).max() > 1


def test_a_clip_is_redrawn_and_its_first_frame_kept(folder: Path, tmp_path: Path) -> None:
    """video2video, with a strict mask; and the base's bytes as the first frame of an image to video."""
    model, _ = saved(folder, "wan", "both")
    shared = ["--model", model, "--prompt", "a cat", "--steps", "3", "--seed", "1", "--out", str(tmp_path)]
    assert (
        run("video", [*shared, "--base_img", str(folder / "base.png"), "--frames", "5", "--strict_first_frame"]) == 0
    )
    (clip,) = tmp_path.glob("*img2video*.mkv")
    mask = np.zeros((32, 64), np.uint8)
    mask[:, 24:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    again = ["--base_video", str(clip), "--mask_img", str(tmp_path / "mask.png"), "--strict_mask"]
    assert run("video", [*shared, *again]) == 0
    from noisette import clips

    base = np.stack(list(clips.frames(clip)))
    assert np.array_equal(base[0], np.asarray(Image.open(folder / "base.png")))
    (redrawn,) = tmp_path.glob("*video2video*.mkv")
    frames = np.stack(list(clips.frames(redrawn)))
    assert np.array_equal(frames[:, :, :24], base[:, :, :24])
    assert not np.array_equal(frames[:, :, 24:], base[:, :, 24:])


INPUTS = ("base_img", "base_video", "mask_video")
MISTAKES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "--num_frames 8 does not suit": ("wan", "text", {"num_frames": 8}),
    ": 5 and 9 do": ("wan", "text", {"num_frames": 7}),
    ": 9 and 13 do": ("ltx", "text", {"num_frames": 10}),
    "makes clips of text alone": ("wan", "text", {"base_img": "base.png"}),
    "goes on from a picture: give it one by --base_img": ("wan", "image", {}),
    "--walk_to 5 is for models of single frames": ("wan", "text", {"walk_to": "5"}),
    "--loop True is for models of single frames": ("ltx", "text", {"loop": True}),
    "takes one for the whole clip": ("ltx", "text", {"prompt": "0: a cat; 4: a dog"}),
    "takes words, no strength": ("ltx", "text", {"motion": "spin:2"}),
    "begins with the picture and pure noise": ("ltx", "text", {"base_img": "base.png", "strength": 0.5}),
    "--strength 0.0 of --num_inference_steps 50 is less than one step": (
        "wan", "text", {"base_video": "base.mkv", "strength": 0.0},
    ),
    "base.mkv: .* masks clips": (
        "ltx", "text", {"base_img": "base.png", "mask_video": "base.mkv", "num_frames": 9},
    ),
    "--schedule karras does not suit wan": ("wan", "text", {"schedule": "karras"}),
    "--engine openvino does not run wan": ("wan", "text", {"engine": "openvino"}),
    "makes clips: python3 video.py": ("wan", "text", {"num_frames": None}),
}  # fmt: skip


@pytest.mark.parametrize("line", MISTAKES)
def test_what_a_model_of_clips_cannot_take(line: str, folder: Path) -> None:
    family, style, asked = MISTAKES[line]
    model, _ = saved(folder, family, style)
    asked = {name: str(folder / value) if name in INPUTS else value for name, value in asked.items()}
    with pytest.raises(UserError, match=line.replace("(", r"\(")):
        plan(Recipe(**{"model": model, "num_frames": 5, **asked}))


def test_a_size_off_the_grid_is_padded_inside(folder: Path) -> None:
    model, _ = saved(folder, "wan", "text")
    assert ours(model, img_w=40, img_h=24, num_frames=5, num_inference_steps=1).shape == (5, 24, 40, 3)
    assert plan(Recipe(model=model, num_frames=0)).size.width == 832
    assert plan(Recipe(model=model, num_frames=0)).clip.num_frames == 81  # type: ignore[union-attr]


@pytest.mark.parametrize(("family", "style"), [("wan", "text"), ("ltx", "text")])
def test_one_step_makes_a_clip(family: str, style: str, folder: Path) -> None:
    model, _ = saved(folder, family, style)
    assert ours(model, img_w=64, img_h=32, num_inference_steps=1).std() > 1
