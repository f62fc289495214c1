"""What WordNet (Princeton University) says of a label: its definition and other names, as captions.

A label and its tags are few fixed words, and a denoiser that has seen no others learns those and not what they mean;
a definition is a paraphrase that somebody else wrote.
"""

from __future__ import annotations

import re
from pathlib import Path

# WordNet's lexicographer files (lexnames(5WN)) of what an emojibase group shows: a star of places is no actor.
ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PHENOMENON, PLANT, POSSESSION, SUBSTANCE = 5, 6, 8, 13, 17, 19, 20, 21, 27
# The first that has a sense is taken.
KINDS = {
    0: [BODY],
    3: [ANIMAL, PLANT],
    4: [FOOD, PLANT, ARTIFACT],
    5: [OBJECT, PHENOMENON, ARTIFACT],
    6: [ARTIFACT],
    7: [ARTIFACT, SUBSTANCE, POSSESSION],
}
NAMES = 2  # other names of a sense, at most; Latin ones are written large
DRAWN_AS = re.compile(r" (face|with \w+|without \w+)$")  # what a label adds to the thing


class Nouns:
    """WordNet's nouns, from the unpacked package."""

    def __init__(self, package: Path) -> None:
        folder = package / "package" / "dict"
        self.senses: dict[str, tuple[int, list[str], str]] = {}  # place in the file -> its kind, names, definition
        for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
            if not line.startswith("  "):  # the licence
                facts, _, gloss = line.partition(" | ")
                place, kind, _, count, *names = facts.split()
                names = [name.replace("_", " ") for name in names[: 2 * int(count, 16) : 2]]
                self.senses[place] = (int(kind), names, definition(gloss))
        self.places: dict[str, list[str]] = {}  # word -> its senses, the most frequent first
        for line in (folder / "index.noun").read_text(encoding="utf-8").splitlines():
            if not line.startswith("  "):
                word, _, count, *rest = line.split()
                self.places[word] = rest[-int(count) :]

    def captions(self, label: str, group: int) -> list[str]:
        """Definition and other names of the most frequent sense of `label` that a picture of `group` can show.

        Empty where WordNet has none.
        """
        bare = DRAWN_AS.sub("", label)
        for word in (label, bare, bare.removesuffix("s")):
            senses = [self.senses[place] for place in self.places.get(word.replace(" ", "_"), [])]
            for wanted in KINDS.get(group, []):
                for kind, names, text in senses:
                    if kind == wanted:
                        others = [name for name in names if name.islower() and name not in (label, bare, word)]
                        return [text, *others[:NAMES]]
        return []


def definition(gloss: str) -> str:
    """A gloss without examples and remarks in parentheses: 'a small rodent'."""
    text = re.sub(r"\([^()]*\)", "", gloss.split('; "')[0])
    return re.sub(r"\s+", " ", re.split(r'[;:"]', text)[0]).strip(" .,")
