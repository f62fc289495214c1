"""What is worked out from a picture once and kept beside it: a preview and the cheap measures."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noisette.bench import measures
from noisette.bench.files import write_text
from noisette.bench.measures import VERSION, Numbers
from noisette.pixels import rounded, shown
from noisette.reading import Picture

PREVIEW = 192  # pixels of the longer side
QUALITY = 80


@dataclass(frozen=True)
class Derived:
    """`preview` is a WebP in base64, at most PREVIEW pixels a side."""

    preview: str
    measures: Numbers
    version: int = VERSION


def derive(picture: Picture, base: Picture | None, repaint: NDArray[np.bool_] | None) -> Derived:
    """From a picture, and where it is an inpainting from its fitted base and mask too."""
    numbers = measures.of_picture(picture)
    if base is not None and repaint is not None:
        numbers |= measures.of_edit(picture, base, repaint)
    return Derived(preview(picture), numbers)


def preview(picture: Picture, side: int = PREVIEW) -> str:
    """A WebP in base64 whose longer side is at most `side`."""
    from PIL import Image

    image = picture.to_pil() if picture.mode == "RGB" else Image.fromarray(rounded(shown(picture)))
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=1)
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
