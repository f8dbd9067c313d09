"""The filter's functions with their derivatives in d, without autograd. Distances d [E] in the unit of the cut-off."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from painn_fast.kernels.radial.reference import Radial, cutoff_function


def filter_basis_and_slope(d: Tensor, radial: Radial) -> tuple[Tensor, Tensor]:
    """`reference.filter_basis` [E, K + 1] and its derivative in d [E, K + 1]."""
    basis, slope = _basis(d[:, None], radial)
    fc, fall = (t[:, None] for t in _cutoff(d, radial))
    return torch.cat([basis * fc, fc], dim=1), torch.cat([slope * fc + basis * fall, fall], dim=1)


def _basis(d: Tensor, radial: Radial) -> tuple[Tensor, Tensor]:
    if radial.basis == "sinc":
        angle = d * radial.first
        value = torch.sin(angle) / d
        return value, (torch.cos(angle) * radial.first - value) / d
    away = (d - radial.first) / radial.widths
    value = torch.exp(-0.5 * away**2)
    return value, -value * away / radial.widths


def _cutoff(d: Tensor, radial: Radial) -> tuple[Tensor, Tensor]:
    value = cutoff_function(d, radial)
    if radial.cutoff_function == "cosine":
        rate = math.pi / radial.cutoff
        return value, -0.5 * rate * torch.sin(d * rate) * (d < radial.cutoff)
    if radial.cutoff_function == "mollifier":
        x = torch.where(value > 0, d / radial.cutoff, 0.0)
        return value, -2.0 / radial.cutoff * value * x / (1.0 - x**2) ** 2
    width = radial.cutoff - radial.switch_on
    x = (d - radial.switch_on) / width
    inside = (x > 0) & (x < 1)
    x = torch.where(inside, x, 0.5)
    up, down = 1.0 / x, 1.0 / (1.0 - x)
    fallen = torch.sigmoid(down - up) * inside  # 1 - value, without its rounding where value is almost 1
    return value, -value * fallen * (up**2 + down**2) / width
