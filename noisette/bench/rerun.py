"""`noisette rerun`: pictures and clips made again from the recipes in their own files, networks loaded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from noisette import output, video
from noisette.generate import generate
from noisette.metadata import read_metadata
from noisette.origins import origins, relocated
from noisette.plan import plan
from noisette.recipe import Recipe, check, from_mapping
from noisette.record import Saved
from noisette.verify import Loader, files_in


def rerun(places: Sequence[str], given: dict[str, Any], out: Path) -> Iterator[Saved]:
    """Each file's picture or clip once more, `given` fields on top. All recipes are checked first.

    Raises UserError.
    """
    paths = [path for place in places for path in files_in(place)]
    recipes = [check(replace(recipe_of(path), **given)) for path in paths]
    lenient = not given  # of what stands in the files only
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
