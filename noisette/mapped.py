"""Checkpoint tensors as NumPy arrays that share the page cache with their files: read when used."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError
from noisette.tensors import Tensor

BFLOAT16 = np.dtype(np.uint16, metadata={"type": "bfloat16"})
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """NumPy has no bfloat16: such a tensor travels as uint16 with this mark on its dtype."""
    return dtype.metadata is not None and dtype.metadata.get("type") == "bfloat16"


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """A stored tensor as float32; bfloat16 is its upper half."""
    if is_bfloat16(array.dtype):
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


class MappedTensors:
    """Arrays by tensor name. Files are mapped on first use and shared by all names."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._maps: dict[Path, mmap.mmap] = {}

    def __call__(self, name: str) -> NDArray[Any]:
        """The tensor in its stored type (bfloat16 as `BFLOAT16`). KeyError for an unknown name."""
        tensor = self._tensors[name]
        if tensor.dtype not in DTYPES:
            raise UserError(
                f"{tensor.path.name}: tensor {name} is stored as {tensor.dtype}; convert it to F16 or F32"
            )
        dtype = DTYPES[tensor.dtype]
        count = (tensor.end - tensor.start) // dtype.itemsize
        array = np.frombuffer(self._map(tensor.path), dtype, count, tensor.start)
        array = (array if array.flags.aligned else array.copy()).reshape(tensor.stored_shape)
        return array.T.copy() if tensor.flipped else array

    def map(self) -> None:
        """Map all files now: they serve from then on even where they are removed."""
        for path in {tensor.path for tensor in self._tensors.values()}:
            self._map(path)

    def release(self) -> None:
        """Let the system take back the pages read so far; they are read again if needed."""
        for mapped in self._maps.values():
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            with path.open("rb") as file:
                self._maps[path] = mmap.mmap(
                    file.fileno(), 0, access=mmap.ACCESS_COPY
                )  # openvino wants writeable memory
        return self._maps[path]
