"""Radial bases phi(d) and cut-off functions fc(d). Distances [E] in the model's length unit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from painn_fast.kernels.radial.reference import cosine, gaussian, mollifier, sinc, switch
from painn_fast.nn.config import RepresentationConfig


class SincBasis(nn.Module):
    """sin(n pi d / rc) / d, n = 1 ... n_rbf (the paper's equation 3)."""

    frequencies: Tensor  # [n_rbf]

    def __init__(self, n_rbf: int, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(1, n_rbf + 1) * math.pi / cutoff)

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E, n_rbf]
        return sinc(d, self.frequencies)


class GaussianBasis(nn.Module):
    """exp(-(d - offset)^2 / 2 width^2), offsets evenly from `start` to the cut-off, one spacing wide."""

    offsets: Tensor  # [n_rbf]
    widths: Tensor  # [n_rbf]

    def __init__(self, n_rbf: int, cutoff: float, start: float = 0.0) -> None:
        super().__init__()
        offsets = torch.linspace(start, cutoff, n_rbf)
        self.register_buffer("offsets", offsets)
        self.register_buffer("widths", (offsets[1] - offsets[0]).expand(n_rbf).clone())

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E, n_rbf]
        return gaussian(d, self.offsets, self.widths)


class CosineCutoff(nn.Module):
    """(cos(pi d / rc) + 1) / 2 inside rc."""

    cutoff: Tensor  # []

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("cutoff", torch.tensor(float(cutoff)))

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E]
        return cosine(d, self.cutoff)


class MollifierCutoff(nn.Module):
    """exp(1 - 1 / (1 - (d / rc)^2)) inside rc: every derivative vanishes there."""

    cutoff: Tensor  # []

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("cutoff", torch.tensor(float(cutoff)))

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E]
        return mollifier(d, self.cutoff)


class SwitchCutoff(nn.Module):
    """1 up to `switch_on`, then down to 0 at rc; every derivative is continuous."""

    switch_on: Tensor  # []
    cutoff: Tensor  # []

    def __init__(self, switch_on: float, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("switch_on", torch.tensor(float(switch_on)))
        self.register_buffer("cutoff", torch.tensor(float(cutoff)))

    def forward(self, d: Tensor) -> Tensor:  # [E] -> [E]
        return switch(d, self.switch_on, self.cutoff)


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
