"""Which bonds have broken, by what the device has."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

from painn_fast.kernels.bonds import cpu, reference
from painn_fast.kernels.bonds.reference import Bonds, Contacts

TRITON = find_spec("triton") is not None


def look(positions: Tensor, stopped: Tensor, bonds: Bonds, contacts: Contacts, step: int, stop: bool) -> None:
    """See `reference.look`; a GPU with Triton is not waited for."""
    if positions.device.type == "cuda" and TRITON:
        from painn_fast.kernels.bonds import triton

        triton.look(positions, stopped, bonds, contacts, step, stop)
        return
    backend = cpu if positions.device.type == "cpu" else reference
    backend.look(positions, stopped, bonds, contacts, step, stop)
