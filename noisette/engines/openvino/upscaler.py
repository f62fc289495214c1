"""The upscaler of `noisette train upscale` as an openvino graph."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from noisette.checkpoint import cache_folder
from noisette.engines.openvino import graph as g
from noisette.engines.openvino.cache import blob_key, compiled
from noisette.engines.openvino.engine import identity, run
from noisette.engines.openvino.graph import Node, Weights
from noisette.mapped import MappedTensors
from noisette.tensors import read_header

PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


def build(channels: int, layers: int, w: Weights) -> ov.Model:
    """pixels [1, 3, H, W] -> larger [1, 3, 2 H, 2 W]: train/upscale.py's forward."""
    pixels = g.parameter("pixels", [1, 3, -1, -1])
    x: Node = ops.relu(g.conv(pixels, w / "first", 3, channels))
    for layer in range(layers):
        x = ops.add(x, ops.relu(g.conv(x, w / "body" / layer, channels, channels)))
    detail = ops.depth_to_space(g.conv(x, w / "last", channels, 12), "depth_first", 2)
    axes = ops.constant(np.array([2, 3], np.int64))
    twice = ops.constant(np.array([2, 2], np.float32))
    mode = "half_pixel"
    plain = ops.interpolate(pixels, twice, "linear_onnx", "scales", coordinate_transformation_mode=mode, axes=axes)
    return g.model({"larger": ops.add(plain, detail)}, [pixels], "upscaler")


@cache
def load(folder: Path) -> tuple[ov.CompiledModel, Any]:
    """The compiled upscaler of a folder with config.json and model.safetensors, and the memory its weights lie in."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    path = folder / "model.safetensors"

    def graph() -> tuple[ov.Model, Any]:
        get = MappedTensors(read_header(path))
        return build(config["channels"], config["layers"], Weights(get, "upscaler")), get

    key = blob_key("upscaler", config, identity(path), PROPERTIES)
    return compiled(ov.Core(), graph, PROPERTIES, cache_folder() / "openvino", "upscaler", key)


def double(folder: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels [3, H, W] in [-1, 1] to [3, 2 H, 2 W]."""
    model, _ = load(folder)
    return run(model, {"pixels": pixels[None]})["larger"][0]
