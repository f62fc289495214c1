"""The recipe: everything that decides what a picture looks like, as one frozen dataclass.

Its fields are the command-line flags, the JSON inside each file, the axes of a sweep and the body of an API
request; name, type, default, bounds and help stand once, here. Standard library only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from noisette.errors import UserError

SAMPLERS = (
    "euler",
    "ddim",
    "euler_ancestral",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_sde",
    "unipc",
    "lcm",
)
SCHEDULES = (
    "model",
    "leading",
    "trailing",
    "linspace",
    "karras",
    "exponential",
    "simple",
    "beta",
    "sgm_uniform",
)
BLENDS = ("alpha", "poisson")
UPSCALERS = ("network", "lanczos")
FITS = ("crop", "pad", "stretch")
HIRES = ("auto", "off")
ENGINES = ("auto", "openvino", "torch")
SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
PRECISIONS = ("float32", "float16", "bfloat16", "int8")
DEVICES = ("auto", "cpu", "cuda", "mps")
CODECS = ("h264", "av1", "ffv1", "png", "apng", "gif", "webp")

MAX_PROMPT = 10_000
MAX_SIDE = 16_384
MAX_PIXELS = 100_000_000  # of a picture that is read or written
MAX_PICTURES = 10_000
MAX_FRAMES = 10_000
MAX_SEED = 2**63 - 1
INTERPOLATIONS = ("model", "blend")
MOTIONS: dict[str, tuple[str, ...]] = {  # the word itself first
    "bounce": ("bounce", "bouncing", "bouncing up and down"),
    "spin": ("spin", "spinning", "turning around"),
    "zoom in": ("zoom in", "zooming in", "coming closer"),
    "zoom out": ("zoom out", "zooming out", "going away"),
    "slide left": ("slide left", "sliding left", "moving to the left"),
    "slide right": ("slide right", "sliding right", "moving to the right"),
    "slide up": ("slide up", "sliding up", "rising"),
    "slide down": ("slide down", "sliding down", "sinking"),
    "shake": ("shake", "shaking", "trembling"),
    "wave": ("wave", "waving", "rippling"),
}

INPUTS = ("base_img", "mask_img", "base_video", "mask_video")  # fields that name a picture or a clip


def flag(default: Any, help: str, **rules: Any) -> Any:
    """A field with its rules: `low`, `high` (inclusive), `choices`, `aliases`, `longest` (characters).

    `alters=False`: no picture depends on it, so it is no axis of a sweep.
    `only` ("image", "video"): the one command that has the flag.
    """
    return field(default=default, metadata={"help": help, **rules})


@dataclass(frozen=True)
class Recipe:
    """What to make. A field whose default is None is open until `plan` gives it the value that suits the model."""

    prompt: str = flag("", "what the picture shows; (word:1.3) weighs a word", longest=MAX_PROMPT)
    interpret: bool = flag(
        True,
        "where a model has a thesaurus: words that name nothing it knows are read as the nearest thing, and several"
        " things are composed each in a place of its own; False takes the prompt as it stands",
    )
    negative_prompts: str = flag("", "what it must not show", aliases=("negative_prompt",), longest=MAX_PROMPT)
    base_img: str = flag(None, "the picture to start from (img2img, inpainting, variation, img2video)")
    mask_img: str = flag(None, "white is repainted, black is kept (inpainting)")
    invert_mask: bool = flag(False, "black is repainted, white is kept")
    outpaint: str = flag(
        None, "pixels to add, as left=128,top=64, or a size around the base, as 1024x768", only="image"
    )
    strict_mask: bool = flag(None, "every pixel that is black in the mask stays the base's, byte for byte")
    soft_mask: bool = flag(False, "the mask's grey says how much each pixel may change; only black is kept")
    feather: int = flag(None, "pixels over which paint fades in, inside the white; outside is exact", low=0, high=256)
    blend: str = flag("alpha", "how paint meets the base", choices=BLENDS)
    color_match: bool = flag(True, "shift the paint's colours by what the model got wrong around the mask")
    crop: str = flag(
        None, "auto, off or pixels of context: compose only what is masked, at the model's native size", only="image"
    )
    variation: bool = flag(False, "another version of the base picture", only="image")
    image_prompt: float = flag(
        None,
        "how far the base stands for the prompt: 0 not at all, 1 for all of it",
        low=0.0,
        high=1.0,
        only="image",
    )
    ip_adapter: str = flag(
        None, "what sees the base for --image_prompt: FILE.safetensors with image_encoder/ beside it, or a hub id",
        only="image",
    )  # fmt: skip
    base_video: str = flag(None, "the clip to start from (video2video)", only="video")
    mask_video: str = flag(None, "a clip of masks, one a frame: white is repainted, black is kept", only="video")
    num_frames: int = flag(None, "frames of the clip", aliases=("frames",), low=2, high=MAX_FRAMES, only="video")
    fps: float = flag(None, "frames a second", low=0.1, high=240.0, only="video")
    motion: str = flag("", "what moves, in words (bounce, spin, zoom …), WORDS:STRENGTH or a strength", only="video")
    motion_adapter: str = flag(None, "motion modules: a folder, a hub id, or none", only="video")
    walk_to: str = flag("", "seeds the noise walks to from --seed, as 5,9: a clip without motion", only="video")
    loop: bool = flag(False, "the end meets the beginning", only="video")
    interpolate: int = flag(1, "2 or 4 times the frames, made between", low=1, high=4, only="video")
    interpolate_by: str = flag(
        "model", "what makes them: the model, or plain mixtures of neighbours", choices=INTERPOLATIONS, only="video"
    )
    strict_first_frame: bool = flag(False, "the first frame is the base picture, byte for byte", only="video")
    codec: str = flag(None, "how the clip is written", choices=CODECS, only="video")
    img_w: int = flag(
        None, "width in pixels, a multiple of 8", aliases=("width", "W"), low=8, high=MAX_SIDE, multiple=8
    )
    img_h: int = flag(
        None, "height in pixels, a multiple of 8", aliases=("height", "H"), low=8, high=MAX_SIDE, multiple=8
    )
    fit: str = flag(None, "how a base of another shape meets the size", choices=FITS)
    hires: str = flag(
        "auto", "off: sizes beyond the model's are composed directly, not small and then enlarged", choices=HIRES
    )
    upscale: int = flag(None, "make the base picture so many times larger", low=2, high=8, only="image")
    upscaler: str = flag("network", "what makes a picture larger", choices=UPSCALERS)
    refine: float = flag(0.0, "share of the steps for an enlarged picture, in tiles", low=0.0, high=1.0, only="image")
    num_inference_steps: int = flag(None, "denoising steps", aliases=("steps",), low=1, high=1000)
    guidance_scale: float = flag(None, "classifier-free guidance; 1 is none", low=0.0, high=100.0)
    guidance_rescale: float = flag(0.0, "0..1, against over-exposure at high guidance", low=0.0, high=1.0)
    guidance_start: float = flag(0.0, "guidance begins after this share of the steps", low=0.0, high=1.0)
    guidance_end: float = flag(1.0, "guidance ends after this share of the steps", low=0.0, high=1.0)
    step_cache: int = flag(
        1,
        "deep features of the network are computed at every N-th step only; 1 is each",
        low=1,
        high=20,
        only="image",
    )
    strength: float = flag(None, "how far from the base: 0 keeps it, 1 ignores it", low=0.0, high=1.0)
    sampler: str = flag(None, "how to take the steps", choices=SAMPLERS)
    schedule: str = flag(None, "where the noise levels lie", choices=SCHEDULES)
    seed: str = flag("", "1024 or 1,2,5-10; image i of --count uses seed + i; drawn when left out, in sweeps 0")
    variation_seed: str = flag("", "a seed to turn the noise towards; several with commas, one after the other")
    variation_strength: str = flag("", "how far, 0 (not at all) to 1 (that seed); one for each --variation_seed")
    count: int = flag(1, "pictures for each seed", low=1, high=MAX_PICTURES, alters=False)
    model: str = flag("noisette-1", "a catalog name, a diffusers folder, a .safetensors file or a hub id")
    clip_skip: int = flag(0, "layers that the text encoder leaves out at its end", low=0, high=31)
    lora: str = flag("", "LoRA files to merge in, FILE or FILE:SCALE, several with commas")
    engine: str = flag("auto", "what runs the networks", choices=ENGINES)
    device: str = flag("auto", "where the torch engine runs", choices=DEVICES)
    precision: str = flag(
        "float32", "arithmetic of the networks; int8 after `noisette optimize`", choices=PRECISIONS, short=SHORT
    )
    batch_size: int = flag(
        1, "pictures computed at a time; the pictures do not depend on it", low=1, high=256, alters=False
    )
    checkpoint_every: int = flag(
        0, "save a run every N steps; the same command goes on after a crash; 0 is never",
        low=0, high=1000, alters=False,
    )  # fmt: skip
    preview_every: int = flag(
        0, "show in a file beside what the picture will be, every N steps until it is there; 0 is never",
        low=0, high=1000, alters=False, only="image",
    )  # fmt: skip
    preview_decoder: str = flag(
        None, "a small decoder for previews (AutoencoderTiny): a folder, a hub id, or vae for the model's own",
        alters=False, only="image",
    )  # fmt: skip

    @property
    def moving(self) -> bool:
        """Whether it makes a clip."""
        return self.num_frames is not None or self.base_video is not None

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults, and always prompt, model and seed."""
        always = {"prompt", "model", "seed"}
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name in always or getattr(self, f.name) != f.default
        }


