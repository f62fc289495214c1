"""Meeting the base at the mask's edge: feather, colour match, Poisson blending. NumPy only.

All of it changes painted pixels; none of it a kept one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

FULL = 0.25  # the strength of a soft mask from which the painted picture shows without the base shining through
MOST_SHIFT = 16.0  # of 255
NEAR, FAR = 1, 3  # the rim in which colours are compared lies so many latent cells outside the mask


def distance(inside: Bools, most: int) -> Floats:
    """Euclidean distance [H, W] of each inside pixel to the nearest that is not, at most `most` + 1; 0 elsewhere.

    Beyond the picture nothing counts as outside. Exact: columns first, then parabolas along the rows
    (Felzenszwalb and Huttenlocher 2012).
    """
    far = np.float32(most + 1)
    down = np.where(inside, far, np.float32(0))
    for y in range(1, len(down)):
        np.minimum(down[y], down[y - 1] + 1, out=down[y])
    for y in range(len(down) - 2, -1, -1):
        np.minimum(down[y], down[y + 1] + 1, out=down[y])
    square = np.minimum(down, far) ** 2
    nearest = square.copy()
    for shift in range(1, min(most, inside.shape[1] - 1) + 1):
        np.minimum(nearest[:, shift:], square[:, :-shift] + shift * shift, out=nearest[:, shift:])
        np.minimum(nearest[:, :-shift], square[:, shift:] + shift * shift, out=nearest[:, :-shift])
    found: Floats = np.sqrt(nearest)
    return found


def feathered(repaint: Bools, feather: int) -> Floats:
    """Weights [H, W]: 0 where kept, rising smoothly to 1 over `feather` pixels inside; 0 pixels give a hard edge.

    A region thinner than that is still painted fully in its middle.
    """
    inside = distance(repaint, feather)
    depth = max(1.0, min(feather + 1.0, float(inside.max())))
    share = np.minimum(inside / np.float32(depth), 1)
    return share * share * (3 - 2 * share)


def showing(strength: Floats) -> Floats:
    """Weights for a soft mask's strengths: the lowest quarter fades into the base, so nothing jumps at black."""
    return np.minimum(strength / np.float32(FULL), 1)


def color_shift(base: Floats, painted: Floats, repaint: Bools, cell: float) -> Floats:
    """What to add to `painted` [H, W, 3] so that its colours agree with the base's just outside the mask: [3].

    The median difference in a rim from one to three latent cells (of `cell` pixels) around the mask, where the
    model was shown the base: what differs there is its own shift, not content. At most MOST_SHIFT a channel, as
    more is no shift but a failure to draw the base; no such pixel: no shift.
    """
    away = distance(~repaint, int(FAR * cell) + 1)
    rim = (away > NEAR * cell) & (away <= FAR * cell)
    if not rim.any() or not repaint.any():
        return np.zeros(3, np.float32)
    shift: Floats = np.median(base[rim] - painted[rim], axis=0).astype(np.float32)
    return np.clip(shift, -MOST_SHIFT, MOST_SHIFT)


def poisson(base: Floats, painted: Floats, repaint: Bools) -> Floats:
    """`painted` [H, W, C] with its gradients kept and its border that of the base (Pérez et al. 2003, eq. 3).

    As a membrane: painted + c with c harmonic inside, c = base - painted on the kept pixels around (Dirichlet),
    and no flux through the picture's edge (Neumann). Nothing kept: nothing changes.
    """
    if repaint.all() or not repaint.any():
        return painted
    rows, columns = np.flatnonzero(repaint.any(axis=1)), np.flatnonzero(repaint.any(axis=0))
    place = np.s_[max(0, rows[0] - 1) : rows[-1] + 2, max(0, columns[0] - 1) : columns[-1] + 2]
    result = painted.copy()
    result[place] += membrane(base[place] - painted[place], repaint[place])
    return result


