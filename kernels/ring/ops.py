"""The parts of a time step of ring-polymer dynamics, by what the device has."""

from __future__ import annotations

import math

from torch import Tensor

from painn_fast.kernels.backend import backend
from painn_fast.kernels.ring import reference
from painn_fast.kernels.ring.reference import Ring


def steps(
    positions: Tensor, momenta: Tensor, forces: Tensor, before: Tensor, energy: Tensor, heat: Tensor,
    trajectory: Tensor, alive: Tensor, ring: Ring,
) -> reference.Steps:  # fmt: skip
    """The parts of a step on these tensors, see `reference.Steps`; a GPU has kernels for up to `triton.MOST_BEADS`."""
    module = backend("ring", positions.device.type)
    if positions.shape[1] > getattr(module, "MOST_BEADS", math.inf):
        module = reference
    made: reference.Steps = module.Steps(positions, momenta, forces, before, energy, heat, trajectory, alive, ring)
    return made
