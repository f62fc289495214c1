"""Distances in a feature space that is here offline: the latents of noisette-1's autoencoder.

LPIPS, FID and KID as published use networks trained on ImageNet, whose weights are not part of this repository.
The definitions here are theirs, the space is another one and said wherever a number stands: values compare with
each other, not with published ones. The encoder sees what it was trained on; it is no judge of photographs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette import engines, pixels
from noisette.bench import measures
from noisette.bench.measures import Numbers
from noisette.distances import fid, kid
from noisette.engines import Networks
from noisette.errors import UserError
from noisette.plan import plan
from noisette.reading import Picture
from noisette.recipe import Recipe
from noisette.record import pixel_hash

SPACE = "latents of noisette-1's autoencoder"
GRID = 2  # features of a picture: mean and spread of each latent channel in GRID x GRID cells
REMEMBERED = 256  # references, of which many pictures share one
SUBSETS, SUBSET = 100, 50  # of KID's standard error, pictures at most in each

Array = NDArray[Any]


class Encoder:
    """noisette-1's autoencoder, its encoder's half, at its native size."""

    def __init__(self) -> None:
        planned = plan(Recipe(seed="0"))
        self._networks: Networks = engines.load(planned)
        self._side = planned.checkpoint.native_side
        self._references: dict[str, Array] = {}

    def latents(self, picture: Picture) -> Array:
        """[C, h, w]: the posterior's mean for the picture stretched to the encoder's square."""
        square = pixels.fit(picture, self._side, self._side, "stretch")
        return self._networks.encode_image(pixels.to_model(square))[0][0].astype(np.float64)

    def features(self, pictures: Iterable[Picture]) -> Array:
        """[N, 2 * C * GRID**2]: where in the picture which channel is how large, and how busy."""
        return np.stack([pooled(self.latents(picture)) for picture in pictures])

    def perceptual(self, picture: Picture, reference: Picture) -> float:
        """LPIPS' form (Zhang et al. 2018, eq. 1, all weights 1): unit length over channels, mean squared distance."""
        a, b = self.latents(picture), self._remembered(reference)
        a, b = (x / (np.linalg.norm(x, axis=0, keepdims=True) + 1e-10) for x in (a, b))
        return float(((a - b) ** 2).sum(axis=0).mean())

    def _remembered(self, reference: Picture) -> Array:
        """The latents of a reference, worked out once while it is in use."""
        key = pixel_hash(reference)
        if key not in self._references:
            if len(self._references) == REMEMBERED:
                del self._references[next(iter(self._references))]
            self._references[key] = self.latents(reference)
        return self._references[key]


@cache
def encoder() -> Encoder:
    """The encoder, loaded once a process."""
    return Encoder()


def of_pair(picture: Picture, reference: Picture) -> Numbers:
    """`measures.of_pair` and the perceptual distance. Raises UserError for pictures of two sizes."""
    numbers = measures.of_pair(picture, reference)
    return numbers | {"perceptual": encoder().perceptual(picture, reference)}


def pooled(latents: Array) -> Array:
    """Mean and standard deviation of each channel in GRID x GRID cells of [C, h, w]."""
    rows = np.array_split(latents, GRID, axis=1)
    cells = [cell for row in rows for cell in np.array_split(row, GRID, axis=2)]
    return np.concatenate([statistic(cell, axis=(1, 2)) for cell in cells for statistic in (np.mean, np.std)])


@dataclass(frozen=True)
class Distance:
    """Between two sets of pictures: FID's and KID's formulas, KID's standard error, and what to make of them."""

    fid: float
    kid: float
    kid_error: float
    counts: tuple[int, int]
    dimensions: int

    def to_text(self) -> str:
        """The numbers and the notes, a line each."""
        counts = "{} and {} pictures".format(*self.counts)
        return "\n".join([f"FID {self.fid:.4g}, KID {self.kid:.4g} ± {self.kid_error:.2g}, {counts}", *self.notes])

    @property
    def notes(self) -> list[str]:
        """What small sets do to these numbers."""
        found = [
            f"feature space: {SPACE}, {self.dimensions} numbers a picture; not comparable with published FID or KID"
        ]
        fewest = min(self.counts)
        if fewest <= self.dimensions:
            found.append(
                f"FID is biased upwards in small sets, and {fewest} pictures are fewer than"
                f" {self.dimensions + 1}: its covariance is singular; use KID, which has no bias"
            )
        elif fewest < 10 * self.dimensions:
            found.append(f"FID is biased upwards at {fewest} pictures: compare only sets of equal size, or use KID")
        if abs(self.kid) < 2 * self.kid_error:
            found.append("KID is within two standard errors of 0: the sets can't be told apart")
        return found


def distance(a: Array, b: Array) -> Distance:
    """Of features [N, D] and [M, D], N and M at least 2. Raises UserError for fewer."""
    if min(len(a), len(b)) < 2:
        raise UserError(f"sets of {len(a)} and {len(b)} pictures have no distance: two at least are needed in each")
    subset = min(SUBSET, len(a), len(b))
    draw = np.random.default_rng(0)
    some = [kid(a[draw.permutation(len(a))[:subset]], b[draw.permutation(len(b))[:subset]]) for _ in range(SUBSETS)]
    error = float(np.std(some) * np.sqrt(subset / min(len(a), len(b))))
    return Distance(fid(a, b), kid(a, b), error, (len(a), len(b)), a.shape[1])
