"""Files written whole or not at all, then read back: the kept pixels of every one are the base's."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from noisette import record
from noisette.errors import UserError
from noisette.names import part_of, reserve
from noisette.pixels import Picture, composite
from noisette.reading import CHANNELS, read
from noisette.record import Kept, check_kept, describe, file_hash, pixel_hash, read_recipe, save

RECIPE = {"prompt": "alien", "seed": "1024", "num_inference_steps": 25, "model": "noisette-1"}
METADATA: dict[str, Any] = {"recipe": RECIPE, "provenance": {"engine": "torch"}}
ROOT = Path(__file__).parents[1]


def base_file(path: Path, mode: str, width: int, height: int, seed: int) -> tuple[Path, np.ndarray[Any, Any]]:
    """A random picture on disk in a mode, and its pixels [H, W, C] as they should be read."""
    draw = np.random.default_rng(seed)
    if mode == "P":
        indices = draw.integers(0, 256, (height, width)).astype(np.uint8)
        palette = draw.integers(0, 256, (256, 3)).astype(np.uint8)
        alphas = draw.integers(0, 256, 256).astype(np.uint8)
        image = Image.fromarray(indices, "P")
        image.putpalette(palette.tobytes())
        image.save(path, transparency=alphas.tobytes())
        return path, np.concatenate([palette, alphas[:, None]], axis=1)[indices]
    deep = mode == "I;16"
    data = draw.integers(0, 65536 if deep else 256, (height, width, CHANNELS[mode]))
    data = data.astype(np.uint16 if deep else np.uint8)
    Image.fromarray(data[..., 0] if data.shape[2] == 1 else data).save(path)
    return path, data


def decoded(path: Path) -> np.ndarray[Any, Any]:
    """The file's pixels by Pillow alone."""
    with Image.open(path) as image:
        data = np.asarray(image)
    return data[..., None] if data.ndim == 2 else data


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["L", "LA", "RGB", "RGBA", "P", "I;16"]),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0]),
    st.integers(0, 2**32),
)
def test_no_kept_pixel_differs_in_the_file_as_re_read(
    tmp_path_factory: pytest.TempPathFactory, mode: str, width: int, height: int, share: float, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path, pixels = base_file(folder / "base.png", mode, width, height, seed)
    draw = np.random.default_rng(seed + 1)
    painted = draw.integers(0, 256, (height, width, 3)).astype(np.uint8)
    repaint = draw.random((height, width)) < share
    base = read(path)
    name = reserve(folder / "out", "alien", "inpainting", seed, 25)
    saved = save(name, composite(base, painted, repaint.astype(np.float32)), METADATA, base, repaint)
    assert saved.proved
    assert saved.kept is not None
    assert (saved.kept.count, saved.kept.differing) == (int((~repaint).sum()), 0)
    again = decoded(name)
    assert again.dtype == pixels.dtype
    assert np.array_equal(again[~repaint], pixels[~repaint])


def test_one_changed_kept_pixel_is_found_on_disk(tmp_path: Path) -> None:
    path, pixels = base_file(tmp_path / "base.png", "RGBA", 30, 20, 0)
    base, repaint = read(path), np.zeros((20, 30), np.bool_)
    repaint[5:10, 5:10] = True
    for place, differing in (((0, 0, 3), 1), ((5, 5, 0), 0)):  # one outside, in alpha only; one inside
        changed = pixels.copy()
        changed[place] ^= 1
        Image.fromarray(changed).save(tmp_path / "changed.png")
        assert check_kept(tmp_path / "changed.png", base, repaint).differing == differing
    saved = save(tmp_path / "wrong.png", Picture(255 - pixels, "RGBA"), METADATA, base, repaint)
    assert not saved.proved
    assert "NOT PROVED, 575 of 575 kept pixels differ" in saved.to_text()
    assert (tmp_path / "wrong.png").exists()  # a miss deletes nothing
    assert describe(tmp_path / "wrong.png")["kept"]["differing"] == 575


def test_another_size_or_mode_differs_everywhere(tmp_path: Path) -> None:
    base, repaint = Picture(np.zeros((4, 4, 3), np.uint8)), np.zeros((4, 4), np.bool_)
    for mode, size in (("RGB", (5, 4)), ("RGBA", (4, 4)), ("L", (4, 4))):
        Image.new(mode, size).save(tmp_path / "a.png")
        assert check_kept(tmp_path / "a.png", base, repaint).differing == 16


def test_profile_resolution_and_exif_travel_with_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "described"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (9, 5), "red").save(tmp_path / "a.jpg", exif=exif, icc_profile=profile, dpi=(300, 150))
    picture = read(tmp_path / "a.jpg")
    assert save(tmp_path / "b.png", picture, METADATA).proved
    again = read(tmp_path / "b.png")
    assert again.size == (5, 9)
    assert again.info["icc_profile"] == profile
    assert again.info["dpi"] == pytest.approx((150, 300), abs=0.02)
    assert again.info["exif"] == picture.info["exif"]
    save(tmp_path / "c.png", again, METADATA)
    assert read(tmp_path / "c.png").info == again.info


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    picture = Picture(np.full((8, 8, 3), 9, np.uint8))
    saved = save(tmp_path / "a.png", picture, METADATA)
    found = describe(tmp_path / "a.png")
    assert (found["recipe"], found["provenance"]) == (RECIPE, METADATA["provenance"])
    assert found["pixels"] == found["pixels_found"] == saved.pixels == pixel_hash(picture)
    assert read_recipe(str(tmp_path / "a.png")).num_inference_steps == 25
    assert json.loads(json.dumps(saved.describe()))["proved"] is True
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["parameters"].startswith("alien\nSteps: 25, ")
    assert saved.to_text() == str(tmp_path / "a.png")