def membrane(known: Floats, unknown: Bools, tolerance: float = 1e-4, most: int = 100) -> Floats:
    """`known` [H, W, C] where it is known, and where `unknown` [H, W] the solution of Laplace's equation.

    Conjugate gradients with a multigrid V-cycle as preconditioner (McAdams et al. 2010), until the residual is
    `tolerance` of the first. At least one pixel must be known.
    """
    levels = pyramid(unknown)
    start = np.where(unknown[..., None], 0, known).astype(np.float64)
    residual = np.where(unknown[..., None], neighbours(start), 0)
    first = np.sqrt((residual**2).sum(axis=(0, 1)))
    solution = np.zeros_like(start)
    direction, before = np.zeros_like(start), np.ones(start.shape[2])
    for _ in range(most):
        if (np.sqrt((residual**2).sum(axis=(0, 1))) <= tolerance * first).all():
            break
        better = v_cycle(residual, levels)
        now = (residual * better).sum(axis=(0, 1))
        direction = better + direction * (now / np.where(before == 0, 1, before))
        along = laplace(direction, levels[0])
        curvature = (direction * along).sum(axis=(0, 1))
        step = now / np.where(curvature == 0, 1, curvature)
        solution += step * direction
        residual = residual - step * along
        before = now
    return (start + solution).astype(np.float32)


class Grid:
    """One level: which cells are unknown, and how many neighbours each cell has on the grid (2 to 4)."""

    def __init__(self, unknown: Bools) -> None:
        self.unknown = unknown[..., None]
        self.count = np.maximum(neighbours(np.ones((*unknown.shape, 1))), 1)


def pyramid(unknown: Bools) -> list[Grid]:
    """The grid and its halvings; a coarse cell is unknown when none of its four is known."""
    grids = [Grid(unknown)]
    while min(unknown.shape) > 2 and unknown.any():
        height, width = (-(-side // 2) for side in unknown.shape)
        padded = np.pad(unknown, ((0, 2 * height - unknown.shape[0]), (0, 2 * width - unknown.shape[1])), mode="edge")
        unknown = np.asarray(padded.reshape(height, 2, width, 2).all(axis=(1, 3)))
        grids.append(Grid(unknown))
    return grids


def neighbours(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of the four neighbours of each cell [H, W, C]; there are none beyond the edge."""
    total = np.zeros_like(x)
    total[1:] += x[:-1]
    total[:-1] += x[1:]
    total[:, 1:] += x[:, :-1]
    total[:, :-1] += x[:, 1:]
    return total


def laplace(x: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Minus the five-point Laplacian of x on the unknown cells, 0 elsewhere; x is 0 where known."""
    result: NDArray[np.float64] = (grid.count * x - neighbours(x)) * grid.unknown
    return result


def v_cycle(residual: NDArray[np.float64], grids: list[Grid]) -> NDArray[np.float64]:
    """One symmetric multigrid V-cycle for laplace(x) = residual from x = 0: damped Jacobi before and after."""
    grid = grids[0]
    coarsest = len(grids) == 1
    x = 0.8 * residual / grid.count * grid.unknown
    for _ in range(20 if coarsest else 1):
        x = jacobi(x, residual, grid)
    if coarsest:
        return x
    x = x + raise_(v_cycle(lower(residual - laplace(x, grid)), grids[1:]), x.shape) * grid.unknown
    for _ in range(2):
        x = jacobi(x, residual, grid)
    return x


def jacobi(x: NDArray[np.float64], residual: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """One step of Jacobi's method, damped by 0.8."""
    result: NDArray[np.float64] = x + 0.8 * (residual - laplace(x, grid)) / grid.count * grid.unknown
    return result


def lower(fine: NDArray[np.float64]) -> NDArray[np.float64]:
    """To the next coarser grid: `raise_` transposed."""
    for axis in (0, 1):
        rows = np.moveaxis(fine, axis, 0)
        rows = np.concatenate([rows, np.zeros_like(rows[: len(rows) % 2])])
        even, odd = rows[::2], rows[1::2]
        coarse = 0.75 * (even + odd)
        coarse[:-1] += 0.25 * even[1:]
        coarse[1:] += 0.25 * odd[:-1]
        fine = np.moveaxis(coarse, 0, axis)
    return fine


def raise_(coarse: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """To the next finer grid of this shape, linearly between the cells' centres."""
    for axis in (0, 1):
        cells = np.moveaxis(coarse, axis, 0)
        rows = 0.75 * cells.repeat(2, axis=0)
        rows[2::2] += 0.25 * cells[:-1]
        rows[1:-1:2] += 0.25 * cells[1:]
        coarse = np.moveaxis(rows[: shape[axis]], 0, axis)
    return coarse
