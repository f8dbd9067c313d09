"""Neighbour lists: every pair for a molecule, vesin's cell list for crystals and large clusters."""

from __future__ import annotations

import numpy as np
import torch
import vesin
from torch import Tensor

from painn_fast.errors import PaiNNFastError


def all_pairs(n: int) -> tuple[Tensor, Tensor]:
    """Receiver and sender [n (n - 1)] of every ordered pair of n atoms, sorted by receiver, then sender."""
    receiver = torch.arange(n).repeat_interleave(max(n - 1, 0))
    other = torch.arange(max(n - 1, 0)).repeat(n)
    return receiver, other + (other >= receiver)


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs within `cutoff`, images included.

    Args:
        positions: [n, 3] Å.
        cell: [3, 3] Å, rows are the vectors.
        pbc: [3] periodic directions.
        cutoff: Å.

    Returns:
        receiver [E], sender [E], shift [E, 3] Å, sorted by receiver, sender and image.

    Raises:
        PaiNNFastError: if the list is not symmetric: every edge must have its mirror image.
    """
    box = np.array(cell, dtype=np.float64)
    if np.any(pbc) and not np.all(pbc):
        box = _filled(box, positions, np.asarray(pbc, dtype=bool))
    search = vesin.NeighborList(cutoff=float(cutoff), full_list=True)
    receiver, sender, image = search.compute(
        points=np.ascontiguousarray(positions, dtype=np.float64),
        box=box,
        periodic=np.asarray(pbc, dtype=bool),
        quantities="ijS",
    )
    receiver, sender = receiver.astype(np.int64), sender.astype(np.int64)
    image = image.astype(np.int64).reshape(-1, 3)
    order = np.lexsort((image[:, 2], image[:, 1], image[:, 0], sender, receiver))
    receiver, sender, image = receiver[order], sender[order], image[order]
    _check_symmetric(receiver, sender, image)
    shift = image.astype(np.float64) @ box
    return torch.from_numpy(receiver), torch.from_numpy(sender), torch.from_numpy(shift)


def _filled(box: np.ndarray, positions: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell with a vector for each open direction, long enough to hold all atoms, so that it has a volume."""
    box = box.copy()
    length = float(np.ptp(positions, axis=0).max(initial=0.0)) + 1.0
    for axis in np.flatnonzero(~pbc):
        box[axis] = 0.0
        basis = np.linalg.svd(box)[2]
        rank = int(np.linalg.matrix_rank(box))
        box[axis] = basis[rank] * length
    return box


def _check_symmetric(receiver: np.ndarray, sender: np.ndarray, image: np.ndarray) -> None:
    """Kernels find the mirror edge (i -> j, -S) of each edge (j -> i, S) in the row of j; its lack would be silent."""
    order = np.lexsort((-image[:, 2], -image[:, 1], -image[:, 0], receiver, sender))
    mirrored = np.array_equal(sender[order], receiver) and np.array_equal(receiver[order], sender)
    if not (mirrored and np.array_equal(-image[order], image)):
        raise PaiNNFastError(
            "the neighbour list is not symmetric",
            got=f"{len(receiver)} edges, some without their mirror image",
            fix="please report this structure; a pair lies on the cut-off within rounding",
        )
