"""Layers as openvino graphs. Each takes the tensors it needs from a `Weights`, which checks their shapes.

Weights become `Constant`s that share the checkpoint's memory (memory-mapped safetensors): no copy is made
while the graph is built. A half-precision tensor stays so and is converted inside the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from noisette.errors import UserError
from noisette.mapped import is_bfloat16

Node = Any  # an openvino Node or Output: every op takes either


def conv(
    x: Node,
    w: Weights,
    channels_in: int,
    channels_out: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    padding: tuple[int, int] | None = None,
    bias: bool = True,
) -> Node:
    """torch.nn.Conv2d: x [B, in, h, w]; `padding` is (before, after) on both axes, by default "same".

    The node bears the layer's name, as in `linear`: layers to be kept from quantization are told by it.
    """
    before, after = padding or (kernel // 2, kernel // 2)
    weight = w.float("weight", (channels_out, channels_in, kernel, kernel))
    y = ops.convolution(x, weight, [stride, stride], [before, before], [after, after], [1, 1])
    y.set_friendly_name(w.prefix.rstrip("."))
    if not bias:
        return y
    return ops.add(y, w.float("bias", (channels_out,), as_shape=(1, channels_out, 1, 1)))


def linear(
    x: Node, w: Weights, width_in: int, width_out: int, *, bias: bool = True, rows: slice = slice(None)
) -> Node:
    """torch.nn.Linear on the last axis, or only its outputs `rows`; a stored 1x1 convolution serves as well."""
    weight = w.float("weight", (width_out, width_in), also=(width_out, width_in, 1, 1), rows=rows)
    y = ops.matmul(x, weight, False, True)
    y.set_friendly_name(w.prefix.rstrip(".") + (f".from_{rows.start}" if rows.start else ""))
    return ops.add(y, w.float("bias", (width_out,), rows=rows)) if bias else y


def group_norm(x: Node, w: Weights, channels: int, groups: int, eps: float) -> Node:
    """torch.nn.GroupNorm on [B, C, h, w], spelled out: openvino 2026.4's own crashes at static shapes."""
    shape = ops.shape_of(x)
    y = ops.mvn(reshape(x, (0, groups, -1)), ops.constant(np.array([2], np.int64)), True, eps, "inside_sqrt")
    y = ops.reshape(y, shape, False)
    gain, shift = (w.float(name, (channels,), as_shape=(1, channels, 1, 1)) for name in ("weight", "bias"))
    return ops.add(ops.multiply(y, gain), shift)


def layer_norm(x: Node, w: Weights, width: int, eps: float = 1e-5) -> Node:
    """torch.nn.LayerNorm over the last axis."""
    y = ops.mvn(x, ops.constant(np.array([-1], np.int64)), True, eps, "inside_sqrt")
    return ops.add(ops.multiply(y, w.float("weight", (width,))), w.float("bias", (width,)))


def silu(x: Node) -> Node:
    """x * sigmoid(x)."""
    return ops.swish(x)


def activation(name: str, x: Node) -> Node:
    """The activations that configs of diffusers and transformers name."""
    if name in ("silu", "swish"):
        return ops.swish(x)
    if name == "gelu":
        return ops.gelu(x, "erf")
    if name == "quick_gelu":
        return ops.multiply(x, ops.sigmoid(ops.multiply(x, scalar(1.702))))
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return ops.gelu(x, "tanh")
    if name == "relu":
        return ops.relu(x)
    if name == "mish":
        return ops.mish(x)
    raise UserError(f"activation {name!r} is unknown to the openvino engine; use --engine torch")


