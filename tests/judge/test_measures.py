"""The judge: hues, grounds, things, distances, each on pictures with a known answer; what is asked is well formed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomllib
import torch
from PIL import Image

from noisette import judge
from noisette.judge import drawing, features, measures
from noisette.train import captions
from noisette.train.config import read_config


def picture(
    ground: tuple[int, int, int] = (255, 255, 255), *discs: tuple[int, int, tuple[int, int, int]]
) -> np.ndarray:
    """128x128 with discs (row, column, colour) of radius 20."""
    drawn = np.broadcast_to(np.array(ground, np.uint8), (128, 128, 3)).copy()
    rows, columns = np.ogrid[:128, :128]
    for row, column, colour in discs:
        drawn[(rows - row) ** 2 + (columns - column) ** 2 < 400] = colour
    return drawn


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((220, 40, 40), "red"),
        ((245, 140, 30), "orange"),
        ((250, 215, 60), "yellow"),
        ((50, 170, 60), "green"),
        ((50, 110, 220), "blue"),
        ((150, 70, 210), "purple"),
        ((120, 120, 120), ""),
    ],
)
def test_the_dominant_hue(colour: tuple[int, int, int], name: str) -> None:
    assert measures.hue_name(picture((255, 255, 255), (60, 60, colour))) == name


def test_the_hue_of_nothing() -> None:
    assert measures.hue_name(picture()) == ""


@pytest.mark.parametrize("name", measures.GROUNDS)
def test_the_ground(name: str) -> None:
    assert measures.ground_name(picture(measures.GROUNDS[name], (60, 60, (255, 0, 255)))) == name


def test_two_things_are_two_and_one_is_halved() -> None:
    red, blue = (220, 40, 40), (50, 110, 220)
    two = measures.things(picture((255, 255, 255), (30, 30, red), (90, 90, blue)))
    assert sorted(measures.hue_name(thing) for thing in two) == ["blue", "red"]
    assert len(measures.things(picture((255, 255, 255), (60, 60, red)))) == 4


def test_memorized_sees_copies_and_mirror_images_only() -> None:
    known = [picture((255, 255, 255), (30, 40, (220, 40, 40)))]
    copies = [known[0], known[0][:, ::-1]]
    assert measures.memorized(copies, known) == 1.0
    assert measures.memorized([picture((255, 255, 255), (90, 90, (50, 110, 220)))], known) == 0.0


def test_ranked_puts_the_same_first() -> None:
    known = np.eye(5, dtype=np.float32)
    assert (measures.ranked(known[[3, 1]], known)[:, 0] == [3, 1]).all()


def test_the_classifier_halves_five_times() -> None:
    network = features.EfficientNetLite0().eval()
    assert sum(value.numel() for value in network.parameters()) == 4_652_008  # as published: 4.7 M
    with torch.inference_mode():
        assert network.features(torch.zeros(1, 3, 224, 224)).shape == (1, 1280)


def test_compositions_show_two_held_out_things() -> None:
    cut_outs = np.zeros((3, 32, 32, 4), np.uint8)
    cut_outs[:, 8:24, 8:24] = (255, 0, 0, 255)
    made = drawing.compositions([{"label": name} for name in "abc"], cut_outs, [0, 2], 4)
    assert {frozenset(text.split(" and ")) for text, _ in made} == {frozenset("ac")}
    assert all(shown.shape == (32, 32, 3) for _, shown in made)


def test_what_is_asked_is_whole() -> None:
    folder = Path(judge.__file__).parent
    asked = tomllib.loads((folder / "paraphrases.toml").read_text(encoding="utf-8"))
    things = tomllib.loads((folder / "things.toml").read_text(encoding="utf-8"))
    assert len(asked) == 150
    assert all(labels and text not in labels for text, labels in asked.items())
    assert len(things["colour"]) == 20
    assert len(things["pairs"]) == 50
    assert all(len(pair) == 3 for pair in things["pairs"])
    assert set(judge.COLOURS) == set(measures.HUES)
    assert "efficientnet" in read_config(None)["packages"]
    assert captions.named("apple") == f"{judge.a('apple')} apple"


def on_ground(boxes: list[tuple[int, int, int, int]], width: int, height: int) -> np.ndarray:
    """Red boxes (left, top, right, bottom) on white."""
    picture = np.full((height, width, 3), 255, np.uint8)
    for left, top, right, bottom in boxes:
        picture[top:bottom, left:right] = (220, 30, 30)
    return picture


@pytest.mark.parametrize("scale", [1, 3])
def test_things_are_counted_alike_at_any_size(scale: int) -> None:
    two = on_ground([(10, 10, 40, 60), (60, 10, 90, 60)], 100, 100)
    large = two.repeat(scale, 0).repeat(scale, 1)
    assert measures.count_things(large, 10_000) == 2
    assert measures.count_things(on_ground([(10, 10, 190, 60)], 200, 100), 10_000) == 1
    assert measures.count_things(on_ground([], 100, 100), 10_000) == 0


class Untouched:
    """Stands for the artist: gives the base back, with `shift` added where it was to paint."""

    def __init__(self, folder: Path, shift: int) -> None:
        self.folder, self.shift = folder, shift

    def make(self, fields: dict[str, Any]) -> np.ndarray:
        base, mask = (np.asarray(Image.open(fields[name])) for name in ("base_img", "mask_img"))
        return np.where(mask[..., None] > 0, base - np.uint8(self.shift), base)


def test_a_seam_is_measured_against_the_same_line_untouched(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(100, 200, (48, 48, 3)).astype(np.uint8)
    same = drawing.repainted(Untouched(tmp_path, 0), [("noise", noise)])
    assert same["seam ratio"] == 1.0
    assert same["seam, CIEDE2000"] > 1
    assert drawing.repainted(Untouched(tmp_path, 80), [("noise", noise)])["seam ratio"] > 1.5