FIELDS: dict[str, Field[Any]] = {f.name: f for f in fields(Recipe)}
ALTERING_NOTHING: dict[str, Any] = {
    name: f.default for name, f in FIELDS.items() if not f.metadata.get("alters", True)
}
ALIASES: dict[str, str] = {alias: name for name, f in FIELDS.items() for alias in f.metadata.get("aliases", ())}


def field_name(word: str, where: str) -> str:
    """The field behind a name or an alias of its flag, hyphens and underscores alike. Raises UserError."""
    name = word.strip().replace("-", "_")
    name = ALIASES.get(name, name)
    if name not in FIELDS:
        raise UserError(f"{where} names an unknown field {word!r}{nearest(name, [*FIELDS, *ALIASES])}")
    return name


def kind(name: str) -> type:
    """The type of a field's value: str, bool, int or float."""
    return {"str": str, "bool": bool, "int": int, "float": float}[str(FIELDS[name].type)]


def asks(recipe: Recipe, name: str) -> bool:
    """Whether a field asks for anything: neither its default nor an open switch that is turned off."""
    value, default = getattr(recipe, name), FIELDS[name].default
    return value != default and not (value is False and default is None)


def parse_bool(name: str, text: str) -> bool:
    """`True`, `yes`, `1`, … and their opposites in any case. Raises UserError for anything else."""
    words = {
        "true": True,
        "yes": True,
        "1": True,
        "on": True,
        "false": False,
        "no": False,
        "0": False,
        "off": False,
    }
    if text.strip().lower() not in words:
        raise UserError(f"--{name} {text!r} is neither True nor False")
    return words[text.strip().lower()]


