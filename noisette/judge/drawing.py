"""The pictures that are judged: drawn one by one by the bench itself, kept as files, never drawn twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from noisette import engines, thesaurus, video
from noisette.checkpoint import locate
from noisette.generate import generate
from noisette.plan import plan
from noisette.recipe import Recipe
from noisette.seams import steps_across

STEPS = 25


class Artist:
    """Draws with one model at `side` pixels and keeps each picture below `folder`, apart for other weights.

    Fields that a picture leaves open are those of `settings`; those `asked` stand above all.
    """

    def __init__(
        self, model: Path, side: int, settings: Mapping[str, Any], folder: Path, asked: Mapping[str, Any] = {}
    ) -> None:
        weights = hashlib.sha256((model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes())
        if (said := locate(str(model)).thesaurus) is not None:
            weights.update(thesaurus.digest(said).encode())
        self.settings: dict[str, Any] = {"model": str(model), **settings}
        self.asked = dict(asked)
        self.side = side
        self.folder = folder / weights.hexdigest()[:12]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.networks: Any = None
        self.moving: dict[str | None, Any] = {}

    def draw(
        self,
        prompt: str,
        seed: int,
        sampler: str = "euler_ancestral",
        steps: int = STEPS,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """A picture uint8 [height, width, 3]; without `size` (width, height) at the model's own side."""
        width, height = size or (self.side, self.side)
        fields = {"prompt": prompt, "seed": str(seed), "sampler": sampler, "num_inference_steps": steps}
        return self.make(fields | {"img_w": width, "img_h": height})

    def make(self, fields: dict[str, Any]) -> np.ndarray:
        """The picture of a recipe uint8 [H, W, 3]."""
        fields = self.settings | fields | self.asked
        path = self.folder / f"{hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()[:16]}.png"
        if not path.exists():
            planned = plan(Recipe(**fields))
            self.networks = self.networks or engines.load(planned)
            (result,) = generate(planned, self.networks)
            part = path.with_suffix(".part")
            result.picture.to_pil().save(part, "PNG")
            part.replace(path)
        return np.asarray(Image.open(path).convert("RGB"))

    def clip(self, fields: dict[str, Any]) -> np.ndarray:
        """The frames of a clip's recipe uint8 [F, H, W, 3]; its networks are its own, with motion modules in."""
        fields = self.settings | fields | self.asked
        planned = plan(Recipe(**fields))
        key = [*sorted(fields.items()), planned.checkpoint.weights_hash]
        path = self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.npz"
        if not path.exists():
            if planned.recipe.motion_adapter not in self.moving:
                self.moving[planned.recipe.motion_adapter] = engines.load(planned)
            (result,) = video.make(planned, self.moving[planned.recipe.motion_adapter])
            part = path.with_suffix(".part.npz")
            np.savez_compressed(part, frames=np.stack(list(result.frames)))
            part.replace(path)
        frames: np.ndarray = np.load(path)["frames"]
        return frames


def compositions(
    entries: list[dict[str, Any]], cut_outs: np.ndarray, rows: list[int], count: int
) -> list[tuple[str, np.ndarray]]:
    """Pictures uint8 [side, side, 3] of two things side by side on an even ground, and what they show."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        one, other = rng.choice(rows, 2, replace=False)
        side = cut_outs.shape[1]
        canvas = Image.new("RGB", (side, side), tuple(int(value) for value in rng.integers(120, 256, 3)))
        for place, row in enumerate((one, other)):
            thing = Image.fromarray(cut_outs[row]).resize((side // 2, side // 2), Image.Resampling.LANCZOS)
            canvas.paste(thing, (place * side // 2, side // 4), thing)
        made.append((f"{entries[one]['label']} and {entries[other]['label']}", np.asarray(canvas)))
    return made


def inpaintings(artist: Artist, truths: list[tuple[str, np.ndarray]]) -> dict[str, float]:
    """A quarter of each picture filled in three ways: the root mean squared error there, of 255."""
    import cv2

    rng = np.random.default_rng(1)
    squares: dict[str, list[float]] = {"noisette": [], "Telea": [], "mean colour": []}
    for seed, (text, truth) in enumerate(truths):
        half = truth.shape[0] // 2
        top, left = rng.integers(0, half + 1, 2)
        mask = np.zeros(truth.shape[:2], np.uint8)
        mask[top : top + half, left : left + half] = 255
        holed = np.where(mask[..., None] > 0, 127, truth).astype(np.uint8)
        base_path, mask_path = artist.folder / f"base-{seed}.png", artist.folder / f"mask-{seed}.png"
        Image.fromarray(holed).save(base_path)
        Image.fromarray(mask).save(mask_path)
        edit = {"base_img": str(base_path), "mask_img": str(mask_path), "strict_mask": True, "strength": 1.0}
        edit["feather"] = 0  # what the hole holds is not to be seen
        hole = mask > 0
        filled = {
            "noisette": artist.make({"prompt": text, "seed": str(seed), "num_inference_steps": STEPS, **edit}),
            "Telea": cv2.inpaint(holed, mask, 5, cv2.INPAINT_TELEA),
            "mean colour": np.broadcast_to(truth[~hole].mean(0), truth.shape),
        }
        for name, picture in filled.items():
            squares[name].append(float(((picture[hole].astype(np.float64) - truth[hole]) ** 2).mean()))
    return {name: round(float(np.sqrt(np.mean(values))), 2) for name, values in squares.items()}


def repainted(artist: Artist, truths: list[tuple[str, np.ndarray]]) -> dict[str, float]:
    """A quarter of each picture painted anew with the default flags and --strict_mask: the mean CIEDE2000 across
    the mask's edge, the untouched picture's along the same line, and their ratio.
    """
    rng = np.random.default_rng(3)
    after, before = [], []
    for seed, (text, truth) in enumerate(truths):
        side = truth.shape[0]
        across, down = np.mgrid[:side, :side]
        left, top = rng.integers(side // 4, 3 * side // 4, 2)
        repaint = (across - left) ** 2 + (down - top) ** 2 < (side / 4) ** 2
        base, mask = artist.folder / f"seam-base-{seed}.png", artist.folder / f"seam-mask-{seed}.png"
        Image.fromarray(truth).save(base)
        Image.fromarray(repaint.astype(np.uint8) * 255).save(mask)
        edit = {"base_img": str(base), "mask_img": str(mask), "strict_mask": True}
        made = artist.make({"prompt": text, "seed": str(seed), "num_inference_steps": STEPS, **edit})
        after.append(steps_across(made.astype(np.float32), repaint).mean())
        before.append(steps_across(truth.astype(np.float32), repaint).mean())
    found = {"seam, CIEDE2000": np.mean(after), "the same line untouched": np.mean(before)}
    found["seam ratio"] = found["seam, CIEDE2000"] / found["the same line untouched"]
    return {name: round(float(value), 2) for name, value in found.items()}
