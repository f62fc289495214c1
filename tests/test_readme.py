"""The README is executable: each command in it parses, and each file it names is there."""

import re
import shlex

import pytest

from noisette.cli import COMMANDS, recipe_from, recipe_parser
from tests.process import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(
    r"`(python3 (?:image\.py|video\.py|-m noisette)[^`]*)`|^(python3 (?:image|video)\.py.*)$", re.MULTILINE
)


@pytest.mark.parametrize("command", [a or b for a, b in COMMAND.findall(TEXT)])
def test_commands_parse(command: str) -> None:
    words = shlex.split(command)
    if words[1] == "-m":
        assert words[3] in COMMANDS
    elif "--help" not in words and "--from" not in words:
        recipe_from(recipe_parser(words[1].removesuffix(".py"), words[1]).parse(words[2:]))


def test_files_of_the_tree_are_there() -> None:
    tree = re.search(r"```\n(image\.py video\.py .*?)```", TEXT, re.DOTALL)
    assert tree
    for name in re.findall(r"^  ((?:[\w-]+(?:\.py|/[\w-]+/|/) ?)+)", tree[1], re.MULTILINE):
        for part in name.split():
            assert (ROOT / "noisette" / part).exists(), part


@pytest.mark.parametrize("name", re.findall(r"\]\(([^)]+)\)", TEXT))
def test_links_lead_somewhere(name: str) -> None:
    assert (ROOT / name).exists()
