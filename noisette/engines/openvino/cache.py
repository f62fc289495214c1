"""Compiled models on disk: a blob and its checksum per network, under a key that names all it depends on.

A blob is written under a temporary name and renamed, so that processes may share the folder. A torn or
damaged one fails its checksum and is built again. Where the folder can't be written, nothing is kept and
nothing fails.

Of a network too large for that its weights are kept as float32 instead, unless the checkpoint has them so. The
graph's constants are then the mapped file itself: nothing is converted or copied when it is compiled, and pages
that were read can be let go of at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import openvino as ov

from noisette.errors import UserError
from noisette.mapped import MappedTensors, as_float32
from noisette.tensors import Tensor, read_header

MAGIC = b"noisette-blob-2\n"
LARGEST = 512_000_000  # beyond, writing a blob takes more memory and disk than compiling again takes time
COPIES = 30 * 10**9  # bytes that all float32 copies may take: beyond, the least recently used go
SPARE_BYTES, SPARE_SHARE = 4 * 10**9, 0.1  # of the disk, both, that a copy leaves free
CONVERTED = 1 << 20  # numbers at a time: memory that is asked for anew costs more than what is done in it
HEADER = struct.Struct("<16sQQ")  # magic, bytes that follow, sum of them as little-endian 64-bit words


def blob_key(*parts: Any) -> str:
    """A hash of JSON-able facts, the version of openvino and the source of this package among them."""
    sources = [path.read_bytes().decode() for path in sorted(Path(__file__).parent.glob("*.py"))]
    text = json.dumps([parts, ov.get_version(), sources], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def compiled(
    core: ov.Core,
    build: Callable[[], tuple[ov.Model, Any]],
    properties: dict[str, Any],
    folder: Path,
    group: str,
    key: str,
) -> tuple[ov.CompiledModel, Any]:
    """Compiled model `group-key` from `folder`, or built, compiled and kept; older ones of its group go.

    Like `build`, it gives beside the model the memory that the model's weights lie in: hold on to both.
    """
    path = folder / f"{group}-{key}.blob"
    blob = read_blob(path)
    if blob is not None:
        try:
            return core.import_model(blob, "CPU", properties), blob
        except RuntimeError:  # openvino's own check of its format
            pass
    graph, memory = build()
    model = core.compile_model(graph, "CPU", properties)
    if weight_bytes(graph) <= LARGEST:
        write_blob(path, model)
    return model, memory


def weight_bytes(graph: ov.Model) -> int:
    """Bytes of all constants as they are stored."""
    return sum(node.get_byte_size() for node in graph.get_ops() if node.get_type_name() == "Constant")


def read_blob(path: Path) -> ov.Tensor | None:
    """The blob, mapped into memory; None when there is none or it is not whole."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):
        return None
    if len(mapped) < HEADER.size:
        return None
    magic, size, checksum = HEADER.unpack_from(mapped)
    if magic != MAGIC or len(mapped) != HEADER.size + size:
        return None
    blob = np.frombuffer(mapped, np.uint8, size, HEADER.size)
    return ov.Tensor(blob, shared_memory=True) if word_sum(blob) == checksum else None


def write_blob(path: Path, model: ov.CompiledModel) -> None:
    """Keep a compiled model, whole or not at all, in place of the older ones of its group."""
    blob = np.frombuffer(model.export_model().getbuffer(), np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    except OSError:
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(HEADER.pack(MAGIC, blob.size, word_sum(blob)))
            file.write(blob.data)
        Path(part).replace(path)
        for older in path.parent.glob(f"{path.name.rpartition('-')[0]}-*.blob"):
            if older != path:
                older.unlink(missing_ok=True)
    except OSError:  # the disk is full, or another process holds an older blob open on Windows
        Path(part).unlink(missing_ok=True)


def float32_copy(tensors: Mapping[str, Tensor], folder: Path, group: str, files: Any) -> Mapping[str, Tensor]:
    """The same tensors as float32 in one file, made unless it is there; as they are where it can't be written.

    `files` tells their files from any other. An older copy of the group goes. The copy serves at once; for later
    processes it counts when all of it is on the disk (`settle`), so that nobody waits for a slow one. Another process
    may take it away again (`has_room`): map it before anything else.
    """
    path = folder / f"{group}-{hashlib.sha256(json.dumps(files).encode()).hexdigest()[:24]}.safetensors"
    try:
        found = read_header(path)
    except UserError:  # not there, or not whole
        pass
    else:
        with contextlib.suppress(OSError):
            os.utime(path)  # it was used now
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drop(folder.glob(f"{group}-*.safetensors"))
        if not has_room(folder, sum(4 * math.prod(tensor.shape) for tensor in tensors.values())):
            return tensors
        descriptor, part = tempfile.mkstemp(dir=folder, suffix=".part")
    except OSError:
        return tensors
    try:
        with os.fdopen(descriptor, "wb") as file:
            write_float32(file, tensors)
        found = {name: replace(tensor, path=path) for name, tensor in read_header(Path(part)).items()}
        with Path(part).open("r+b") as file:
            length = file.read(8)
            file.seek(0)
            file.write(bytes(8))  # a file that begins so is no safetensors file yet
        Path(part).replace(path)
        threading.Thread(target=settle, args=(path, length), name=f"settle {path.name}").start()
        return found
    except (UserError, OSError):  # the disk is full, or another process took the part away
        Path(part).unlink(missing_ok=True)
        return tensors


def has_room(folder: Path, size: int) -> bool:
    """Whether a copy of so many bytes may be written; for it the least recently used ones beyond COPIES go.

    What killed processes left half-written counts too. Processes that have a copy mapped keep it: its file goes when
    they end (on Windows it stays).
    """
    held = []
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.part")):
        with contextlib.suppress(OSError):  # gone meanwhile
            status = path.stat()
            held.append((status.st_mtime, status.st_size, path))
    total = size + sum(held_size for _, held_size, _ in held)
    for _, held_size, path in sorted(held):
        if size > COPIES or total <= COPIES:
            break
        drop([path])
        total -= held_size
    disk = shutil.disk_usage(folder)
    return size <= COPIES and disk.free - size >= max(SPARE_BYTES, SPARE_SHARE * disk.total)


def drop(paths: Iterable[Path]) -> None:
    """Removes files, but for those that are gone already, or open on Windows."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def settle(path: Path, length: bytes) -> None:
    """Has the disk take the whole file, and only then writes the length of its header, by which it is one."""
    with contextlib.suppress(OSError), path.open("r+b") as file:
        os.fsync(file.fileno())
        file.write(length)


def write_float32(file: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, tensor by tensor; the data begin on a page, as large arrays like it."""
    entries, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + 4 * math.prod(tensor.shape)
        entries[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-(len(header) + 8) % mmap.PAGESIZE)
    file.write(struct.pack("<Q", len(header)) + header)
    get = MappedTensors(tensors)
    for name in tensors:
        values = get(name).reshape(-1)
        for first in range(0, values.size, CONVERTED):
            file.write(as_float32(values[first : first + CONVERTED]).data)
        get.release()


def word_sum(data: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
    """Sum modulo 2**64 of the bytes as 64-bit words: faster than any hash, and enough against torn files."""
    whole = data.size // 8 * 8
    tail = int.from_bytes(data[whole:].tobytes(), "little")
    return (int(np.add.reduce(data[:whole].view("<u8"), dtype=np.uint64)) + tail) % 2**64
