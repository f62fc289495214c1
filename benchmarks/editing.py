"""Inpainting here and with diffusers on the same base, mask and weights: what is kept, and how visible the seam is.

    python3 benchmarks/editing.py [--steps 10] [--seeds 3] [--pictures photo alpha deep large] [--sheet FILE]

The pictures are scikit-image's photograph of a cat (CC0), as it is and in other formats. Weights: noisette-1.
diffusers' StableDiffusionInpaintPipeline takes UNets of 4 and 9 channels only; its own code runs here with that
number read as 16, and nothing else changed. Both sides run the torch engine, one process, networks loaded
beforehand; processor seconds from files to file; rounds alternate. diffusers is given what its guides give it: RGB
pictures, and sides down to the next multiple of 16. A result of another size is brought back to the input's by
Lanczos before pixels are compared, as its user would have to.
"""  # fmt: skip

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionInpaintPipeline
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_inpaint as theirs
from PIL import Image, ImageCms, ImageDraw, ImageFont
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1]))

from noisette import engines, output
from noisette.generate import generate
from noisette.pixels import over, shown
from noisette.plan import BUILTIN, plan
from noisette.reading import read
from noisette.recipe import Recipe
from noisette.seams import steps_across

PROMPT = "a red apple"
MODEL = BUILTIN / "noisette-1"
CAPTION = 28  # pixels above a sheet


@dataclass
class Row:
    """What one method did to one picture."""

    changed: float  # share of the kept pixels that differ
    largest: int  # the largest difference among them, of 255 (65535 at 16 bits)
    seam: float
    untouched: float
    same_size: bool
    carried: bool  # mode, depth, alpha, profile, resolution
    seconds: float


def write_inputs(folder: Path, name: str) -> tuple[Path, Path]:
    """A base and a mask: photo 451x300 with a profile, alpha, deep (16-bit grey), large (4000x3000, small mask)."""
    photo = Image.fromarray(data.chelsea())
    if name == "large":
        photo = photo.resize((4000, 3000), Image.Resampling.LANCZOS)
    rgb = np.asarray(photo)
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    base, mask = folder / f"{name}.png", folder / f"{name}-mask.png"
    if name == "alpha":
        rgba = np.dstack([rgb, np.clip(y / height * 300, 40, 255).astype(np.uint8)])
        Image.fromarray(rgba).save(base, icc_profile=profile, dpi=(300, 300))
    elif name == "deep":
        Image.fromarray((rgb.mean(axis=-1) * 257).astype(np.uint16)).save(base, dpi=(300, 300))
    else:
        photo.save(base, icc_profile=profile, dpi=(300, 300))
    radius = 150 if name == "large" else 70
    white = (x - width * 0.22) ** 2 + (y - height * 0.3) ** 2 < radius**2
    Image.fromarray(white.astype(np.uint8) * 255).save(mask)
    return base, mask


def sixteen_channels() -> Callable[..., Any]:
    """The pipeline's own __call__, with 16 where it says 4 channels."""
    source = textwrap.dedent(inspect.getsource(StableDiffusionInpaintPipeline.__call__))
    for sign in ("==", "!="):
        assert f"num_channels_unet {sign} 4" in source
        source = source.replace(f"num_channels_unet {sign} 4", f"num_channels_unet {sign} 16")
    scope = dict(vars(theirs))
    exec(source, scope)
    return scope["__call__"]


