"""Sweeps into a store: what is done stays done, whatever interrupts; the same cells have the same addresses."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisette.bench.axes import cells, read_sweep
from noisette.bench.cells import Cell, batches, plan_cells, resolve
from noisette.bench.report import report
from noisette.bench.run import missing, run
from noisette.bench.store import Store, is_whole
from noisette.cli import main
from noisette.errors import UserError
from noisette.metadata import read_metadata
from noisette.reading import read
from noisette.record import pixel_hash
from tests.process import ROOT

SMALL = ["--prompt", "alien", "-W", "64", "-H", "64"]
FIELDS = {"prompt": "alien", "img_w": 64, "img_h": 64}
AXES = ["sampler=euler,heun", "steps=1,2", "seed=0..1"]


def resolved(axes: list[str], **given: Any) -> list[Cell]:
    return resolve(cells(read_sweep(axes, [], {**FIELDS, **given})))[0]


def hashes(folder: Path) -> dict[str, str]:
    """address -> hash of the pixels as they are read from the file."""
    return {address: pixel_hash(read(path)) for address, path in Store(folder).done().items()}


def start(folder: Path, *axes: str) -> subprocess.Popen[str]:
    """`noisette sweep` in a process of its own."""
    command = [sys.executable, "-m", "noisette", "sweep", *SMALL, "--out", str(folder), "--sweep", *axes]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(["sweep", *SMALL, "--out", str(folder), "--sweep", *AXES]) == 0
    return folder


def test_one_png_a_cell_and_a_second_run_makes_nothing(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [path for path in undisturbed.rglob("*.png") if "sheet" not in path.name]
    assert len(pictures) == 8
    before = {path: path.stat().st_mtime_ns for path in pictures}
    assert main(["sweep", *SMALL, "--out", str(undisturbed), "--sweep", *AXES]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "0 made, 8 were there" in said.err
    assert {path: path.stat().st_mtime_ns for path in pictures} == before


def test_a_cell_is_the_picture_that_image_makes(undisturbed: Path, tmp_path: Path) -> None:
    flags = ["--sampler", "heun", "--steps", "2", "--seed", "1"]
    assert main(["image", *SMALL, *flags, "--out", str(tmp_path)]) == 0
    (alone,) = tmp_path.glob("*.png")
    assert pixel_hash(read(alone)) in hashes(undisturbed).values()


def test_addresses_depend_on_what_decides_the_pixels_only(tmp_path: Path) -> None:
    (one,) = resolved(["steps=2"])
    assert resolved(["steps=2"], batch_size=4)[0].address == one.address
    assert resolved(["steps=2"], engine="openvino")[0].address == one.address
    assert resolved(["seed=0"], num_inference_steps=2)[0].address == one.address
    others = [("guidance_scale", 5.0), ("engine", "torch"), ("precision", "bfloat16"), ("seed", "1")]
    assert len({resolved(["steps=2"], **{name: value})[0].address for name, value in others} | {one.address}) == 5
    for name, shade in (("a", 10), ("b", 10), ("c", 20)):
        Image.new("RGB", (64, 64), (shade, 0, 0)).save(tmp_path / f"{name}.png")
    a, b, c = (resolved(["steps=4"], base_img=str(tmp_path / f"{name}.png"))[0].address for name in "abc")
    assert a == b != c


def test_the_pictures_do_not_depend_on_the_batch(undisturbed: Path, tmp_path: Path) -> None:
    flags = [*SMALL, "--batch_size", "3", "--out", str(tmp_path)]
    assert main(["sweep", *flags, "--sweep", "seed=0..1", "steps=1,2", "sampler=heun,euler"]) == 0
    assert hashes(tmp_path) == hashes(undisturbed)


def test_batches_keep_kin_together() -> None:
    found = batches(resolved(["seed=0..4", "steps=1,2"], batch_size=3))
    assert [[(c.recipe.num_inference_steps, c.seed) for c in batch] for batch in found] == [
        [(1, 0), (1, 1), (1, 2)], [(1, 3), (1, 4)], [(2, 0), (2, 1), (2, 2)], [(2, 3), (2, 4)],
    ]  # fmt: skip
    assert all(len(batch) == 1 for batch in batches(resolved(["seed=0..3"], batch_size=2, engine="torch")))


@pytest.mark.parametrize("kills", [(2,), pytest.param((0, 1, 4, 6), marks=pytest.mark.slow)])
def test_killed_at_any_moment_nothing_is_lost_or_wrong(
    kills: tuple[int, ...], undisturbed: Path, tmp_path: Path
) -> None:
    for cells_before_the_kill in kills:
        process = start(tmp_path, *AXES)
        while len(Store(tmp_path).done()) <= cells_before_the_kill and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = hashes(tmp_path)
        assert before.items() <= hashes(undisturbed).items()
    assert main(["sweep", *SMALL, "--out", str(tmp_path), "--sweep", *AXES]) == 0
    assert hashes(tmp_path) == hashes(undisturbed)
    assert before.items() <= hashes(tmp_path).items()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_killed_at_random_moments_the_sweep_ends_as_if_left_alone(tmp_path: Path) -> None:
    """The whole measure, 200 cells and 30 kills, is `python3 benchmarks/sweeps.py kills`."""
    draw, killed, whole = random.Random(1), tmp_path / "killed", tmp_path / "whole"
    axes, there = ["seed=0..59", "steps=1"], [0]
    for turn in range(6):  # of a few cells each, so that work is left on the fastest machine
        process, target = start(killed, *axes), there[-1] + draw.randint(1, 4)
        patience = draw.uniform(0, 4) if turn % 3 == 2 else math.inf  # anywhere: while it starts, plans, loads
        moment = time.monotonic() + patience
        while len(Store(killed).done()) < target and time.monotonic() < moment:
            assert process.poll() is None, process.communicate()
            time.sleep(draw.uniform(0, 0.01))  # somewhere within a cell
        process.kill()
        assert process.wait() == -signal.SIGKILL
        there.append(len(Store(killed).done()))
    assert there == sorted(there)
    assert 2 < there[-1] < 60  # it was killed while at work, again and again
    before = hashes(killed)
    for folder in (killed, whole):
        assert main(["sweep", *SMALL, "--out", str(folder), "--sweep", *axes]) == 0
    assert hashes(killed) == hashes(whole)
    assert before.items() <= hashes(whole).items()
    assert len(list((killed / "cells").iterdir())) == 60
    assert len(list((killed / "derived").glob("*.json"))) == 60


@pytest.mark.slow
def test_two_processes_share_one_store(undisturbed: Path, tmp_path: Path) -> None:
    both = [start(tmp_path, *AXES) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    printed = [line for out, _ in said for line in out.splitlines()]
    assert len(printed) == len(set(printed)) == 8
    assert hashes(tmp_path) == hashes(undisturbed)


def test_a_dead_process_leaves_its_claims_free(tmp_path: Path) -> None:
    found, store = resolved(["steps=1"]), Store(tmp_path)
    store.prepare()
    code = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire();"
        "print('held', flush=True); time.sleep(60)"
    )
    lock = store.claims / f"{found[0].address}.lock"
    process = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with store.claimed(found) as mine:
        assert mine == []
    process.kill()
    process.wait()
    with store.claimed(found) as mine:
        assert mine == found


def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, written = os.fsync, []

    def fsync(file: int) -> None:
        written.append(file)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    arguments = ["sweep", *SMALL, "--steps", "1", "--out", str(tmp_path), "--sweep", "seed=0..3"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "disk is full" in error
    assert "Traceback" not in error
    assert len(hashes(tmp_path)) == 2
    assert main(arguments) == 0
    assert len(hashes(tmp_path)) == 4


def test_a_picture_cut_short_is_made_again(undisturbed: Path) -> None:
    before = hashes(undisturbed)
    address, path = next(iter(Store(undisturbed).done().items()))
    path.write_bytes(path.read_bytes()[:-20])
    assert not is_whole(path)
    assert main(["sweep", *SMALL, "--plan", "--out", str(undisturbed), "--sweep", *AXES]) == 0
    assert not is_whole(path)
    assert main(["sweep", *SMALL, "--out", str(undisturbed), "--sweep", *AXES]) == 0
    assert hashes(undisturbed) == before
    assert address in before


def test_an_input_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    base = tmp_path / "base.png"
    Image.new("RGB", (64, 64), "red").save(base)
    found = resolved(["steps=4"], base_img=str(base))
    Image.new("RGB", (64, 64), "blue").save(base)
    (landed,) = run(found, Store(tmp_path / "out"))
    assert "not the one that was planned" in landed.error
    assert Store(tmp_path / "out").done() == {}


def test_strict_masks_are_proved_in_a_sweep_too(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:40, 16:40] = 255
    Image.fromarray(pixels).save(tmp_path / "base.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = ["--base_img", str(tmp_path / "base.png"), "--mask_img", str(tmp_path / "mask.png")]
    out = tmp_path / "out"
    assert main(["sweep", *files, "--steps", "2", "--out", str(out), "--sweep", "strict_mask=True,False"]) == 0
    found = {read_metadata(path)["recipe"].get("strict_mask"): path for path in Store(out).done().values()}
    claims = read_metadata(found[True])
    assert (claims["kept"]["count"], claims["kept"]["differing"]) == (64 * 64 - 24 * 24, 0)
    assert (np.asarray(Image.open(found[True]))[mask == 0] == pixels[mask == 0]).all()


def test_plan_counts_estimates_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new"
    assert main(["sweep", *SMALL, "--plan", "--json", "--out", str(out), "--sweep", "steps=1,2", "seed=0..4"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["cells"], facts["done"], facts["to_do"]) == (10, 0, 10)
    assert facts["seconds"] > 0
    assert not out.exists()


def test_the_estimate_uses_what_is_there(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--plan", "--out", str(undisturbed), "--sweep", "sampler=euler,heun", "steps=1,2", "seed=0..3"]
    assert main(["sweep", *SMALL, *arguments]) == 0
    said = capsys.readouterr().out
    assert "16 cells, 8 done, 8 to do" in said
    assert "told from the cells that are there" in said


MISTAKES = {
    "--steps 2": "--sweep is missing",
    "--sweep smapler=euler": "did you mean 'sampler'?",
    "--sweep steps=9..1": "empty",
    "--sweep guidance_scale=1,3 guidance_rescale=0,0.7": "guidance_scale=1.0 guidance_rescale=0.7 seed=0: "
    "--guidance_rescale has no effect",
    "--sweep steps=1,2 --where steps>5": "leaves none of 2 cells",
    "--sweep strength=0.5,1": "needs --base_img",
    "--sweep base_img=nowhere.png": "not there",
    "--sweep model=noisette-1,noisette-9": "did you mean 'noisette-1'",
    "--sweep steps=1 --swep seed=1": "did you mean '--sweep'",
    "--sweep typo.toml": "typo.toml: unknown key 'axs'; did you mean 'axes'?",
    "--sweep tables.toml": "tables.toml: recipe is no table: write [recipe]",
    "--sweep where.toml": "where.toml: where is neither a text nor a list of texts: 3",
    "--sweep twice.toml": "num_inference_steps is an axis twice",
    "--sweep twice.csv": "twice.csv: --sweep num_inference_steps is an axis twice",
    "--sweep steps=1 --on ray://nowhere.invalid:1": "--on ray://nowhere.invalid:1 can't be reached",
    "--sweep steps=1 --on kubernetes": "'kubernetes' is unknown: ray",
    "--sweep steps=1 --workers 2": "--workers needs --on ray",
    "--sweep steps=1 --on ray --workers 0": "1 to 1000",
    "--sweep steps=1,2 --rows sampler": "--rows sampler is no axis here; there are: num_inference_steps",
    "--sweep steps=1,2 --reference sampler=heun": "--reference sampler is no axis here",
    "--sweep steps=1,2 --reference steps=9": "num_inference_steps=9: no cell is there; there are: 1, 2",
    "--count 3 --sweep seed=0..2 steps=2": "--count 3 can't stand beside --sweep seed",
    "--preview_every 1 --sweep steps=2": "--preview_every shows pictures in the making",
    "--sweep empty.toml": "--sweep names no axis",
    "--sweep steps=1 --out store": "format 99",
    "--sweep steps=1 --out garbage": "not the mark of a store",
    "--sweep steps=1 --out typo.toml": "typo.toml",
}


@pytest.mark.parametrize("words", list(MISTAKES))
def test_mistakes(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("typo.toml").write_text("[axs]\nsteps = [1]\n")
    Path("empty.toml").write_text("")
    Path("tables.toml").write_text("recipe = 3\n")
    Path("where.toml").write_text("where = 3\n[axes]\nsteps = [1]\n")
    Path("twice.toml").write_text("[axes]\nsteps = [1]\nnum_inference_steps = [2]\n")
    Path("twice.csv").write_text("steps,num_inference_steps\n1,2\n")
    for name, text in (("store", '{"format": 99}'), ("garbage", "[]")):
        Path(name).mkdir()
        (Path(name) / "store.json").write_text(text)
    before = sorted(tmp_path.rglob("*"))
    assert main(["sweep", *words.split()]) == 2
    error = capsys.readouterr().err
    assert MISTAKES[words] in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_axis_that_changes_nothing_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "b.png")
    axes = [f"base_img={tmp_path / 'a.png'},{tmp_path / 'b.png'}", "steps=4,5"]
    found, notes = resolve(cells(read_sweep(axes, [], FIELDS)))
    assert len(found) == 2
    assert any("axis base_img changes nothing" in note for note in notes)


def test_of_zipped_axes_none_is_said_to_change_nothing(tmp_path: Path) -> None:
    axes = ["guidance_start+guidance_end=0+1,0.2+0.8", "guidance_scale=2,3", "steps=4"]
    assert resolve(cells(read_sweep(axes, [], FIELDS)))[1] == [
        "64x64 is below the model's native 256: quality may drop"
    ]
    assert main(["sweep", *SMALL, "--steps", "4", "--out", str(tmp_path), "--sweep", *axes[:2]]) == 0
    assert not any("changes nothing" in note for note in report(tmp_path).notes)


def test_a_cell_that_fails_is_named_and_the_others_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from noisette.bench import make

    def planned(batch: list[Cell], find: Any, download: bool) -> Any:
        if batch[0].seed == 1:
            raise UserError("the model gave numbers that are not finite")
        return plan_cells(batch, find, download)

    monkeypatch.setattr(make, "plan_cells", planned)
    found, store = resolved(["seed=0..2"], num_inference_steps=1), Store(tmp_path)
    errors = [landed.error for landed in run(found, store)]
    assert errors == ["", "the model gave numbers that are not finite", ""]
    assert [cell.seed for cell in missing(found, store)] == [1]
