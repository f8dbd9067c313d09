"""Broken bonds and exchanged ones, by what the device has."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

from painn_fast.kernels.bonds import cpu, reference
from painn_fast.kernels.bonds.reference import Bonds, Contacts

TRITON = find_spec("triton") is not None


def update_bonds(positions: Tensor, stopped: Tensor, bonds: Bonds, contacts: Contacts, step: int, stop: bool) -> None:
    """See `reference.update_bonds`; a GPU with Triton is not waited for."""
    if positions.device.type == "cuda" and TRITON:
        from painn_fast.kernels.bonds import triton

        triton.update_bonds(positions, stopped, bonds, contacts, step, stop)
        return
    backend = cpu if positions.device.type == "cpu" else reference
    backend.update_bonds(positions, stopped, bonds, contacts, step, stop)
