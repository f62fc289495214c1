"""The last pixels: from what the model composed on its canvases to the picture that is written.

Here, and only here, a painted pixel meets a kept one. Each window (see `windows`) is finished by itself; what
the mask keeps is never touched.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import pixels
from noisette.reading import Picture, Pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from noisette.engines import Array
    from noisette.plan import Plan
    from noisette.sizes import Size, Window

SEAM = 4  # radius, in pixels of the canvas, of the soft rim that a mask gets unless what it keeps is kept exactly


def base_of(plan: Plan, window: Window) -> Picture:
    """The base in a window, at the picture's own size."""
    assert plan.base is not None
    return replace(plan.base, data=plan.base.data[window.place])


def on_canvas(plan: Plan, window: Window) -> tuple[Array, Array]:
    """The base [1, 3, H, W] in [-1, 1] and the mask [1, 1, H, W], 0 to 1, of a window at its canvas' size.

    Within the model's reach they are padded by reflection; a window that is scaled is brought to the canvas, and
    a pixel of the mask is white there when any of what it stands for is.
    """
    if plan.base is None:
        return np.zeros((0, 3, 0, 0), np.float32), np.zeros((0, 1, 0, 0), np.float32)
    width, height, scaled = window.size.canvas_width, window.size.canvas_height, window.size.hires
    base = base_of(plan, window)
    if scaled:
        base = pixels.fit(base, width, height, "stretch")
    else:
        base = replace(base, data=pixels.pad_to(base.data, width, height))
    if plan.mask is None:
        return pixels.to_model(base), np.ones((1, 1, height, width), np.float32)
    bring = pixels.shrink_mask if scaled else pixels.pad_to
    return pixels.to_model(base), bring(plan.mask.strength[window.place], width, height)[None, None]


def finish(plan: Plan, images: Sequence[Array]) -> tuple[Picture, dict[str, Any]]:
    """The pixels [3, H, W] of each window's canvas to the picture that is written, and what is to be said of it."""
    if plan.base is None:
        return Picture(off_canvas(images[0], plan.size, "crop")), {}
    if plan.mask is None:
        return Picture(off_canvas(images[0], plan.size, "stretch"), info=plan.base.info), {}
    data = plan.base.data.copy()
    for window, image in zip(plan.windows, images, strict=True):
        data[window.place] = edited(plan, window, off_canvas(image, window.size, "stretch")).data
    return replace(plan.base, data=data), {}


def off_canvas(image: Array, size: Size, how: str) -> Pixels:
    """uint8 [H, W, 3] at the written size: the canvas brought there, or cut from it where it was padded."""
    painted = pixels.from_model(image)
    if not size.hires:
        return painted[: size.height, : size.width]
    return pixels.fit(Picture(painted), size.width, size.height, how).data


def edited(plan: Plan, window: Window, painted: Pixels) -> Picture:
    """One window of the base with uint8 [H, W, 3] painted into what the mask leaves open."""
    assert plan.mask is not None
    base, repaint = base_of(plan, window), plan.mask.repaint[window.place]
    if plan.exact:
        return pixels.composite(base, painted, repaint)
    weight = pixels.soften(repaint, SEAM * window.size.width / window.size.canvas_width)
    return pixels.composite(base, pixels.blend(base, painted, weight), weight > 0)
