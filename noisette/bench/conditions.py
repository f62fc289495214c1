"""Conditions on cells: `steps <= 20 or sampler != heun`. Parsed as Python's syntax tree, never run as code."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from noisette.errors import UserError
from noisette.recipe import ALIASES, FIELDS, Recipe, check_choice, kind, nearest

COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
SHAPE = "write FIELD == VALUE, with and, or, not: steps <= 20 or sampler != heun"


@dataclass(frozen=True)
class Condition:
    """A checked expression over the fields of a recipe."""

    text: str
    tree: ast.expr

    def holds(self, recipe: Recipe) -> bool:
        """Whether the recipe meets it; a field left open meets no comparison of size."""
        return bool(value_of(self.tree, recipe))


def parse_condition(text: str) -> Condition:
    """Raises UserError for anything but comparisons of fields with values, joined by and, or, not."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise UserError(f"--where {text!r} is no condition: {SHAPE}") from None
    check(tree, text)
    return Condition(text, tree)


def check(tree: ast.expr, text: str) -> None:
    """Walks joined comparisons. Raises UserError."""
    if isinstance(tree, ast.BoolOp):
        for part in tree.values:
            check(part, text)
    elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        check(tree.operand, text)
    elif isinstance(tree, ast.Compare) and all(type(op) in COMPARE for op in tree.ops):
        check_operands(tree, text)
    else:
        raise UserError(f"--where {text!r} is no condition: {SHAPE}")


def check_operands(tree: ast.Compare, text: str) -> None:
    """At least one operand is a field; the others are values that it can have. Raises UserError."""
    operands = [tree.left, *tree.comparators]
    names = [found for operand in operands if (found := field_of(operand))]
    if not names:
        word = next((o.id for o in operands if isinstance(o, ast.Name)), text)
        raise UserError(f"--where {text!r} names no field{nearest(word, [*FIELDS, *ALIASES])}")
    for operand in operands:
        for value in values_in(operand, text):
            check_value(names[0], value, text)


def check_value(name: str, value: Any, text: str) -> None:
    """A value of the field's own type, and one of its choices. Raises UserError."""
    wanted: tuple[type, ...] = (kind(name),)
    if wanted[0] in (int, float):
        wanted = (int, float)
    elif name == "seed":
        wanted = (str, int)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind(name) is not bool):
        raise UserError(f"--where {text!r}: {value!r} is no value of {name}")
    if "choices" in FIELDS[name].metadata:
        check_choice(name, str(value), FIELDS[name].metadata["choices"])


def field_of(tree: ast.expr) -> str | None:
    """The field that a name stands for, if it does."""
    if not isinstance(tree, ast.Name):
        return None
    name = ALIASES.get(tree.id, tree.id)
    return name if name in FIELDS else None


def values_in(tree: ast.expr, text: str) -> list[Any]:
    """The values an operand writes down: none for a field. Raises UserError."""
    if field_of(tree):
        return []
    if isinstance(tree, (ast.Tuple, ast.List)):
        return [value for part in tree.elts for value in values_in(part, text)]
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return [-value for value in values_in(tree.operand, text)]
    if isinstance(tree, ast.Constant):
        return [tree.value]
    if isinstance(tree, ast.Name):  # a bare word is text: sampler == heun
        return [tree.id]
    raise UserError(f"--where {text!r} is no condition: {SHAPE}")


def value_of(tree: ast.expr, recipe: Recipe) -> Any:
    """The value of a checked expression."""
    if isinstance(tree, ast.BoolOp):
        parts = (value_of(part, recipe) for part in tree.values)
        return all(parts) if isinstance(tree.op, ast.And) else any(parts)
    if isinstance(tree, ast.UnaryOp):
        inner = value_of(tree.operand, recipe)
        return not inner if isinstance(tree.op, ast.Not) else -inner
    if isinstance(tree, ast.Compare):
        values = [operand(part, recipe) for part in (tree.left, *tree.comparators)]
        return all(compare(op, a, b) for op, a, b in zip(tree.ops, values, values[1:], strict=False))
    return operand(tree, recipe)


def operand(tree: ast.expr, recipe: Recipe) -> Any:
    """A field's value in this recipe, or what is written down; seeds compare as numbers."""
    if name := field_of(tree):
        value = getattr(recipe, name)
        return int(value) if name == "seed" and value.isdigit() else value
    if isinstance(tree, (ast.Tuple, ast.List)):
        return [operand(part, recipe) for part in tree.elts]
    if isinstance(tree, ast.Name):
        return tree.id
    return value_of(tree, recipe) if isinstance(tree, ast.UnaryOp) else tree.value  # type: ignore[attr-defined]


def compare(op: ast.cmpop, a: Any, b: Any) -> bool:
    """One comparison; an open field (None) is equal to nothing and of no size."""
    if (a is None or b is None) and not isinstance(op, (ast.Eq, ast.NotEq)):
        return False
    return COMPARE[type(op)](a, b)
