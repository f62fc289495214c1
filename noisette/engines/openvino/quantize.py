"""Weights and activations to int8 by NNCF's post-training quantization, with sensitive layers left in float.

Which layers are sensitive is measured: all are quantized first, then one group after another is put back into
float and the error of the network's output on samples is looked at. What helps most for its share of the
multiplications stays in float. Only this module imports nncf; running its results does not.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

Inputs = Mapping[str, Any]
FLOAT = {"INFERENCE_PRECISION_HINT": "f32"}
LAYERS = ("Convolution", "MatMul")
KEPT_SHARE = {"unet": 0.05, "vae_decoder": 0.15}  # of the multiplications that may stay in float
MEASURED = 6  # samples on which a group's sensitivity is measured


def quantize(
    build: Callable[[], ov.Model], samples: Sequence[Inputs], kept_share: float
) -> tuple[ov.Model, list[str]]:
    """The int8 graph of what `build` makes, calibrated on `samples` (inputs by name), and its layers in float.

    Up to `kept_share` of the multiplications stay in float, where that lowers the error most.
    """
    first = calibrated(build(), samples, [])
    spread = [samples[i] for i in np.linspace(0, len(samples) - 1, min(MEASURED, len(samples))).astype(int)]
    kept = sensitive(build(), first, spread, kept_share)
    return (calibrated(build(), samples, kept) if kept else first), kept


def calibrated(graph: ov.Model, samples: Sequence[Inputs], kept: Sequence[str]) -> ov.Model:
    """NNCF's quantization of all layers but `kept`.

    SmoothQuant is off: noisette-1 lost 10 dB by it. Ranges are the widest met: those of an average sample lost the
    decoder 3 to 6 dB on some pictures. Attention itself runs in float on a CPU, and is left. Without VNNI a processor
    adds two products in 16 bits, which overflow: weights then have 7 bits.
    """
    import nncf
    import torch
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)
    fix = nncf.OverflowFix.DISABLE if torch.cpu._is_vnni_supported() else nncf.OverflowFix.ENABLE
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            graph,
            nncf.Dataset(list(samples)),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(types=["ScaledDotProductAttention"], names=list(kept), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=fix,
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
            ),
        )


def sensitive(floating: ov.Model, quantized: ov.Model, samples: Sequence[Inputs], share: float) -> list[str]:
    """The layers of `quantized` which are better in float: most error removed per multiplication, up to `share`."""
    counts = multiplications(floating, samples[0])
    wanted = outputs(floating, samples)
    whole = squared_error(outputs(quantized, samples), wanted)
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(group_of(name), []).append(name)
    gains = {
        group: (whole - squared_error(outputs(unquantized(quantized, floating, names), samples), wanted))
        / sum(counts[name] for name in names)
        for group, names in groups.items()
    }
    left, kept = share * sum(counts.values()), []
    for group, names in sorted(groups.items(), key=lambda item: -gains[item[0]]):
        cost = sum(counts[name] for name in names)
        if gains[group] > 0 and cost <= left:
            left -= cost
            kept += names
    return sorted(kept)


def group_of(name: str) -> str:
    """Layers measured together: a resnet, a transformer, one end; all projections of the time embedding are one."""
    if "time_emb" in name:
        return "time embedding"
    block = re.match(r"(.*?(resnets|attentions|downsamplers|upsamplers)\.\d+)", name)
    return block[1] if block and not name.endswith("conv_shortcut") else name


def layers(graph: ov.Model) -> dict[str, Any]:
    """Convolutions and linear layers by name: those with weights of their own."""
    return {n.get_friendly_name(): n for n in graph.get_ops() if n.get_type_name() in LAYERS and weight_of(n)}


def weight_of(layer: Any) -> Any:
    """The constant behind a layer's weights, or None when both its inputs are computed."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() != "Constant" and node.inputs():
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def multiplications(graph: ov.Model, sample: Inputs) -> dict[str, int]:
    """Multiply-adds of each layer at the sample's size."""
    sized = graph.clone()
    sized.reshape({name: np.shape(array) for name, array in sample.items()})
    found = {}
    for name, layer in layers(sized).items():
        weights = list(layer.input_value(1).get_shape())
        per_output = int(np.prod(weights[1:])) if layer.get_type_name() == "Convolution" else weights[-1]
        found[name] = int(np.prod(list(layer.output(0).get_shape()))) * per_output
    return found


def unquantized(quantized: ov.Model, floating: ov.Model, names: Sequence[str]) -> ov.Model:
    """A copy of `quantized` in which these layers have their float weights and inputs back."""
    graph = quantized.clone()
    originals, found = layers(floating), layers(graph)
    for name in names:
        taken = found[name].input_value(0).get_node()
        if taken.get_type_name() == "FakeQuantize":
            found[name].input(0).replace_source_output(taken.input_value(0))
        weights = ops.convert(weight_of(originals[name]), "f32")
        found[name].input(1).replace_source_output(weights.output(0))
    graph.validate_nodes_and_infer_types()
    return graph


def outputs(graph: ov.Model, samples: Sequence[Inputs]) -> list[NDArray[np.float32]]:
    """The graph's first output for each sample."""
    model = ov.Core().compile_model(graph, "CPU", FLOAT)
    return [model(dict(sample), share_inputs=True)[0].copy() for sample in samples]


def squared_error(found: Sequence[NDArray[np.float32]], wanted: Sequence[NDArray[np.float32]]) -> float:
    """Mean squared difference over all samples."""
    return float(np.mean([np.mean((a - b) ** 2) for a, b in zip(found, wanted, strict=True)]))
