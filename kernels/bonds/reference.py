"""Bonds that break, and atoms that change their partner, in plain torch: the specification."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

STRETCH = 2.0
"""Times its length at the start, beyond which a bond is a broken bond."""
CONTACT = 1.3
"""Times the sum of two covalent radii, within which two atoms are bonded."""


@dataclass(frozen=True)
class Bonds:
    """Bonds of S trajectories of one molecule, B of each; `update_bonds` changes the tensors in place."""

    atoms: Tensor  # [S, B, 2] int64
    length: Tensor  # [S, B] float64, Å, at the start; of a bond made since then the sum of the radii; inf of no bond
    broken_at: Tensor  # [S, B] int64, the step in which the bond broke, or 0
    reached: Tensor  # [S, B] float64, Å, its length then

    @cached_property
    def arrays(self) -> tuple[Any, ...]:
        """The same memory as NumPy sees it, on a CPU."""
        return tuple(tensor.numpy() for tensor in (self.atoms, self.length, self.broken_at, self.reached))


@dataclass(frozen=True)
class Contacts:
    """Radii of N atoms and their cell, which decide about bonds."""

    radii: Tensor  # [N] float64, Å, covalent
    hydrogen: Tensor  # [N] bool
    cell: Tensor  # [3, 3] float64, Å, rows are the vectors, zeros in directions that are not periodic
    inverse: Tensor  # [3, 3] its pseudoinverse
    periodic: bool

    @cached_property
    def arrays(self) -> tuple[Any, ...]:
        """The same memory as NumPy sees it, on a CPU, and whether it is periodic."""
        tensors = self.radii, self.hydrogen, self.cell, self.inverse
        return *(tensor.numpy() for tensor in tensors), self.periodic


def update_bonds(positions: Tensor, stopped: Tensor, bonds: Bonds, contacts: Contacts, step: int, stop: bool) -> None:
    """Mark the bonds of centroids that are longer than `STRETCH` times their length at the start.

    Bonds are taken in their order. Where an atom of such a bond is within `CONTACT` of an atom that is none of its
    partners, the bond is exchanged for that one instead (the nearest): a proton was transferred. Of a bond between
    hydrogen and another element, the hydrogen must be the atom with the new partner.

    Args:
        positions: [S, P, N, 3] Å.
        stopped: [S] int64; trajectories with another number than 0 are left as they are.
        bonds: of each trajectory; bonds broken before are passed over.
        contacts: radii and cell.
        step: number that marks broken bonds.
        stop: mark their trajectories too, in `stopped`.
    """
    centroid = positions.mean(1)
    first, second = (torch.take_along_dim(centroid, bonds.atoms[:, :, k, None], 1) for k in (0, 1))
    apart = torch.linalg.vector_norm(nearest_image(second - first, contacts), dim=-1)  # [S, B]
    stretched = (apart > STRETCH * bonds.length) & (bonds.broken_at == 0) & (stopped == 0)[:, None]
    for s, b in torch.nonzero(stretched).tolist():
        exchanged = _exchange(centroid[s], bonds.atoms[s], b, contacts)
        if exchanged is None:
            bonds.broken_at[s, b], bonds.reached[s, b] = step, apart[s, b]
            if stop:
                stopped[s] = step
        else:
            bonds.atoms[s, b] = exchanged
            bonds.length[s, b] = contacts.radii[exchanged].sum()


def nearest_image(r: Tensor, contacts: Contacts) -> Tensor:
    """Vectors r [..., 3] Å to the nearest image, exact up to half the smallest height of the cell."""
    return r - torch.floor(r @ contacts.inverse + 0.5) @ contacts.cell


def _exchange(centroid: Tensor, atoms: Tensor, b: int, contacts: Contacts) -> Tensor | None:
    """The bond [2] that bond b of atoms [B, 2] is exchanged for, if there is one; centroid [N, 3]."""
    pair = atoms[b]
    light = contacts.hydrogen[pair]
    for atom in pair[light] if int(light.sum()) == 1 else pair:
        apart = torch.linalg.vector_norm(nearest_image(centroid - centroid[atom], contacts), dim=-1)
        free = apart < CONTACT * (contacts.radii + contacts.radii[atom])
        free[atoms[(atoms == atom).any(1)].flatten()] = False  # its partners and itself
        if bool(free.any()):
            return torch.stack([atom, torch.where(free, apart, torch.inf).argmin()])
    return None
