"""Safetensors files by their header alone: which tensor lies where. Standard library only."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from noisette.errors import UserError

ITEM_SIZE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
             "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # fmt: skip
UNUSED = re.compile(  # what files of good networks hold beside them: buffers, and heads that diffusion does not ask
    r"(.*\.)?(position_ids|num_batches_tracked)|(text_model\.)?(pooler|cls|lm_head|text_projection|logit_scale)(\..*)?"
    r"|text_model\.(vision_model|visual_projection)\..*"
)
MAX_HEADER = 100_000_000  # the format's own bound


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file: bytes `start` to `end` of `path`, row-major, little-endian.

    `name` is the name inside the file; `dtype` is safetensors' (F32, F16, BF16, …). A `flipped` one is a matrix
    whose transpose lies there.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    flipped: bool = False

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape in the file."""
        return self.shape[::-1] if self.flipped else self.shape

    def third(self, index: int) -> Tensor:
        """Rows index/3 to (index+1)/3: query, key or value of a fused projection."""
        length = (self.end - self.start) // 3
        begin = self.start + index * length
        return replace(self, shape=(self.shape[0] // 3, *self.shape[1:]), start=begin, end=begin + length)

    def squeezed(self) -> Tensor:
        """A 1x1 convolution's weight [out, in, 1, 1] as a linear layer's [out, in]."""
        return replace(self, shape=self.shape[:2])

    def transposed(self) -> Tensor:
        """A matrix [in, out] that is multiplied from the right as a linear layer's [out, in]."""
        return replace(self, shape=self.shape[::-1], flipped=True)


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises UserError: it can't be read, is cut short, or is not one."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise UserError(f"{path} is no safetensors file, or cut short: {size:,} bytes, header of {length:,}")
            text = file.read(length)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    try:
        entries = json.loads(text)
        tensors = {
            name: _tensor(path, name, entry, 8 + length) for name, entry in entries.items() if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is no safetensors file: its header can't be read") from None
    end = max((tensor.end for tensor in tensors.values()), default=8 + length)
    if end != size:
        raise UserError(f"{path} is damaged or cut short: {size:,} bytes where its header promises {end:,}")
    for tensor in tensors.values():
        if tensor.end - tensor.start != prod(tensor.shape) * ITEM_SIZE.get(tensor.dtype, -1):
            raise UserError(
                f"{path} is damaged: {tensor.name} {list(tensor.shape)} of {tensor.dtype} has a wrong length"
            )
    return tensors


def read_headers(paths: tuple[Path, ...]) -> dict[str, Tensor]:
    """The tensors of all shards together."""
    return {name: tensor for path in paths for name, tensor in read_header(path).items()}


def file_of(paths: Sequence[Path]) -> str:
    """What a message calls the files of one network: the only one, or the folder of all."""
    return str(paths[0] if len(paths) == 1 else paths[0].parent)


def check_all_used(network: str, names: Iterable[str], used: Iterable[str], where: str) -> None:
    """Every tensor has a place, or the config describes another network than the weights in `where`: a UserError."""
    left = sorted(name for name in set(names) - set(used) if not UNUSED.fullmatch(name))
    if left:
        raise UserError(f"{network}: {where} holds {len(left)} tensors unknown to its config, first {left[0]}")


def _tensor(path: Path, name: str, entry: Mapping[str, object], base: int) -> Tensor:
    start, end = (int(offset) for offset in entry["data_offsets"])  # type: ignore[attr-defined]
    return Tensor(path, name, str(entry["dtype"]), tuple(map(int, entry["shape"])), base + start, base + end)  # type: ignore[call-overload]
