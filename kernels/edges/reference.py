"""Edge vectors from positions, and back from their adjoint to forces and virials, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def edge_vectors(positions: Tensor, receiver: Tensor, sender: Tensor, shift: Tensor, unit: float) -> Tensor:
    """r_ij = (R_j - R_i + shift) * unit [E, 3], float64; positions [N, 3] and shift [E, 3] in Å, unit their length."""
    return (positions[sender] - positions[receiver] + shift) * unit


def edge_forces(gr: Tensor, r: Tensor, receiver: Tensor, sender: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Forces and virials of atoms, float64, from the adjoint of the edge vectors.

    Args:
        gr, r: [E, 3], dE/dr and r.
        n: atoms.

    Returns:
        force [N, 3] = -dE/dR, virial [N, 3, 3] = sum of r x dE/dr over the edges that an atom receives.
    """
    gr, r = gr.double(), r.double()
    force = gr.new_zeros(n, 3).index_add(0, receiver, gr).index_add(0, sender, -gr)
    outer = r[:, :, None] * gr[:, None, :]
    return force, torch.zeros(n, 3, 3, dtype=gr.dtype, device=gr.device).index_add(0, receiver, outer)
