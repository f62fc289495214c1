"""The command line: flags in, one line of error or a picture out. Imports nothing heavy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from noisette import __version__
from noisette.errors import UserError
from noisette.recipe import FIELDS, INPUTS, MAX_SIDE, Recipe, asks, check, kind, nearest, parse, parse_number

if TYPE_CHECKING:
    from noisette.plan import Plan

COMMANDS = {
    "image": "make or edit a picture",
    "video": "make or edit a clip",
    "models": "list the models that have a name",
    "inspect": "show what a file says of itself",
    "verify": "hold a file against its base, and against its picture made again",
    "sweep": "cross axes over any flag, into a store that survives crashes",
    "measure": "numbers of pictures: colour, sharpness, seams, PSNR, SSIM, FID and KID",
    "compare": "two pictures or two folders side by side",
    "rerun": "make the pictures of files and folders again",
    "report": "a page, a contact sheet and a table of a folder of pictures",
    "optimize": "make a model's int8 networks, for --precision int8",
    "bench": "which engine and precision is fastest here",
    "train": "train the built-in model",
}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, raised as UserError; flags are never abbreviated."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100),
            **settings,
        )

    def error(self, message: str) -> NoReturn:
        hint = "; a value that begins with - is written --flag=-value" if "expected one argument" in message else ""
        raise UserError(message.removeprefix("argument ") + hint)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Hyphen and underscore are the same in a flag's name; a flag nobody knows raises UserError."""
        values, unknown = self.parse_known_args([underscored(word) for word in argv])
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            what = "flag" if unknown[0].startswith("-") else "argument"
            raise UserError(f"unknown {what} {unknown[0]!r}{nearest(unknown[0].split('=')[0], known)}")
        return values


def underscored(word: str) -> str:
    """--negative-prompts=a-b becomes --negative_prompts=a-b; other words stay as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def add_recipe_flags(parser: Parser, *commands: str) -> None:
    """One flag a field that one of the commands has, with its aliases; values stay text for `recipe.parse`."""
    for name, field in FIELDS.items():
        if field.metadata.get("only") not in (None, *commands):
            continue
        flags = [f"--{name}"]
        flags += [f"-{alias}" if len(alias) == 1 else f"--{alias}" for alias in field.metadata.get("aliases", ())]
        optional: dict[str, Any] = {"nargs": "?", "const": "True"} if kind(name) is bool else {}
        about = field.metadata["help"]
        if "choices" in field.metadata:
            about += f": {', '.join(field.metadata['choices'])}"
        if field.default not in (None, "", False):
            about += f" (default {field.default})"
        metavar = "True|False" if kind(name) is bool else {int: "N", float: "X", str: "TEXT"}[kind(name)]
        parser.add_argument(*flags, dest=name, metavar=metavar, help=about.replace("%", "%%"), **optional)


def recipe_parser(command: str, prog: str) -> Parser:
    """The flags of image.py or video.py: the recipe's fields and those that say where and how to run."""
    what = {"image": "pictures", "video": "clips"}[command]
    parser = Parser(prog=prog, description=f"Make or edit {what} with a diffusion model.")
    add_recipe_flags(parser, command)
    parser.add_argument("--out", default="out", metavar="DIR", help="where files go (default out)")
    parser.add_argument("--from", dest="source", metavar="FILE", help="start from the recipe inside a file")
    parser.add_argument("--plan", action="store_true", help="print what would run, and stop")
    parser.add_argument("--json", action="store_true", help="for machines: one JSON object a line")
    parser.add_argument("--lenient", action="store_true", help="an argument without effect is a warning")
    return parser


def recipe_from(values: argparse.Namespace) -> Recipe:
    """The recipe of a parsed command line: that of --from FILE, if any, with every given flag on top."""
    base = Recipe()
    if values.source is not None:
        from noisette.record import read_recipe

        base = read_recipe(values.source)
    given = {name: parse(name, text) for name in FIELDS if (text := getattr(values, name, None)) is not None}
    return check(replace(base, **given))


def image(argv: Sequence[str], prog: str) -> int:
    """Makes pictures. Returns 0, or 1 when a kept pixel differs in a written file."""
    values = recipe_parser("image", prog).parse(argv)
    recipe = recipe_from(values)
    if recipe.moving:
        raise UserError(f"--from {values.source} is a clip's recipe: python3 video.py makes clips")
    return run_recipe(recipe, values)


def video(argv: Sequence[str], prog: str) -> int:
    """Makes clips. Returns 0, or 1 when a kept pixel differs in a written file."""
    values = recipe_parser("video", prog).parse(argv)
    recipe = without_pictures_own(recipe_from(values), values.source)
    return run_recipe(recipe if recipe.moving else replace(recipe, num_frames=0), values)  # the model's own number


