"""Rotations and reflections that carry one structure onto another: duplicates, mirror images, symmetry numbers."""

from __future__ import annotations

from typing import NamedTuple

import ase
import numpy as np
from scipy.optimize import linear_sum_assignment

CLOSE = 0.1
"""Å: largest distance of an atom from the one that it is carried onto."""
LINEAR = 3e-3
"""Largest area of two atoms and the centre of mass, in squares of the largest distance from it, of a line."""


class Isometries(NamedTuple):
    """Numbers of rotations, and of reflections and improper rotations."""

    proper: int
    improper: int


def isometries(one: ase.Atoms, other: ase.Atoms, close: float = CLOSE) -> Isometries:
    """Count the rotations and improper rotations that carry `one` onto `other`; atoms of one isotope may change places.

    Of a structure onto itself: the symmetry number, and 0 improper ones if it is chiral.

    Args:
        one: a molecule.
        other: another one.
        close: Å, largest distance of an atom from the one that it is carried onto.

    Returns:
        Both numbers, 0 and 0 for different structures.

    Example:
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations.isometries import isometries
        >>> isometries(molecule("H2O"), molecule("H2O"))
        Isometries(proper=2, improper=2)
    """
    if sorted(kinds(one)) != sorted(kinds(other)):
        return Isometries(0, 0)
    x, y = (atoms.positions - atoms.get_center_of_mass() for atoms in (one, other))
    same = np.array([[a == b for b in kinds(other)] for a in kinds(one)])
    from_centre = np.abs(np.linalg.norm(x, axis=1)[:, None] - np.linalg.norm(y, axis=1))
    may = same & (from_centre <= close)  # atoms that may be carried onto each other
    if not (may.any(axis=1).all() and may.any(axis=0).all()):
        return Isometries(0, 0)
    p, q = _reference(x, may)
    counts = [0, 0]
    for a in np.flatnonzero(may[p]):
        for b in np.flatnonzero(may[q]):
            if a != b and abs(np.linalg.norm(x[p] - x[q]) - np.linalg.norm(y[a] - y[b])) <= 2.0 * close:
                for mirror in (0, 1):
                    counts[mirror] += _carries(
                        x, y, may, _frame(x[p], x[q], 1.0), _frame(y[a], y[b], 1.0 - 2.0 * mirror), close
                    )
    return Isometries(*counts)


def kinds(atoms: ase.Atoms) -> list[tuple[int, float]]:
    """Atomic number and mass of each atom, equal for atoms of one isotope."""
    return [(int(z), round(float(mass), 3)) for z, mass in zip(atoms.numbers, atoms.get_masses(), strict=True)]


def _reference(x: np.ndarray, may: np.ndarray) -> tuple[int, int]:
    """Two atoms that span a plane with the centre, of as few candidates as there are; of a line the outermost ones."""
    area = np.linalg.norm(np.cross(x[:, None], x[None]), axis=-1)
    if area.max() <= LINEAR * (x**2).sum(axis=1).max():
        outer = np.argsort(-np.linalg.norm(x, axis=1), kind="stable")
        return int(outer[0]), int(outer[min(1, len(x) - 1)])
    wide = area >= 0.3 * area.max()
    cost = np.where(wide, may.sum(axis=1)[:, None] * may.sum(axis=1), np.inf)
    p, q = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return int(p), int(q)


def _frame(p: np.ndarray, q: np.ndarray, hand: float) -> np.ndarray:
    """Orthonormal rows, right-handed for 1."""
    first = p / max(float(np.linalg.norm(p)), 1e-12)
    normal = np.cross(p, q)
    if np.linalg.norm(normal) <= 1e-12:  # any plane through the line
        normal = np.cross(first, np.eye(3)[np.argmin(np.abs(first))])
    normal = normal / max(float(np.linalg.norm(normal)), 1e-12)
    return np.array([first, np.cross(normal, first), hand * normal])


def _carries(x: np.ndarray, y: np.ndarray, may: np.ndarray, here: np.ndarray, onto: np.ndarray, close: float) -> bool:
    """Whether atoms fall onto atoms, after a best fit to those that are nearest."""
    turn = here.T @ onto
    for _ in range(2):
        apart = np.where(may, np.linalg.norm((x @ turn)[:, None] - y, axis=-1), 1e6)
        rows, columns = linear_sum_assignment(apart)
        if apart[rows, columns].max() > 4.0 * close:
            return False
        u, _, v = np.linalg.svd(x.T @ y[columns])
        hand = np.sign(np.linalg.det(turn) * np.linalg.det(u @ v))
        turn = (u * np.array([1.0, 1.0, hand])) @ v
    return bool(np.linalg.norm(x @ turn - y[columns], axis=1).max() <= close)
