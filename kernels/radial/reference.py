"""Radial basis and cut-off functions of a filter, in plain torch. Distances d [E] in the unit of the cut-off."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Radial:
    """Which functions a filter is made of.

    Args:
        basis: "sinc", sin(a_k d) / d, or "gaussian", exp(-(d - a_k)^2 / 2 b_k^2).
        first: a_k [K]: frequencies of the sinc functions, offsets of the Gaussians.
        widths: b_k [K] of the Gaussians; ones for sinc functions, which have none.
        cutoff_function: "cosine", "mollifier" or "switch".
        cutoff: where the filter ends.
        switch_on: where "switch" begins to fall; the others ignore it.
    """

    basis: str
    first: Tensor
    widths: Tensor
    cutoff_function: str
    cutoff: float
    switch_on: float = 0.0

    def __eq__(self, other: object) -> bool:
        """The same functions, made of the same tensors (not of equal ones: nothing is read from a device)."""
        if not isinstance(other, Radial):
            return NotImplemented
        same = self.first is other.first and self.widths is other.widths
        mine = (self.basis, self.cutoff_function, self.cutoff, self.switch_on)
        return same and mine == (other.basis, other.cutoff_function, other.cutoff, other.switch_on)

    def __hash__(self) -> int:
        return hash((self.basis, id(self.first), id(self.widths), self.cutoff_function, self.cutoff, self.switch_on))


def sinc(d: Tensor, frequencies: Tensor) -> Tensor:
    """sin(a_k d) / d [E, K] (the paper's equation 3 with a_k = k pi / rc)."""
    return torch.sin(d[:, None] * frequencies) / d[:, None]


def gaussian(d: Tensor, offsets: Tensor, widths: Tensor) -> Tensor:
    """exp(-(d - a_k)^2 / 2 b_k^2) [E, K]."""
    return torch.exp(-0.5 / widths**2 * (d[:, None] - offsets) ** 2)


def cosine(d: Tensor, cutoff: Tensor | float) -> Tensor:
    """(cos(pi d / rc) + 1) / 2 inside rc [E]."""
    return 0.5 * (torch.cos(d * math.pi / cutoff) + 1.0) * (d < cutoff)


def mollifier(d: Tensor, cutoff: Tensor | float) -> Tensor:
    """exp(1 - 1 / (1 - (d / rc)^2)) inside rc [E]: every derivative vanishes there."""
    outside = d + 1e-7 >= cutoff  # not where d is NaN, which stays NaN
    x = torch.where(outside, 0.0, d / cutoff)
    return torch.exp(1.0 - 1.0 / (1.0 - x**2)) * ~outside


def switch(d: Tensor, switch_on: Tensor | float, cutoff: Tensor | float) -> Tensor:
    """1 up to `switch_on`, then down to 0 at rc [E]; every derivative is continuous."""
    x = (d - switch_on) / (cutoff - switch_on)
    beyond = (x <= 0) | (x >= 1)  # not where d is NaN, which stays NaN
    x_in = torch.where(beyond, 0.5, x)  # both exponentials stay finite, and so do their derivatives
    up, down = torch.exp(-1.0 / x_in), torch.exp(-1.0 / (1.0 - x_in))
    return torch.where(beyond, (x <= 0).to(d.dtype), down / (up + down))


def radial_basis(d: Tensor, radial: Radial) -> Tensor:
    """[E, K]."""
    return sinc(d, radial.first) if radial.basis == "sinc" else gaussian(d, radial.first, radial.widths)


def cutoff_function(d: Tensor, radial: Radial) -> Tensor:
    """[E]; 0 from the cut-off on."""
    if radial.cutoff_function == "switch":
        return switch(d, radial.switch_on, radial.cutoff)
    return cosine(d, radial.cutoff) if radial.cutoff_function == "cosine" else mollifier(d, radial.cutoff)


def filter_basis(d: Tensor, radial: Radial) -> Tensor:
    """[E, K + 1]: basis times cut-off, and the cut-off alone, which carries the bias: w = filter_basis @ weight."""
    fc = cutoff_function(d, radial)[:, None]
    return torch.cat([radial_basis(d, radial) * fc, fc], dim=1)
