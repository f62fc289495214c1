"""What prompts name: known things stay as they are, others are found, several things have their places."""

from __future__ import annotations

import pytest

from noisette.wording import Scene, Vocabulary, parted, reworded, scene

KNOWN = Vocabulary(
    frozenset({"cat", "house", "rocket", "deciduous tree", "bow and arrow", "red apple", "lion", "owl"}),
    frozenset({"tree", "coffee", "boat", "king"}),
)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("A cat", ("a ", "cat", "")),
        ("a picture of the red car, blue background", ("a picture of the red ", "car", ", blue background")),
        ("an owl on a light blue background.", ("an ", "owl", " on a light blue background")),
        ("a  man   made of snow", ("a ", "man made of snow", "")),
        ("", ("", "", "")),
    ],
)
def test_a_prompt_falls_into_what_stands_before_the_thing_and_its_ground(
    prompt: str, parts: tuple[str, str, str]
) -> None:
    assert parted(prompt) == parts


@pytest.mark.parametrize(
    "thing",
    ["cat", "cats", "small black cat", "cat with a hat", "tree", "tree, sliding left", "boats", "cat in the park"],
)
def test_names_of_known_things_are_known(thing: str) -> None:
    assert KNOWN.names(thing)


@pytest.mark.parametrize("thing", ["king of the jungle", "visitor from outer space", "cup of coffee", "cattle", ""])
def test_other_words_are_not(thing: str) -> None:
    assert not KNOWN.names(thing)


def test_what_is_read_keeps_its_colour_and_its_ground() -> None:
    assert reworded("the king of the jungle", "lion") == "lion"
    assert reworded("the king of the jungle, bouncing", "lion") == "lion, bouncing"
    assert reworded("a purple king of the jungle, green background", "lion") == "purple lion, green background"


@pytest.mark.parametrize(
    ("prompt", "prompts", "down"),
    [
        ("a cat and a tree", ("a cat", "a tree"), False),
        ("A rocket above a house", ("a rocket", "a house"), True),
        ("a cat below a tree", ("a tree", "a cat"), True),
        ("a cat to the right of a red house", ("a red house", "a cat"), False),
        ("an owl next to a cup of coffee", ("an owl", "a cup of coffee"), False),
        ("a cat, an owl and a tree", ("a cat", "an owl", "a tree"), False),
        (
            "a cat and a tree on a blue background",
            ("a cat on a blue background", "a tree on a blue background"),
            False,
        ),
    ],
)
def test_several_things_have_their_places(prompt: str, prompts: tuple[str, ...], down: bool) -> None:
    assert scene(prompt, KNOWN) == Scene(prompts, down)


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat",
        "bow and arrow",
        "a cat and a spaceship from far away",
        "a tree, tall, green",
        "cat and owl above a house",
        "a cat and an owl and a house and a tree and a lion",
        "and",
        "above a house",
    ],
)
def test_all_else_is_one_picture(prompt: str) -> None:
    assert scene(prompt, KNOWN) is None
