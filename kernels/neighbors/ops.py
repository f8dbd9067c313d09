"""All pairs within a cut-off, on whatever device the positions are."""

from __future__ import annotations

from torch import Tensor

from painn_fast.kernels.backend import backend


def neighbors(positions: Tensor, atom_ptr: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """row_ptr [N + 1], sender [E], mirror [E] of molecules in vacuum; see `reference.neighbors`."""
    row_ptr, sender, mirror = backend("neighbors", positions.device.type).neighbors(positions, atom_ptr, cutoff)
    return row_ptr, sender, mirror
