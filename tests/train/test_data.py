"""The data: packages, pictures, captions, examples."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomllib
from PIL import Image

from noisette import judge
from noisette.errors import UserError
from noisette.train import (
    captions,
    compose,
    data,
    examples,
    upscale,
    vectors,
)
from noisette.train.config import read_config
from tests.train.toys import disc, tiny, toy_pictures, vector_package


def test_captions_name_the_thing_or_its_tags() -> None:
    said = captions.captions_for("alien", ["creature", "ufo"], "green", 200, np.random.default_rng(0))
    assert said[0] == "alien"
    assert {"an alien on a white background", "a green alien"} < set(said)
    assert all(any(word in caption for word in ("alien", "creature", "ufo")) for caption in said)
    assert said == captions.captions_for("alien", ["creature", "ufo"], "green", 200, np.random.default_rng(0))


LITTLE = {"and", "for", "from", "her", "his", "its", "that", "the", "which", "who", "with", "you"}


def content(text: str) -> set[str]:
    """The words of a text that carry its meaning."""
    return set(re.findall(r"[a-z]{3,}", text.lower())) - LITTLE


def test_descriptions_are_none_of_the_paraphrases_that_the_judge_asks() -> None:
    said = [text for texts in captions.descriptions().values() for text in texts]
    asked = [content(text) for text in tomllib.loads((judge.HERE / "paraphrases.toml").read_text(encoding="utf-8"))]
    assert len(said) > 4000
    assert len(set(said)) == len(said)
    for text in said:
        words = content(text)
        assert all(len(words & other) < 0.6 * len(words | other) for other in asked), text


def test_captions_of_colours_and_grounds() -> None:
    rng = np.random.default_rng(0)
    assert "an orange apple" in captions.recoloured("red apple", "orange", 50, rng)
    grounds = captions.on_ground("glasses", ["eye"], "orange", 50, rng)
    assert {"glasses on an orange background", "glasses, orange background"} < set(grounds)


@pytest.mark.parametrize("wanted", compose.HUES)
def test_recolouring_turns_the_dominant_hue_and_keeps_the_shape(wanted: str) -> None:
    red = disc((220, 30, 30))
    turned = compose.recolour(red, compose.dominant_hue(red) or 0.0, wanted)
    hue = compose.dominant_hue(turned)
    assert hue is not None
    assert examples.nearest_colour(hue) == wanted
    assert (turned[..., 3] == red[..., 3]).all()


def test_grey_has_no_hue() -> None:
    assert compose.dominant_hue(disc((120, 122, 121))) is None


def test_examples_are_the_same_each_time_and_leave_out_what_is_held_out() -> None:
    entries, cut_outs = toy_pictures()
    settings = read_config(None)["data"]
    made = examples.make_examples(entries, cut_outs, settings)
    assert made == examples.make_examples(entries, cut_outs, settings)
    assert {example.picture for example in made} == {0, 1, 3}  # 2 is held out
    assert [example.kind for example in made if example.picture == 3].count("recoloured") == 0  # it is grey
    drawn = [examples.draw(example, cut_outs) for example in made]
    assert all((picture[0, 0] == 255).all() == (e.kind != "ground") for e, picture in zip(made, drawn, strict=True))


def test_tall_and_wide_canvases_show_the_whole_thing_undistorted() -> None:
    entries, cut_outs = toy_pictures()
    made = examples.make_examples(entries, cut_outs, tiny()["data"])
    drawn = [examples.draw(example, cut_outs) for example in made if example.kind == "aspect"]
    assert {picture.shape for picture in drawn} <= {(64, 16, 3), (16, 64, 3)}
    for picture in drawn:
        rows, columns = (np.flatnonzero((picture < 250).any(-1).any(axis)) for axis in (1, 0))
        assert abs((rows[-1] - rows[0]) - (columns[-1] - columns[0])) <= 1  # a disc stays round
        assert 0.5 <= (rows[-1] - rows[0]) / 16 <= 0.8


def test_pairs_stand_as_their_captions_say() -> None:
    entries, cut_outs = toy_pictures()
    made = examples.make_examples(entries, cut_outs, tiny()["data"] | {"pairs": 40})
    for example in (example for example in made if example.kind == "pair"):
        assert example.other is not None
        assert 2 not in (example.picture, example.other)  # held out
        picture = examples.draw(example, cut_outs)
        halves = (picture[:16], picture[16:]) if example.above else (picture[:, :16], picture[:, 16:])
        for row, half in zip((example.picture, example.other), halves, strict=True):
            seen = np.median(half[(half < 200).any(-1)], axis=0)
            assert np.abs(seen - cut_outs[row][16, 16, :3]).max() < 12
        one, other = (entries[row]["label"] for row in (example.picture, example.other))
        for said in example.captions:
            if any(word in said for word in ("above", "left of", "next to")):
                assert said.index(one) < said.index(other)
                assert ("above" in said) <= example.above
            if any(word in said for word in ("below", "right of")):
                assert said.index(other) < said.index(one)


def fake_pack(archive: bytes) -> Any:
    """Stands for npm: leaves an archive in the folder it is called in."""

    def pack(command: list[str], cwd: Path, **_: Any) -> None:
        (cwd / "package.tgz").write_bytes(archive)

    return pack


def test_a_package_that_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", fake_pack(b"something else"))
    package = {"kind": "npm", "name": "thing", "version": "1.0.0", "sha256": hashlib.sha256(b"it").hexdigest()}
    with pytest.raises(UserError, match=r"thing 1\.0\.0 has changed"):
        data.fetch(tmp_path, "thing", package)
    assert not (tmp_path / "packages" / "thing").exists()


def test_a_fetch_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="npm notice\nnpm error 404 no such package\n")

    monkeypatch.setattr(subprocess, "run", fail)
    package = {"kind": "npm", "name": "thing", "version": "0", "sha256": ""}
    with pytest.raises(UserError, match=r"fetching thing 0 failed: .*404 no such package"):
        data.fetch(tmp_path, "thing", package)


def test_what_is_clear_shows_the_ground(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (compose.on_white(data.open_picture(tmp_path / "clear.png", 4)) == 255).all()


def test_vector_pictures_are_rendered_at_any_size_without_flags(tmp_path: Path) -> None:
    vector_package(tmp_path, "red")
    assert vectors.names(tmp_path) == ["circle", "disc"]
    (drawn,) = vectors.render(tmp_path, ["disc"], 48)
    assert drawn.shape == (48, 48, 4)
    assert tuple(drawn[24, 24]) == (255, 0, 0, 255)
    assert drawn[0, 0, 3] == 0


def test_patches_of_both_sizes_show_the_same() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    large = np.broadcast_to(ramp[None, :, None], (1, 64, 64, 3)).copy()
    small = np.stack([upscale.halve(large[0])[None]] * 2)
    for _ in range(20):
        settings = {"patch": 16, "shaded": 0.0}
        given, wanted = upscale.draw(large, small, large, settings, rng)
        assert np.abs(upscale.halve(wanted).astype(int) - given).max() <= 1
