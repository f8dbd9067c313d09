"""Write the molecules of the benchmark, `painn_fast/bench/molecules.xyz`: `python bench/molecules.py [FILE]`.

They are put together from small ones of ASE: two hydrogens go, the atoms that they sat on are bonded.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence, Set
from functools import cache
from pathlib import Path
from typing import TypeVar

import ase
import ase.io
import numpy as np
from ase.build import molecule
from ase.data import covalent_radii
from scipy.spatial.transform import Rotation

FILE = Path(__file__).parents[1] / "painn_fast" / "bench" / "molecules.xyz"
T = TypeVar("T")
CLEAR = 1.7
"""Å; two parts come no nearer than this, but for the bond between them."""
TORSIONS = 24
PARTS = {
    "methane": "CH4", "ethane": "C2H6", "propane": "C3H8", "butane": "trans-butane", "isobutane": "isobutane",
    "cyclopropane": "C3H6_D3h", "cyclobutane": "cyclobutane", "ethene": "C2H4", "propyne": "C3H4_C3v",
    "ammonia": "NH3", "dimethylamine": "C2H6NH", "water": "H2O", "methanol": "CH3OH", "ether": "CH3OCH3",
    "oxirane": "CH2OCH2", "hydrogen cyanide": "HCN", "hydrogen fluoride": "HF", "formaldehyde": "H2CO",
    "acetone": "CH3COCH3", "formic acid": "HCOOH", "acetamide": "CH3CONH2", "furan": "C4H4O", "pyrrole": "C4H4NH",
    "pyridine": "C5H5N", "benzene": "C6H6", "spiropentane": "C5H8",
}  # fmt: skip
"""Our name to that in ASE's G2 collection, whose geometries are optimised ones."""
QM9_HEAVY = (7, 8, 8, 9, 9, 9, 9, 9, 9, 9)
"""Numbers of heavy atoms to draw from: QM9 is nine of them for the most part."""


@cache
def _part(name: str) -> ase.Atoms:
    return molecule(PARTS[name])


def join(a: ase.Atoms, h_a: int, b: ase.Atoms, h_b: int) -> tuple[ase.Atoms, float]:
    """One molecule out of two, bonded where hydrogen `h_a` of a and `h_b` of b were.

    The bond has the length of the sum of covalent radii; of `TORSIONS` about it the one is taken that keeps the parts
    farthest from each other.

    Returns:
        The molecule, and the smallest distance in Å between its parts but for the bond.
    """
    i, j = _neighbor(a, h_a), _neighbor(b, h_b)
    axis = _unit(a.positions[h_a] - a.positions[i])
    length = covalent_radii[a.numbers[i]] + covalent_radii[b.numbers[j]]
    turn, _ = Rotation.align_vectors([-axis], [_unit(b.positions[h_b] - b.positions[j])])
    moved = turn.apply(b.positions - b.positions[j])
    stay_a, stay_b = np.arange(len(a)) != h_a, np.arange(len(b)) != h_b
    best, clear = moved, -1.0
    for angle in np.arange(TORSIONS) * (2.0 * np.pi / TORSIONS):
        placed = Rotation.from_rotvec(angle * axis).apply(moved) + a.positions[i] + length * axis
        distance = np.linalg.norm(a.positions[:, None] - placed, axis=-1)
        distance[i, j] = np.inf
        nearest = float(distance[stay_a][:, stay_b].min(initial=np.inf))
        if nearest > clear + 1e-6:  # of equal ones the first, whatever the rounding
            best, clear = placed, nearest
    numbers = np.concatenate([a.numbers[stay_a], b.numbers[stay_b]])
    return ase.Atoms(numbers, np.concatenate([a.positions[stay_a], best[stay_b]])), clear