def test_hashes_are_over_what_they_say(tmp_path: Path) -> None:
    data = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    hashes = {pixel_hash(p) for p in (Picture(data), Picture(data.reshape(1, 4, 3)), Picture(data ^ 1))}
    assert len(hashes) == 3
    assert pixel_hash(Picture(data, "RGB", {"dpi": (72, 72)})) in hashes
    big = Picture(np.array([[[258]]], ">u2"), "I;16")
    assert pixel_hash(big) == pixel_hash(Picture(np.array([[[258]]], "<u2"), "I;16"))
    (tmp_path / "a").write_bytes(b"abc")
    abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_hash(tmp_path / "a") == abc
    with pytest.raises(UserError, match="can't be read"):
        file_hash(tmp_path / "none")


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UserError, "the disk is full"),
        (OSError(errno.EIO, "Input/output error"), UserError, "Input/output error"),
        (KeyboardInterrupt("Ctrl-C"), KeyboardInterrupt, "Ctrl-C"),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
    ],
)
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
    said: str,
) -> None:
    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    path = reserve(tmp_path, "alien", "text2img", 1, 1)
    with pytest.raises(raised, match=said):
        save(path, Picture(np.zeros((8, 8, 3), np.uint8)), METADATA)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"theirs")
    with pytest.raises(UserError, match=r"a\.png can't be written: File exists"):
        save(tmp_path / "a.png", Picture(np.zeros((8, 8, 3), np.uint8)), METADATA)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"theirs"]


def test_a_file_that_is_not_the_picture_is_not_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture(np.zeros((8, 8, 3), np.uint8))
    other = record.encode(Picture(picture.data + 1), METADATA)
    monkeypatch.setattr(record, "encode", lambda *_: other)
    saved = save(tmp_path / "a.png", picture, METADATA)
    assert not saved.proved
    assert "NOT PROVED" in saved.to_text()
    assert saved.kept is None


SAVE_AND_STOP = """
import os, sys, time
from pathlib import Path
import numpy as np
from noisette.names import part_of, reserve
from noisette.pixels import Picture
from noisette.record import save

data = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
path = reserve(Path(sys.argv[1]), "alien", "text2img", 1, 1)

def stop(_):
    part = part_of(path)
    os.truncate(part, part.stat().st_size // 2)  # as if half of it had reached the disk
    print("half", flush=True)
    time.sleep(60)

os.fsync = stop
save(path, Picture(data), {"recipe": {}})
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_kill_in_the_middle_of_writing_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVE_AND_STOP, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    name = tmp_path / "alien-text2img-1-1its-0.png"
    assert list(tmp_path.iterdir()) == [part_of(name)]
    assert part_of(name).stat().st_size > 100_000
    assert reserve(tmp_path, "alien", "text2img", 1, 1).name == "alien-text2img-1-1its-1.png"


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from noisette.names import reserve
from noisette.pixels import Picture
from noisette.record import save

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
data = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
save(reserve(Path(sys.argv[1]), "alien", "text2img", 1, 1), Picture(data), {"recipe": {}})
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on a file's size")
def test_a_disk_that_really_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "UserError" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_kept_counts_nothing_under_a_full_mask() -> None:
    base = Picture(np.zeros((2, 2, 3), np.uint8))
    kept = record.kept_in(Picture(base.data + 1), base, np.ones((2, 2), np.bool_))
    assert (kept.count, kept.differing) == (0, 0)
    assert isinstance(kept, Kept)
