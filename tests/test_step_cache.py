"""--step_cache: which evaluations are whole, what it does to a picture, and where it does not run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from noisette import engines
from noisette.errors import UserError
from noisette.families.stable_diffusion import KeptFeatures
from noisette.generate import generate
from noisette.plan import plan
from noisette.recipe import Recipe
from tests import tiny


def served(interval: int, shapes: list[tuple[int, ...]]) -> list[bool]:
    kept = KeptFeatures(interval)
    return [kept.serve(shape) for shape in shapes]


def test_one_of_n_is_whole() -> None:
    assert served(1, [(2, 4)] * 3) == [False] * 3
    assert served(3, [(2, 4)] * 7) == [False, True, True, False, True, True, False]


def test_another_shape_begins_anew() -> None:
    assert served(4, [(2, 4), (2, 4), (1, 4), (1, 4)]) == [False, True, False, True]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    tiny.save("sd1", path)
    return str(path)


def picture(folder: str, **fields: object) -> np.ndarray:
    recipe = Recipe(model=folder, prompt="a cat", seed="1", num_inference_steps=6, engine="openvino", img_w=64,
                    img_h=64, **fields)  # fmt: skip
    planned = plan(recipe)
    return next(generate(planned, engines.load(planned))).picture.data


def test_it_changes_the_picture_a_little(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path))
    whole, kept = picture(folder), picture(folder, step_cache=2)
    assert 0 < np.abs(whole.astype(int) - kept).mean() < 20
    guided_half = picture(folder, step_cache=2, guidance_end=0.5)  # the batch halves on the way
    assert guided_half.shape == whole.shape


@pytest.mark.parametrize(
    ("fields", "line"), [({"engine": "torch"}, "--engine openvino"), ({"variation": True}, "--variation")]
)
def test_where_it_does_not_run(
    fields: dict[str, object], line: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "base.png")
    base = {"base_img": str(tmp_path / "base.png")} if "variation" in fields else {}
    with pytest.raises(UserError, match=line):
        plan(Recipe(model=folder, step_cache=3, **({"engine": "openvino"} | base | fields)))
