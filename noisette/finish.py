"""The last pixels: from what the model composed on its canvases to the picture that is written.

Here, and only here, a painted pixel meets a kept one. Each window (see `windows`) is finished by itself; what
the mask keeps is never touched.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import blending, pixels, seams
from noisette.blending import Bools, Floats
from noisette.reading import Picture, Pixels, rgb_info
from noisette.upscaling import enlarge, enlarging, larger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from noisette.engines import Array
    from noisette.plan import Plan
    from noisette.recipe import Recipe
    from noisette.sizes import Size, Window

SEAM = 4  # pixels of the canvas: the soft rim outside the white, where what is kept need not be exact
WIDEST = 32  # of any rim, in pixels of the picture


def base_of(plan: Plan, window: Window) -> Picture:
    """The base in a window, at the picture's own size."""
    assert plan.base is not None
    return replace(plan.base, data=plan.base.data[window.place])


def on_canvas(plan: Plan, window: Window) -> tuple[Array, Array]:
    """The base [1, 3, H, W] in [-1, 1] and the mask [1, 1, H, W], 0 to 1, of a window at its canvas' size.

    Beyond the model's reach they are scaled, and a pixel of the mask is white there when any of what it stands for
    is. What the canvas has more than that is padded by reflection.
    """
    if plan.base is None:
        return np.zeros((0, 3, 0, 0), np.float32), np.zeros((0, 1, 0, 0), np.float32)
    width, height = window.size.canvas_width, window.size.canvas_height
    base = pixels.fit(base_of(plan, window), *window.size.inner, "stretch")
    shown = pixels.to_model(replace(base, data=pixels.pad_to(base.data, width, height)))
    if plan.mask is None:
        return shown, np.ones((1, 1, height, width), np.float32)
    mask = pixels.shrink_mask(plan.mask.strength[window.place], *window.size.inner)
    return shown, pixels.pad_to(mask, width, height)[None, None]


def finish(plan: Plan, images: Sequence[Array]) -> tuple[Picture, dict[str, Any]]:
    """The pixels [3, H, W] of each window's canvas to the picture that is written, and what is to be said of it."""
    upscaler = plan.recipe.upscaler
    enlarges = plan.mode == "upscale" or any(window.size.scale > 1 for window in plan.windows)
    said = enlarging(upscaler) if enlarges else {}
    if plan.base is None:
        return Picture(composed(images[0], plan.size, upscaler)), said
    if plan.mode == "upscale":
        return larger(plan.base, plan.size.width, plan.size.height, upscaler), said
    if plan.mask is None:
        return Picture(off_canvas(images[0], plan.size, upscaler), info=rgb_info(plan.base.info)), said
    data = plan.base.data.copy()
    shifts, steps = [], []
    for window, image in zip(plan.windows, images, strict=True):
        painted = off_canvas(image, window.size, upscaler).astype(np.float32)
        base = base_of(plan, window)
        weight = weights(plan, window, base)
        shift = color_shift(plan, window, base, painted)
        result = edited(plan, window, base, painted + shift, weight)
        data[window.place] = result.data
        shifts.append([round(float(value), 1) for value in shift])
        steps.append(seam(plan, window, base, painted, result, weight))
    facts = {"seam": seams.report({name: np.concatenate([step[name] for step in steps]) for name in steps[0]})}
    return replace(plan.base, data=data), said | facts | ({"color_shift": shifts} if plan.recipe.color_match else {})


def composed(image: Array, size: Size, upscaler: str) -> Pixels:
    """uint8 [H, W, 3] of a picture without a base: where it is hires, of its canvas' middle."""
    if size.continued:
        width, height = round(size.canvas_width * size.scale), round(size.canvas_height * size.scale)
        middle = enlarge(pixels.from_model(image), width, height, upscaler, "stretch")
        return pixels.continue_ground(middle, size.width, size.height)
    if size.hires:
        return enlarge(pixels.from_model(image), size.width, size.height, upscaler, "crop")
    return off_canvas(image, size, upscaler)


