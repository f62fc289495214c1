"""CLIP skip: the text encoder ends earlier, on both engines, counted as diffusers' `clip_skip`, for both prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisette.adapters import with_clip_skip
from noisette.checkpoint import locate
from noisette.engines import openvino, torch_engine
from noisette.errors import UserError
from noisette.families import stable_diffusion
from noisette.plan import plan
from noisette.recipe import Recipe
from tests import tiny


@torch.inference_mode()
def reference(pipe: Any, prompt: str, layers: int) -> np.ndarray:
    """As StableDiffusionPipeline.encode_prompt has the prompt, whose own code knows transformers 4's names only."""
    ids = pipe.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
    states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-(layers + 1)]
    return pipe.text_encoder.final_layer_norm(states).numpy()


@pytest.mark.parametrize("engine", [openvino, torch_engine])
@pytest.mark.parametrize("style", ["sd1", "sd2"])
def test_states_equal_diffusers(style: str, engine: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    pipe = tiny.save(style, tmp_path / "model")
    whole = locate(str(tmp_path / "model"))
    seen = []
    for layers in range(whole.configs["text_encoder"]["num_hidden_layers"]):
        found = with_clip_skip(whole, layers) if layers else whole
        model = stable_diffusion.load(engine.load(found), found)  # type: ignore[attr-defined]
        got = model.encode_prompt("a red cat", "house")
        for prompt, states in (("a red cat", got.positive), ("house", got.negative)):
            np.testing.assert_allclose(states, reference(pipe, prompt, layers), atol=1e-4)
        seen.append(got.positive)
    assert len(seen) > 1
    assert np.abs(seen[0] - seen[1]).max() > 1e-2


def test_too_many_layers_and_other_encoders_are_refused(tmp_path: Path) -> None:
    tiny.save("sd1", tmp_path / "sd")
    tiny.save("bert", tmp_path / "bert")
    with pytest.raises(UserError, match="leaves no layer"):
        plan(Recipe(model=str(tmp_path / "sd"), clip_skip=12, seed="1"), tmp_path)
    with pytest.raises(UserError, match="is for CLIP text encoders"):
        plan(Recipe(model=str(tmp_path / "bert"), clip_skip=1, seed="1"), tmp_path)
    asked = plan(Recipe(model=str(tmp_path / "sd"), clip_skip=1, seed="1"), tmp_path)
    assert asked.picture_recipe(1).to_json()["clip_skip"] == 1
