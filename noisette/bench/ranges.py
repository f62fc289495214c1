"""What one word of an axis stands for: itself, an inclusive range, a span of seeds. Standard library only."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from noisette.errors import UserError
from noisette.recipe import kind, parse, parse_seeds

MAX_CELLS = 100_000
NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(?::({NUMBER}))?")


def spread(name: str, word: str) -> list[Any]:
    """The values one word stands for: a range or a span of seeds gives several. Raises UserError."""
    if name == "seed":
        ranged = RANGE.fullmatch(word.strip())
        if ranged:
            return [str(value) for value in steps_of(name, word, ranged, int)]
        seeds = [str(seed) for seed in parse_seeds(word)]
        if not seeds:
            raise UserError("--sweep seed has an empty value")
        return seeds
    ranged = RANGE.fullmatch(word.strip()) if kind(name) in (int, float) else None
    if ranged:
        return steps_of(name, word, ranged, kind(name))
    if ".." in word and kind(name) in (int, float):
        raise UserError(f"--sweep {name}: {word!r} is no range: write 5..50 or 5..50:5")
    return [parse(name, word)]


def steps_of(name: str, word: str, ranged: re.Match[str], type_: type) -> list[Any]:
    """first, first + step, … up to and with last; decimals stay exact. Raises UserError."""
    first, last, step = Decimal(ranged[1]), Decimal(ranged[2]), Decimal(ranged[3] or 1)
    if step <= 0 or last < first:
        raise UserError(f"--sweep {name}: the range {word!r} is empty: write low..high or low..high:step")
    count = int((last - first) / step) + 1
    if count > MAX_CELLS:
        raise UserError(f"--sweep {name}: the range {word!r} has {count:,} values: at most {MAX_CELLS:,} cells")
    values = [first + i * step for i in range(count)]
    if type_ is int and any(value != int(value) for value in values):
        raise UserError(f"--sweep {name}: the range {word!r} is not of whole numbers")
    return [type_(value) for value in values]