def without_pictures_own(recipe: Recipe, source: str | None) -> Recipe:
    """A recipe for clips of one that may be a picture's: without what only pictures know, which is noted."""
    own = [name for name, field in FIELDS.items() if field.metadata.get("only") == "image" and asks(recipe, name)]
    if own:
        named = ", ".join(f"{name} {getattr(recipe, name)}" for name in own)
        print(f"note: --from {source} is a picture's recipe, a clip goes without its {named}", file=sys.stderr)
    blank: dict[str, Any] = {name: FIELDS[name].default for name in own}
    return replace(recipe, **blank)


def run_recipe(recipe: Recipe, values: argparse.Namespace) -> int:
    """Plans a recipe, and makes what it asks for unless only the plan is wanted."""
    from noisette.plan import plan

    planned = plan(recipe, out=Path(values.out), lenient=values.lenient, download=not values.plan)
    for note in planned.notes:
        print(f"note: {note}", file=sys.stderr)
    if values.plan:
        print(json.dumps(planned.describe(), ensure_ascii=False) if values.json else planned.to_text())
        return 0
    return make(planned, as_json=values.json)


def make(planned: Plan, as_json: bool) -> int:
    """Runs a plan: a progress bar on a terminal, a line for each file as it lands."""
    from tqdm import tqdm

    from noisette import engines, generate, output, video
    from noisette.preview import previews_of

    previews = previews_of(planned)
    looks = {"look": previews} if previews else {}
    networks = engines.load(planned)
    journal = None
    if planned.recipe.checkpoint_every:
        from noisette.journal import Journal

        networks = journal = Journal(networks, output.checkpoint_of(planned), planned.recipe.checkpoint_every)
    runs: Callable[..., Any] = video.make if planned.clip else generate.generate
    write: Callable[[Plan, Any], Any] = video.write if planned.clip else output.write
    proved = True
    if previews:
        where = previews.path(planned.seeds[0])
        print(f"note: what it will be, every {previews.every} steps: {where}", file=sys.stderr)
    shown = tqdm(total=planned.evaluated_steps, unit="step", disable=None, leave=False)
    with previews or nullcontext(), shown as bar:

        def step() -> None:
            bar.update()
            if journal:
                journal.step()

        for result in runs(planned, networks, step, **looks):
            saved = write(planned, result)
            if previews:
                previews.remove([result.seed])
            proved = proved and saved.proved
            bar.clear()
            for asked, told in result.facts.get("read_as", {}).items():
                print(f"note: {asked!r} names nothing the model knows; read as {told!r}", file=sys.stderr)
            for words in result.facts.get("words_cut", ()):
                print(
                    f"note: the model's text encoder has no room for the end of the prompt: {words!r}",
                    file=sys.stderr,
                )
            print(json.dumps(saved.describe(), ensure_ascii=False) if as_json else saved.to_text(), flush=True)
    if journal:
        if journal.recalled:
            print(f"note: went on from a checkpoint after {journal.recalled} network evaluations", file=sys.stderr)
        journal.remove()
    return 0 if proved else 1


