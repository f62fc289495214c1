"""Seeds and noise: the stream of normals that torch's CPU generator draws, in NumPy, without torch.

Both engines, diffusers and a Ray worker therefore start from the same noise. Every picture has a stream of
its own, so it is the same alone and in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

BLOCK = 16  # torch fills tensors of 16 and more values block-wise (aten/native/cpu/DistributionTemplates.h)


class Noise:
    """One generator, `torch.Generator().manual_seed(seed)`: seeds 0 to 2**64 - 1, of which mt19937 uses 32 bits.

    `normal(shape)` equals successive `torch.randn(shape, generator=g)` to float rounding: torch evaluates the
    same log, cos and sin in vectorised float32, which differ from NumPy's in the last place.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.RandomState(seed & 0xFFFFFFFF)
        self._spare: float | None = None

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Unit normals, float32, of the given shape."""
        size = math.prod(shape)
        values = self._blocks(size) if size >= BLOCK else self._singles(size)
        return values.reshape(shape)

    def state(self) -> dict[str, Any]:
        """The position in the stream as JSON values, for a checkpoint; `restore` takes it back."""
        _, key, position, *_ = self._bits.get_state()
        return {"key": [int(word) for word in key], "position": int(position), "spare": self._spare}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a position that `state` gave."""
        key = np.array(state["key"], np.uint32)
        self._bits.set_state(("MT19937", key, state["position"], 0, 0.0))
        self._spare = state["spare"]

    def _words(self, count: int) -> NDArray[np.uint32]:
        """The next raw outputs of mt19937."""
        return self._bits.randint(0, 2**32, size=count, dtype=np.uint32)

    def _blocks(self, size: int) -> Array:
        """Box-Muller on uniforms of 24 bits, eight pairs to a block of 16; a short last block is redrawn whole."""
        whole = self._uniforms(size)
        if size % BLOCK == 0:
            return box_muller(whole)
        normals = np.concatenate([box_muller(whole[: size // BLOCK * BLOCK]), whole[size // BLOCK * BLOCK :]])
        normals[-BLOCK:] = box_muller(self._uniforms(BLOCK))
        return normals

    def _uniforms(self, count: int) -> Array:
        return (self._words(count) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)

    def _singles(self, size: int) -> Array:
        """Fewer than 16: Box-Muller one by one in float64 on uniforms of 53 bits, the sine kept for the next call."""
        values = np.empty(size, np.float32)
        for i in range(size):
            if self._spare is not None:
                values[i], self._spare = self._spare, None
                continue
            high, low, high2, low2 = (int(word) for word in self._words(4))
            angle = 2 * math.pi * (((high << 32 | low) & (2**53 - 1)) * 2.0**-53)
            radius = math.sqrt(-2 * math.log1p(-(((high2 << 32 | low2) & (2**53 - 1)) * 2.0**-53)))
            values[i], self._spare = radius * math.cos(angle), radius * math.sin(angle)
        return values


class Varied(Noise):
    """The stream of a seed, each draw turned (slerp) towards that of other seeds, one after the other.

    `chain` holds (seed, strength) pairs. At strength 0 a link changes nothing, at 1 the draws are exactly those
    of its own seed.
    """

    def __init__(self, seed: int, chain: Sequence[tuple[int, float]]) -> None:
        super().__init__(seed)
        self._chain = [(Noise(other), strength) for other, strength in chain]

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Unit normals, float32, of the given shape."""
        values = super().normal(shape)
        for other, strength in self._chain:
            values = slerp(values, other.normal(shape), strength)
        return values


def box_muller(uniforms: Array) -> Array:
    """Uniforms in [0, 1), a multiple of 16 of them, to as many normals (Box and Muller 1958)."""
    pairs = uniforms.reshape(-1, 2, BLOCK // 2)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - pairs[:, 0]))
    angle = np.float32(2 * math.pi) * pairs[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def noise(seed: int, shape: tuple[int, ...]) -> Array:
    """`torch.randn(shape, generator=torch.Generator().manual_seed(seed))` without torch."""
    return Noise(seed).normal(shape)


def slerp(a: Array, b: Array, t: float) -> Array:
    """From a (t = 0) to b (t = 1) along the great circle of their directions (Shoemake 1985); exact at both ends.

    Between two independent unit normals it stays about a unit normal, which a straight line does not.
    """
    if t in (0.0, 1.0):
        return b if t else a
    cosine = float(np.dot(a.ravel(), b.ravel()) / (np.linalg.norm(a) * np.linalg.norm(b)))
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    if math.sin(angle) < 1e-4:
        return np.float32(1 - t) * a + np.float32(t) * b
    return (
        np.float32(math.sin((1 - t) * angle) / math.sin(angle)) * a
        + np.float32(math.sin(t * angle) / math.sin(angle)) * b
    )