def off_canvas(image: Array, size: Size, upscaler: str) -> Pixels:
    """uint8 [H, W, 3] at the written size: the canvas without its padding, enlarged where it was scaled."""
    width, height = size.inner
    return enlarge(pixels.from_model(image)[:height, :width], size.width, size.height, upscaler, "stretch")


def color_shift(plan: Plan, window: Window, base: Picture, painted: Floats) -> Floats:
    """What the model got wrong in the colours just outside the mask of a window, [3]; nothing if not asked for."""
    assert plan.mask is not None
    if not plan.recipe.color_match:
        return np.zeros(3, np.float32)
    cell = cell_of(plan, window)
    return blending.color_shift(pixels.shown(base), painted, plan.mask.repaint[window.place], cell)


def cell_of(plan: Plan, window: Window) -> float:
    """A latent cell in pixels of the written picture: finer than that no model can place an edge."""
    return plan.checkpoint.vae_scale_factor * window.size.scale


def inward(plan: Plan, base: Picture) -> bool:
    """Whether paint fades in within the white: what is kept is exact, or transparent, which the model saw white."""
    return plan.exact or (base.alpha is not None and bool(base.alpha.min() < 255))


def weights(plan: Plan, window: Window, base: Picture) -> Floats:
    """How much of the paint shows in a window [H, W], 0 to 1: it fades in within the white, or out beyond it."""
    assert plan.mask is not None
    repaint = plan.mask.repaint[window.place]
    if not inward(plan, base):
        return pixels.soften(repaint, min(SEAM * window.size.scale, WIDEST))
    rim = round(min(cell_of(plan, window), WIDEST))
    weight = blending.feathered(repaint, feather_of(plan.recipe, rim))
    return weight * blending.showing(plan.mask.strength[window.place])


def feather_of(recipe: Recipe, rim: int) -> int:
    """Pixels over which paint fades in, inside the white: as asked for, else `rim`; none where grey says it."""
    if recipe.feather is not None:
        return recipe.feather
    return 0 if recipe.soft_mask else rim


def edited(plan: Plan, window: Window, base: Picture, painted: Floats, weight: Floats) -> Picture:
    """One window of the base with [H, W, 3] in about 0..255 painted into it by weight [H, W].

    Beyond an outpainted picture's edges there is no base to fade in from, only copies of its rim: there the paint
    fades in from itself in the colours of what it meets.
    """
    assert plan.mask is not None
    meeting = painted
    if plan.recipe.blend == "poisson" or plan.recipe.outpaint is not None:
        repaint = plan.mask.repaint[window.place]
        unseen = repaint if base.alpha is None else repaint | (base.alpha == 0)  # nothing shows there to be met
        meeting = blending.poisson(pixels.shown(base), painted, unseen).clip(0, 255)
    if plan.recipe.outpaint is not None:
        whole = plan.mask.strength[window.place] == 1
        base = replace(base, data=np.where(whole[..., None], pixels.recoloured(base, meeting).data, base.data))
    if plan.recipe.blend == "poisson":
        painted = meeting
    return pixels.composite(base, painted.clip(0, 255), weight)


def seam(
    plan: Plan, window: Window, base: Picture, painted: Floats, result: Picture, weight: Floats
) -> dict[str, seams.Floats]:
    """The steps of colour across the mask's edge: in the untouched base, with the paint just pasted, as written.

    And, as written, where the fading ends: at the first paint that is whole, or the last that is there.
    """
    assert plan.mask is not None
    repaint = plan.mask.repaint[window.place]
    pasted = pixels.composite(base, painted, repaint.astype(np.float32))
    pictures = {"untouched": base, "pasted": pasted, "written": result}
    if plan.recipe.outpaint is not None:
        del pictures["untouched"]  # there was nothing beyond the edge
    steps = {name: visible_steps(picture, repaint) for name, picture in pictures.items()}
    return steps | {"fading": visible_steps(result, weight == 1 if inward(plan, base) else weight > 0)}


def visible_steps(picture: Picture, inside: Bools) -> seams.Floats:
    """The steps across the edge of `inside` [H, W], on black or on white ground where they show more."""
    grounds = (0, 255) if picture.alpha is not None else (255,)
    return np.max([seams.steps_across(pixels.over(picture, ground), inside) for ground in grounds], axis=0)
