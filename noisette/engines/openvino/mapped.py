"""Checkpoint tensors as NumPy arrays that share the page cache with their files: nothing is read until it is used."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError

BFLOAT16 = np.dtype(np.uint16, metadata={"type": "bfloat16"})
DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BFLOAT16,
          "I64": np.dtype("<i8"), "I32": np.dtype("<i4")}  # fmt: skip


class Tensor(Protocol):
    """A run of bytes in a safetensors file (`noisette.tensors.Tensor`)."""

    @property
    def path(self) -> Path: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


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
        return (array if array.flags.aligned else array.copy()).reshape(tensor.shape)

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


Get = Callable[[str], NDArray[Any]]
