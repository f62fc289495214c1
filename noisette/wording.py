"""What a prompt names: one thing with what is said around it, or several things and how they stand.

For models that know a list of things by name (MODEL-thesaurus beside the model). Standard library only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

NAMES = "names.json"
MOST_THINGS = 4
COLOURS = "red|orange|yellow|green|blue|purple|pink|brown|black|white|gray|grey"
BEFORE = re.compile(
    rf"(?:(?:a |an |the )?(?:picture|image|icon|drawing|photo) of )?(?:(?:a|an|the|some|one) )?(?:(?:{COLOURS}) )?"
)
GROUND = re.compile(r"(?:,? (?:on|in front of|against) (?:a|an|the) |, )[a-z ]{3,20} background$")
CLAUSE = re.compile(r",| (?:with|in|on|at|of|from|to|by|for|that|which|who|whose|made|without|near|behind) ")
ABOVE, BELOW, RIGHT = ("above", "over", "on top of"), ("below", "under", "beneath"), ("to the right of", "right of")
LEFT = ("to the left of", "left of", "next to", "beside", "and")
RELATION = re.compile(f" (?:{'|'.join(ABOVE + BELOW + RIGHT + LEFT)}) ")


@dataclass(frozen=True)
class Vocabulary:
    """The things that a model knows by name, in small letters: its labels, and other names for them."""

    labels: frozenset[str]
    others: frozenset[str]

    def names(self, thing: str) -> bool:
        """Whether these words, without article and colour, are a name, or begin with one of at most two attributes.

        "cat", "small cat", "cat with a hat" and "cat, sleeping" are; "king of the jungle" is not.
        """
        first = thing.partition(",")[0]
        if any(form in self.labels or form in self.others for form in forms(first)):
            return True
        words = CLAUSE.split(thing)[0].split()
        return any(form in self.labels for i in range(3) for form in forms(" ".join(words[i:])))

    def is_thing(self, thing: str) -> bool:
        """Whether these words are a thing of their own: few of them, and they end in a name."""
        words = thing.split()
        ends = (" ".join(words[i:]) for i in range(len(words)))
        known = self.labels | self.others
        return 0 < len(words) <= 4 and any(form in known for end in ends for form in forms(end))


@dataclass(frozen=True)
class Scene:
    """Several things, each in its own words, from left to right or (`down`) from top to bottom."""

    prompts: tuple[str, ...]
    down: bool

    @property
    def order(self) -> str:
        """How they follow each other."""
        return "from top to bottom" if self.down else "from left to right"

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {"prompts": list(self.prompts), "order": self.order}


@lru_cache(maxsize=4)
def vocabulary(folder: Path) -> Vocabulary:
    """The names in a thesaurus' folder."""
    stored = json.loads((folder / NAMES).read_text(encoding="utf-8"))
    return Vocabulary(frozenset(stored["labels"]), frozenset(stored["others"]))


def forms(thing: str) -> tuple[str, ...]:
    """The words, and what may be their singular."""
    return thing, *([thing[:-1]] if thing.endswith("s") else []), *([thing[:-2]] if thing.endswith("es") else [])


def parted(prompt: str) -> tuple[str, str, str]:
    """A prompt in small letters as what comes before the thing (frame, article, colour), the thing, its ground."""
    text = " ".join(prompt.lower().split()).rstrip(".!")
    found = GROUND.search(text)
    ground = found[0] if found else ""
    text = text.removesuffix(ground)
    before = BEFORE.match(text)
    start = before.end() if before else 0
    return text[:start], text[start:], ground


def reworded(prompt: str, label: str) -> str:
    """The prompt with `label` for its thing: its colour, its ground and what comes after a comma stay."""
    before, thing, ground = parted(prompt)
    colour = "".join(word + " " for word in before.split() if word in COLOURS.split("|"))
    return colour + label + "".join(thing.partition(",")[1:]) + ground


def scene(prompt: str, known: Vocabulary) -> Scene | None:
    """The things of "a cat and a tree", "a rocket above a house" or "a cat, a dog and a tree" and how they stand.

    None unless each part ends in a name that is known and the whole is none itself ("bow and arrow").
    """
    before, thing, ground = parted(prompt)
    if any(form in known.labels or form in known.others for form in forms(thing)):
        return None
    relations = [found[0].strip() for found in RELATION.finditer(before + thing)]
    parts = [part.strip() for part in RELATION.sub(",", before + thing).split(",")]
    if not relations or not 2 <= len(parts) <= MOST_THINGS or not all(known.is_thing(parted(p)[1]) for p in parts):
        return None
    if len(parts) > 2 and set(relations) != {"and"}:
        return None
    if relations[0] in (*BELOW, *RIGHT):
        parts.reverse()
    return Scene(tuple(part + ground for part in parts), relations[0] in (*ABOVE, *BELOW))
