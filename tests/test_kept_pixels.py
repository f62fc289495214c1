"""The promise: no kept pixel differs in the file as re-read, whatever the size, mode, mask, feather, crop or blend.

Everything runs as for a user, from the files of the base and the mask to the file of the result, with a declared
stub for the model (tests/stub.py), whose picture is nowhere like the base. The comparison is Pillow's own decoding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from noisette import engines, output
from noisette.catalog import FAMILIES
from noisette.checkpoint import Checkpoint
from noisette.engines import Networks
from noisette.errors import UserError
from noisette.generate import Result, generate
from noisette.plan import Plan
from noisette.verify import verify_kept
from tests.stub import planned, run

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
sides = st.one_of(st.integers(1, 40), st.integers(1, 330))
RULES = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


@st.composite
def edits(draw: st.DrawFn) -> dict[str, Any]:
    """A base, a mask and flags under which what the mask keeps is kept exactly."""
    fields: dict[str, Any] = {
        "crop": draw(st.sampled_from(["auto", "off", "0", "5", "32", "400"])),
        "color_match": draw(st.booleans()),
        "blend": draw(st.sampled_from(["alpha", "alpha", "poisson"])),
        "invert_mask": draw(st.booleans()),
        "soft_mask": draw(st.booleans()),
        "feather": draw(st.sampled_from([None, 0, 1, 7, 40])),
    }
    fields["strict_mask"] = draw(st.sampled_from([True, None])) if fields["feather"] is not None else True
    reach = draw(st.sampled_from(["plain", "plain", "outpaint", "variation", "fit"]))
    if reach == "outpaint":
        side = draw(st.sampled_from(["left", "top", "right", "bottom"]))
        fields["outpaint"] = f"{side}={draw(st.integers(1, 60))}"
    elif reach == "variation":
        fields |= {"variation": True, "strength": draw(st.sampled_from([0.0, 0.5, 1.0])), "image_prompt": 0.0}
    elif reach == "fit":
        fields["fit"] = draw(st.sampled_from(["crop", "pad", "stretch"]))
        fields |= {"img_w": draw(st.integers(1, 30)) * 8, "img_h": draw(st.integers(1, 30)) * 8}
    return {
        "mode": draw(st.sampled_from([*CHANNELS, "P"])),
        "size": (draw(sides), draw(sides)),
        "mask": draw(st.sampled_from(["box", "specks", "ramp", "blobs"])),
        "noise": draw(st.integers(0, 2**32 - 1)),
        "fields": fields,
    }


def write_base(path: Path, mode: str, size: tuple[int, int], draw: np.random.Generator) -> None:
    width, height = size
    if mode == "P":
        image = Image.fromarray(draw.integers(0, 256, (height, width)).astype(np.uint8), "P")
        image.putpalette(draw.integers(0, 256, 768).astype(np.uint8).tobytes())
        image.save(path, transparency=draw.integers(0, 256, 256).astype(np.uint8).tobytes())
        return
    deep = mode == "I;16"
    data = draw.integers(0, 65536 if deep else 256, (height, width, CHANNELS[mode]))
    data = data.astype(np.uint16 if deep else np.uint8)
    Image.fromarray(data[..., 0] if data.shape[2] == 1 else data).save(path, dpi=(300, 150), icc_profile=b"profile")


def mask_values(kind: str, size: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
    """uint8 [H, W] with at least one white and, where there is room, one black pixel."""
    width, height = size
    values = np.zeros((height, width), np.uint8)
    if kind == "specks":
        values[draw.random(values.shape) < 0.02] = 255
    elif kind == "ramp":
        values[:] = np.linspace(draw.integers(-300, 1), draw.integers(255, 600), width).clip(0, 255)
    elif kind == "blobs":
        for _ in range(4):
            y, x, radius = draw.integers(0, height), draw.integers(0, width), draw.integers(1, 30)
            rows, columns = np.ogrid[:height, :width]
            values[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = draw.integers(128, 256)
    else:
        (left, right), (top, bottom) = (sorted(draw.integers(0, side, 2)) for side in size)
        values[top : bottom + 1, left : right + 1] = 255
    values.flat[draw.integers(0, values.size)] = 255
    if values.size > 1:
        values.flat[np.flatnonzero(values)[0] - 1] = 0
    return values


@cache
def checkpoint() -> Checkpoint:
    """One for all cases, so that its weights are hashed once."""
    return planned(Path("out")).checkpoint


def stubbed(asked: Plan) -> Result:
    """The stub's picture."""
    return run(asked)[0]


