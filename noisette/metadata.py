"""What a picture says of itself: our JSON beside the AUTOMATIC1111 text that other tools read. Data only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from noisette.errors import UserError

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

OURS, THEIRS = "noisette", "parameters"
SAMPLERS = {
    "euler": "Euler",
    "ddim": "DDIM",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "unipc": "UniPC",
    "lcm": "LCM",
}
SCHEDULES = {  # schedules that AUTOMATIC1111 has no name for are left out of its text
    "karras": "Karras",
    "exponential": "Exponential",
    "simple": "Simple",
    "beta": "Beta",
    "sgm_uniform": "SGM Uniform",
}
PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')  # as AUTOMATIC1111 reads its text


def quoted(value: object) -> str:
    """A value as AUTOMATIC1111 writes it: a JSON string where it holds a comma, colon or line break."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text


def parameters_text(recipe: dict[str, Any], size: tuple[int, int], provenance: dict[str, Any]) -> str:
    """The AUTOMATIC1111 text: prompt, `Negative prompt:` and one line of parameters.

    `provenance` may hold model_hash (hex SHA-256 of the weights, ten digits written) and noisette (version).
    """
    values = {
        "Steps": recipe.get("num_inference_steps"),
        "Sampler": SAMPLERS.get(str(recipe.get("sampler"))),
        "Schedule type": SCHEDULES.get(str(recipe.get("schedule"))),
        "CFG scale": recipe.get("guidance_scale"),
        "Seed": recipe.get("seed"),
        "Size": f"{size[0]}x{size[1]}",
        "Model hash": str(provenance.get("model_hash") or "").removeprefix("sha256:")[:10] or None,
        "Model": Path(str(recipe["model"])).stem if recipe.get("model") else None,
        "Denoising strength": recipe.get("strength"),
        "Version": f"noisette {provenance['noisette']}" if "noisette" in provenance else "noisette",
    }
    lines = [str(recipe.get("prompt", ""))]
    if recipe.get("negative_prompts"):
        lines.append(f"Negative prompt: {recipe['negative_prompts']}")
    lines.append(", ".join(f"{name}: {quoted(value)}" for name, value in values.items() if value is not None))
    return "\n".join(lines)


def png_info(metadata: dict[str, Any], size: tuple[int, int]) -> PngInfo:
    """The text chunks of a picture of this size. `metadata`: recipe, provenance, more JSON."""
    from PIL.PngImagePlugin import PngInfo

    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    if not encodable(text):  # a lone surrogate, from a command line that is not UTF-8
        text = json.dumps(metadata, allow_nan=False)
    parameters = parameters_text(metadata["recipe"], size, metadata.get("provenance", {}))
    chunks = PngInfo()
    chunks.add_itxt(OURS, text)
    chunks.add_text(THEIRS, parameters.encode(errors="replace").decode())
    return chunks


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold the text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_texts(path: Path) -> dict[str, str]:
    """The texts of a picture or a clip that hold a recipe, ours or AUTOMATIC1111's: {} for another program's.

    Raises UserError for a file that can't be read.
    """
    from noisette.clips import is_clip
    from noisette.reading import opened

    if is_clip(path):
        from noisette.stamps import read_stamp

        text = read_stamp(path)
        return {OURS: text} if text is not None and is_ours(text) else {}
    with opened(path) as image:
        return {key: str(value) for key, value in image.info.items() if key in (OURS, THEIRS)}


def is_ours(text: str) -> bool:
    """Whether a clip's comment, which is anyone's place, is JSON with a recipe as `Recipe.to_json` makes it."""
    try:
        recipe = json.loads(text)["recipe"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return False
    return isinstance(recipe, dict) and {"prompt", "model", "seed"} <= recipe.keys()


def read_metadata(path: Path) -> dict[str, Any]:
    """{'recipe': …, 'provenance': …, …} as the file has it; from an AUTOMATIC1111 file what can be mapped.

    Raises UserError for a file that carries neither, or garbage.
    """
    texts = read_texts(path)
    if OURS in texts:
        return parse_ours(path, texts[OURS])
    if THEIRS in texts:
        return parse_parameters(path, texts[THEIRS])
    raise UserError(
        f"{path} carries no recipe, neither {OURS!r} nor AUTOMATIC1111 {THEIRS!r} metadata: another program made it,"
        " or has dropped them"
    )


def parse_ours(path: Path, text: str) -> dict[str, Any]:
    """Our JSON. Raises UserError for anything else."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        values = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} carries a {OURS!r} recipe that is not JSON: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("recipe"), dict):
        raise UserError(f"{path} carries {OURS!r} metadata without a recipe")
    return values


def parse_parameters(path: Path, text: str) -> dict[str, Any]:
    """{'recipe': fields, 'left_out': what has no field here, 'parameters': text} of an AUTOMATIC1111 text.

    Raises UserError for a text without the line of parameters.
    """
    *lines, last = text.strip().split("\n")
    pairs = {name: unquoted(value) for name, value in PARAMETER.findall(last)}
    if "Steps" not in pairs:
        raise UserError(f"{path} carries a {THEIRS!r} text that is not AUTOMATIC1111's: no line with Steps")
    where = next((i for i, line in enumerate(lines) if line.startswith("Negative prompt:")), len(lines))
    recipe: dict[str, Any] = {"prompt": "\n".join(lines[:where]).strip()}
    if negative := "\n".join(lines[where:]).removeprefix("Negative prompt:").strip():
        recipe["negative_prompts"] = negative
    left_out = {}
    for name, value in pairs.items():
        fields = mapped(name, value)
        recipe.update(fields)
        if not fields:
            left_out[name] = value
    return {"recipe": recipe, "left_out": left_out, THEIRS: text}


def unquoted(value: str) -> str:
    """The value that `quoted` wrote; itself where it only looks so."""
    if not value.startswith('"'):
        return value.strip()
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def mapped(name: str, value: str) -> dict[str, Any]:
    """The recipe's fields for one AUTOMATIC1111 parameter; none for what it has no field for.

    Denoising strength stays out: it belongs to a base picture, which such a file doesn't name.
    """
    from noisette.catalog import MODELS

    samplers = {theirs: ours for ours, theirs in SAMPLERS.items()}
    schedules = {theirs: ours for ours, theirs in SCHEDULES.items()}
    if name == "Steps" and value.isdecimal():
        return {"num_inference_steps": int(value)}
    if name == "CFG scale" and re.fullmatch(r"\d+(\.\d+)?", value):
        return {"guidance_scale": float(value)}
    if name == "Seed" and value.isdecimal():
        return {"seed": value}
    if name == "Size" and (match := re.fullmatch(r"(\d+)x(\d+)", value)):
        return {"img_w": int(match[1]), "img_h": int(match[2])}
    if name == "Schedule type" and value in schedules:
        return {"schedule": schedules[value]}
    if name == "Model" and value in MODELS:
        return {"model": value}
    if name == "Sampler" and value in samplers:
        return {"sampler": samplers[value]}
    sampler, _, schedule = value.rpartition(" ")  # before 1.9: DPM++ 2M Karras
    if name == "Sampler" and sampler in samplers and schedule in schedules:
        return {"sampler": samplers[sampler], "schedule": schedules[schedule]}
    return {}
