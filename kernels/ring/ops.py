"""The parts of a time step of ring-polymer dynamics, by what the device has."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

from painn_fast.kernels.ring import cpu, reference
from painn_fast.kernels.ring.reference import Ring

TRITON = find_spec("triton") is not None


def steps(
    positions: Tensor, momenta: Tensor, forces: Tensor, before: Tensor, energy: Tensor, heat: Tensor,
    trajectory: Tensor, alive: Tensor, ring: Ring,
) -> reference.Steps:  # fmt: skip
    """The parts of a step on these tensors, see `reference.Steps`; a GPU has kernels for up to `triton.MOST_BEADS`."""
    make: type[reference.Steps] = cpu.Steps if positions.device.type == "cpu" else reference.Steps
    if positions.device.type == "cuda" and TRITON:
        from painn_fast.kernels.ring import triton

        if positions.shape[1] <= triton.MOST_BEADS:
            make = triton.Steps
    return make(positions, momenta, forces, before, energy, heat, trajectory, alive, ring)