def parse_number(name: str, text: str, type_: type[int] | type[float]) -> int | float:
    """A finite number of the field's type. Raises UserError otherwise."""
    what = "a whole number" if type_ is int else "a number"
    try:
        value = type_(text)
    except ValueError:
        raise UserError(f"--{name} {text!r} is not {what}") from None
    if not math.isfinite(value):
        raise UserError(f"--{name} {text!r} is not a finite number")
    return value


def parse(name: str, text: str) -> Any:
    """The value of field `name` from what stands on a command line or in a table. Raises UserError."""
    if kind(name) is bool:
        return parse_bool(name, text)
    if kind(name) in (int, float):
        return parse_number(name, text, kind(name))
    return FIELDS[name].metadata.get("short", {}).get(text, text)


def nearest(word: str, words: tuple[str, ...] | list[str]) -> str:
    """'; did you mean X?' for the word that looks most alike, or nothing."""
    import difflib

    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def among(word: str, words: tuple[str, ...] | list[str]) -> str:
    """`nearest`, and after it all words that there are."""
    near = nearest(word, words)
    return f"{near} There are: {', '.join(words)}" if near else f"; there are: {', '.join(words)}"


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError with the nearest choice and all of them."""
    if value not in choices:
        raise UserError(f"--{name} {value!r} is unknown{among(value, choices)}")


def check_multiple(name: str, value: int, multiple: int) -> None:
    """Raises UserError naming the two nearest multiples."""
    if value % multiple:
        below = value // multiple * multiple
        raise UserError(
            f"--{name} {value} is not a multiple of {multiple}: {max(below, multiple)} and {below + multiple} are"
        )


def check_field(name: str, value: Any) -> None:
    """Holds `value` against the field's type, bounds and choices. Raises UserError."""
    rules = FIELDS[name].metadata
    if value is None and FIELDS[name].default is None:
        return
    if value == "" and FIELDS[name].default is None:
        raise UserError(f"--{name} is empty: give it a value or leave it out")
    wanted = kind(name)
    fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and wanted is not bool):
        raise UserError(f"--{name} {value!r} is not of type {wanted.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{name} {value!r} is not a finite number")
    low, high = rules.get("low"), rules.get("high")
    if low is not None and not low <= value <= high:
        raise UserError(f"--{name} {value} is out of range: {low} to {high}")
    if "multiple" in rules:
        check_multiple(name, value, rules["multiple"])
    if "choices" in rules:
        check_choice(name, value, rules["choices"])
    if "longest" in rules and len(value) > rules["longest"]:
        raise UserError(f"--{name} has {len(value):,} characters: at most {rules['longest']:,}")


