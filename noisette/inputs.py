"""The base and the mask of a recipe, from their files to the size that is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from noisette import clip_plan, masks, pixels, reading
from noisette.clips import Clip
from noisette.errors import UserError
from noisette.masks import Mask
from noisette.reading import Picture, rgb_info
from noisette.recipe import Recipe
from noisette.sizes import Margins, margins, written_size


def read_inputs(recipe: Recipe, clip: Clip | None = None) -> tuple[Picture | None, Mask | None, list[str]]:
    """The base and the mask as their files have them, outpainted if asked, and what is worth a note.

    A clip may stand for the base; a base picture of a clip becomes a frame. Raises UserError.
    """
    base, mask, notes = None, None, []
    if recipe.base_img is not None:
        base = reading.read(reading.resolve(recipe.base_img))
        base = clip_plan.as_frame(recipe, base) if recipe.moving else base
    if recipe.mask_img is not None:
        mask = replace(masks.read_mask(reading.resolve(recipe.mask_img)), soft=recipe.soft_mask)
        if recipe.invert_mask:
            mask = mask.inverted()
        shape = base or clip
        if recipe.fit is None and shape is not None:
            masks.check_same_size(shape, mask)
        notes = masks.lint(mask)
    if recipe.outpaint is None or base is None:
        return base, mask, notes
    return *outpainted(base, mask, margins(recipe.outpaint, base.size)), notes


def outpainted(base: Picture, mask: Mask | None, around: Margins) -> tuple[Picture, Mask]:
    """The base grown by repeating its edges, and the mask with all that is new white."""
    if mask is None:
        mask = Mask(np.zeros(base.data.shape[:2], np.uint8), "of the outpainting")
    grow = (around.top, around.bottom), (around.left, around.right)
    data = np.pad(base.data, (*grow, (0, 0)), mode="edge")
    return replace(base, data=data), replace(mask, values=np.pad(mask.values, grow, constant_values=255))


def fit_inputs(
    base: Picture | None, mask: Mask | None, recipe: Recipe, width: int, height: int
) -> tuple[Picture | None, Mask | None, list[str]]:
    """Base and mask at the size that is written, and a note when that changed the base. Raises UserError."""
    how = recipe.fit or "crop"
    fitted = pixels.fit(base, width, height, how) if base is not None else None
    notes = []
    if base is not None and fitted is not None and fitted.size != base.size:
        notes.append("the base is {}x{}, brought to {}x{} by --fit {}".format(*base.size, *fitted.size, how))
    if mask is None:
        return fitted, None, [*notes, *(lost(fitted) if fitted is not None else [])]
    mask = pixels.fit_mask(mask, width, height, how)
    if not mask.repaint.any():
        raise UserError(f"the mask {mask.name} is empty at {width}x{height}: --fit {how} leaves nothing to repaint")
    return fitted, mask, notes


def lost(base: Picture) -> list[str]:
    """A note of what a base has that a picture painted all anew has not: that is opaque RGB of 8 bits."""
    kinds = {"transparency": base.alpha is not None and base.alpha.min() < 255}
    kinds |= {"grey": base.grey, "16 bits": base.mode == "I;16", "profile": rgb_info(base.info) != base.info}
    found = [name for name, has in kinds.items() if has]
    if not found:
        return []
    return [f"all of the base is painted anew, as opaque RGB of 8 bits: dropped is its {', '.join(found)}"]


def written_inputs(recipe: Recipe) -> tuple[Picture, Mask | None]:
    """Base and mask as a run of this recipe meets them, without its model. Raises UserError."""
    base, mask, _ = read_inputs(recipe)
    assert base is not None
    fitted, mask, _ = fit_inputs(base, mask, recipe, *written_size(recipe, base.size, (0, 0)))
    assert fitted is not None
    return fitted, mask
