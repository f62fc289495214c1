"""The upscaler of `noisette train upscale` as an openvino graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from noisette.engines.openvino import graph as g
from noisette.engines.openvino.alone import load
from noisette.engines.openvino.engine import run
from noisette.engines.openvino.graph import Node, Weights


def build(config: dict[str, Any], w: Weights) -> ov.Model:
    """pixels [1, 3, H, W] -> larger [1, 3, 2 H, 2 W]: train/upscale.py's forward."""
    channels = config["channels"]
    pixels = g.parameter("pixels", [1, 3, -1, -1])
    x: Node = ops.relu(g.conv(pixels, w / "first", 3, channels))
    for layer in range(config["layers"]):
        x = ops.add(x, ops.relu(g.conv(x, w / "body" / layer, channels, channels)))
    detail = ops.depth_to_space(g.conv(x, w / "last", channels, 12), "depth_first", 2)
    axes = ops.constant(np.array([2, 3], np.int64))
    twice = ops.constant(np.array([2, 2], np.float32))
    mode = "half_pixel"
    plain = ops.interpolate(pixels, twice, "linear_onnx", "scales", coordinate_transformation_mode=mode, axes=axes)
    return g.model({"larger": ops.add(plain, detail)}, [pixels], "upscaler")


def double(folder: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels [3, H, W] in [-1, 1] to [3, 2 H, 2 W]."""
    model, _ = load(folder / "model.safetensors", "upscaler", build)
    return run(model, {"pixels": pixels[None]})["larger"][0]