def check(recipe: Recipe) -> Recipe:
    """Holds each field against its own rules; what fields mean together is `plan`'s. Raises UserError."""
    for name in FIELDS:
        check_field(name, getattr(recipe, name))
    parse_seeds(recipe.seed, recipe.count)
    parse_chain(recipe)
    return recipe


def parse_chain(recipe: Recipe) -> list[tuple[int, float]]:
    """--variation_seed 5,9 with --variation_strength 0.1,0.2 as [(5, 0.1), (9, 0.2)]. Raises UserError."""
    seeds = parse_seeds(recipe.variation_seed, name="variation_seed")
    words = [word for word in recipe.variation_strength.replace(" ", "").split(",") if word]
    strengths = [float(parse_number("variation_strength", word, float)) for word in words]
    if len(seeds) != len(strengths):
        raise UserError(
            f"--variation_seed {recipe.variation_seed!r} and --variation_strength {recipe.variation_strength!r}:"
            f" {len(seeds)} and {len(strengths)}, where each seed needs its strength, as 5,9 and 0.1,0.2"
        )
    for strength in strengths:
        if not 0 <= strength <= 1:
            raise UserError(f"--variation_strength {strength} is out of range: 0 to 1")
    return list(zip(seeds, strengths, strict=True))


def parse_seeds(text: str, count: int = 1, name: str = "seed") -> list[int]:
    """'1,2,5-7' with count c gives each seed s as s, s+1, …, s+c-1; '' gives []. Raises UserError."""
    seeds: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"(\d{1,20})(?:-(\d{1,20}))?", part)
        if not match:
            raise UserError(f"--{name} {text!r} is not a seed: write 1024 or 1,2,5-10")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= MAX_PICTURES or last + count > MAX_SEED:
            raise UserError(f"--{name} {part} is no range of at most {MAX_PICTURES:,} seeds from 0 to {MAX_SEED}")
        seeds += [seed + i for seed in range(first, last + 1) for i in range(count)]
    if text.strip() and not seeds:
        raise UserError(f"--{name} {text!r} is not a seed: write 1024 or 1,2,5-10")
    if len(seeds) > MAX_PICTURES:
        raise UserError(
            f"--{name} {text!r} and --count {count} are {len(seeds):,} pictures: at most {MAX_PICTURES:,}"
        )
    return seeds


def from_mapping(values: Mapping[str, Any]) -> Recipe:
    """A recipe from JSON values (a file's metadata, an API body). Unknown names raise UserError."""
    named = {ALIASES.get(name, name): value for name, value in values.items()}
    for name in named:
        if name not in FIELDS:
            raise UserError(f"a recipe has no field {name!r}{nearest(name, list(FIELDS))}")
    for name in ("seed", "variation_seed", "variation_strength"):  # one number may stand as such
        if isinstance(named.get(name), (int, float)):
            named[name] = str(named[name])
    return check(Recipe(**named))
