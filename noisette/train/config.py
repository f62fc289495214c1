"""The training configuration: one TOML file, every key known, every value one that trains."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import tomllib

from noisette.errors import UserError
from noisette.recipe import nearest
from noisette.train.compose import COLOURS, HUES

DEFAULT = Path(__file__).parent / "config.toml"

SIGNED = ("timestep_mean",)  # the only numbers that may be less than nothing
COUNTS = (  # 1 or more, each number of a list too
    "data.side", "data.captions", "data.window", "autoencoder.channels", "autoencoder.latent_channels",
    "autoencoder.sides", "autoencoder.batch", "denoiser.channels", "denoiser.heads", "denoiser.batch",
    "denoiser.warm_up", "decoder.batch", "decoder.critic", "upscale.channels", "upscale.pictures", "upscale.patch",
    "upscale.batch", "image_encoder.channels", "image_encoder.hidden", "image_encoder.rank", "image_encoder.batch",
    "motion.frames", "motion.heads", "motion.batch", "motion.warm_up", "log.every",
)  # fmt: skip
SHARES = (  # 0 to 1
    "data.held_out", "autoencoder.coloured", "denoiser.ema", "denoiser.empty", "denoiser.common_share",
    "decoder.noisiest", "upscale.shaded", "motion.common_share", "motion.ema", "motion.empty",
    "motion.taught_strength", "motion.moved_strength", "motion.shared_noise", "scheduler.beta_start",
    "scheduler.beta_end",
)  # fmt: skip
DIVIDED_BY = ("data.aspects", "denoiser.cool_down", "image_encoder.temperature", "motion.cool_down")  # more than 0
NEVER_EMPTY = (
    "data.groups", "autoencoder.channels", "autoencoder.sides", "denoiser.channels", "log.sheet", "card.prompts",
)  # fmt: skip
EMOJI_GROUPS = 10  # that emojibase counts from 0
GROUPS = 32  # of the denoiser's normalizations
SEEN = 16  # latents along each side that the image encoder looks at, by this many convolutions:
CONVOLUTIONS = 4

Config = dict[str, dict[str, Any]]


def read_config(path: Path | None, steps: Sequence[str] = ()) -> Config:
    """The configuration in `path` over the shipped one, for these steps. Raises UserError for a key, a type or a
    value with which no training could go to its end."""
    config = tomllib.loads(DEFAULT.read_text(encoding="utf-8"))
    if path is None:
        return config
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--config {path} is not there") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is not TOML: {error}") from None
    for section, values in given.items():
        known(path, section, list(config))
        if not isinstance(values, dict):
            raise UserError(f"--config {path}: {section} is a section, not {values!r}")
        for key, value in values.items():
            known(path, key, list(config[section]), f"{section}.")
            check_type(path, f"{section}.{key}", value, config[section][key])
            config[section][key] = value
    for key, right, wanted in rules(config, steps):
        if not right:
            raise UserError(f"--config {path}: {key} {said(config, key)} {wanted}")
    return config


def known(path: Path, key: str, keys: Sequence[str], where: str = "") -> None:
    """Raises UserError, naming the nearest, for a key that is not one of `keys`."""
    if key not in keys:
        raise UserError(f"--config {path} has an unknown key {where}{key}{nearest(key, list(keys))}")


def check_type(path: Path, key: str, value: Any, shipped: Any) -> None:
    """Raises UserError for a value, or a part of it, that is negative or of another type than the shipped one's."""
    wanted = type(shipped)
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise UserError(f"--config {path}: {key} {value!r} is not of type {wanted.__name__}")
    if isinstance(value, (int, float)) and not value >= 0 and key.rpartition(".")[2] not in SIGNED:
        raise UserError(f"--config {path}: {key} {value} is out of range: 0 or more")
    if isinstance(value, list):
        for item in value:
            check_type(path, key, item, shipped[0])
    elif isinstance(value, dict):
        for name, item in value.items():
            known(path, name, list(shipped), f"{key}.")
            check_type(path, f"{key}.{name}", item, shipped[name])
        if lacking := sorted(set(shipped) - set(value)):
            raise UserError(f"--config {path}: {key} lacks {', '.join(lacking)}")


