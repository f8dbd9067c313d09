"""Radial bases phi(d) and cut-off functions fc(d). Distances [E] in the model's length unit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from painn_fast.nn.config import RepresentationConfig


class SincBasis(nn.Module):
    """sin(n pi d / rc) / d, n = 1 ... n_rbf (the paper's equation 3)."""

    frequencies: Tensor  # [n_rbf]

    def __init__(self, n_rbf: int, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(1, n_rbf + 1) * math.pi / cutoff)

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E, n_rbf]
        return torch.sin(d[:, None] * self.frequencies) / d[:, None]


class GaussianBasis(nn.Module):
    """exp(-(d - offset)^2 / 2 width^2), offsets evenly from `start` to the cut-off, one spacing wide."""

    offsets: Tensor  # [n_rbf]
    widths: Tensor  # [n_rbf]

    def __init__(self, n_rbf: int, cutoff: float, start: float = 0.0) -> None:
        super().__init__()
        offsets = torch.linspace(start, cutoff, n_rbf)
        self.register_buffer("offsets", offsets)
        self.register_buffer("widths", torch.full_like(offsets, float(offsets[1] - offsets[0])))

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E, n_rbf]
        return torch.exp(-0.5 / self.widths**2 * (d[:, None] - self.offsets) ** 2)


class CosineCutoff(nn.Module):
    """(cos(pi d / rc) + 1) / 2 inside rc."""

    cutoff: Tensor  # []

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("cutoff", torch.tensor(float(cutoff)))

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E]
        return 0.5 * (torch.cos(d * math.pi / self.cutoff) + 1.0) * (d < self.cutoff)


class MollifierCutoff(nn.Module):
    """exp(1 - 1 / (1 - (d / rc)^2)) inside rc: every derivative vanishes there."""

    cutoff: Tensor  # []

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("cutoff", torch.tensor(float(cutoff)))

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E]
        inside = d + 1e-7 < self.cutoff
        x = torch.where(inside, d / self.cutoff, 0.0)
        return torch.exp(1.0 - 1.0 / (1.0 - x**2)) * inside


class SwitchCutoff(nn.Module):
    """1 up to `switch_on`, then down to 0 at rc; every derivative is continuous."""

    switch_on: Tensor  # []
    cutoff: Tensor  # []

    def __init__(self, switch_on: float, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("switch_on", torch.tensor(float(switch_on)))
        self.register_buffer("cutoff", torch.tensor(float(cutoff)))

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E]
        x = (d - self.switch_on) / (self.cutoff - self.switch_on)
        between = (x > 0) & (x < 1)
        x_in = torch.where(between, x, 0.5)  # both exponentials stay finite, and so do their derivatives
        up, down = torch.exp(-1.0 / x_in), torch.exp(-1.0 / (1.0 - x_in))
        return torch.where(between, down / (up + down), (x <= 0).to(d.dtype))


def radial_basis(config: RepresentationConfig) -> SincBasis | GaussianBasis:
    """The basis that `config` names."""
    if config.radial_basis == "sinc":
        return SincBasis(config.n_rbf, config.cutoff)
    return GaussianBasis(config.n_rbf, config.cutoff, config.gaussian_start)


def cutoff_function(config: RepresentationConfig) -> CosineCutoff | MollifierCutoff | SwitchCutoff:
    """The cut-off that `config` names."""
    if config.cutoff_function == "switch":
        assert config.switch_on is not None  # the configuration has checked it
        return SwitchCutoff(config.switch_on, config.cutoff)
    return CosineCutoff(config.cutoff) if config.cutoff_function == "cosine" else MollifierCutoff(config.cutoff)
