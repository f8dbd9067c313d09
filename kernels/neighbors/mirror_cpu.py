"""Mirrors of a list of edges in any order, by matching edge vectors; O(E) for lists in a usual order."""

from __future__ import annotations

import numpy as np

from painn_fast.kernels.jit import compiled

ASYMMETRIC, ACROSS, INSIDE = 0, 1, 2
"""What `mirrors` returns: an edge has no opposite, or edges across molecules, or within molecules alone."""


@compiled(nogil=True, allocates=True)
def _rows(receiver: np.ndarray, sender: np.ndarray, row_ptr: np.ndarray, order: np.ndarray) -> bool:
    """row_ptr [N + 1] and order [E] by receiver; false if an index is not one of an atom."""
    n = row_ptr.shape[0] - 1
    row_ptr[:] = 0
    for e in range(receiver.shape[0]):
        if not (0 <= receiver[e] < n and 0 <= sender[e] < n):
            return False
        row_ptr[receiver[e] + 1] += 1
    for i in range(n):
        row_ptr[i + 1] += row_ptr[i]
    free = row_ptr[:-1].copy()
    for e in range(receiver.shape[0]):
        order[free[receiver[e]]] = e
        free[receiver[e]] += 1
    return True


@compiled(nogil=True)
def _opposite(r: np.ndarray, a: int, b: int, tolerance: float) -> bool:
    apart = (r[a, 0] + r[b, 0]) ** 2 + (r[a, 1] + r[b, 1]) ** 2 + (r[a, 2] + r[b, 2]) ** 2
    square = r[a, 0] ** 2 + r[a, 1] ** 2 + r[a, 2] ** 2
    return square > 0 and apart <= tolerance**2 * square  # false for NaN, infinity and atoms that coincide


@compiled(nogil=True, allocates=True)
def mirrors(
    receiver: np.ndarray, sender: np.ndarray, r: np.ndarray, molecule: np.ndarray, tolerance: float,
    row_ptr: np.ndarray, order: np.ndarray, mirror: np.ndarray,
) -> int:  # fmt: skip
    """Sort edges by receiver and find the opposite of each.

    Args:
        receiver, sender: [E], in any order.
        r: [E, 3] edge vectors.
        molecule: [N] number of each atom's molecule.
        tolerance: of |r_ij + r_ji|, relative to |r_ij|.
        row_ptr: [N + 1] result.
        order: [E] result, the edge at each position of the sorted list.
        mirror: [E] result, the position of the opposite of the edge at each position.
    """
    if not _rows(receiver, sender, row_ptr, order):
        return ASYMMETRIC
    mirror[:] = -1
    start = row_ptr[:-1].copy()  # the next opposite in a row mostly follows the last one
    inside = True
    for a in range(molecule.shape[0] - 1):
        inside &= molecule[a] <= molecule[a + 1]
    for p in range(order.shape[0]):
        if mirror[p] >= 0:
            continue
        e = order[p]
        i, j = receiver[e], sender[e]
        inside &= molecule[i] == molecule[j]
        degree = row_ptr[j + 1] - row_ptr[j]
        q = start[j]
        for _ in range(degree):
            if q >= row_ptr[j + 1]:
                q = row_ptr[j]
            if mirror[q] < 0 and q != p and sender[order[q]] == i and _opposite(r, e, order[q], tolerance):
                mirror[p], mirror[q] = q, p
                start[j] = q + 1
                break
            q += 1
        if mirror[p] < 0:
            return ASYMMETRIC
    return INSIDE if inside else ACROSS


@compiled(nogil=True)
def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of integers are equal."""
    different = 0
    for k in range(a.shape[0]):
        different |= a[k] ^ b[k]
    return different == 0