def aspirin() -> ase.Atoms:
    """2-acetoxybenzoic acid, C9H8O4, 21 atoms: benzene with the acids beside each other."""
    benzene, formic, acetic = _part("benzene"), molecule("HCOOH"), molecule("CH3COOH")
    first = _hydrogens(benzene, on=6)[0]
    ring = _neighbor(benzene, first)
    beside = _nearest_hydrogen(benzene, ring, besides=first)
    benzoic, _ = join(benzene, first, formic, _hydrogens(formic, on=6)[0])
    place = beside - (first < beside)  # the first hydrogen is gone
    return join(benzoic, place, acetic, _hydrogens(acetic, on=8)[0])[0]


def qm9_like(count: int, elements: Set[int] = frozenset((1, 6, 7, 8, 9))) -> list[ase.Atoms]:
    """Different molecules of these elements with at most 9 heavy and 29 atoms, about 18 in the mean, as in QM9."""
    parts = [name for name in PARTS if elements.issuperset(_part(name).numbers.tolist())]
    draw = random.Random(1)  # its random() is the same in every version of Python
    found: dict[tuple[float, ...], ase.Atoms] = {}
    while len(found) < count:
        grown = _grow(draw, parts)
        if grown is not None:
            found.setdefault(constitution(grown), grown)
    return list(found.values())


def _grow(draw: random.Random, parts: Sequence[str]) -> ase.Atoms | None:
    """Parts joined at random up to a number of heavy atoms; None if they do not fit, or no hydrogen is left."""
    heavy, grown = _pick(draw, QM9_HEAVY), _part(_pick(draw, parts))
    while (left := heavy - _heavy(grown)) > 0:
        part = _part(_pick(draw, [name for name in parts if _heavy(_part(name)) <= left]))
        if not _hydrogens(grown):
            return None
        h_a, h_b = _pick(draw, _hydrogens(grown)), _pick(draw, _hydrogens(part))
        if grown.numbers[_neighbor(grown, h_a)] != 6 and part.numbers[_neighbor(part, h_b)] != 6:
            continue  # no peroxides, hydrazines and the like
        grown, clear = join(grown, h_a, part, h_b)
        if clear < CLEAR:
            return None
    return grown


def _pick(draw: random.Random, options: Sequence[T]) -> T:
    return options[int(draw.random() * len(options))]


def constitution(atoms: ase.Atoms) -> tuple[float, ...]:
    """Which atoms are bonded to which, as numbers that do not depend on the order of the atoms."""
    distance = atoms.get_all_distances()
    radius = covalent_radii[atoms.numbers]
    bonds = (distance < 1.25 * (radius[:, None] + radius)).astype(float)
    np.fill_diagonal(bonds, atoms.numbers)
    return tuple(np.round(np.linalg.eigvalsh(bonds), 6).tolist())


def _heavy(atoms: ase.Atoms) -> int:
    return int((atoms.numbers > 1).sum())


def _neighbor(atoms: ase.Atoms, hydrogen: int) -> int:
    """The atom that a hydrogen sits on."""
    distance = atoms.get_distances(hydrogen, range(len(atoms)))
    distance[hydrogen] = np.inf
    return int(distance.argmin())


def _hydrogens(atoms: ase.Atoms, on: int | None = None) -> list[int]:
    """Hydrogens, on atoms of this atomic number or on any."""
    every = [int(h) for h in np.flatnonzero(atoms.numbers == 1)]
    return [h for h in every if on is None or atoms.numbers[_neighbor(atoms, h)] == on]


def _nearest_hydrogen(atoms: ase.Atoms, atom: int, besides: int) -> int:
    """The hydrogen nearest to an atom, other than `besides`."""
    return min((h for h in _hydrogens(atoms) if h != besides), key=lambda h: float(atoms.get_distance(atom, h)))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def write(path: Path) -> None:
    """The first hundred such molecules, and aspirin."""
    named = [(f"qm9-like {k}", atoms) for k, atoms in enumerate(qm9_like(100))] + [("aspirin", aspirin())]
    for name, atoms in named:
        atoms.info["name"] = name
    ase.io.write(path, [atoms for _, atoms in named], format="extxyz")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
