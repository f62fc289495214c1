"""Examples: every cut-out plain on white (and mirrored), on named colours, in other colours, on canvases that are
not square, and two together, with captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from noisette.train import captions, compose

KINDS = ("white", "mirrored", "ground", "recoloured", "pair", "aspect")


@dataclass(frozen=True)
class Example:
    """A picture to be made: which cut-out, how, in which colour, and what may be said of it.

    `canvas` is its width and height as shares of a square's side, `other` the second cut-out of a pair, and
    `above` whether the pair stands one above the other.
    """

    picture: int
    kind: str
    colour: str
    captions: tuple[str, ...]
    canvas: tuple[float, float] = (1.0, 1.0)
    other: int | None = None
    above: bool = False


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
        described = entry["described"] * config["described"]
        plain = [*captions.captions_for(label, tags, natural, config["captions"], rng), *described]
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
    return examples + aspects(examples, config) + pairs(examples, entries, config)


def aspects(examples: list[Example], config: dict[str, Any]) -> list[Example]:
    """Each plain picture on as many canvases of other aspects as asked, of about a square's area."""
    rng = np.random.default_rng(config["seed"] + 1)
    made = []
    for example in examples:
        if example.kind == "white":
            for aspect in rng.choice(config["aspects"], config["canvases"], replace=False):
                canvas = (float(aspect**0.5), float(aspect**-0.5))
                made.append(Example(example.picture, "aspect", "", example.captions, canvas))
    return made


def pairs(examples: list[Example], entries: list[dict[str, Any]], config: dict[str, Any]) -> list[Example]:
    """Two of the common things on one picture, side by side or one above the other."""
    rng = np.random.default_rng(config["seed"] + 2)
    plain = [e.picture for e in examples if e.kind == "white"]
    common = [row for row in plain if entries[row]["label"] in config["common"]] or plain
    made = []
    for _ in range(config["pairs"] if len(common) > 1 else 0):
        one, other = (int(row) for row in rng.choice(common, 2, replace=False))
        above = bool(rng.random() < 0.4)
        said = captions.of_pair(entries[one]["label"], entries[other]["label"], above, 3, rng)
        made.append(Example(one, "pair", "", tuple(said), other=other, above=above))
    return made


def nearest_colour(hue: float) -> str:
    """The name of the hue nearest to `hue` degrees."""
    return min(compose.HUES, key=lambda name: abs((compose.HUES[name] - hue + 180) % 360 - 180))


def draw(example: Example, cut_outs: np.ndarray) -> np.ndarray:
    """The example's picture uint8 [height, width, 3] from all cut-outs, always the same."""
    rng = np.random.default_rng(example.picture)
    cut_out = cut_outs[example.picture]
    if example.kind == "mirrored":
        return compose.on_white(cut_out[:, ::-1])
    if example.kind == "ground":
        return compose.lay_on(cut_out, compose.draw_ground(example.colour, cut_out.shape[0], rng))
    if example.kind == "recoloured":
        hue = compose.dominant_hue(cut_out)
        assert hue is not None
        return compose.on_white(compose.recolour(cut_out, hue, example.colour))
    if example.kind == "aspect":
        return compose.on_canvas(cut_out, example.canvas, rng)
    if example.other is not None:
        rng = np.random.default_rng([example.picture, example.other])
        return compose.together(cut_out, cut_outs[example.other], example.above, rng)
    return compose.on_white(cut_out)
