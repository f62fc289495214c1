"""Where the int8 networks of a checkpoint lie, once `noisette optimize` has made them. Standard library only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from noisette.checkpoint import Checkpoint, cache_folder, read_json
from noisette.errors import UserError

FORMAT = 1  # of the folder; another number, another folder
NETWORKS = ("unet", "vae_decoder")
REPORT = "report.json"


def folder_of(checkpoint: Checkpoint) -> Path:
    """Its folder, there or not: the name is a hash of weights and configs, so that it never serves others."""
    facts = [FORMAT, checkpoint.weights_hash, checkpoint.configs["unet"], checkpoint.configs["vae"]]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    return cache_folder() / "optimized" / digest.hexdigest()[:24]


def files_of(checkpoint: Checkpoint) -> dict[str, Path]:
    """Network -> its int8 graph; none before `noisette optimize` has finished."""
    folder = folder_of(checkpoint)
    return {name: folder / f"{name}.xml" for name in NETWORKS} if (folder / REPORT).is_file() else {}


def report_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `noisette optimize` measured."""
    return read_json(folder_of(checkpoint) / REPORT)


def check_optimized(checkpoint: Checkpoint, model: str) -> None:
    """Raises UserError with the command to run when there are no int8 networks yet."""
    if checkpoint.downloads or not files_of(checkpoint):
        raise UserError(f"--precision int8 needs an optimized model: python3 -m noisette optimize {model}")
