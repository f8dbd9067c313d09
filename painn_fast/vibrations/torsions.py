"""Rotatable bonds of a molecule: their torsion angles in structures and trajectories, and grids of starts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import ase
import numpy as np
from ase.data import covalent_radii
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, shortest_path

from painn_fast.vibrations.assignment import bond
from painn_fast.vibrations.internal_coordinates import REACH, STRAIGHT, bonds
from painn_fast.vibrations.isometries import kinds

TETRAHEDRAL = 340.0
"""Degrees: three angles about an atom that sum to less leave it pyramidal."""
CLASH = 1.5
"""Atoms three bonds or more apart are at least this times the sum of their covalent radii apart in a start."""
FAR = 3
"""Bonds between atoms that may clash."""


@dataclass(frozen=True)
class Torsion:
    """A rotatable single bond j-k, its angle that of i-j-k-l with the heaviest neighbours; k's side turns."""

    atoms: tuple[int, int, int, int]
    turning: tuple[int, ...]  # atoms that turn
    angles: tuple[float, ...]  # degrees, of starts
    name: str  # such as "C-C-O-H"


def connected(atoms: ase.Atoms) -> np.ndarray:
    """Bonds by distance [n, n] bool, without links between fragments."""
    radius = covalent_radii[atoms.numbers]
    distance = np.linalg.norm(atoms.positions[:, None] - atoms.positions[None], axis=-1)
    near = np.zeros((len(atoms), len(atoms)), dtype=bool)
    for i, j in bonds(atoms):
        near[i, j] = near[j, i] = distance[i, j] < REACH * (radius[i] + radius[j])
    return near


def torsions(atoms: ase.Atoms) -> list[Torsion]:
    """Rotatable bonds: single by length, not in a ring, with neighbours at both ends, none of them a methyl group.

    A group of three equal atoms, such as CH3 or CF3, goes over into itself every 120 degrees: its minima are one.

    Args:
        atoms: a molecule.

    Returns:
        The torsions in order of their bonds.

    Example:
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations.torsions import torsions
        >>> [(torsion.name, torsion.angles) for torsion in torsions(molecule("CH3CH2OH"))]
        [('C-C-O-H', (60.0, 180.0, 300.0))]
    """
    near = connected(atoms)
    rotatable = []
    for j, k in np.argwhere(np.triu(near)):
        side = _side(near, j, k)
        ends = [[int(i) for i in np.flatnonzero(near[a]) if i != b] for a, b in ((j, k), (k, j))]
        if side is None or not all(ends) or "-" not in bond(atoms, j, k):
            continue
        if any(
            _equal_atoms(atoms, near, end) or _straight(atoms, end, a, b)
            for end, a, b in zip(ends, (j, k), (k, j), strict=True)
        ):
            continue
        first, last = (min(end, key=lambda i: (-atoms.numbers[i], i)) for end in ends)
        quartet = (first, int(j), int(k), last)
        folds = 3 if all(_tetrahedral(atoms, a, near) for a in (j, k)) else 6
        angles = tuple(float((60.0 if folds == 3 else 0.0) + 360.0 / folds * m) for m in range(folds))
        rotatable.append(Torsion(quartet, side, angles, "-".join(atoms.symbols[i] for i in quartet)))
    return rotatable


def _side(near: np.ndarray, j: int, k: int) -> tuple[int, ...] | None:
    """Atoms beyond k, None if the bond is in a ring."""
    cut = near.copy()
    cut[j, k] = cut[k, j] = False
    label = connected_components(coo_array(cut), directed=False)[1]
    return None if label[j] == label[k] else tuple(int(i) for i in np.flatnonzero(label == label[k]) if i != k)


def _equal_atoms(atoms: ase.Atoms, near: np.ndarray, end: list[int]) -> bool:
    """Whether three atoms of one isotope that have no other neighbour."""
    every = kinds(atoms)
    return len(end) == 3 and len({every[i] for i in end}) == 1 and all(near[i].sum() == 1 for i in end)


def _straight(atoms: ase.Atoms, end: list[int], a: int, b: int) -> bool:
    return any(atoms.get_angle(i, a, b) >= np.rad2deg(STRAIGHT) for i in end)


def _tetrahedral(atoms: ase.Atoms, centre: int, near: np.ndarray) -> bool:
    around = np.flatnonzero(near[centre])
    if len(around) == 3:
        return sum(atoms.get_angle(i, centre, k) for i, k in itertools.combinations(around, 2)) < TETRAHEDRAL
    return len(around) in (2, 4)


def angles(positions: np.ndarray, rotatable: list[Torsion]) -> np.ndarray:
    """Torsion angles [..., T] degrees, -180 to 180, of positions [..., n, 3]."""
    i, j, k, l = np.array([torsion.atoms for torsion in rotatable], dtype=int).reshape(-1, 4).T
    axis = positions[..., k, :] - positions[..., j, :]
    axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    u = np.cross(positions[..., i, :] - positions[..., j, :], axis)
    v = np.cross(positions[..., l, :] - positions[..., k, :], axis)
    sine = (np.cross(u, v) * axis).sum(-1)
    return np.rad2deg(np.arctan2(sine, (u * v).sum(-1)))


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of angles on the circle, 0 to 180 degrees."""
    return np.abs((a - b + 180.0) % 360.0 - 180.0)


def starts(atoms: ase.Atoms, rotatable: list[Torsion], most: int, seed: int) -> list[ase.Atoms]:
    """The structure itself and others with its torsions on a grid, at most `most`, chosen at random beyond.

    Structures with atoms on top of each other are left out.
    """
    radius = covalent_radii[atoms.numbers]
    far = shortest_path(csr_array(connected(atoms)), unweighted=True, directed=False) >= FAR
    closest = np.where(far, CLASH * (radius[:, None] + radius), 0.0)
    made = [atoms.copy()]
    for grid in _grid(rotatable, most, seed):
        if len(made) == most:
            break
        one = _turned(atoms, rotatable, grid)
        if (np.linalg.norm(one.positions[:, None] - one.positions, axis=-1) >= closest).all():
            made.append(one)
    return made


def _grid(rotatable: list[Torsion], most: int, seed: int) -> list[tuple[float, ...]]:
    choices = [torsion.angles for torsion in rotatable]
    if np.prod([float(len(choice)) for choice in choices]) <= 4 * most:
        product = list(itertools.product(*choices)) if choices else []
        order = np.random.default_rng(seed).permutation(len(product)) if len(product) > most else range(len(product))
        return [product[k] for k in order]
    random = np.random.default_rng(seed)
    return list(dict.fromkeys(tuple(float(random.choice(choice)) for choice in choices) for _ in range(4 * most)))


def _turned(atoms: ase.Atoms, rotatable: list[Torsion], grid: tuple[float, ...]) -> ase.Atoms:
    one = atoms.copy()
    for torsion, angle in zip(rotatable, grid, strict=True):
        one.set_dihedral(*torsion.atoms, angle, indices=[*torsion.turning])
    return one
