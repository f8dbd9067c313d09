"""Structures spread over what was sampled: farthest points by sorted interatomic distances."""

from __future__ import annotations

from collections.abc import Sequence

import ase
import numpy as np


def descriptors(structures: Sequence[ase.Atoms]) -> np.ndarray:
    """Inverse interatomic distances [B, n (n - 1) / 2] 1/Å of one molecule, sorted within each pair of elements.

    They do not change with rotation, reflection or the exchange of equal atoms; inverse distances count bonds for more
    than what is far apart.
    """
    numbers = structures[0].numbers
    i, j = np.triu_indices(len(numbers), 1)
    x = np.array([one.positions for one in structures])
    values = 1.0 / np.linalg.norm(x[:, i] - x[:, j], axis=-1)
    kind = np.sort(np.stack([numbers[i], numbers[j]]), axis=0)
    codes = kind[0] * 1000 + kind[1]
    parts = [np.sort(values[:, codes == code], axis=1) for code in np.unique(codes)]
    return np.concatenate(parts, axis=1)


def spread_out(points: np.ndarray, count: int, known: np.ndarray | None = None) -> np.ndarray:
    """Farthest points first: each is the one farthest from all chosen before.

    Args:
        points: [B, D].
        count: how many at most.
        known: [K, D] points chosen earlier; without any, the first is the one farthest from the mean.

    Returns:
        Indices [min(count, B)] in the order of the choice.
    """
    distance = np.linalg.norm(points - points.mean(axis=0), axis=1)
    if known is not None and len(known):
        distance = np.full(len(points), np.inf)
        for one in known:
            np.minimum(distance, np.linalg.norm(points - one, axis=1), out=distance)
    chosen: list[int] = []
    free = known is None or not len(known)
    for _ in range(min(count, len(points))):
        k = int(np.argmax(distance))
        chosen.append(k)
        to_it = np.linalg.norm(points - points[k], axis=1)
        distance = to_it if free and len(chosen) == 1 else np.minimum(distance, to_it)
        distance[chosen] = -1.0
    return np.array(chosen, dtype=np.int64)
