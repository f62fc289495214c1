"""A thesaurus beside a model: what it reads, what it leaves alone, and scenes of several things."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from noisette import engines, thesaurus
from noisette.errors import UserError
from noisette.generate import generate
from noisette.plan import plan
from noisette.recipe import Recipe
from noisette.sampling import Level
from noisette.tiles import together
from tests import tiny

LABELS = ("cat", "house")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny checkpoint with a thesaurus beside it, in which "rocket" lies by "house"."""
    tiny.save("bert", tmp_path / "model")
    folder = tmp_path / "model-thesaurus"
    folder.mkdir()
    (folder / "names.json").write_text(json.dumps({"labels": LABELS, "others": ["kitten"]}), encoding="utf-8")
    planned = plan(Recipe(model=str(tmp_path / "model"), seed="1"), tmp_path)
    from noisette.families.stable_diffusion import load

    speaker = load(engines.load(planned), planned.checkpoint)
    away = -speaker.pooled("rocket")
    vectors = thesaurus.quantized(np.stack([away, speaker.pooled("rocket")]))
    save_file({"vectors": vectors, "of": np.arange(2, dtype=np.int32)}, folder / "model.safetensors")
    return tmp_path / "model"


def drawn(model: Path, **fields: object) -> tuple[np.ndarray, dict[str, object]]:
    recipe = {"model": str(model), "seed": "1", "num_inference_steps": 2, "guidance_scale": 2.0}
    planned = plan(Recipe(**(recipe | fields)), model.parent)
    (result,) = generate(planned, engines.load(planned))
    return result.picture.data.astype(int), result.facts


def test_what_names_nothing_known_is_read_as_the_nearest_and_the_file_says_so(model: Path) -> None:
    picture, facts = drawn(model, prompt="a rocket")
    assert facts["read_as"] == {"a rocket": "house"}
    assert re.fullmatch("model-thesaurus [0-9a-f]{12}", str(facts["thesaurus"]))
    assert (picture == drawn(model, prompt="house")[0]).all()
    plain, facts = drawn(model, prompt="a rocket", interpret=False)
    assert "read_as" not in facts
    assert (plain != picture).any()


def test_a_known_name_stays_as_it_is(model: Path) -> None:
    for prompt in ("kitten", "a cat", ""):
        assert "read_as" not in drawn(model, prompt=prompt)[1]


def test_nothing_is_read_where_nothing_is_near() -> None:
    unit = np.eye(3, dtype=np.float32)
    known = thesaurus.Thesaurus(unit[:2], np.array([0, 1], np.int32), LABELS, "")
    assert known.nearest(unit[1]) == "house"
    assert known.nearest(unit[2]) is None


def test_much_that_lies_near_counts_for_more_than_one_that_lies_a_little_nearer() -> None:
    angles = np.array([0.30, 0.31, 0.32, -0.29])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    known = thesaurus.Thesaurus(vectors, np.array([0, 0, 0, 1], np.int32), LABELS, "")
    assert known.nearest(np.array([1, 0], np.float32)) == "cat"


def test_vectors_come_back_from_eight_bits() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = thesaurus.quantized(vectors).astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    assert (vectors * stored).sum(1).min() > 0.9999


def test_a_damaged_thesaurus_is_one_line(model: Path) -> None:
    (model.parent / "model-thesaurus" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="no thesaurus that can be read"):
        drawn(model, prompt="a rocket")


def test_a_model_without_one_has_nothing_to_interpret(model: Path) -> None:
    (model.parent / "model-thesaurus" / "names.json").unlink()
    with pytest.raises(UserError, match="--interpret False has no effect"):
        plan(Recipe(model=str(model), prompt="cat", interpret=False), model.parent)


def test_a_scene_has_a_canvas_for_each_thing_and_is_written_at_the_size_asked(model: Path) -> None:
    side = 64
    across = plan(
        Recipe(model=str(model), prompt="a cat and a house", seed="1", img_w=side, img_h=side), model.parent
    )
    assert across.scene is not None
    assert across.size.canvas_width > across.size.canvas_height == across.checkpoint.native_side
    assert across.describe()["scene"]["order"] == "from left to right"
    down = plan(Recipe(model=str(model), prompt="a cat above a house", seed="1"), model.parent)
    assert down.size.canvas_width < down.size.canvas_height
    picture, _ = drawn(model, prompt="a cat and a house", img_w=side, img_h=side)
    assert picture.shape == (side, side, 3)
    for fields in ({"interpret": False}, {"hires": "off"}):
        whole = plan(
            Recipe(model=str(model), prompt="a cat and a house", seed="1", **fields), model.parent, lenient=True
        )
        assert whole.scene is None


def test_each_part_is_told_its_own_and_both_agree_where_they_meet() -> None:
    told = np.array([1.0, 3.0], np.float32)

    def denoise(x: np.ndarray, level: Level) -> np.ndarray:
        return np.zeros_like(x) + np.repeat(told, len(x) // 2)[:, None, None, None]

    places = [np.s_[..., 0:4], np.s_[..., 2:6]]
    found = together(denoise, places)(np.zeros((2, 3, 4, 6), np.float32), Level(0.8, 0.6))
    np.testing.assert_allclose(found[:, 0, 0], [[1, 1, 1 + 2 / 3, 1 + 4 / 3, 3, 3]] * 2, rtol=1e-6)
