"""The training configuration: one TOML file, every key known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomllib

from noisette.errors import UserError
from noisette.recipe import nearest

DEFAULT = Path(__file__).parent / "config.toml"

SIGNED = ("timestep_mean",)  # the only numbers that may be less than nothing

Config = dict[str, dict[str, Any]]


def read_config(path: Path | None) -> Config:
    """The configuration in `path` over the shipped one. Raises UserError for a key, a type or a
    negative number that nobody knows."""
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
            wanted = type(config[section][key])
            if not isinstance(value, wanted) and not (wanted is float and type(value) is int):
                raise UserError(f"--config {path}: {section}.{key} {value!r} is not of type {wanted.__name__}")
            if isinstance(value, (int, float)) and not value >= 0 and key not in SIGNED:
                raise UserError(f"--config {path}: {section}.{key} {value} is out of range: 0 or more")
            config[section][key] = value
    return config


def known(path: Path, key: str, keys: list[str], where: str = "") -> None:
    """Raises UserError, naming the nearest, for a key that is not one of `keys`."""
    if key not in keys:
        raise UserError(f"--config {path} has an unknown key {where}{key}{nearest(key, keys)}")
