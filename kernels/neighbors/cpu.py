"""All pairs within a cut-off on a CPU. No fast-math: a pair is in or out by the same rounding as everywhere else."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from painn_fast.kernels.jit import compiled


@compiled(nogil=True, inline="always")
def _near(positions, i, j, square):  # type: ignore[no-untyped-def]
    x = positions[j, 0] - positions[i, 0]
    y = positions[j, 1] - positions[i, 1]
    z = positions[j, 2] - positions[i, 2]
    d = x * x + y * y + z * z
    return not (square <= d < np.inf)  # NaN and infinity are for the network to answer with NaN


@compiled(nogil=True)
def count_kernel(positions: np.ndarray, atom_ptr: np.ndarray, square: float, row_ptr: np.ndarray) -> None:
    """row_ptr [N + 1] of all edges, whatever the room."""
    row_ptr[0] = 0
    for m in range(atom_ptr.shape[0] - 1):
        for i in range(atom_ptr[m], atom_ptr[m + 1]):
            degree = 0
            for j in range(atom_ptr[m], atom_ptr[m + 1]):
                degree += j != i and _near(positions, i, j, square)
            row_ptr[i + 1] = row_ptr[i] + degree


@compiled(nogil=True, allocates=True)
def fill_kernel(
    positions: np.ndarray, atom_ptr: np.ndarray, square: float, row_ptr: np.ndarray, sender: np.ndarray,
    mirror: np.ndarray,
) -> None:  # fmt: skip
    """sender and mirror [E]."""
    next_in = row_ptr[:-1].copy()  # rows have their senders in order, so that receivers come to each row in order too
    for m in range(atom_ptr.shape[0] - 1):
        for i in range(atom_ptr[m], atom_ptr[m + 1]):
            e = row_ptr[i]
            for j in range(atom_ptr[m], atom_ptr[m + 1]):
                if j != i and _near(positions, i, j, square):
                    sender[e], mirror[e] = j, next_in[j]
                    next_in[j] += 1
                    e += 1


@compiled(nogil=True)
def list_holds(
    positions: np.ndarray, reference: np.ndarray, receiver: np.ndarray, sender: np.ndarray, shift: np.ndarray,
    moved: float, farthest: float, closest: float,
) -> bool:  # fmt: skip
    """Whether a list [E] that was made at `reference` [N, 3] serves at `positions` [N, 3] too.

    No atom has moved by more than the root of `moved`, no coordinate is beyond `farthest` or no number, and no two
    atoms of an edge are nearer than the root of `closest`, or so near to that that rounding decides.
    """
    for i in range(positions.shape[0]):
        d = 0.0
        for c in range(3):
            if not abs(positions[i, c]) <= farthest:
                return False
            d += (positions[i, c] - reference[i, c]) ** 2
        if not d <= moved:
            return False
    for e in range(receiver.shape[0]):
        d = 0.0
        for c in range(3):
            d += (positions[sender[e], c] - positions[receiver[e], c] + shift[e, c]) ** 2
        if d < closest * 1.000001:
            return False
    return True


def neighbors(positions: Tensor, atom_ptr: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.neighbors`."""
    row_ptr = torch.empty(len(positions) + 1, dtype=torch.int64)
    given = (positions.contiguous().numpy(), atom_ptr.contiguous().numpy(), cutoff * cutoff, row_ptr.numpy())
    count_kernel(*given)
    sender, mirror = row_ptr.new_empty(2, int(row_ptr[-1]))
    fill_kernel(*given, sender.numpy(), mirror.numpy())
    return row_ptr, sender, mirror
