"""Captions: a label and its tags in the ways a person might write them, and what may be said without the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tomllib

FRAMES = ("a picture of", "an image of", "an icon of", "a drawing of")
COLOUR_WORDS = {"red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"}


def descriptions() -> dict[str, list[str]]:
    """Labels -> what a person might say of the thing without its label: descriptions.toml."""
    text = (Path(__file__).parent / "descriptions.toml").read_text(encoding="utf-8")
    found: dict[str, list[str]] = tomllib.loads(text)
    return found


def article(noun: str) -> str:
    """'a' or 'an'."""
    return "an" if noun[:1] in "aeiou" else "a"


def named(noun: str) -> str:
    """The noun with its article; none before a plural."""
    return noun if noun.endswith("s") and not noun.endswith("ss") else f"{article(noun)} {noun}"


def pick(forms: list[tuple[float, str]], rng: np.random.Generator) -> str:
    """One of the texts, by their shares."""
    shares = np.array([share for share, _ in forms])
    return forms[rng.choice(len(forms), p=shares / shares.sum())][1]


def caption(label: str, tags: list[str], colour: str, rng: np.random.Generator) -> str:
    """One caption: the label bare or in a phrase, with its colour or tags, or the tags alone."""
    tags = [str(tag) for tag in rng.permutation([tag for tag in tags if tag.lower() != label])] if tags else []
    forms = [
        (0.30, label),
        (0.20, named(label)),
        (0.10, f"{rng.choice(FRAMES)} {named(label)}"),
        (0.15, ", ".join([label, *tags[: rng.integers(1, 4)]])),
        (0.08, ", ".join(tags[: rng.integers(2, 5)]) or label),
        (0.06, tags[0] if tags else label),
        (0.06, f"{named(label)} on a white background"),
    ]
    if colour and not COLOUR_WORDS & set(label.split()):
        forms.append((0.08, named(f"{colour} {label}")))
    return pick(forms, rng)


def captions_for(label: str, tags: list[str], colour: str, count: int, rng: np.random.Generator) -> list[str]:
    """`count` captions of a picture on white whose own colour is `colour` ("" for none), the plain label first."""
    return [label, *(caption(label, tags, colour, rng) for _ in range(count - 1))]


def on_ground(label: str, tags: list[str], colour: str, count: int, rng: np.random.Generator) -> list[str]:
    """`count` captions of a picture on a ground of that colour."""
    where = [
        f"on {article(colour)} {colour} background",
        f"{colour} background",
        f"in front of {article(colour)} {colour} background",
    ]
    texts = []
    for _ in range(count):
        thing = pick([(0.5, named(label)), (0.3, label), (0.2, f"{rng.choice(FRAMES)} {named(label)}")], rng)
        place = pick([(0.7, where[0]), (0.15, where[1]), (0.15, where[2])], rng)
        texts.append(f"{thing}, {place}" if place == where[1] else f"{thing} {place}")
    return texts


def of_pair(one: str, other: str, above: bool, count: int, rng: np.random.Generator) -> list[str]:
    """`count` captions of one thing above the other, or left of it."""
    one, other = named(one), named(other)
    forms = [(0.3, f"{one} and {other}"), (0.1, f"{other} and {one}")]
    if above:
        forms += [(0.4, f"{one} above {other}"), (0.2, f"{other} below {one}")]
    else:
        forms += [
            (0.25, f"{one} next to {other}"),
            (0.2, f"{one} left of {other}"),
            (0.15, f"{other} right of {one}"),
        ]
    return [pick(forms, rng) for _ in range(count)]


def recoloured(label: str, colour: str, count: int, rng: np.random.Generator) -> list[str]:
    """`count` captions of a thing in another colour than its own; a colour in its label gives way."""
    thing = " ".join([colour, *(word for word in label.split() if word not in COLOUR_WORDS)])
    forms = [(0.4, named(thing)), (0.4, thing), (0.2, f"{rng.choice(FRAMES)} {named(thing)}")]
    return [pick(forms, rng) for _ in range(count)]
