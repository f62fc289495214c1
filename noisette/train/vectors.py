"""Vector pictures at any size: the openly licensed icon sets of iconify's packages, rendered by resvg."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

TONES = ("light", "dark", "medium", "skin-tone", "flag")


def names(package: Path) -> list[str]:
    """The pictures of an unpacked iconify package, without flags and skin tones."""
    icons = json.loads((package / "package" / "icons.json").read_text(encoding="utf-8"))["icons"]
    return sorted(name for name in icons if not any(tone in name for tone in TONES))


def render(package: Path, wanted: list[str], side: int) -> list[np.ndarray]:
    """Cut-outs uint8 [side, side, 4]."""
    pictures = json.loads((package / "package" / "icons.json").read_text(encoding="utf-8"))
    width, height = pictures.get("width", 16), pictures.get("height", 16)
    drawn = []
    for name in wanted:
        icon = pictures["icons"][name]
        box = f"0 0 {icon.get('width', width)} {icon.get('height', height)}"
        links = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        svg = f'<svg {links} viewBox="{box}" width="{side}" height="{side}">{icon["body"]}</svg>'
        png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side)
        drawn.append(np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA")))
    return drawn
