"""The table of splines that stands for a filter."""

import numpy as np
import pytest
import torch

from painn_fast.kernels.radial.reference import Radial, filter_basis
from painn_fast.kernels.radial.table import _weights, tabulate
from painn_fast.testing import assert_close

RADIAL = Radial("sinc", torch.arange(1, 21) * torch.pi / 5.0, torch.ones(20), "cosine", 5.0)


@pytest.fixture
def weight():
    return torch.randn(21, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_spline_equals_the_filter_between_its_knots(weight):
    table = tabulate(RADIAL, weight, dtype=torch.float64)
    d = torch.linspace(0.06, 4.999, 4001, dtype=torch.float64)
    at = (d - table.start) / table.spacing
    first = at.long()
    rows = table.rows[first[:, None] + torch.arange(6)]  # [D, 6, C]
    spline = (_weights(at - first)[:, :, None] * rows).sum(1)
    assert_close(spline, filter_basis(d, RADIAL) @ weight, 1e-7)


def test_the_fit_has_the_same_bits_wherever_its_memory_lies(weight):
    """A run that goes on in another process has the engine that began it."""
    first, kept = tabulate(RADIAL, weight, dtype=torch.float64).rows, []
    for k in range(8):
        kept.append(np.zeros(997 * k + 3))
        assert torch.equal(tabulate(RADIAL, weight.clone(), dtype=torch.float64).rows, first)