def split_heads(x: Node, heads: int, width: int) -> Node:
    """[B, T, heads * d] -> [B, heads, T, d]."""
    return transpose(reshape(x, (0, -1, heads, width // heads)), (0, 2, 1, 3))


def attention(q: Node, k: Node, v: Node, width: int, mask: Node | None = None) -> Node:
    """softmax(q k^T / sqrt(d) + mask) v on [B, heads, T, d], heads merged again: [B, T, width]."""
    inputs = [q, k, v] if mask is None else [q, k, v, mask]
    y = ops.scaled_dot_product_attention(*inputs)
    return reshape(transpose(y, (0, 2, 1, 3)), (0, -1, width))


def upsample(x: Node, size_of: Node | None = None, times: float = 2) -> Node:
    """Nearest-neighbour, `times` the size of x [B, C, h, w], or to height and width of `size_of`."""
    axes = ops.constant(np.array([2, 3], np.int64))
    if size_of is None:
        sizes, mode = ops.constant(np.array([times, times], np.float32)), "scales"
    else:
        sizes, mode = ops.gather(ops.shape_of(size_of), axes, index(0)), "sizes"
    return ops.interpolate(
        x,
        sizes,
        "nearest",
        mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=axes,
    )


def image_to_tokens(x: Node, channels: int) -> Node:
    """[B, C, h, w] -> [B, h * w, C]."""
    return reshape(transpose(x, (0, 2, 3, 1)), (0, -1, channels))


def tokens_to_image(x: Node, like: Node, channels: int) -> Node:
    """[B, h * w, C] -> [B, C, h, w] with h and w of `like` [B, _, h, w]."""
    axes = ops.constant(np.array([2, 3], np.int64))
    size = ops.gather(ops.shape_of(like), axes, index(0))
    shape = ops.concat([ops.constant(np.array([0], np.int64)), size, ops.constant(np.array([channels], np.int64))], 0)
    return transpose(ops.reshape(x, shape, True), (0, 3, 1, 2))


def chunk(x: Node, count: int, axis: int) -> list[Node]:
    """torch.chunk into equal parts."""
    return list(ops.split(x, index(axis), count).outputs())


def reshape(x: Node, shape: tuple[int, ...]) -> Node:
    """numpy.reshape where 0 keeps that axis."""
    return ops.reshape(x, ops.constant(np.array(shape, np.int64)), True)


def transpose(x: Node, order: tuple[int, ...]) -> Node:
    """numpy.transpose."""
    return ops.transpose(x, ops.constant(np.array(order, np.int64)))


def scalar(value: float) -> Node:
    """A float32 constant of rank 0."""
    return ops.constant(np.float32(value))


def index(value: int) -> Node:
    """An int64 constant of rank 0."""
    return ops.constant(np.int64(value))


def parameter(name: str, shape: list[int], dtype: type = np.float32) -> Node:
    """An input of the network; -1 is any size."""
    node = ops.parameter(ov.PartialShape(shape), dtype, name)
    node.output(0).get_tensor().set_names({name})
    return node


def model(outputs: dict[str, Node], inputs: list[Node], name: str) -> ov.Model:
    """The finished graph with named outputs."""
    results = []
    for output_name, node in outputs.items():
        result = ops.result(node)
        result.output(0).get_tensor().set_names({output_name})
        result.set_friendly_name(output_name)
        results.append(result)
    return ov.Model(results, inputs, name)


class Weights:
    """The tensors under one prefix of a component, as graph constants.

    `w / "down_blocks" / 0` narrows the prefix. `get` maps a full name to an array (shared, not copied) and
    raises KeyError for one that is missing from `where`; bfloat16 comes as uint16 with `dtype.metadata`
    {"type": "bfloat16"}.
    """

    def __init__(
        self,
        get: Callable[[str], NDArray[Any]],
        component: str,
        prefix: str = "",
        used: set[str] | None = None,
        where: str = "its weights",
    ) -> None:
        self._get, self._component, self.prefix, self._where = get, component, prefix, where
        self.used: set[str] = set() if used is None else used

    def __truediv__(self, part: str | int) -> Weights:
        return Weights(self._get, self._component, f"{self.prefix}{part}.", self.used, self._where)

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds this tensor."""
        try:
            self._get(self.prefix + name)
        except KeyError:
            return False
        return True

    def array(self, name: str, shape: tuple[int, ...], also: tuple[int, ...] | None = None) -> NDArray[Any]:
        """The tensor as stored, its shape checked against what the config asks for."""
        full = self.prefix + name
        try:
            array = self._get(full)
        except KeyError:
            raise UserError(f"{self._component}: tensor {full} {list(shape)} is missing from {self._where}") from None
        if array.shape not in (shape, also):
            raise UserError(
                f"{self._component}: tensor {full} is {list(array.shape)}, its config asks for {list(shape)}"
            )
        self.used.add(full)
        return array

    def stored(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        also: tuple[int, ...] | None = None,
        as_shape: tuple[int, ...] | None = None,
        rows: slice = slice(None),
    ) -> Node:
        """The tensor, or some of its rows, as a constant in its stored precision, viewed in `as_shape`."""
        array = np.ascontiguousarray(self.array(name, shape, also)[rows]).reshape(as_shape or (-1, *shape[1:]))
        if is_bfloat16(array.dtype):
            tensor = ov.Tensor(array, ov.Shape(list(array.shape)), ov.Type.bf16)
            constant = ov.op.Constant(tensor, shared_memory=True)
        else:
            constant = ov.op.Constant(array, shared_memory=True)
        constant.set_friendly_name(self.prefix + name)
        return constant

    def float(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        also: tuple[int, ...] | None = None,
        as_shape: tuple[int, ...] | None = None,
        rows: slice = slice(None),
    ) -> Node:
        """The tensor as a float32 value."""
        constant = self.stored(name, shape, also=also, as_shape=as_shape, rows=rows)
        return constant if constant.get_element_type() == ov.Type.f32 else ops.convert(constant, "f32")