def models(argv: Sequence[str], prog: str) -> int:
    """Lists the catalog."""
    parser = Parser(
        prog=prog, description="The models that have a name; --model takes folders, files and hub ids too."
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    values = parser.parse(argv)
    from dataclasses import asdict

    from noisette.catalog import MODELS

    if values.json:
        print(json.dumps([asdict(model) for model in MODELS.values()]))
        return 0
    for model in MODELS.values():
        print(f"{model.name:20} {model.about} ({model.licence}; {model.where})")
    return 0


def inspect(argv: Sequence[str], prog: str) -> int:
    """Prints the metadata of files."""
    parser = Parser(prog=prog, description="Show what a picture says of itself.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    from noisette.record import describe

    for file in parser.parse(argv).files:
        print(json.dumps(describe(Path(file)), indent=2, ensure_ascii=False))
    return 0


def verify(argv: Sequence[str], prog: str) -> int:
    """Holds files, and those in folders, against their base and their re-rendering. Returns 0 when no kept pixel
    differs and all are identical or within tolerance, 1 otherwise.
    """
    parser = Parser(prog=prog, description="Make a file's picture again from its own recipe and compare.")
    parser.add_argument("files", nargs="+", metavar="PATH", help="pictures and folders")
    parser.add_argument("--engine", help="run on this engine instead of the recorded one")
    parser.add_argument(
        "--kept", action="store_true", help="check only kept pixels against the base, without a model"
    )
    for name in INPUTS:
        parser.add_argument(f"--{name}", metavar="PATH", help="where it is now, if not where it was")
    values = parser.parse(argv)
    from noisette.reading import resolve
    from noisette.verify import Loader, summary, verdicts, verify_file, verify_kept

    given = {name: resolve(path) for name in INPUTS if (path := getattr(values, name)) is not None}
    check = partial(verify_kept, given=given)
    if not values.kept:
        check = partial(verify_file, engine=values.engine, load=Loader(), given=given)
    found = []
    for verdict in verdicts(values.files, check, "kept" if values.kept else "provenance"):
        found.append(verdict)
        print(verdict.to_text(), flush=True)
    if len(found) > 1:
        print(summary(found), file=sys.stderr)
    return 0 if all(verdict.good for verdict in found) else 1


def optimize(argv: Sequence[str], prog: str) -> int:
    """Quantizes a model to int8 and says what that costs and brings."""
    parser = Parser(prog=prog, description="Make a model's int8 networks, for --precision int8. Takes minutes.")
    parser.add_argument("model", metavar="MODEL", help="as --model")
    parser.add_argument("--pictures", default="16", metavar="N", help="drawn to calibrate on, 1 to 256 (default 16)")
    parser.add_argument("--json", action="store_true", help="for machines: the report as one JSON object")
    values = parser.parse(argv)
    pictures = whole("pictures", values.pictures, 1, 256)
    from noisette.optimize import optimize as make_int8

    report = make_int8(values.model, pictures, lambda line: print(line, file=sys.stderr, flush=True))
    if values.json:
        print(json.dumps(report))
        return 0
    kept = {name: len(names) for name, names in report["float_layers"].items()}
    psnr = report["psnr"]
    print(
        f"int8 against float32: {psnr['mean']:.1f} dB (least {psnr['least']:.1f}) over {len(psnr['prompts'])}"
        f" pictures, decoder {report['decoder_psnr']:.1f} dB"
    )
    print(f"a step takes {report['step_ratio']:.2f} of float32's time, a decode {report['decode_ratio']:.2f}")
    print(f"layers kept in float: {kept['unet']} of the UNet, {kept['vae_decoder']} of the decoder")
    return 0


def bench(argv: Sequence[str], prog: str) -> int:
    """Times engines and precisions against each other."""
    parser = Parser(prog=prog, description="Which engine and precision is fastest here, on this model.")
    parser.add_argument("model", nargs="?", default="noisette-1", metavar="MODEL", help="as --model")
    parser.add_argument("--side", metavar="N", help="pixels, a multiple of 8 (default: the model's own)")
    parser.add_argument("--rounds", default="3", metavar="N", help="1 to 100 (default 3)")
    parser.add_argument("--json", action="store_true", help="for machines: one JSON object")
    values = parser.parse(argv)
    side = None if values.side is None else whole("side", values.side, 8, MAX_SIDE)
    rounds = whole("rounds", values.rounds, 1, 100)
    from noisette.speed import bench as measure
    from noisette.speed import to_text

    report = measure(values.model, side, rounds, lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(report) if values.json else to_text(report))
    return 0


def whole(name: str, text: str, low: int, high: int) -> int:
    """The value of a flag that is no recipe field. Raises UserError."""
    value = int(parse_number(name, text, int))
    if not low <= value <= high:
        raise UserError(f"--{name} {value} is out of range: {low} to {high}")
    return value


def train(argv: Sequence[str], prog: str) -> int:
    """Hands over to the training commands."""
    from noisette.train import main as train_main

    return train_main(argv, prog)


def research(command: str) -> Callable[[Sequence[str], str], int]:
    """A command of the bench, imported when it is called."""

    def call(argv: Sequence[str], prog: str) -> int:
        from noisette.bench import commands

        function: Callable[[Sequence[str], str], int] = getattr(commands, command)
        return function(argv, prog)

    return call


def run(command: str, argv: Sequence[str]) -> int:
    """One command with its exit code: 2 and one line for what the user can mend, 130 for Ctrl-C."""
    functions: dict[str, Callable[[Sequence[str], str], int]] = {
        "image": image, "video": video, "models": models, "inspect": inspect, "verify": verify,
        "sweep": research("sweep"), "report": research("report"), "measure": research("measure"),
        "compare": research("compare"), "rerun": research("rerun"),
        "optimize": optimize, "bench": bench, "train": train,
    }  # fmt: skip
    script = Path(sys.argv[0]).name
    prog = script if script == f"{command}.py" else f"noisette {command}"
    try:
        return functions[command](argv, prog)
    except UserError as error:
        print(f"{prog}: {error}".replace("\n", " "), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def main(argv: Sequence[str]) -> int:
    """`noisette COMMAND …`."""
    if argv and argv[0] in COMMANDS:
        return run(argv[0], argv[1:])
    if argv and argv[0] == "--version":
        print(f"noisette {__version__}")
        return 0
    usage = "\n".join(f"  {name:10} {about}" for name, about in COMMANDS.items())
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: noisette COMMAND …\n\n{usage}\n\n`noisette COMMAND --help` tells more.")
        return 0
    print(f"noisette: unknown command {argv[0]!r}{nearest(argv[0], list(COMMANDS))}", file=sys.stderr)
    return 2
