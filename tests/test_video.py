"""`video.py` as a user runs it, on a tiny random checkpoint: modes, exact pixels, files made again, mistakes."""

from __future__ import annotations

import gc
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisette import clips, codecs, engines
from noisette.cli import run
from noisette.clip_fields import parse_travel
from noisette.clips import Frame
from noisette.codecs import CODECS
from noisette.generate import generate
from noisette.judge.motion import motion_of
from noisette.masks import LUMA
from noisette.plan import plan
from noisette.recipe import FIELDS, Recipe, asks
from noisette.record import read_recipe
from noisette.steadiness import first_frame_error
from noisette.video import coloured_as, make
from tests import tiny

SIDE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a base clip of 6 frames, a picture, masks, of 32x32."""
    place = tmp_path_factory.mktemp("video")
    tiny.save("sd1", place / "model")
    y, x = np.mgrid[:SIDE, :SIDE]
    base = [np.stack([x * 8, y * 8, np.full_like(x, 40 * i)], -1).astype(np.uint8) for i in range(6)]
    write(place / "base.mkv", base)
    mask = [np.repeat(((x > 4 * i) * 255)[..., None], 3, -1).astype(np.uint8) for i in range(6)]
    write(place / "mask.mkv", mask)
    write(place / "short.mkv", mask[:4])
    write(place / "edge.mkv", [np.where(x[..., None] < 5, 255, np.zeros((SIDE, SIDE, 3))).astype(np.uint8)] * 6)
    write(place / "black.mkv", [np.zeros((SIDE, SIDE, 3), np.uint8)] * 6)
    write(place / "small.mkv", [frame[:16] for frame in mask])
    Image.fromarray(base[0]).save(place / "base.png")
    Image.fromarray(mask[3]).save(place / "mask.png")
    return place


def write(path: Path, frames: list[Frame]) -> None:
    codecs.encode(path, frames, CODECS["ffv1"], frames[0].shape[1::-1], Fraction(8))


def video(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`python3 video.py …` in the folder, two steps, with its tiny model."""
    monkeypatch.chdir(folder)
    settings = ["--model", "model", "--steps", "2", "--seed", "5", "--sampler", "euler", "--out", str(out)]
    return run("video", [*settings, *arguments])


def only(out: Path, suffix: str) -> Path:
    (path,) = out.glob(f"*{suffix}")
    return path


