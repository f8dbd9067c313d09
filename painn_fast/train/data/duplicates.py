"""Structures that are the same up to translation, rotation, reflection and the order of equal atoms.

Sums over the atoms of powers of their distance from the centre, weighted by atomic numbers, are the same for equal
structures; sorted by one of them, equal structures are neighbours. What is close in all sums is compared by all its
interatomic distances.
"""

from __future__ import annotations

import numpy as np

from painn_fast.train.data.dataset import Dataset

TOLERANCE = 1e-6
"""Å, of interatomic distances."""
WINDOW = 64
"""Neighbours in the sorted list that are compared."""
PAIRS_AT_ONCE = 2_000_000


def duplicates(data: Dataset) -> np.ndarray:
    """Pairs of rows [p, 2] of equal structures, the earlier first; of n copies n - 1 pairs."""
    if len(data) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    sums, scale = _sums(data)
    kind = _kinds(data)
    order = np.lexsort((sums[:, 0], kind))
    found = []
    open_ = np.ones(len(data), dtype=bool)  # rows without an equal before them, by their index in the order
    for step in range(1, min(WINDOW, len(data) - 1) + 1):
        here, there = order[:-step], order[step:]
        near = (kind[here] == kind[there]) & (np.abs(sums[there, 0] - sums[here, 0]) <= scale[there, 0])
        if not near.any():
            break
        near &= open_[step:] & (np.abs(sums[there] - sums[here]) <= scale[there]).all(axis=1)
        pairs = np.stack([here[near], there[near]], axis=1)
        same = _same(data, pairs)
        open_[step:][np.flatnonzero(near)[same]] = False
        found.append(np.sort(pairs[same], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int64)


def roots(pairs: np.ndarray, n: int) -> np.ndarray:
    """The first of the equal structures that each of n belongs to, from pairs [p, 2] of them, the earlier first."""
    root = np.arange(n)
    for one, other in pairs[np.argsort(pairs[:, 1], kind="stable")]:
        root[other] = root[one]
    return root


def _sums(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Three sums [n, 3] of each structure, and how far they may lie apart if all distances agree."""
    first, molecule = data.first[:-1], np.repeat(np.arange(len(data)), data.n_atoms)
    centre = np.add.reduceat(data.positions, first) / data.n_atoms[:, None]
    distance = np.linalg.norm(data.positions - centre[molecule], axis=1)
    z = data.numbers.astype(np.float64)
    terms = np.stack([z * distance, z * distance**2, z**2 * distance], axis=1)
    slopes = np.stack([z, 2 * z * distance, z**2], axis=1)
    return np.add.reduceat(terms, first), 4 * TOLERANCE * np.add.reduceat(slopes, first)


def _kinds(data: Dataset) -> np.ndarray:
    """A number [n] of composition, charge, spin and cell, the same for equal structures and hardly for others."""
    weights = np.random.default_rng(0).normal(size=(128 + 14, 1))
    elements = weights[np.minimum(data.numbers, 127), 0]
    cell = data.cell.reshape(len(data), 9) * data.pbc.any(axis=1, keepdims=True)
    rest = np.concatenate([data.charge[:, None], data.spin[:, None], data.pbc, cell.round(6)], axis=1)
    of_atoms = np.bincount(np.repeat(np.arange(len(data)), data.n_atoms), elements)
    return (of_atoms + rest @ weights[128:, 0]).round(9)


def _same(data: Dataset, pairs: np.ndarray) -> np.ndarray:
    """Which of these pairs have the same distances between atoms of the same elements."""
    same = np.zeros(len(pairs), dtype=bool)
    sizes = data.n_atoms[pairs[:, 0]] if len(pairs) else np.zeros(0)
    for a in np.unique(sizes):
        rows = np.flatnonzero(sizes == a)
        step = max(int(PAIRS_AT_ONCE // max(a * a, 1)), 1)
        for part in np.split(rows, range(step, len(rows), step)):
            one, other = (_distances(data, pairs[part, k], int(a)) for k in (0, 1))
            same[part] = (np.abs(one - other) <= TOLERANCE).all(axis=1)
    periodic = data.pbc[pairs[:, 0]].any(axis=1)
    for k in np.flatnonzero(same & periodic):  # a cell does not turn with its contents
        one, other = (_from_first(data, row) for row in pairs[k])
        same[k] = bool((np.abs(one - other) <= 10 * TOLERANCE).all())
    return same


def _distances(data: Dataset, rows: np.ndarray, a: int) -> np.ndarray:
    """Sorted distances [p, a (a - 1) / 2] of structures of a atoms, those of other elements apart by thousands."""
    atoms = data.atoms_of(rows)
    positions, z = data.positions[atoms].reshape(-1, a, 3), data.numbers[atoms].reshape(-1, a)
    i, j = np.triu_indices(a, 1)
    elements = np.minimum(z[:, i], z[:, j]) * 128 + np.maximum(z[:, i], z[:, j])
    return np.sort(np.linalg.norm(positions[:, i] - positions[:, j], axis=2) + 1000.0 * elements, axis=1)


def _from_first(data: Dataset, row: int) -> np.ndarray:
    positions = data.positions[data.first[row] : data.first[row + 1]]
    return positions - positions[0]
