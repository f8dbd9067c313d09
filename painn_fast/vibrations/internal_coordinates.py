"""Internal coordinates of a molecule from its bonds: stretches, bends, torsions, and Wilson's B matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import ase
import numpy as np
import torch
from ase.data import covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

REACH = 1.25
"""A bond is at most this times the sum of the covalent radii."""
STRAIGHT = np.deg2rad(170.0)
"""From here on an angle counts as linear: its bends are two, and torsions about it none."""

FLAT = 345.0
"""Degrees: three angles about an atom that sum to more leave it nearly in the plane of its neighbours."""


@dataclass(frozen=True)
class Coordinate:
    """One internal coordinate: its kind, its atoms, its value as a function of positions [n, 3]."""

    kind: str
    atoms: tuple[int, ...]
    value: Callable[[Tensor], Tensor]


def bonds(atoms: ase.Atoms) -> list[tuple[int, int]]:
    """Pairs i < j that are bonded by their distance; fragments are linked by their closest atoms.

    The links make weak bonds, such as hydrogen bonds in a dimer, coordinates too.
    """
    distance = np.linalg.norm(atoms.positions[:, None] - atoms.positions[None], axis=-1)
    radius = covalent_radii[atoms.numbers]
    near = np.triu(distance < REACH * (radius[:, None] + radius[None]), 1)
    while True:
        pairs = [(int(i), int(j)) for i, j in np.argwhere(near)]
        rows = coo_array((np.ones(len(pairs)), tuple(np.array(pairs).reshape(-1, 2).T)), shape=near.shape)
        count, label = connected_components(rows, directed=False)
        if count <= 1:
            return pairs
        apart = np.where(
            np.triu(label[:, None] != label[None], 1) | (label[:, None] != label[None]).T, distance, np.inf
        )
        i, j = sorted(int(k) for k in np.unravel_index(int(np.argmin(apart)), apart.shape))
        near[i, j] = True


def coordinates(atoms: ase.Atoms) -> list[Coordinate]:
    """Stretches, bends, out-of-plane bends and one torsion a bond; in general more than there are vibrations."""
    pairs = bonds(atoms)
    neighbors: dict[int, list[int]] = {i: [] for i in range(len(atoms))}
    for i, j in pairs:
        neighbors[i].append(j)
        neighbors[j].append(i)
    listed = [Coordinate("stretch", pair, _distance(*pair)) for pair in pairs]
    straight = set()
    for centre, around in neighbors.items():
        angles = {(i, k): atoms.get_angle(i, centre, k) for i, k in combinations(around, 2)}
        for (i, k), angle in angles.items():
            if angle >= np.rad2deg(STRAIGHT):
                straight.add(centre)
                listed += [Coordinate("bend", (i, centre, k), value) for value in _linear(atoms, i, centre, k)]
            else:
                listed.append(Coordinate("bend", (i, centre, k), _angle(i, centre, k)))
        if len(around) == 3 and sum(angles.values()) > FLAT:
            listed.append(Coordinate("out of plane", (centre, *around), _out_of_plane(centre, *around)))
    for j, k in pairs:
        if not {j, k} & straight:
            ends = [(i, l) for i in neighbors[j] for l in neighbors[k] if i != k and l not in (i, j)]
            if ends:
                listed.append(Coordinate("torsion", (j, k), _torsion(j, k, ends)))
    return listed


def b_matrix(atoms: ase.Atoms, internal: list[Coordinate]) -> np.ndarray:
    """Derivatives of the coordinates with respect to positions [C, 3 n], 1 or rad/Å."""
    rows = []
    for coordinate in internal:
        positions = torch.tensor(atoms.positions, dtype=torch.float64, requires_grad=True)
        (row,) = torch.autograd.grad(coordinate.value(positions), positions)
        rows.append(row.reshape(-1).numpy())
    return np.array(rows).reshape(len(internal), 3 * len(atoms))


def _unit(r: Tensor) -> Tensor:
    return r / torch.linalg.vector_norm(r)


def _distance(i: int, j: int) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.linalg.vector_norm(x[i] - x[j])


def _angle(i: int, j: int, k: int) -> Callable[[Tensor], Tensor]:
    def value(x: Tensor) -> Tensor:
        u, v = x[i] - x[j], x[k] - x[j]
        return torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(u, v)), u @ v)

    return value


def _linear(atoms: ase.Atoms, i: int, j: int, k: int) -> list[Callable[[Tensor], Tensor]]:
    """Distances of j from the line, in two directions across it."""
    axis = torch.tensor(atoms.positions[k] - atoms.positions[i])
    first = torch.linalg.cross(axis, torch.eye(3, dtype=torch.float64)[int(axis.abs().argmin())])
    across = [_unit(first), _unit(torch.linalg.cross(axis, first))]
    return [partial(_bow, i, j, k, e) for e in across]


def _bow(i: int, j: int, k: int, direction: Tensor, x: Tensor) -> Tensor:
    return (_unit(x[i] - x[j]) + _unit(x[k] - x[j])) @ direction


def _out_of_plane(j: int, a: int, b: int, c: int) -> Callable[[Tensor], Tensor]:
    """Distance of the centre j from the plane of its three neighbours, over theirs."""

    def value(x: Tensor) -> Tensor:
        normal = _unit(torch.linalg.cross(x[b] - x[a], x[c] - x[a]))
        return (_unit(x[a] - x[j]) + _unit(x[b] - x[j]) + _unit(x[c] - x[j])) @ normal

    return value


def _torsion(j: int, k: int, ends: list[tuple[int, int]]) -> Callable[[Tensor], Tensor]:
    """Mean over the dihedral angles about a bond, in which the rocking of single atoms cancels."""

    def dihedral(x: Tensor, i: int, l: int) -> Tensor:
        axis = _unit(x[k] - x[j])
        u, v = torch.linalg.cross(x[i] - x[j], axis), torch.linalg.cross(x[l] - x[k], axis)
        return torch.atan2(torch.linalg.cross(u, v) @ axis, u @ v)

    return lambda x: torch.stack([dihedral(x, i, l) for i, l in ends]).mean()
