"""The parts of a time step of ring-polymer dynamics, by what the device has."""

from __future__ import annotations

from torch import Tensor

from painn_fast.kernels.ring import cpu, reference
from painn_fast.kernels.ring.reference import Ring


def steps(
    positions: Tensor, momenta: Tensor, forces: Tensor, before: Tensor, energy: Tensor, heat: Tensor,
    trajectory: Tensor, ring: Ring,
) -> reference.Steps:  # fmt: skip
    """The parts of a step on these tensors, see `reference.Steps`; compiled on a CPU, plain torch elsewhere."""
    make = cpu.Steps if positions.device.type == "cpu" else reference.Steps
    return make(positions, momenta, forces, before, energy, heat, trajectory, ring)
