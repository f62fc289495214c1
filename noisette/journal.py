"""Mid-denoise checkpoints: what the networks answered so far, in a file that survives `kill -9`.

Between two answers a run is plain arithmetic on a seeded stream. So a run that is started again and handed the
same answers arrives at the same latents, sampler history and noise position, bit for bit, whatever the sampler and
the mode; from the first answer that is missing it goes on by itself. Each answer stands with the hash of its
question: a run that asks anything else drops the rest of the file. Costs one latent a step and branch on disk.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette.names import cannot_write

if TYPE_CHECKING:
    from noisette.engines import Added, Array, Networks

HEAD = struct.Struct("<32sQI")  # SHA-256 of the question, length and CRC-32 of the answer

Record = tuple[bytes, bytes]  # the question's hash, the answer


class Journal:
    """`Networks` with a memory: `denoise` and `encode_image` answer from the file as far as it reaches.

    `step()` is to be called after each step; every `every` steps the new answers go to the file, flushed.
    """

    def __init__(self, networks: Networks, path: Path, every: int) -> None:
        self._networks, self._path, self._every = networks, path, every
        self._known = list(records(path))
        self.recalled = 0
        self._kept = sum(HEAD.size + len(answer) for _, answer in self._known)
        self._new: list[bytes] = []
        self._steps = 0

    def __getattr__(self, name: str) -> Any:
        """Everything else is the networks' own."""
        return getattr(self._networks, name)

    def denoise(
        self,
        sample: Array,
        timestep: float,
        context: Array,
        added: Added | None = None,
        num_frames: int = 1,
        reuse: bool = False,
    ) -> Array:
        """The UNet's answer, or what it was. Nothing is asked with `reuse`, whose features no file keeps."""
        assert not reuse
        question = digest(b"denoise", sample, np.float64(timestep), context, *(added or ()), np.int64(num_frames))
        return self._answer(
            question, lambda: (self._networks.denoise(sample, timestep, context, added, num_frames),)
        )[0]

    def encode_image(self, pixels: Array) -> tuple[Array, Array]:
        """The VAE encoder's answer, or what it was."""
        mean, logvar = self._answer(digest(b"encode", pixels), lambda: self._networks.encode_image(pixels))
        return mean, logvar

    def step(self) -> None:
        """Counts a step; writes what is new when it is time. Raises UserError for a full disk."""
        self._steps += 1
        if self._steps % self._every == 0 and self._new:
            self._flush()

    def remove(self) -> None:
        """The run is complete: nothing is to be recalled any more."""
        self._path.unlink(missing_ok=True)

    def _answer(self, question: bytes, ask: Any) -> tuple[Array, ...]:
        if self.recalled < len(self._known):
            known, answer = self._known[self.recalled]
            if known == question:
                self.recalled += 1
                return unpacked(answer)
            self._kept = sum(HEAD.size + len(a) for _, a in self._known[: self.recalled])
            del self._known[self.recalled :]
        arrays: tuple[Array, ...] = ask()
        packed_answer = packed(arrays)
        self._new.append(HEAD.pack(question, len(packed_answer), zlib.crc32(packed_answer)) + packed_answer)
        return arrays

    def _flush(self) -> None:
        """Appends after the last whole record: what a crash left half-written is cut off."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("r+b" if self._path.exists() else "w+b") as file:
                file.truncate(self._kept)
                file.seek(self._kept)
                file.write(b"".join(self._new))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from None
        self._kept += sum(map(len, self._new))
        self._new.clear()


def digest(kind: bytes, *arrays: Any) -> bytes:
    """SHA-256 over shapes, types and bytes."""
    found = hashlib.sha256(kind)
    for array in arrays:
        whole = np.ascontiguousarray(array)
        found.update(f"{whole.dtype.str}{whole.shape}".encode())
        found.update(whole.data)
    return found.digest()


def packed(arrays: tuple[Array, ...]) -> bytes:
    """Arrays as .npy files one after another."""
    buffer = io.BytesIO()
    for array in arrays:
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpacked(answer: bytes) -> tuple[Array, ...]:
    """What `packed` packed."""
    buffer, found = io.BytesIO(answer), []
    while buffer.tell() < len(answer):
        found.append(np.load(buffer, allow_pickle=False))
    return tuple(found)


def records(path: Path) -> Iterator[Record]:
    """The whole records of a file, up to its end or the first torn one; none where there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            question, length, checksum = HEAD.unpack(head)
            answer = file.read(length)
            if len(answer) < length or zlib.crc32(answer) != checksum:
                return
            yield question, answer
