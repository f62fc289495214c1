"""Motion modules: what the clips show, and that a training run leaves a folder that makes moving clips."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import load_file, save_file

from noisette import engines, video
from noisette.checkpoint import locate
from noisette.moving import REACH, moved
from noisette.plan import plan
from noisette.recipe import MOTIONS, Recipe
from noisette.train import motion
from noisette.train.config import read_config
from tests import tiny


def square(side: int = 64) -> np.ndarray:
    """A black square in the middle of white, with a red corner."""
    picture = np.full((side, side, 3), 255, np.uint8)
    picture[24:40, 24:40] = 0
    picture[24:30, 24:30] = (255, 0, 0)
    return picture


def middle(frame: np.ndarray) -> tuple[float, float]:
    """Where the dark lies (x, y)."""
    weights = 255.0 - frame.min(axis=-1)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    return float((x * weights).sum() / weights.sum()), float((y * weights).sum() / weights.sum())


def clip_of(picture: np.ndarray, name: str, num_frames: int) -> np.ndarray:
    """The frames that a rule makes of a picture."""
    return np.stack(list(moved(picture, name, num_frames)))


@pytest.mark.parametrize("name", MOTIONS)
def test_every_motion_begins_with_the_still_itself(name: str) -> None:
    clip = clip_of(square(), name, 16)
    assert clip.shape == (16, 64, 64, 3)
    assert np.array_equal(clip[0], square())
    assert not np.array_equal(clip[1], square())


@pytest.mark.parametrize(
    ("name", "direction"),
    [("slide left", (-1, 0)), ("slide right", (1, 0)), ("slide up", (0, -1)), ("slide down", (0, 1))],
)
def test_slides_go_where_they_say(name: str, direction: tuple[int, int]) -> None:
    clip = clip_of(square(), name, 8)
    (x0, y0), (x1, y1) = middle(clip[0]), middle(clip[-1])
    assert np.allclose((x1 - x0, y1 - y0), np.array(direction) * REACH * 64, atol=1)


def test_a_loop_goes_back_as_it_came() -> None:
    there = np.stack(list(moved(square(), "slide right", 8, loop=True)))
    assert np.array_equal(there[1:4], there[:4:-1])
    assert middle(there[4])[0] == pytest.approx(31.5 + REACH * 64, abs=1)


def test_zooms_bounces_and_spins() -> None:
    dark = {name: (clip_of(square(), name, 9) < 128).all(-1).sum((1, 2)) for name in ("zoom in", "zoom out")}
    assert (np.diff(dark["zoom in"]) > 0).all()
    assert (np.diff(dark["zoom out"]) <= 0).all()
    assert dark["zoom out"][-1] < dark["zoom out"][0] / 2
    heights = [middle(frame)[1] for frame in clip_of(square(), "bounce", 8)]
    assert np.allclose(heights[::4], 31.5, atol=0.1)
    assert np.allclose(heights[2::4], 31.5 - 0.2 * 64, atol=0.5)
    spun = clip_of(square(), "spin", 4)[1]
    assert (spun[24:30, 34:40, 0] > 200).all()  # a quarter turn to the right
    assert (spun[34:40, 34:40] < 50).all()


def config() -> dict[str, dict[str, Any]]:
    made = read_config(None)
    made["data"] |= {"captions": 2, "grounds": 0, "recoloured": 0}
    made["motion"] |= {"frames": 4, "clips": 6, "heads": 2, "minutes": 0.02, "warm_up": 2, "batch": 4}
    made["motion"] |= {"compiled": False}
    made["log"] |= {"every": 1}
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three stills as `noisette train data` leaves them, beside a tiny exported model."""
    names = ("square", "box", "tile")
    entries = [{"label": name, "tags": [], "described": [], "group": 3, "held_out": False} for name in names]
    (tmp_path / "pictures.json").write_text(json.dumps(entries), encoding="utf-8")
    alpha = np.where((square() < 255).any(-1, keepdims=True), 255, 0).astype(np.uint8)
    np.save(tmp_path / "pictures.npy", np.stack([np.concatenate([square(), alpha], -1)] * 3))
    tiny.save("bert", tmp_path / "model")
    return tmp_path


def test_training_leaves_modules_that_the_model_moves_by(folder: Path) -> None:
    motion.train(folder, config(), folder / "model")
    lines = [json.loads(line) for line in (folder / "motion.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines)
    adapter = MotionAdapter.from_pretrained(folder / "model-motion")
    assert max(p.abs().max().item() for n, p in adapter.named_parameters() if ".proj_out." in n) > 0
    asked = {
        "prompt": "a box",
        "motion": "sliding left",
        "model": str(folder / "model"),
        "num_frames": 4,
        "img_w": 64,
    }
    planned = plan(Recipe(**asked, img_h=64, seed="1", num_inference_steps=2))
    assert planned.recipe.motion_adapter == "model"
    assert planned.clip is not None
    assert (planned.clip.moved, planned.clip.redrawn, planned.clip.tied) == ("slide left", 0.5, True)
    assert [prompt for _, prompt in planned.clip.prompts] == ["a box, sliding left"]
    frames = list(next(video.make(planned, engines.load(planned))).frames)
    assert len(frames) == 4
    assert not np.array_equal(frames[0], frames[3])


def test_clips_go_on_where_they_were_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = locate(str(folder / "model"))
    motion.prepare(folder, config(), checkpoint)
    whole = np.load(folder / "motion_latents.npy")
    for path in folder.glob("motion*"):
        path.unlink()
    count = itertools.count()

    def stopped(*arguments: Any) -> Any:
        if next(count) == 5:
            raise KeyboardInterrupt
        return moved(*arguments)

    monkeypatch.setattr(motion, "SAVED_EVERY", 2)
    monkeypatch.setattr(motion, "moved", stopped)
    with pytest.raises(KeyboardInterrupt):
        motion.prepare(folder, config(), checkpoint)
    assert len(json.loads((folder / "motion.json").read_text(encoding="utf-8"))["captions"]) == 4
    motion.prepare(folder, config(), checkpoint)
    assert next(count) == 8  # the last two clips, once more the one that was stopped
    assert np.array_equal(np.load(folder / "motion_latents.npy"), whole)


def test_clips_are_made_once_for_a_model_and_anew_for_another(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    motion.train(folder, config(), folder / "model")
    before = (folder / "motion_latents.npy").stat().st_mtime_ns
    unet = folder / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(unet).items()}, unet)
    learned = torch.load(folder / "motion.pt")["step"]
    motion.train(folder, settings := config(), folder / "model")  # another UNet takes up where the modules are
    settings["motion"]["minutes"] *= 2
    motion.train(folder, settings, folder / "model")
    assert torch.load(folder / "motion.pt")["step"] > learned
    assert (folder / "motion_latents.npy").stat().st_mtime_ns == before
    (folder / "motion.json").write_text('{"made_for": "another"}', encoding="utf-8")
    motion.train(folder, config(), folder / "model")
    assert (folder / "motion_latents.npy").stat().st_mtime_ns > before
    latents = np.load(folder / "motion_latents.npy")
    assert latents.shape == (6, 4, 16, 8, 8)
    assert np.isfinite(latents).all()
    assert latents.std() > 0
