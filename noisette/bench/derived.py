"""What is worked out from a picture or clip once and kept beside it: a preview and the cheap measures."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noisette import clips
from noisette.bench import clip_measures, measures
from noisette.bench.files import write_text
from noisette.bench.measures import VERSION, Numbers
from noisette.pixels import rounded, shown
from noisette.reading import Picture

PREVIEW = 192  # pixels of the longer side
QUALITY = 80
SHOWN = 16  # frames of a clip's preview


@dataclass(frozen=True)
class Derived:
    """`preview` is a WebP in base64, at most PREVIEW pixels a side; a clip's moves."""

    preview: str
    measures: Numbers
    version: int = VERSION


def derive(picture: Picture, base: Picture | None, repaint: NDArray[np.bool_] | None) -> Derived:
    """From a picture, and where it is an inpainting from its fitted base and mask too."""
    numbers = measures.of_picture(picture)
    if base is not None and repaint is not None:
        numbers |= measures.of_edit(picture, base, repaint)
    return Derived(preview(picture), numbers)


def derive_clip(path: Path, base: Picture | None) -> Derived:
    """From a clip, and where it starts from a picture from that, fitted. Raises UserError."""
    return Derived(moving_preview(path), clip_measures.of_clip(clips.frames(path), base))


def preview(picture: Picture, side: int = PREVIEW) -> str:
    """A WebP in base64 whose longer side is at most `side`."""
    image = picture.to_pil() if picture.mode == "RGB" else Image.fromarray(rounded(shown(picture)))
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return webp([image])


def moving_preview(path: Path, side: int = PREVIEW) -> str:
    """An animated WebP in base64: up to SHOWN frames, evenly chosen, at the clip's pace."""
    clip = clips.probe(path)
    every = -(-clip.num_frames // SHOWN)
    images = [Image.fromarray(frame) for i, frame in enumerate(clips.frames(path)) if i % every == 0]
    for image in images:
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return webp(images, round(1000 * every / float(clip.fps)))


def webp(images: list[Image.Image], milliseconds: int = 0) -> str:
    """One picture, or a loop of several."""
    buffer = io.BytesIO()
    moving = {"save_all": True, "append_images": images[1:], "duration": milliseconds, "loop": 0}
    images[0].save(buffer, "WEBP", quality=QUALITY, method=1, **(moving if len(images) > 1 else {}))
    return base64.b64encode(buffer.getvalue()).decode()


def write(path: Path, derived: Derived) -> None:
    """Keeps it under the name. Raises UserError."""
    write_text(path, json.dumps(asdict(derived)))


def read(path: Path) -> Derived | None:
    """What is kept, or None where it is missing, torn or of another version."""
    try:
        found = Derived(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.version == VERSION else None