def with_the_model(asked: Plan) -> Result:
    """The built-in model's picture."""
    return next(generate(replace(asked, family=FAMILIES[asked.family.name]), networks()))


@cache
def networks() -> Networks:
    return engines.load(planned(Path("out"), engine="openvino"))


def kept_in_file(edit: dict[str, Any], folder: Path, make: Callable[[Plan], Result]) -> tuple[int, int]:
    """Runs the edit; how many pixels of its file were to be kept, and how many differ from the fitted base's."""
    draw = np.random.default_rng(edit["noise"])
    write_base(folder / "base.png", edit["mode"], edit["size"], draw)
    values = mask_values(edit["mask"], edit["size"], draw)
    Image.fromarray(255 - values if edit["fields"]["invert_mask"] else values).save(folder / "mask.png")
    files = {"base_img": str(folder / "base.png"), "mask_img": str(folder / "mask.png")}
    try:
        asked = replace(planned(folder / "out", **files, **edit["fields"]), checkpoint=checkpoint())
    except UserError as error:
        assume("fit" not in edit["fields"] or "is empty at" not in str(error))  # the fit cut the white away
        raise
    assert asked.exact
    saved = output.write(asked, make(asked))
    assert saved.proved
    assert asked.base is not None
    assert asked.mask is not None
    if "fit" not in edit["fields"]:
        check_by_hand(edit, folder, saved.path, values)
    verdict = verify_kept(saved.path)
    assert verdict.good
    assert verdict.kept == saved.kept
    assert saved.kept is not None
    return saved.kept.count, saved.kept.differing


def check_by_hand(edit: dict[str, Any], folder: Path, file: Path, values: np.ndarray) -> None:
    """The same comparison with nothing of ours in it."""
    with Image.open(folder / "base.png") as base, Image.open(file) as written:
        before = np.asarray(base.convert("RGBA") if edit["mode"] == "P" else base)
        after = np.asarray(written)
        if edit["mode"] != "P":
            assert written.info["icc_profile"] == b"profile"
            assert written.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    side, _, pixels = edit["fields"].get("outpaint", "left=0").partition("=")
    start = {"left": (0, int(pixels)), "top": (int(pixels), 0)}.get(side, (0, 0))
    height, width = values.shape
    after = after[start[0] : start[0] + height, start[1] : start[1] + width]
    kept = values == 0 if edit["fields"]["soft_mask"] else values < 128
    assert after.dtype == before.dtype
    assert np.array_equal(after[kept], before[kept])


def holds(edit: dict[str, Any], make: Callable[[Plan], Result]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert kept_in_file(edit, Path(folder), make)[1] == 0


@settings(max_examples=150, **RULES)
@given(edits())
def test_no_kept_pixel_differs(edit: dict[str, Any]) -> None:
    holds(edit, stubbed)


@pytest.mark.slow
@settings(max_examples=10_000, **RULES)
@given(edits())
def test_no_kept_pixel_differs_in_ten_thousand_edits(edit: dict[str, Any]) -> None:
    holds(edit, stubbed)


@pytest.mark.slow
@settings(max_examples=200, **RULES)
@given(edits())
def test_no_kept_pixel_differs_in_two_hundred_edits_of_the_built_in_model(edit: dict[str, Any]) -> None:
    holds(edit, with_the_model)