def diffusers_method(steps: int, padding: int | None) -> Callable[[Path, Path, int, Path], None]:
    """Plain inpainting, or with padding_mask_crop and its overlay."""
    pipe = StableDiffusionInpaintPipeline.from_pretrained(MODEL, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    call = sixteen_channels()

    def run(base: Path, mask: Path, seed: int, out: Path) -> None:
        image, white = Image.open(base), Image.open(mask)
        if image.mode == "I;16":  # its processor knows 8 bits
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("RGB")
        side = pipe.unet.config.sample_size * pipe.vae_scale_factor
        sides = {"width": image.width // 16 * 16, "height": image.height // 16 * 16}
        if padding is not None or image.width > 2000:  # whole, 4000x3000 would not fit into memory
            sides = {"width": side, "height": side}
        (made,) = call(
            pipe, PROMPT, image=image, mask_image=white, **sides, padding_mask_crop=padding, strength=1.0,
            num_inference_steps=steps, guidance_scale=3.0, generator=torch.Generator().manual_seed(seed),
        ).images  # fmt: skip
        made.save(out)

    return run


def our_method(steps: int, engine: str, **fields: Any) -> Callable[[Path, Path, int, Path], None]:
    """image.py with these flags."""
    networks: list[Any] = []

    def run(base: Path, mask: Path, seed: int, out: Path) -> None:
        inputs = {"base_img": str(base), "mask_img": str(mask), "seed": str(seed)}
        recipe = Recipe(prompt=PROMPT, num_inference_steps=steps, engine=engine, sampler="ddim", **inputs, **fields)
        asked = plan(recipe, out.parent)
        if not networks:
            networks.append(engines.load(asked))
        (result,) = generate(asked, networks[0])
        output.write(asked, result).path.replace(out)

    return run


def judge(base: Path, mask: Path, made: Path, seconds: float) -> Row:
    """Compares two files as they are on disk."""
    before, after = read(base), read(made)
    white = np.asarray(Image.open(mask)) >= 128
    same = before.size == after.size
    carried = before.mode == after.mode and before.info == after.info
    if before.mode == after.mode and same:
        difference = np.abs(after.data.astype(int) - before.data.astype(int)).max(axis=-1)[~white]
        seen = over(after, 255)
    else:
        resized = Image.open(made).convert("RGB").resize(before.size, Image.Resampling.LANCZOS)
        seen = np.asarray(resized, np.float32)
        difference = np.abs(seen - shown(before)).max(axis=-1)[~white]
    seams = [float(steps_across(picture, white).mean()) for picture in (seen, over(before, 255))]
    return Row(float((difference > 0).mean()), int(np.ceil(difference.max())), *seams, same, carried, seconds)


def draw_sheet(base: Path, mask: Path, made: dict[str, Path], target: Path) -> None:
    """Base and mask, then each method's picture above what it changed of the kept pixels, ten times as strong."""
    before, white = Image.open(base).convert("RGB"), Image.open(mask).convert("RGB")
    width, height = before.size
    sheet = Image.new("RGB", (width * (len(made) + 1), height * 2 + CAPTION), "white")
    sheet.paste(before, (0, CAPTION))
    sheet.paste(white, (0, CAPTION + height))
    font, write = ImageFont.load_default(18), ImageDraw.Draw(sheet)
    write.text((8, 4), "base and mask", "black", font)
    for column, (method, path) in enumerate(made.items(), 1):
        after = Image.open(path).convert("RGB").resize(before.size, Image.Resampling.LANCZOS)
        changed = np.abs(np.asarray(after, int) - np.asarray(before, int)) * (np.asarray(white) < 128)
        sheet.paste(after, (column * width, CAPTION))
        sheet.paste(Image.fromarray((changed * 10).clip(0, 255).astype(np.uint8)), (column * width, CAPTION + height))
        write.text((column * width + 8, 4), method, "black", font)
    sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3), Image.Resampling.LANCZOS).save(target, quality=85)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", nargs="+", default=["photo", "alpha", "deep", "large"])
    parser.add_argument("--keep", type=Path, help="put the pictures here")
    parser.add_argument("--sheet", type=Path, help="draw the first seed's pictures of the first base here")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    methods = {
        "here, defaults": our_method(args.steps, "torch"),
        "here, --strict_mask": our_method(args.steps, "torch", strict_mask=True),
        "here, --strict_mask --feather 0": our_method(args.steps, "torch", strict_mask=True, feather=0),
        "here, --blend poisson": our_method(args.steps, "torch", blend="poisson"),
        "diffusers, plain": diffusers_method(args.steps, None),
        "diffusers, padding_mask_crop=32": diffusers_method(args.steps, 32),
    }
    folder = args.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    print(
        "| picture | method | kept pixels changed | by at most | seam ΔE (untouched) | same size | all carried | s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in args.pictures:
        base, mask = write_inputs(folder, name)
        rows: dict[str, list[Row]] = {method: [] for method in methods}
        made: dict[str, Path] = {}
        for seed in range(args.seeds):
            for method, run in methods.items():
                out = folder / f"{name}-{method.replace(' ', '_').replace(',', '')}-{seed}.png"
                made.setdefault(method, out)
                began = time.process_time()
                run(base, mask, seed, out)
                rows[method].append(judge(base, mask, out, time.process_time() - began))
        if args.sheet and name == args.pictures[0]:
            draw_sheet(base, mask, made, args.sheet)
        for method, found in rows.items():
            print(f"| {name} | {method} | {cells(found)} |", flush=True)


def cells(rows: list[Row]) -> str:
    """The mean over seeds of one method on one picture."""
    yes = {True: "yes", False: "no"}
    return " | ".join(
        (
            f"{mean(row.changed for row in rows):.2%}",
            str(max(row.largest for row in rows)),
            f"{mean(row.seam for row in rows):.1f} ({rows[0].untouched:.1f})",
            yes[all(row.same_size for row in rows)],
            yes[all(row.carried for row in rows)],
            f"{mean(row.seconds for row in rows):.1f}",
        )
    )


if __name__ == "__main__":
    main()
