"""`noisette bench`: every engine and precision that runs here has a row, and the fastest one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noisette import cli, speed
from tests import tiny


@pytest.mark.parametrize("style", ["sd1", "sdxl"])
def test_a_row_for_each(
    style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    tiny.save(style, tmp_path / "model")
    assert cli.run("bench", [str(tmp_path / "model"), "--rounds", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {(row["engine"], row["precision"]): row for row in report["rows"]}
    assert {("openvino", "float32"), ("torch", "float32"), ("torch", "bfloat16")} <= set(rows)
    assert rows["openvino", "float32"]["ratio"] == 1
    assert rows["torch", "float32"]["deviation"] < 1e-4 < rows["torch", "bfloat16"]["deviation"]
    assert report["left_out"]["openvino int8"] == "noisette optimize first"
    fastest = min(report["rows"], key=lambda row: row["step"])
    assert report["fastest"] == f"--engine {fastest['engine']} --precision {fastest['precision']}"
    assert speed.to_text(report).count("\n") >= len(rows) + 1


@pytest.mark.parametrize("flag", ["--rounds=0", "--rounds=x", "--side=4", "--side=12"])
def test_strange_numbers_are_one_line(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run("bench", ["noisette-1", flag]) == 2
    assert capsys.readouterr().err.count("\n") == 1
