"""What a killed run leaves behind, and what a cluster says while nothing can be done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from noisette.bench import on_ray
from noisette.bench.store import Store
from noisette.cli import main
from noisette.errors import UserError
from noisette.names import part_of
from tests.bench.test_sweep import SMALL


def test_a_claim_of_a_killed_run_goes_with_the_next_one(tmp_path: Path) -> None:
    arguments = ["sweep", *SMALL, "--steps", "1", "--out", str(tmp_path), "--sweep", "seed=0..1"]
    assert main(arguments) == 0
    address = next(iter(Store(tmp_path).done()))
    (tmp_path / "claims" / f"{address}.lock").touch()  # killed between landing and giving back
    assert main(arguments) == 0
    assert not list((tmp_path / "claims").iterdir())


def test_a_part_of_a_cell_that_has_landed_goes_with_the_next_run(tmp_path: Path) -> None:
    """The run was killed between publishing and letting the part go: nobody writes that cell again."""
    arguments = ["sweep", *SMALL, "--steps", "1", "--out", str(tmp_path), "--sweep", "seed=0..1"]
    assert main(arguments) == 0
    path = next(iter(Store(tmp_path).done().values()))
    part_of(path).hardlink_to(path)
    old, new = (tmp_path / "derived" / f"a.json.{process}.part" for process in (1, 2))
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    assert main(arguments) == 0
    assert (old.exists(), new.exists()) == (False, True)  # the new one may be another process's at work
    assert len(list((tmp_path / "cells").iterdir())) == 2


def test_a_cluster_without_room_is_told_of_once_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_ray, "SAY", -1.0)
    patience = on_ray.Patience()
    patience.look(alone=True)
    patience.look(alone=True)
    assert capsys.readouterr().err == "note: waiting for room in the cluster, 600 seconds at most\n"
    monkeypatch.setattr(on_ray, "START", -1.0)
    with pytest.raises(UserError, match="no worker has found room"):
        patience.look(alone=True)


def test_what_ray_says_is_one_line_with_the_reason() -> None:
    server = ConnectionError("Initialization failure from server:\nTraceback:\n  File x\nRuntimeError: no room\n")
    assert on_ray.first_line(server) == "Initialization failure from server: RuntimeError: no room"
    assert (
        on_ray.first_line(ConnectionError("ray client connection timeout\nmore")) == "ray client connection timeout"
    )
