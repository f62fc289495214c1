"""Examples: every cut-out plain on white (and mirrored), on named colours, and in other colours, with captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from noisette.train import captions, compose

KINDS = ("white", "mirrored", "ground", "recoloured")


@dataclass(frozen=True)
class Example:
    """A picture to be made: which cut-out, how, in which colour, and what may be said of it."""

    picture: int
    kind: str
    colour: str
    captions: tuple[str, ...]


def make_examples(entries: list[dict[str, Any]], cut_outs: np.ndarray, config: dict[str, Any]) -> list[Example]:
    """All examples of the pictures that are not held out and whose group is taught, always the same."""
    rng = np.random.default_rng(config["seed"])
    examples = []
    for row, entry in enumerate(entries):
        if entry["held_out"] or entry["group"] not in config["groups"]:
            continue
        label, tags = entry["label"], entry["tags"]
        hue = compose.dominant_hue(cut_outs[row])
        natural = nearest_colour(hue) if hue is not None else ""
        plain = captions.captions_for(label, tags, natural, config["captions"], rng)
        examples += [Example(row, kind, "", tuple(plain)) for kind in ("white", "mirrored")]
        for colour in rng.choice(list(compose.COLOURS), config["grounds"], replace=False):
            said = captions.on_ground(label, tags, str(colour), 4, rng)
            examples.append(Example(row, "ground", str(colour), tuple(said)))
        if hue is None:
            continue
        others = [name for name in compose.HUES if name != natural]
        for colour in rng.choice(others, config["recoloured"], replace=False):
            said = captions.recoloured(label, str(colour), 4, rng)
            examples.append(Example(row, "recoloured", str(colour), tuple(said)))
    return examples


def nearest_colour(hue: float) -> str:
    """The name of the hue nearest to `hue` degrees."""
    return min(compose.HUES, key=lambda name: abs((compose.HUES[name] - hue + 180) % 360 - 180))


def draw(example: Example, cut_out: np.ndarray) -> np.ndarray:
    """The example's picture uint8 [side, side, 3], always the same."""
    rng = np.random.default_rng(example.picture)
    if example.kind == "mirrored":
        return compose.on_white(cut_out[:, ::-1])
    if example.kind == "ground":
        return compose.lay_on(cut_out, compose.draw_ground(example.colour, cut_out.shape[0], rng))
    if example.kind == "recoloured":
        hue = compose.dominant_hue(cut_out)
        assert hue is not None
        return compose.on_white(compose.recolour(cut_out, hue, example.colour))
    return compose.on_white(cut_out)
