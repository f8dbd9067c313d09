"""A filter w(d) as a spline of fifth degree: what a CPU reads in place of basis functions and a matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.radial.slopes import filter_basis_and_slope

KNOTS = 256
"""Intervals, at least 8 for a function of the basis: the rows of a layer stay in the second cache of a processor."""
CLOSEST = 0.05
"""Where the table begins, in the unit of the cut-off: no two atoms come so close."""


@dataclass(frozen=True)
class FilterTable:
    """B-splines over even intervals from `start`: `rows` is [knots + 6, C], of which six from k on make interval k."""

    rows: Tensor
    start: float
    spacing: float
    cutoff: float


def tabulate(radial: Radial, weight: Tensor, *, dtype: torch.dtype) -> FilterTable:
    """Tabulate the filters w = filter_basis(d) @ weight, which vanish at the cut-off.

    Fitted in float64 to two values an interval; forces are the exact derivative of the same spline.

    Args:
        radial: the basis and the cut-off function.
        weight: [K + 1, C], the last row multiplies the cut-off function alone.
        dtype: of the table.
    """
    knots = max(KNOTS, 8 * len(radial.first))
    spacing = (radial.cutoff - CLOSEST) / knots
    at = torch.arange(2 * knots + 1, dtype=torch.float64) / 2
    basis, _ = filter_basis_and_slope(CLOSEST + spacing * at, radial)
    basis[-1] = 0.0
    interval = at.long().clamp(max=knots - 1)
    weights = _weights(at - interval)
    weights[-1] *= 1e3  # no step at the cut-off
    rows = torch.from_numpy(_fit(interval.numpy(), weights.numpy(), basis.numpy())) @ weight.double()
    rows = pad(rows, (0, 0, 0, 1))  # a distance below the cut-off may round to where the last interval ends
    return FilterTable(rows.to(dtype).contiguous(), CLOSEST, spacing, radial.cutoff)


def _fit(first: np.ndarray, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows [n, C] that give values [M, C] best, each as the sum of six from `first` [M] on with weights [M, 6].

    Normal equations of eleven diagonals, solved twice. A library's solver gives other last bits at other addresses, and
    the engine of a run that goes on would not be the one that began it.
    """
    diagonals = np.zeros((6, first[-1] + 6))
    for a in range(6):
        for b in range(a, 6):
            np.add.at(diagonals[b - a], first + a, weights[:, a] * weights[:, b])
    count = diagonals.shape[1]
    factors = np.zeros((6, count))
    for i in range(count):
        for j in range(1, min(6, count - i)):
            factors[j, i] = diagonals[j, i] / diagonals[0, i]
            diagonals[: 6 - j, i + j] -= factors[j, i] * diagonals[j:, i]
    rows = np.zeros((count, values.shape[1]))
    for _ in range(2):
        rest = values.copy()
        for a in range(6):
            rest -= weights[:, a, None] * rows[first + a]
        step = np.zeros_like(rows)
        for a in range(6):
            np.add.at(step, first + a, weights[:, a, None] * rest)
        for i in range(count):
            for j in range(1, min(6, count - i)):
                step[i + j] -= factors[j, i] * step[i]
        for i in reversed(range(count)):
            step[i] /= diagonals[0, i]
            for j in range(1, min(6, count - i)):
                step[i] -= factors[j, i] * step[i + j]
        rows += step
    return rows


def _weights(t: Tensor) -> Tensor:
    """Of six rows [..., 6], at position t in an interval: the B-splines of fifth degree."""

    def inner(t: Tensor) -> Tensor:
        return 26 - 50 * t + 20 * t**2 + 20 * t**3 - 20 * t**4 + 5 * t**5

    def middle(t: Tensor) -> Tensor:
        return 66 - 60 * t**2 + 30 * t**4 - 10 * t**5

    r = 1 - t
    return torch.stack([r**5, inner(t), middle(t), middle(r), inner(r), t**5], dim=-1) / 120
