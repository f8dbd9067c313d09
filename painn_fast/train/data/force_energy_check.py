"""Do forces belong to the energies? Energy differences of neighbouring structures against the work of their forces.

Between two like structures i and j, j turned onto i, E_j - E_i ≈ -(F_i + F_j)/2 · (R_j - R_i). Over the nearest pairs
of a set the two are proportional, and the factor is 1 if units and signs are right. The error of the work, cubic in the
displacement, is far larger than that of the energies, hence a fit of the work to the energies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from painn_fast import units
from painn_fast.train.data.dataset import Dataset

PER_GROUP, TOTAL, NEIGHBOURS = 800, 3000, 3
"""Structures of one molecule and of a file that are compared, and partners of each."""
NEAREST = 0.3
"""Share of the pairs that counts."""
CERTAIN = 0.8
"""Correlation of work and energy above which the slope means something."""
RATIOS = {
    "kcal/mol and eV": 1 / units.KCAL_PER_MOL,
    "Ha and eV": units.HARTREE,
    "kJ/mol and eV": 1 / units.KJ_PER_MOL,
    "Ha and kcal/mol": units.HARTREE / units.KCAL_PER_MOL,
    "kcal/mol and kJ/mol": units.KCAL_PER_MOL / units.KJ_PER_MOL,
    "Å and bohr": 1 / units.BOHR,
    "Ha/bohr and eV/Å": units.HARTREE / units.BOHR,
    "kcal/mol/bohr and eV/Å": 1 / (units.KCAL_PER_MOL * units.BOHR),
}
"""Factors between units that are confused with each other."""


class Slope(NamedTuple):
    """Energy difference over work of the forces."""

    value: float
    correlation: float
    pairs: int


def force_energy_slope(data: Dataset, seed: int = 0) -> Slope | None:
    """How energies follow forces in structures that have both; None without ten pairs of like structures."""
    parts = [_pairs(data.select(rows)) for rows in _groups(data, np.random.default_rng(seed))]
    if not parts:
        return None
    distance, work, energy = (np.concatenate([part[k] for part in parts]) for k in range(3))
    near = distance <= np.quantile(distance, NEAREST)
    for size in (np.abs(work), np.abs(energy)):  # a few wrong labels shall not decide
        near &= size <= 10 * np.median(size[near])
    work, energy = work[near], energy[near]
    for _ in range(2):
        fit = _fit(work, energy)
        off = np.abs(work * fit.value - energy)
        kept = off <= 8 * np.median(off) + 1e-12
        work, energy = work[kept], energy[kept]
    fit = _fit(work, energy)
    return fit if fit.pairs >= 10 else None


def likely_cause(value: float) -> str:
    """Of a slope that is not 1."""
    off = abs(value)
    name, ratio = min(RATIOS.items(), key=lambda entry: abs(abs(np.log(off)) - np.log(entry[1])))
    size = f"{1 / off:.3g} times too large" if off < 1 else f"{off:.3g} times too small"
    causes = [] if 0.75 < off < 1.33 else [f"forces are {size} for these energies"]
    if causes and abs(abs(np.log(off)) - np.log(ratio)) < 0.12:
        causes.append(f"as if {name} had been confused")
    if value < 0:
        causes.append("forces have the wrong sign, as if they were gradients")
    return ", ".join(causes)


def _groups(data: Dataset, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of structures with the same atoms in the same order, of a random part of the set."""
    rows = np.flatnonzero(data.structure_labelled("energy") & data.structure_labelled("forces"))
    groups: dict[bytes, list[int]] = {}
    for row in rows.tolist():
        atoms = data.numbers[data.first[row] : data.first[row + 1]].tobytes()
        state = np.array([data.charge[row], data.spin[row]]).tobytes()
        box = data.cell[row].tobytes() + data.pbc[row].tobytes() if data.pbc[row].any() else b""
        groups.setdefault(atoms + state + box, []).append(row)
    like = [np.array(group) for group in groups.values() if len(group) > 1]
    total = 0
    for k in rng.permutation(len(like)):
        if total < TOTAL:
            chosen = np.sort(rng.permutation(like[k])[:PER_GROUP])
            total += len(chosen)
            yield chosen


def _pairs(data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Displacement, work and energy difference of neighbours among structures of the same atoms."""
    n, a = len(data), int(data.n_atoms[0])
    positions, forces = (x.reshape(n, a, 3) for x in (data.positions, data.labels["forces"]))
    energy = data.labels["energy"]
    if data.pbc[0].any():
        positions = _unfolded(positions, data.cell[0], data.pbc[0])
    first, second = _neighbours(positions if data.pbc[0].any() else _distances(positions))
    here, there = positions[first], positions[second]
    turned = forces[second]
    if not data.pbc[0].any():
        here, there = here - here.mean(axis=1, keepdims=True), there - there.mean(axis=1, keepdims=True)
        rotation = _rotation(there, here)
        there, turned = there @ rotation, turned @ rotation
    step = there - here
    work = -0.5 * ((forces[first] + turned) * step).sum(axis=(1, 2))
    return np.sqrt(np.square(step).mean(axis=(1, 2))), work, energy[second] - energy[first]


def _neighbours(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each structure [n, ...] and those whose features are nearest to its own."""
    x = features.reshape(len(features), -1)
    x = x - x.mean(axis=0)
    square = np.square(x).sum(axis=1)
    apart = square[:, None] + square - 2 * x @ x.T
    np.fill_diagonal(apart, np.inf)
    k = min(NEIGHBOURS, len(x) - 1)
    nearest = np.argpartition(apart, k - 1, axis=1)[:, :k]
    return np.repeat(np.arange(len(x)), k), nearest.ravel()


def _distances(positions: np.ndarray) -> np.ndarray:
    """Distances of all pairs of at most 40 atoms, spread over the molecule."""
    chosen = np.unique(np.linspace(0, positions.shape[1] - 1, 40).astype(int))
    i, j = np.triu_indices(len(chosen), 1)
    return np.linalg.norm(positions[:, chosen[i]] - positions[:, chosen[j]], axis=2)


def _unfolded(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Images of the atoms that are nearest to those of the first structure."""
    inverse = np.linalg.pinv(cell)
    images = np.round((positions - positions[0]) @ inverse) * pbc
    return positions - images @ cell


def _rotation(moved: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Rotations or reflections (energies feel neither) that bring `moved` [p, a, 3] nearest to `fixed`: Kabsch."""
    u, _, v = np.linalg.svd(np.einsum("pax,pay->pxy", moved, fixed))
    return u @ v


def _fit(work: np.ndarray, energy: np.ndarray) -> Slope:
    covariance, spread = float(work @ energy), float(energy @ energy)
    if covariance == 0.0:
        return Slope(0.0, 0.0, len(work))
    return Slope(spread / covariance, covariance / np.sqrt(spread * float(work @ work)), len(work))
