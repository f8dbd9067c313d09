"""Energies from the last hidden layer of an energy head, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu


def readout(
    h: Tensor, w: Tensor, b: Tensor, reference: Tensor, numbers: Tensor, atom_ptr: Tensor
) -> tuple[Tensor, Tensor]:
    """Energies of atoms [N] and molecules [M], float64: those of a batch are thousands of eV and differ by meV.

    Args:
        h: [N, H], what goes into the last silu.
        w, b: [H] and [1], the layer behind it.
        reference: [Z] float64, by atomic number: atomic reference and mean of a model, together.
        numbers: [N] atomic numbers.
        atom_ptr: [M + 1]; atoms of molecule m are `atom_ptr[m]:atom_ptr[m + 1]`.
    """
    atomic = (silu(h) @ w + b).double() + reference[numbers]
    molecule = torch.arange(len(atom_ptr) - 1, device=h.device).repeat_interleave(atom_ptr.diff())
    return atomic, atomic.new_zeros(len(atom_ptr) - 1).index_add(0, molecule, atomic)


def adjoint(h: Tensor, w: Tensor) -> Tensor:
    """d(sum of all energies) / dh [N, H] = w silu'(h)."""
    sigma = torch.sigmoid(h)
    return w * sigma * (1.0 + h * (1.0 - sigma))
