"""A filter w(d) as a cubic Hermite spline: what a CPU reads in place of basis functions and a matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.radial.slopes import filter_basis_and_slope

KNOTS = 1024
CLOSEST = 0.05
"""Where the table begins, in the unit of the cut-off: no two atoms come so close."""


@dataclass(frozen=True)
class FilterTable:
    """Values and slopes at even knots from `start`; `rows` is [knots + 1, 2, C], slopes are per knot."""

    rows: Tensor
    start: float
    spacing: float
    cutoff: float


def tabulate(radial: Radial, weight: Tensor, *, dtype: torch.dtype, knots: int = KNOTS) -> FilterTable:
    """Tabulate the filters w = filter_basis(d) @ weight, which vanish with their slope at the cut-off.

    Values and slopes are computed in float64, so that forces are the exact derivative of the same spline.

    Args:
        radial: the basis and the cut-off function.
        weight: [K + 1, C], the last row multiplies the cut-off function alone.
        dtype: of the table.
        knots: intervals between `CLOSEST` and the cut-off.
    """
    spacing = (radial.cutoff - CLOSEST) / knots
    d = CLOSEST + spacing * torch.arange(knots + 1, dtype=torch.float64)
    basis, slopes = filter_basis_and_slope(d, radial)
    rows = torch.stack([basis @ weight.double(), slopes @ weight.double() * spacing], dim=1)
    rows[-1] = 0.0
    return FilterTable(rows.to(dtype).contiguous(), CLOSEST, spacing, radial.cutoff)