CLIPS = {
    "walk": (["--prompt", "cat", "--walk_to", "6", "--img_w", "32", "--img_h", "32", "--frames", "5"], 5),
    "travel": (["--prompt", "0: cat; 4: red", "--img_w", "32", "--img_h", "32", "--frames", "5"], 5),
    "video2video": (["--prompt", "cat", "--base_video", "base.mkv"], 6),
    "masked": (["--prompt", "cat", "--base_video", "base.mkv", "--mask_video", "mask.mkv", "--frames", "4"], 4),
    "picture masked": (["--prompt", "cat", "--base_img", "base.png", "--mask_video", "mask.mkv", "--frames", "4"], 4),
    "picture walk": (["--prompt", "cat", "--base_img", "base.png", "--walk_to", "6", "--frames", "3"], 3),
}


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_has_its_frames_and_can_be_made_again(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, count = CLIPS[name]
    assert video(folder, tmp_path, monkeypatch, *arguments) == 0
    path = only(tmp_path, ".mp4")
    clip = clips.probe(path)
    assert (clip.size, clip.num_frames, clip.fps) == ((SIDE, SIDE), count, 8)
    assert run("verify", [str(path)]) == 0
    assert capsys.readouterr().out.endswith("identical\n")
    assert run("video", ["--from", str(path), "--codec", "ffv1", "--out", str(tmp_path)]) == 0
    exact, lossy = (np.stack(list(clips.frames(p))) @ LUMA for p in (only(tmp_path, ".mkv"), path))
    assert np.abs(exact - lossy).mean() < 3  # random colours are halved in H.264, brightness is not


def test_neighbours_of_a_walk_resemble_each_other_and_ends_are_the_pictures_of_their_seeds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = ["--prompt", "cat", "--img_w", "32", "--img_h", "32"]
    assert video(folder, tmp_path, monkeypatch, *size, "--walk_to", "6", "--frames", "5", "--codec", "ffv1") == 0
    frames = np.stack(list(clips.frames(only(tmp_path, ".mkv")))).astype(int)
    for seed, frame in ((5, frames[0]), (6, frames[-1])):
        settings = ["--model", "model", "--steps", "2", "--sampler", "euler", "--out", str(tmp_path / str(seed))]
        assert run("image", [*settings, *size, "--seed", str(seed)]) == 0
        assert np.abs(np.asarray(Image.open(only(tmp_path / str(seed), ".png"))).astype(int) - frame).max() <= 1
    steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert steps.max() < np.abs(frames[0] - frames[-1]).mean()


@pytest.mark.parametrize(("loop", "count"), [([], 5), (["--loop"], 6)])
def test_interpolation_adds_frames_and_keeps_those_between_which_it_adds(
    loop: list[str], count: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = ["--prompt", "0: cat; 2: red", "--walk_to", "6", "--img_w", "32", "--img_h", "32", "--frames", "3"]
    walk += ["--codec", "ffv1", "--steps", "4", *loop]
    assert video(folder, tmp_path / "few", monkeypatch, *walk) == 0
    assert video(folder, tmp_path / "many", monkeypatch, *walk, "--interpolate", "2") == 0
    few, many = (only(tmp_path / name, ".mkv") for name in ("few", "many"))
    assert clips.probe(many).fps == 2 * clips.probe(few).fps
    few, many = (np.stack(list(clips.frames(path))).astype(int) for path in (few, many))
    assert len(many) == count
    assert np.abs(many[::2] - few).max() <= 1
    assert (np.abs(many[1] - many[0]).mean(), np.abs(many[1] - many[2]).mean()) > (0, 0)
    assert np.abs(many[1] - many[0]).mean() < np.abs(many[2] - many[0]).mean()


@pytest.mark.parametrize(("loop", "count"), [([], 9), (["--loop"], 12)])
def test_a_plain_blend_is_made_only_by_name(
    loop: list[str], count: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = ["--prompt", "cat", "--walk_to", "6", "--img_w", "32", "--img_h", "32", "--frames", "3"]
    walk += ["--codec", "ffv1", *loop]
    assert video(folder, tmp_path / "few", monkeypatch, *walk) == 0
    assert (
        video(folder, tmp_path / "many", monkeypatch, *walk, "--interpolate", "4", "--interpolate_by", "blend") == 0
    )
    few, many = (np.stack(list(clips.frames(only(tmp_path / name, ".mkv")))).astype(int) for name in ("few", "many"))
    assert len(many) == count
    assert np.array_equal(many[::4], few)
    assert np.abs(many[1] - (0.75 * few[0] + 0.25 * few[1])).max() <= 1
    assert np.abs(many[6] - (few[1] + few[2]) / 2).max() <= 1
    if loop:
        assert np.abs(many[10] - (few[2] + few[0]) / 2).max() <= 1


def test_a_strict_mask_keeps_every_black_pixel_of_every_frame(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masked = ["--prompt", "cat", "--base_video", "base.mkv", "--mask_video", "mask.mkv", "--strict_mask"]
    assert video(folder, tmp_path, monkeypatch, *masked) == 0
    assert "kept pixels, none differs" in capsys.readouterr().out
    assert run("verify", ["--kept", str(only(tmp_path, ".mkv"))]) == 0
    assert "none differs" in capsys.readouterr().out
    made, base, mask = (
        np.stack(list(clips.frames(path)))
        for path in (only(tmp_path, ".mkv"), folder / "base.mkv", folder / "mask.mkv")
    )
    kept = mask[..., 0] < 128
    assert (made[kept] == base[kept]).all()
    assert (made[~kept] != base[~kept]).any()


def test_a_strict_first_frame_is_the_base_picture(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ["--prompt", "cat", "--base_img", "base.png", "--walk_to", "9", "--frames", "3", "--strict_first_frame"]
    assert video(folder, tmp_path, monkeypatch, *still) == 0
    assert "1,024 kept pixels, none differs" in capsys.readouterr().out
    first, second, _ = clips.frames(only(tmp_path, ".mkv"))
    assert np.array_equal(first, np.asarray(Image.open(folder / "base.png")))
    assert not np.array_equal(second, first)


def test_an_edited_clip_is_told_from_its_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from noisette.stamps import read_stamp, stamp
    from noisette.verify import verify_file

    assert video(folder, tmp_path, monkeypatch, "--prompt", "cat", "--base_video", "base.mkv", "--frames", "3") == 0
    path = only(tmp_path, ".mp4")
    frames = [255 - frame for frame in clips.frames(path)]
    codecs.encode(tmp_path / "plain.mp4", frames, CODECS["h264"], (SIDE, SIDE), Fraction(8))
    stamp(tmp_path / "plain.mp4", tmp_path / "edited.mp4", ".mp4", read_stamp(path) or "")
    verdict = verify_file(tmp_path / "edited.mp4")
    assert not verdict.good or "its frames were edited since" in verdict.why


@pytest.mark.parametrize("name", ["slide left", "slide down"])
def test_without_motion_modules_a_still_is_moved_by_its_rule(name: str, tmp_path: Path) -> None:
    """The built-in model redraws a blue disc that a rule moved: it went where it was told, and is blue."""
    y, x = np.mgrid[:128, :128] - 64
    disc = np.where((x**2 + y**2 < 45**2)[..., None], (30, 60, 220), 255).astype(np.uint8)
    Image.fromarray(disc).save(tmp_path / "disc.png")
    asked: dict[str, Any] = {"base_img": str(tmp_path / "disc.png"), "motion": name, "motion_adapter": "none"}
    planned = plan(Recipe(prompt="a ball", num_frames=4, num_inference_steps=4, seed="1", **asked), out=tmp_path)
    result = next(make(planned, engines.load(planned)))
    frames = np.stack(list(result.frames))
    assert motion_of(frames) == name
    assert first_frame_error(frames, disc) < 10
    blue = frames[-1].astype(int)[..., 2] - frames[-1].astype(int)[..., 0]
    assert (blue > 100).sum() > 1000
    assert result.facts["moved"] == name


def test_redrawn_frames_keep_the_colours_of_what_they_redraw() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(1, 4, 3, 8, 8)).astype(np.float32)
    known = 3 * rng.normal(size=(1, 4, 3, 8, 8)).astype(np.float32) + 1
    made = coloured_as(drawn, known)
    np.testing.assert_allclose(made.mean((3, 4)), known.mean((3, 4)), atol=1e-5)
    np.testing.assert_allclose(made.std((3, 4)), known.std((3, 4)), atol=1e-5)
    assert np.corrcoef(made[0, 0, 0].ravel(), drawn[0, 0, 0].ravel())[0, 1] > 0.999


def test_a_prompt_alone_makes_a_clip_that_is_made_again_from_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = ["--img_w", "32", "--img_h", "32", "--frames", "4", "--codec", "ffv1"]
    assert video(folder, tmp_path / "one", monkeypatch, "--prompt", "cat, red", *size) == 0
    path = only(tmp_path / "one", ".mkv")
    assert read_recipe(str(path)).motion == "bounce"
    assert run("video", ["--from", str(path), "--out", str(tmp_path / "two")]) == 0
    again = only(tmp_path / "two", ".mkv")
    frames, same = (np.stack(list(clips.frames(each))) for each in (path, again))
    assert np.array_equal(frames, same)
    assert not np.array_equal(frames[0], frames[1])
    still = plan(Recipe(prompt="cat, red", model="model", seed="5", num_inference_steps=2, sampler="euler", img_w=32,
                        img_h=32))  # fmt: skip
    assert np.array_equal(frames[0], next(generate(still, engines.load(still))).picture.data)


def test_the_still_of_a_wide_clip_is_composed_as_a_picture_is(tmp_path: Path) -> None:
    shared = ["--prompt", "a red apple", "--steps", "4", "--seed", "3", "--img_w", "384", "--img_h", "192"]
    assert run("image", [*shared, "--out", str(tmp_path)]) == 0
    assert run("video", [*shared, "--frames", "2", "--codec", "ffv1", "--out", str(tmp_path)]) == 0
    picture = np.asarray(Image.open(next(tmp_path.glob("*text2img*.png"))).convert("RGB")).astype(float)
    first = next(clips.frames(only(tmp_path, ".mkv"))).astype(float)
    assert np.abs(first - picture).mean() < 8  # the autoencoder's own error; 50 where it is composed as a frame


PICTURES = {
    "crop auto": ["--base_img", "base.png", "--mask_img", "mask.png"],
    "crop 8": ["--base_img", "base.png", "--mask_img", "mask.png", "--crop", "8"],
    "outpaint left=32, crop auto": ["--base_img", "base.png", "--outpaint", "left=32"],
    "variation True, image_prompt 0.0": ["--base_img", "base.png", "--variation", "--sampler", "euler_ancestral"],
    "upscale 2": ["--base_img", "base.png", "--upscale", "2", "--lenient"],
    "refine 0.5": ["--img_w", "128", "--img_h", "128", "--refine", "0.5"],
    "step_cache 2": ["--img_w", "32", "--img_h", "32", "--step_cache", "2"],
}


@pytest.mark.parametrize("named", PICTURES)
def test_a_clip_goes_without_what_only_a_picture_knows(
    named: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    settings = ["--model", "model", "--prompt", "cat", "--steps", "2", "--seed", "5", "--sampler", "euler"]
    assert run("image", [*settings, *PICTURES[named], "--out", str(tmp_path)]) == 0
    picture = only(tmp_path, ".png")
    capsys.readouterr()
    assert run("video", ["--from", str(picture), "--frames", "2", "--out", str(tmp_path)]) == 0
    assert (
        f"note: --from {picture} is a picture's recipe, a clip goes without its {named}\n" in capsys.readouterr().err
    )
    recipe = read_recipe(str(only(tmp_path, ".mp4")))
    assert not any(field.metadata.get("only") == "image" and asks(recipe, name) for name, field in FIELDS.items())


@pytest.mark.parametrize(
    "prompt", ["16:9 photo", "16:9", "5:30 in the morning", "at 5:30 in the morning", "16:9 photo; 4:3 photo", "a: b"]
)
def test_a_ratio_or_a_time_of_day_is_no_frame(prompt: str) -> None:
    assert parse_travel(prompt) == ((0, prompt),)


@pytest.mark.parametrize(
    "prompt", ["0: a seed; 8: 3 saplings", "0:a seed;8: 3 saplings", " 0 : a seed ; 8: 3 saplings;"]
)
def test_a_prompt_that_changes_names_its_frames(prompt: str) -> None:
    assert parse_travel(prompt) == ((0, "a seed"), (8, "3 saplings"))


MISTAKES: dict[str, list[str]] = {
    "--motion 'dance' needs other motion modules (--motion_adapter); by rule: bounce, spin": ["--motion", "dance"],
    "--motion spin:2 has no strength without motion modules": ["--motion", "spin:2"],
    "--fps 0.0 is out of range": ["--prompt", "cat", "--fps", "0"],
    "--num_frames 10001 is out of range": ["--num_frames", "10001"],
    "both given": ["--base_img", "base.png", "--base_video", "base.mkv"],
    "--strength 0.5 needs --base_img or --base_video": ["--strength", "0.5"],
    "has 4 frames, the clip 6": ["--base_video", "base.mkv", "--mask_video", "short.mkv"],
    "is 32x16, the base 32x32": ["--base_video", "base.mkv", "--mask_video", "small.mkv"],
    "is 32x16, the base 32x32: say": ["--base_img", "base.png", "--mask_video", "small.mkv", "--frames", "6"],
    "the mask edge.mkv is empty at 16x32: none of its 6 frames has anything to repaint by --fit crop": [
        "--base_video", "base.mkv", "--mask_video", "edge.mkv", "--fit", "crop", "--img_w", "16", "--img_h", "32",
    ],
    "the mask black.mkv is empty at 32x32: none of its 6 frames has anything to repaint": [
        "--base_video", "base.mkv", "--mask_video", "black.mkv",
    ],
    "more than the 6 that base.mkv has": ["--base_video", "base.mkv", "--frames", "7"],
    "--codec h264 can't keep a pixel for --strict_mask": [
        "--base_video", "base.mkv", "--mask_img", "mask.png", "--strict_mask", "--codec", "h264",
    ],
    "--strict_first_frame True needs --base_img": ["--base_video", "base.mkv", "--strict_first_frame"],
    "is a picture, not a clip": ["--base_video", "base.png"],
    "is not there": ["--base_video", "nothing.mp4"],
    "unknown flag '--variation'": ["--variation"],
    "--codec 'h265' is unknown; did you mean 'h264'?": ["--codec", "h265"],
    "--prompt names frame 9: the clip's last is 3": ["--prompt", "0: cat; 9: red", "--frames", "4"],
    "no folder with config.json": ["--prompt", "cat", "--motion_adapter", "base.mkv"],
    "--interpolate 3 is not 1, 2 or 4": ["--prompt", "cat", "--walk_to", "6", "--interpolate", "3"],
    "--interpolate_by blend has no effect": ["--prompt", "cat", "--interpolate_by", "blend"],
    "--motion spin has no effect without motion modules": ["--prompt", "cat", "--walk_to", "6", "--motion", "spin"],
}  # fmt: skip


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    line: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert video(folder, tmp_path / "out", monkeypatch, *MISTAKES[line]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_before_anything_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    usage: Any = type("Usage", (), {"free": 10_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    many = ["--prompt", "cat", "--walk_to", "6", "--frames", "10000", "--img_w", "512", "--img_h", "512"]
    assert video(folder, tmp_path, monkeypatch, *many) == 2
    assert "--num_frames 10000 of 512x512 by --codec h264 may take 2.1 GB" in capsys.readouterr().err


def test_image_refuses_a_clips_recipe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = CLIPS["walk"][0]
    assert video(folder, tmp_path, monkeypatch, *walk) == 0
    assert run("image", ["--from", str(only(tmp_path, ".mp4"))]) == 2
    assert "is a clip's recipe: python3 video.py makes clips" in capsys.readouterr().err


def test_memory_does_not_grow_with_length(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While frames are made and written, at most a few are alive."""
    from noisette import video as clips

    alive: list[weakref.ref[Any]] = []
    most = 0
    plain = clips.finish

    def watched(*arguments: Any) -> Any:
        nonlocal most
        picture, facts = plain(*arguments)
        alive.append(weakref.ref(picture.data))
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return picture, facts

    monkeypatch.setattr(clips, "finish", watched)
    walk = ["--prompt", "cat", "--walk_to", "6", "--img_w", "32", "--img_h", "32", "--frames", "24"]
    assert video(folder, tmp_path, monkeypatch, *walk) == 0
    assert 1 <= most <= 4
