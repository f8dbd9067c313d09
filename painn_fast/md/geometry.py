"""Distances in one structure: names of atoms, nearest images, the closest pair."""

from __future__ import annotations

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from ase.geometry import minkowski_reduce
from torch import Tensor

from painn_fast.kernels.bonds import Contacts, nearest_image
from painn_fast.md.state import System

ROWS = 256
"""Atoms whose distances to all others are in memory at once."""


def atom_name(system: System, atom: int) -> str:
    """Element and number from 0, such as H5."""
    return f"{chemical_symbols[int(system.numbers[atom])]}{atom}"


def contacts(system: System) -> Contacts:
    """Covalent radii of the atoms, and a cell whose nearest images are found by rounding."""
    pbc = system.pbc.cpu().numpy()
    cell = minkowski_reduce(system.cell.cpu().numpy(), pbc)[0] if pbc.any() else np.zeros((3, 3))
    cell = np.ascontiguousarray(cell * pbc[:, None])
    numbers, device = system.numbers.cpu().numpy(), system.numbers.device
    return Contacts(
        radii=torch.tensor(covalent_radii[numbers], dtype=torch.float64, device=device),
        hydrogen=system.numbers == 1,
        cell=torch.tensor(cell, device=device),
        inverse=torch.tensor(np.ascontiguousarray(np.linalg.pinv(cell)), device=device),
        periodic=bool(pbc.any()),
    )


def closest_pair(positions: Tensor, system: System) -> tuple[int, int, float]:
    """The two atoms of a structure [N, 3] that are nearest to each other, and their distance, Å.

    Infinite where there are no two at finite positions; images of an atom itself do not count.
    """
    where, atom = contacts(system), torch.arange(len(positions), device=positions.device)
    best = 0, 0, float("inf")
    for rows in atom.split(ROWS):
        apart = torch.linalg.vector_norm(nearest_image(positions - positions[rows][:, None], where), dim=-1)
        apart = torch.where(torch.isfinite(apart) & (atom > rows[:, None]), apart, torch.inf)
        least = int(apart.argmin())
        if float(apart.flatten()[least]) < best[2]:
            i, j = divmod(least, len(atom))
            best = int(rows[i]), j, float(apart.flatten()[least])
    return best
