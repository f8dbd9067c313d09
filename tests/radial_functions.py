"""Radial functions of every kind, where GPU kernels run, for tests of kernels."""

import math
import os

import torch

from painn_fast.kernels.radial.reference import Radial

DEVICE = os.environ["KERNELS_ON"]


def functions(basis="sinc", cutoff="cosine", count=4, reach=2.6):
    if basis == "gaussian":
        first, widths = torch.linspace(0.3, reach, count, dtype=torch.float64), torch.full((count,), 0.5)
    elif basis == "gaussians":
        first, widths = torch.tensor([0.3, 1.1, 1.4, 2.9][:count]), torch.linspace(0.4, 0.7, count)
    else:
        first, widths = math.pi / reach * torch.arange(1, count + 1, dtype=torch.float64), torch.ones(count)
    if basis == "sines":
        first = first * torch.linspace(0.9, 1.0, count)  # no multiples of one frequency
    kind = {"sines": "sinc", "gaussians": "gaussian"}.get(basis, basis)
    return Radial(kind, first.double().to(DEVICE), widths.double().to(DEVICE), cutoff, reach, 0.8)
