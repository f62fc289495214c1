"""Captions: a label and its tags in the ways a person might write them."""

from __future__ import annotations

import numpy as np

FRAMES = ("a picture of", "an image of", "an icon of", "a drawing of")


def article(noun: str) -> str:
    """'a' or 'an'."""
    return "an" if noun[:1] in "aeiou" else "a"


def caption(label: str, tags: list[str], rng: np.random.Generator) -> str:
    """One caption: the label bare or in a phrase, with tags, or the tags alone."""
    tags = [str(tag) for tag in rng.permutation([tag for tag in tags if tag.lower() != label])] if tags else []
    named = f"{article(label)} {label}"
    forms = [
        (0.30, label),
        (0.20, named),
        (0.10, f"{rng.choice(FRAMES)} {named}"),
        (0.15, ", ".join([label, *tags[: rng.integers(1, 4)]])),
        (0.10, ", ".join(tags[: rng.integers(2, 5)]) or label),
        (0.07, tags[0] if tags else label),
        (0.08, f"{named} on a white background"),
    ]
    shares = np.array([share for share, _ in forms])
    return forms[rng.choice(len(forms), p=shares / shares.sum())][1]


def captions_for(label: str, tags: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` captions of one picture, the plain label first."""
    label = label.lower()
    return [label, *(caption(label, tags, rng) for _ in range(count - 1))]
