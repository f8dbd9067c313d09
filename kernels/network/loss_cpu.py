"""A loss of squares on a CPU: its value, and the adjoints that the passes of its gradient begin with."""

from __future__ import annotations

import numpy as np

from painn_fast.kernels.jit import compiled
from painn_fast.kernels.simd import LANES, load, store


@compiled(nogil=True)
def energy_squares(
    read: np.ndarray, ends: np.ndarray, label: np.ndarray, weight: np.ndarray, g_read: np.ndarray
) -> float:
    """Sum of weight [M] times the square of (sum of read [N] over a molecule - label [M]); g_read [N] its derivative.

    `ends` [N]: of each row the end of its molecule. A label that is NaN counts for nothing. Sums are float64.
    """
    loss, start, molecule = 0.0, 0, 0
    while start < ends.shape[0]:
        stop, error = ends[start], -label[molecule]
        for i in range(start, stop):
            error += np.float64(read[i])
        if label[molecule] != label[molecule]:
            error = 0.0
        loss += weight[molecule] * error * error
        for i in range(start, stop):
            g_read[i] = 2.0 * weight[molecule] * error
        start, molecule = stop, molecule + 1
    return loss


@compiled(nogil=True)
def force_squares(
    g_edge: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray, mirror: np.ndarray, label: np.ndarray, weight: float,
    slope: np.ndarray, t_edge: np.ndarray,
) -> float:  # fmt: skip
    """weight times the sum of squares of forces - label [N, 3]; t_edge [E, 3] is its derivative in g_edge [E, 3].

    Forces are minus the derivative in the positions of what has g_edge as its derivative in R_sender - R_receiver. A
    label that is NaN counts for nothing. `slope` [N, 3] is room. Sums are float64.
    """
    loss = 0.0
    for i in range(row_ptr.shape[0] - 1):
        for k in range(3):
            error = -label[i, k]
            for e in range(row_ptr[i], row_ptr[i + 1]):
                error += np.float64(g_edge[e, k]) - np.float64(g_edge[mirror[e], k])
            if label[i, k] != label[i, k]:
                error = 0.0
            loss += weight * error * error
            slope[i, k] = 2.0 * weight * error
    for i in range(row_ptr.shape[0] - 1):
        for e in range(row_ptr[i], row_ptr[i + 1]):
            for k in range(3):
                t_edge[e, k] = slope[i, k] - slope[sender[e], k]
    return loss


@compiled(nogil=True)
def add_parts(parts: np.ndarray, source: np.ndarray, target: np.ndarray, size: np.ndarray, out: np.ndarray) -> None:
    """out[target : target + size] = sum of the rows of parts [P, .] from `source` on, for all S of each."""
    for k in range(source.shape[0]):
        begin, to, c = source[k], target[k], 0
        while c + LANES <= size[k]:
            value = load(parts[0], begin + c)
            for p in range(1, parts.shape[0]):
                value = value + load(parts[p], begin + c)
            store(out, to + c, value)
            c += LANES
        while c < size[k]:
            out[to + c] = parts[0, begin + c]
            for p in range(1, parts.shape[0]):
                out[to + c] += parts[p, begin + c]
            c += 1


@compiled(nogil=True)
def add_filters(parts: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> None:
    """As `add_parts` for filters [L, K + 1, 3 F], with which parts begin: weight [L, 3 F, K] and bias [L, 3 F]."""
    columns, rows, at = weight.shape[1], weight.shape[2], 0
    for layer in range(weight.shape[0]):
        for k in range(rows + 1):
            for c in range(columns):
                value = parts[0, at]
                for p in range(1, parts.shape[0]):
                    value += parts[p, at]
                if k < rows:
                    weight[layer, c, k] = value
                else:
                    bias[layer, c] = value
                at += 1


@compiled(nogil=True)
def join_filters(weight: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """Filters [L, K + 1, 3 F] of weight [L, 3 F, K] and bias [L, 3 F]."""
    rows = weight.shape[2]
    for layer in range(weight.shape[0]):
        for c in range(weight.shape[1]):
            for k in range(rows):
                out[layer, k, c] = weight[layer, c, k]
            out[layer, rows, c] = bias[layer, c]
