"""Distances between two sets of pictures, from features of any kind [N, D]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def fid(a: Array, b: Array) -> float:
    """Fréchet distance of Gaussians fitted to both (Heusel et al. 2017, eq. 6)."""
    from scipy.linalg import eigvalsh, sqrtm

    mean = float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum())
    one, other = (np.cov(x, rowvar=False) for x in (a, b))
    half = sqrtm(one).real  # tr sqrt(AB) = tr sqrt(A^1/2 B A^1/2), whose eigenvalues are real
    roots = np.sqrt(np.clip(eigvalsh(half @ other @ half), 0, None)).sum()
    return mean + float(np.trace(one) + np.trace(other) - 2 * roots)


def kid(a: Array, b: Array) -> float:
    """Unbiased squared MMD with the kernel (x·y / D + 1)^3 (Bińkowski et al. 2018, eq. 3-4); may be below 0."""

    def kernel(x: Array, y: Array) -> Array:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Array) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())
