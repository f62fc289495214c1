"""Networks that stand alone, a folder with config.json and one file of weights each: the upscaler, small decoders."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import openvino as ov

from noisette.checkpoint import cache_folder
from noisette.engines.openvino.cache import blob_key, compiled
from noisette.engines.openvino.engine import identity
from noisette.engines.openvino.graph import Weights
from noisette.mapped import MappedTensors
from noisette.tensors import read_header

PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


@cache
def load(path: Path, name: str, build: Callable[[dict[str, Any], Weights], ov.Model]) -> tuple[ov.CompiledModel, Any]:
    """The compiled graph `name` that `build` makes of a file of weights and the config.json beside it.

    Its second part is the memory that the weights lie in: hold on to both.
    """
    config: dict[str, Any] = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))

    def graph() -> tuple[ov.Model, Any]:
        get = MappedTensors(read_header(path))
        return build(config, Weights(get, name)), get

    key = blob_key(name, config, identity(path), PROPERTIES)
    return compiled(ov.Core(), graph, PROPERTIES, cache_folder() / "openvino", name, key)
