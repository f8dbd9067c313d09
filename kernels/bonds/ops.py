"""Broken bonds and exchanged ones, by what the device has."""

from __future__ import annotations

from torch import Tensor

from painn_fast.kernels.backend import backend
from painn_fast.kernels.bonds.reference import Bonds, Contacts


def update_bonds(positions: Tensor, stopped: Tensor, bonds: Bonds, contacts: Contacts, step: int, stop: bool) -> None:
    """See `reference.update_bonds`; a GPU with Triton is not waited for."""
    backend("bonds", positions.device.type).update_bonds(positions, stopped, bonds, contacts, step, stop)