def rules(c: Config, steps: Sequence[str]) -> Iterator[tuple[str, bool, str]]:
    """(key, whether its value is right, what would be right) of all that would end a training later.

    A rule may lean on those before it.
    """
    data, coder, denoiser = c["data"], c["autoencoder"], c["denoiser"]
    for key in COUNTS:
        yield key, all(value >= 1 for value in numbers(c, key)), "is out of range: 1 or more"
    for key in SHARES:
        yield key, all(value <= 1 for value in numbers(c, key)), "is out of range: 0 to 1"
    for key in DIVIDED_BY:
        yield key, all(value > 0 for value in numbers(c, key)), "is out of range: more than 0"
    for name, package in c["packages"].items():
        yield f"packages.{name}", package["kind"] in ("npm", "pypi"), "is of no kind that can be fetched: npm, pypi"
    for key in NEVER_EMPTY:
        yield key, bool(value_of(c, key)), "is empty: name one at least"
    for key in ("minutes", "batch"):
        yield f"autoencoder.{key}", len(coder[key]) == len(coder["sides"]), f"needs {len(coder['sides'])}, as sides"
    for key in ("attention", "heads"):
        levels = len(denoiser["channels"])
        yield f"denoiser.{key}", len(denoiser[key]) == levels, f"needs {levels}, as channels"
    known_groups = all(group < EMOJI_GROUPS for group in data["groups"])
    yield "data.groups", known_groups, f"are unknown to emojibase: 0 to {EMOJI_GROUPS - 1} are known"
    yield "data.held_out", 0 < data["held_out"] < 1, "leaves none to teach or none to judge by: 0.05 is usual"
    count = len(c["image_encoder"]["channels"])
    yield "image_encoder.channels", count == CONVOLUTIONS, f"needs {CONVOLUTIONS}"
    total = sum(denoiser["shares"].values())
    yield "denoiser.shares", abs(total - 1) < 1e-8, f"add up to {total:g}: 1 is right"
    aspect = denoiser["shares"]["aspect"]
    yield "denoiser.shares", not aspect or data["canvases"] > 0, "has aspects, for which data.canvases is 0: take 1"
    yield (
        "data.canvases",
        data["canvases"] <= len(data["aspects"]),
        f"is more than data.aspects: {len(data['aspects'])}",
    )
    yield "data.grounds", data["grounds"] <= len(COLOURS), f"is more than there are: {len(COLOURS)}"
    yield "data.recoloured", data["recoloured"] < len(HUES), f"is more than there are: {len(HUES) - 1}"
    reduction = 2 ** (len(coder["channels"]) - 1)
    for key in ("data.side", "autoencoder.sides"):
        right = all(side % reduction == 0 for side in numbers(c, key))
        yield (
            key,
            right,
            f"is no multiple of {reduction}, the reduction of {len(coder['channels'])} autoencoder.channels",
        )
    yield "autoencoder.channels", min(coder["channels"]) >= 3, "is out of range: 3 or more, for the three colours"
    most = coder["channels"][-1]
    yield "autoencoder.latent_channels", 3 <= coder["latent_channels"] <= most, f"is out of range: 3 to {most}"
    widths = denoiser["channels"]
    yield "denoiser.channels", all(width % GROUPS == 0 for width in widths), f"are no multiples of {GROUPS}"
    divide = all(width % heads == 0 for width, heads in zip(widths, denoiser["heads"], strict=True))
    yield "denoiser.heads", divide, f"do not divide denoiser.channels {widths}"
    yield "motion.heads", all(w % c["motion"]["heads"] == 0 for w in widths), f"does not divide {widths}"
    yield "motion.clips", c["motion"]["clips"] >= 2, "is out of range: 2 or more, as one is held out"
    yield "decoder.critic", c["decoder"]["critic"] % 4 == 0, "is no multiple of 4"
    yield (
        "upscale.patch",
        c["upscale"]["patch"] <= data["side"] // 2,
        f"is more than half of data.side {data['side']}",
    )
    first, last = c["scheduler"]["beta_start"], c["scheduler"]["beta_end"]
    yield "scheduler.beta_end", 0 < first < last, f"is not above beta_start {first}, or that is 0"
    if "image_encoder" in steps:
        side = SEEN * reduction
        yield "data.side", data["side"] == side, f"does not suit the image encoder: {side} does with these channels"


def check_labels(path: Path | None, config: Config, labels: Iterable[str]) -> None:
    """Raises UserError for a thing in data.common of a given configuration that no picture shows."""
    there = set(labels)
    if path is None:
        return
    for label in config["data"]["common"]:
        if label not in there:
            near = nearest(label, sorted(there))
            raise UserError(f"--config {path}: data.common {label!r} is the label of no picture{near}")


def labels_in(folder: Path) -> list[str]:
    """The labels of the pictures that `noisette train data` has made in `folder`; none before."""
    path = folder / "pictures.json"
    return [entry["label"] for entry in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """The value behind "section.key"."""
    for part in key.split("."):
        config = config[part]
    return config


def numbers(config: Config, key: str) -> list[float]:
    """Those of a list, or the one."""
    value = value_of(config, key)
    return value if isinstance(value, list) else [value]


def said(config: Config, key: str) -> str:
    """A value as an error names it."""
    return shorten(str(value_of(config, key)), 80)
