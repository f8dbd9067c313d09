"""All pairs within a cut-off, on whatever device the positions are."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

from painn_fast.kernels.neighbors import cpu, reference

TRITON = find_spec("triton") is not None


def neighbors(positions: Tensor, atom_ptr: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """row_ptr [N + 1], sender [E], mirror [E] of molecules in vacuum; see `reference.neighbors`."""
    if positions.device.type == "cuda" and TRITON:
        from painn_fast.kernels.neighbors import triton

        return triton.neighbors(positions, atom_ptr, cutoff)
    backend = cpu if positions.device.type == "cpu" else reference
    return backend.neighbors(positions, atom_ptr, cutoff)
