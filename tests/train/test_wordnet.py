"""Definitions as captions: of the sense that a picture can show."""

from pathlib import Path

import pytest

from noisette.train.wordnet import Nouns, definition

DATA = """  1 This software is provided under a licence.
00000001 18 n 02 wolf 0 beast 0 001 @ 00000009 n 0000 | a cruelly rapacious person
00000002 05 n 03 wolf 0 grey_hunter 0 Canis_lupus 0 001 @ 00000009 n 0000 | any of various canine mammals (of Eurasia) that usually hunt in packs; "the wolf howled"
00000003 20 n 01 banana 0 000 | treelike herbs of the genus Musa
00000004 13 n 02 banana 0 yellow_finger 0 000 | elongated yellow fruit with soft flesh
"""  # noqa: E501
INDEX = """  1 This software is provided under a licence.
banana n 2 0 2 1 00000003 00000004
wolf n 2 1 @ 2 2 00000001 00000002
"""


@pytest.fixture
def nouns(tmp_path: Path) -> Nouns:
    folder = tmp_path / "package" / "dict"
    folder.mkdir(parents=True)
    (folder / "data.noun").write_text(DATA, encoding="utf-8")
    (folder / "index.noun").write_text(INDEX, encoding="utf-8")
    return Nouns(tmp_path)


def test_the_sense_that_a_picture_of_the_group_shows(nouns: Nouns) -> None:
    animal = ["any of various canine mammals that usually hunt in packs", "grey hunter"]
    assert nouns.captions("wolf", 3) == animal
    assert nouns.captions("wolf face", 3) == animal
    assert nouns.captions("wolves", 3) == nouns.captions("wolf", 6) == []


def test_food_is_what_is_eaten_before_what_it_grows_on(nouns: Nouns) -> None:
    assert nouns.captions("banana", 4) == ["elongated yellow fruit with soft flesh", "yellow finger"]
    assert nouns.captions("bananas", 3) == ["treelike herbs of the genus Musa"]


@pytest.mark.parametrize(
    ("gloss", "text"),
    [
        ('a small rodent; "the mouse ran"', "a small rodent"),
        ("sweet (or sour) fruit; grown in gardens", "sweet fruit"),
        ("female of cattle: \"`moo-cow' is a child's term\"", "female of cattle"),
    ],
)
def test_a_definition_is_a_gloss_without_examples(gloss: str, text: str) -> None:
    assert definition(gloss) == text
