"""All pairs of atoms within a cut-off, molecule by molecule, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def neighbors(positions: Tensor, atom_ptr: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Edges between atoms of a molecule nearer than the cut-off, in vacuum.

    Args:
        positions: [N, 3] float64.
        atom_ptr: [M + 1] int64; atoms of molecule m are `atom_ptr[m]:atom_ptr[m + 1]`.
        cutoff: a pair with d >= cutoff has no edge. A distance that is not finite has one, so that a network returns
            NaN.

    Returns:
        row_ptr [N + 1], sender [E], mirror [E], int64: edges sorted by receiver, then sender, and the index of the
        opposite of each.
    """
    atom = torch.arange(len(positions), device=positions.device)
    molecule = torch.searchsorted(atom_ptr, atom, right=True)
    x, y, z = (positions[None] - positions[:, None]).unbind(-1)  # each [N, N], receiver first
    square = x * x + y * y + z * z
    near = ~((square >= cutoff * cutoff) & (square < torch.inf)) & (molecule[None] == molecule[:, None])
    near.fill_diagonal_(False)
    receiver, sender = near.nonzero().unbind(-1)
    row_ptr = torch.cat([atom.new_zeros(1), near.sum(1).cumsum(0)])
    index = torch.zeros_like(near, dtype=torch.int64)
    index[receiver, sender] = torch.arange(len(sender), device=positions.device)
    return row_ptr, sender, index[sender, receiver]
