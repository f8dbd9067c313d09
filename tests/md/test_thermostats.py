"""The friction of each normal mode is that of the papers."""

import pytest
import torch

from painn_fast.md.thermostats import friction
from painn_fast.testing import assert_close

OMEGA = torch.tensor([[0.0, 0.25, 0.25, 0.5], [0.0, 0.5, 0.5, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("ensemble", "per_omega", "centroid"),
    [
        ("langevin", 2.0, 0.01),
        ("pile-l", 2.0, 0.01),  # Ceriotti et al. 2010, equation 36: critical damping, and 1 / tau0
        ("pile-g", 2.0, 0.0),  # its centroid is rescaled
        ("t-rpmd", 1.0, 0.0),  # Rossi et al. 2014: lambda = 1/2, and a centroid that moves freely
    ],
)
def test_friction_of_modes_and_of_the_centroid(ensemble, per_omega, centroid):
    gamma = friction(ensemble, OMEGA.clone(), 100.0)
    assert_close(gamma[:, 1:], per_omega * OMEGA[:, 1:], 1e-15, "modes")
    assert_close(gamma[:, 0], [centroid] * 2, 1e-15, "centroid")


@pytest.mark.parametrize("ensemble", ["nve", "rpmd"])
def test_no_thermostat_has_no_friction(ensemble):
    assert friction(ensemble, OMEGA, 100.0) is None
