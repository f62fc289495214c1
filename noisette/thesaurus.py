"""A prompt that names nothing the model knows is read as the nearest thing that it does.

MODEL-thesaurus beside a model's folder is made by `noisette train thesaurus`: for each thing the pooled text states
of its label, its other names and what may be said of it. Nothing in it is trained: what is said is looked up among
them by the model's own text encoder (as kNN-Diffusion, Sheynin et al. 2022, looks up pictures).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError
from noisette.wording import NAMES, parted, reworded, vocabulary

if TYPE_CHECKING:
    from noisette.plan import Plan

VECTORS = "model.safetensors"
TEMPERATURE = 0.08  # of the similarities: sharper and only the one nearest text counts, flatter and all do
LEAST = 0.4  # cosine to the nearest text, below which nothing is near


@dataclass(frozen=True)
class Thesaurus:
    """Unit vectors [N, width] of what is said of things, the number of each one's label, and the labels."""

    vectors: NDArray[np.float32]
    of: NDArray[np.int32]
    labels: tuple[str, ...]
    hash: str

    def nearest(self, vector: NDArray[np.float32]) -> str | None:
        """The label of which most that is said lies near a unit vector [width]; None when nothing does."""
        near = self.vectors @ vector
        if near.max() < LEAST:
            return None
        weights = np.bincount(self.of, np.exp(near / TEMPERATURE), len(self.labels))
        return self.labels[int(weights.argmax())]


@cache
def load(folder: Path) -> Thesaurus:
    """The thesaurus in a folder of `noisette train thesaurus`. Raises UserError when it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        labels = json.loads((folder / NAMES).read_text(encoding="utf-8"))["labels"]
        stored = load_file(folder / VECTORS)
        vectors = stored["vectors"].astype(np.float32)
        of = stored["of"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{folder} holds no thesaurus that can be read: {error}") from None
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Thesaurus(vectors, of, tuple(labels), digest(folder))


def digest(folder: Path) -> str:
    """SHA-256 of its two files."""
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in (NAMES, VECTORS))).hexdigest()


def quantized(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Unit vectors [N, width] as whole numbers of 8 bits, each row to its own scale: the norm restores it."""
    steps = vectors * (127 / np.abs(vectors).max(axis=1, keepdims=True))
    return np.rint(steps).astype(np.int8)


def read(plan: Plan, model: Any, prompts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Prompts as the model will be told them, and what the file says of that."""
    folder = plan.checkpoint.thesaurus
    if folder is None or not plan.recipe.interpret:
        return list(prompts), {}
    known = vocabulary(folder)
    told, found = [], {}
    for prompt in prompts:
        thing = parted(prompt)[1]
        first = thing.partition(",")[0]
        label = None if not first or known.names(thing) else load(folder).nearest(model.pooled(first))
        told.append(prompt if label is None else reworded(prompt, label))
        if label is not None:
            found[prompt] = told[-1]
    said = {"read_as": found, "thesaurus": f"{folder.name} {load(folder).hash[:12]}"} if found else {}
    return told, said
