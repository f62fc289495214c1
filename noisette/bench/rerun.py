"""`noisette rerun`: pictures and clips made again from the recipes in their own files, networks loaded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from noisette import output, video
from noisette.errors import UserError
from noisette.generate import generate
from noisette.metadata import read_metadata
from noisette.origins import origins, relocated
from noisette.plan import plan
from noisette.recipe import Recipe, check, from_mapping
from noisette.record import Saved
from noisette.verify import Loader, files_in


def recipes_of(places: Sequence[str], given: dict[str, Any]) -> tuple[list[Recipe], list[str]]:
    """The recipes of files and of folders' files, `given` fields on top, and what is worth a note.

    A folder's files without a recipe are left out; one that is named must have it. Raises UserError.
    """
    found: list[Recipe] = []
    notes: list[str] = []
    for place in places:
        paths = files_in(place)
        strangers = [path for path in paths if not has_recipe(path)] if Path(place).is_dir() else []
        if len(strangers) == len(paths):
            raise UserError(f"{place} holds no picture with a recipe")
        if strangers:
            notes.append(f"{place}: left out, for they carry no recipe: {len(strangers)} of {len(paths)} files")
        found += [check(replace(recipe_of(path), **given)) for path in paths if path not in strangers]
    return found, notes


def has_recipe(path: Path) -> bool:
    """Whether a file says what made it."""
    try:
        read_metadata(path)
    except UserError:
        return False
    return True


def rerun(recipes: Sequence[Recipe], out: Path, lenient: bool) -> Iterator[Saved]:
    """Each recipe's picture or clip once more. All are planned first, as by `plan`. Raises UserError."""
    for recipe in recipes:
        plan(recipe, out, lenient)
    load = Loader()
    for recipe in recipes:
        planned = plan(recipe, out, lenient)
        if planned.clip:
            yield from (video.write(planned, clip) for clip in video.make(planned, load(planned)))
        else:
            yield from (output.write(planned, result) for result in generate(planned, load(planned)))


def recipe_of(path: Path) -> Recipe:
    """The recipe in a file, its inputs where they are now. Raises UserError."""
    claims = read_metadata(path)
    return relocated(from_mapping(claims["recipe"]), origins(path, claims, {}))
