"""All modes, from a recipe to finished pictures, on random checkpoints of each build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisette import engines
from noisette.generate import generate
from noisette.plan import Plan
from tests import tiny

SIDE = 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {style: tmp_path_factory.mktemp(style) for style in ("sd1", "inpaint", "bert")}
    for style, folder in made.items():
        tiny.save(style, folder)
    return made


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    """A base and a mask that repaints the middle."""
    pixels = np.random.RandomState(0).randint(0, 256, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "base.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return {"base_img": str(tmp_path / "base.png"), "mask_img": str(tmp_path / "mask.png")}


def pictures(asked: Plan) -> list[np.ndarray]:
    return [np.asarray(result.picture.data) for result in generate(asked, engines.load(asked))]


STYLES = ["sd1", "inpaint", "bert"]


@pytest.mark.parametrize("style", ["sd1", "bert"])
def test_text2img(style: str, folders: dict[str, Path], tmp_path: Path) -> None:
    asked = tiny.planned(folders[style], tmp_path, img_w=SIDE, img_h=SIDE, seed="3-5", batch_size=2)
    assert asked.mode == "text2img"
    together = pictures(asked)
    assert [picture.shape for picture in together] == [(SIDE, SIDE, 3)] * 3
    alone = pictures(tiny.planned(folders[style], tmp_path, img_w=SIDE, img_h=SIDE, seed="5"))
    assert np.abs(together[2].astype(int) - alone[0].astype(int)).max() <= 1
    assert (together[0] != together[1]).any()


@pytest.mark.parametrize("style", ["sd1", "bert"])
def test_img2img(style: str, folders: dict[str, Path], inputs: dict[str, str], tmp_path: Path) -> None:
    asked = tiny.planned(folders[style], tmp_path, base_img=inputs["base_img"], strength=0.5)
    assert (asked.mode, asked.steps) == ("img2img", 2)
    assert pictures(asked)[0].shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("sampler", ["euler", "unipc", "dpmpp_sde"])
def test_strict_mask(
    style: str, sampler: str, folders: dict[str, Path], inputs: dict[str, str], tmp_path: Path
) -> None:
    asked = tiny.planned(folders[style], tmp_path, **inputs, strict_mask=True, sampler=sampler)
    assert asked.mode == "inpainting"
    (picture,) = pictures(asked)
    base = np.asarray(Image.open(inputs["base_img"]))
    black = np.asarray(Image.open(inputs["mask_img"])) == 0
    np.testing.assert_array_equal(picture[black], base[black])
    assert (picture[~black] != base[~black]).any()


@pytest.mark.parametrize("style", ["sd1", "bert"])
def test_variation(style: str, folders: dict[str, Path], inputs: dict[str, str], tmp_path: Path) -> None:
    def vary(strength: float) -> np.ndarray:
        fields = {"variation": True, "sampler": None, "strength": strength, "base_img": inputs["base_img"]}
        return pictures(tiny.planned(folders[style], tmp_path, **fields))[0]

    none, some, all_of_it = (vary(strength).astype(int) for strength in (0.0, 0.5, 1.0))
    fields = {"sampler": "euler_ancestral", "img_w": SIDE, "img_h": SIDE}
    pure = pictures(tiny.planned(folders[style], tmp_path, **fields))[0].astype(int)
    assert np.abs(all_of_it - pure).max() <= 1
    assert np.abs(none - some).max() > 1


@pytest.mark.parametrize("fields", [{"sampler": "euler_ancestral"}, {"variation": True, "sampler": None}])
def test_seed_variation_is_exact_at_both_ends(
    fields: dict[str, Any], folders: dict[str, Path], inputs: dict[str, str], tmp_path: Path
) -> None:
    fields = {**fields, "base_img": inputs["base_img"], "strength": 0.5}

    def made(**more: str) -> np.ndarray:
        return pictures(tiny.planned(folders["sd1"], tmp_path, **fields, **more))[0]

    own, other = made(), made(seed="9")
    assert np.array_equal(made(variation_seed="9", variation_strength="0"), own)
    assert np.array_equal(made(variation_seed="9", variation_strength="1"), other)
    between = made(variation_seed="9", variation_strength="0.5")
    assert (between != own).any()
    assert (between != other).any()


def test_both_kinds_of_variation_stay_inside_the_mask(
    folders: dict[str, Path], inputs: dict[str, str], tmp_path: Path
) -> None:
    base, black = np.asarray(Image.open(inputs["base_img"])), np.asarray(Image.open(inputs["mask_img"])) == 0
    seeds = {"variation_seed": "9,10", "variation_strength": "0.3,0.2"}
    for fields in ({"variation": True, "sampler": None}, {"strict_mask": True}):
        asked = tiny.planned(folders["sd1"], tmp_path, **inputs, **seeds, **fields)
        assert asked.exact
        (result,) = generate(asked, engines.load(asked))
        assert np.array_equal(result.picture.data[black], base[black])
        assert [link["variation_seed"] for link in result.facts["variation_chain"]] == [9, 10]
