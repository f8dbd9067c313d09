"""A filter w(d) as a cubic Hermite spline: what a CPU reads in place of basis functions and a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

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


def tabulate(
    filters: Callable[[Tensor], Tensor], cutoff: float, *, dtype: torch.dtype, knots: int = KNOTS
) -> FilterTable:
    """Tabulate filters [E] -> [E, C], which must vanish with their slope at the cut-off.

    Values and slopes are computed in float64, so that forces are the exact derivative of the same spline.
    """
    spacing = (cutoff - CLOSEST) / knots
    d = (CLOSEST + spacing * torch.arange(knots + 1, dtype=torch.float64)).requires_grad_()
    with torch.enable_grad():
        values = filters(d)
        ones = torch.zeros_like(values, requires_grad=True)
        (weighted,) = torch.autograd.grad(values, d, ones, create_graph=True)  # sum_c ones_c dw_c/dd
        slopes = torch.autograd.grad(weighted.sum(), ones)[0]
    rows = torch.stack([values.detach(), slopes * spacing], dim=1)
    rows[-1] = 0.0
    return FilterTable(rows.to(dtype).contiguous(), CLOSEST, spacing, cutoff)
