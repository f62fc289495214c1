"""A run that was stopped anywhere goes on to the same bytes, and asks the networks nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisette import engines
from noisette.cli import run
from noisette.generate import generate
from noisette.journal import Journal, records
from noisette.plan import Plan, plan
from noisette.reading import read
from noisette.recipe import Recipe
from noisette.record import pixel_hash
from tests.process import ROOT

SIDE = 64


class Stopped(Exception):
    """Stands for the plug being pulled."""


class Counting:
    """Networks that count, and stop at a given call."""

    def __init__(self, networks: Any, last: int = 10**9) -> None:
        self.networks, self.calls, self.last = networks, 0, last

    def __getattr__(self, name: str) -> Any:
        return getattr(self.networks, name)

    def denoise(self, *arguments: Any, **settings: Any) -> Any:
        self.calls += 1
        if self.calls > self.last:
            raise Stopped
        return self.networks.denoise(*arguments, **settings)


@pytest.fixture(scope="module")
def networks() -> Any:
    return engines.load(plan(Recipe(seed="0")))


def picture(asked: Plan, counting: Counting, path: Path, every: int = 2) -> np.ndarray:
    journal = Journal(counting, path, every)
    (result,) = generate(asked, journal, journal.step)
    return result.picture.data


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "base.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return {"base_img": str(tmp_path / "base.png"), "mask_img": str(tmp_path / "mask.png")}


CASES: dict[str, dict[str, Any]] = {
    "unipc": {"sampler": "unipc"},
    "dpmpp_2m_sde": {"sampler": "dpmpp_2m_sde"},
    "dpmpp_sde": {"sampler": "dpmpp_sde"},
    "heun": {"sampler": "heun"},
    "lcm": {"sampler": "lcm", "guidance_end": 0.5},
    "inpainting": {"sampler": "euler_ancestral", "base_img": True, "mask_img": True},
    "variation": {"variation": True, "base_img": True},
}


@pytest.mark.parametrize("case", list(CASES))
def test_stopped_and_gone_on_is_bit_equal(case: str, networks: Any, inputs: dict[str, str], tmp_path: Path) -> None:
    fields = {name: inputs.get(name, value) for name, value in CASES[case].items()}
    asked = plan(Recipe(prompt="alien", seed="3", img_w=SIDE, img_h=SIDE, num_inference_steps=7, **fields))
    whole = Counting(networks)
    wanted = picture(asked, whole, tmp_path / "unused")
    path = tmp_path / "run.journal"
    with pytest.raises(Stopped):
        picture(asked, Counting(networks, last=6), path)
    kept = len(list(records(path)))
    assert kept > 0
    again = Counting(networks)
    assert np.array_equal(picture(asked, again, path), wanted)
    encoded = ("base_img" in CASES[case]) + (case == "variation")  # the image prompt looks at the base too
    assert again.calls == whole.calls - (kept - encoded)


def test_a_torn_file_is_used_up_to_the_tear(networks: Any, tmp_path: Path) -> None:
    asked = plan(Recipe(prompt="alien", seed="3", img_w=SIDE, img_h=SIDE, num_inference_steps=7, sampler="unipc"))
    wanted = picture(asked, Counting(networks), tmp_path / "unused")
    path = tmp_path / "run.journal"
    picture(asked, Counting(networks), path, every=1)
    whole = path.read_bytes()
    for torn in (whole[: len(whole) * 2 // 3], whole[:-40] + b"\0" * 40, b"", b"garbage"):
        path.write_bytes(torn)
        assert np.array_equal(picture(asked, Counting(networks), path, every=1), wanted)
        assert len(list(records(path))) == 7


def test_another_question_drops_the_answers(networks: Any, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"prompt": "alien", "img_w": SIDE, "img_h": SIDE, "num_inference_steps": 4}
    one, other = (plan(Recipe(seed=seed, **fields)) for seed in "12")
    path = tmp_path / "run.journal"
    picture(one, Counting(networks), path, every=1)
    counting = Counting(networks)
    found = picture(other, counting, path, every=1)
    assert counting.calls == 4
    assert np.array_equal(found, picture(other, Counting(networks), tmp_path / "unused"))
    assert len(list(records(path))) == 4


def test_killed_in_the_middle_the_same_command_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--prompt", "alien", "--seed", "5", "-W", "64", "-H", "64", "--steps", "80", "--sampler", "unipc"]
    saving = [*flags, "--checkpoint_every", "2", "--out", str(tmp_path)]
    process = subprocess.Popen([sys.executable, str(ROOT / "image.py"), *saving], cwd=tmp_path)
    while not list(tmp_path.rglob("*.journal")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("*.png"))
    assert run("image", saving) == 0
    assert "went on from a checkpoint after" in capsys.readouterr().err
    assert run("image", [*flags, "--out", str(tmp_path / "plain")]) == 0
    (resumed,), (plain,) = tmp_path.glob("*.png"), (tmp_path / "plain").glob("*.png")
    assert pixel_hash(read(resumed)) == pixel_hash(read(plain))
    assert not list(tmp_path.rglob("*.journal"))


def test_without_a_seed_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("image", ["--prompt", "a", "--checkpoint_every", "5", "--out", str(tmp_path / "new")]) == 2
    assert "--checkpoint_every needs --seed" in capsys.readouterr().err
