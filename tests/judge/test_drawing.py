"""What the judge draws: by the recipe it is asked for, kept, and not drawn twice."""

from pathlib import Path

import numpy as np
import pytest

from noisette import train
from noisette.errors import UserError
from noisette.judge.drawing import Artist


def test_fields_that_are_asked_stand_above_the_measure_s_own(tmp_path: Path) -> None:
    settings = {"guidance_scale": 3.0}
    plain = Artist(train.TARGET, 64, settings, tmp_path)
    quick = Artist(train.TARGET, 64, settings, tmp_path, {"num_inference_steps": 2, "guidance_scale": 1.0})
    drawn = quick.draw("alien", 5, "euler", 25)
    asked = {"prompt": "alien", "seed": "5", "sampler": "euler", "img_w": 64, "img_h": 64}
    assert np.array_equal(drawn, plain.make(asked | {"num_inference_steps": 2, "guidance_scale": 1.0}))
    (kept,) = quick.folder.iterdir()  # the same recipe has one file, whoever asked for it
    kept.write_bytes(b"")
    with pytest.raises(OSError, match="cannot identify image file"):  # it is read, not drawn again
        quick.draw("alien", 5, "euler", 25)


def test_fields_of_a_recipe_are_given_by_name_or_alias() -> None:
    assert train.parse_field("steps=12") == ("num_inference_steps", 12)
    assert train.parse_field("precision=int8") == ("precision", "int8")
    with pytest.raises(UserError, match="--with names an unknown field 'presicion'; did you mean 'precision'"):
        train.parse_field("presicion=int8")
    with pytest.raises(UserError, match="--with 'int8' is no NAME=VALUE, as precision=int8"):
        train.parse_field("int8")
    with pytest.raises(UserError, match="--precision 'int9' is unknown"):
        train.parse_field("precision=int9")
