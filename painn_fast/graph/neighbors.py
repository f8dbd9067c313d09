"""Neighbour lists: all pairs of a molecule or those within the cut-off; a cell list for crystals and large clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import vesin
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.cells import Name, check_cell, check_far, check_finite, check_size, heights
from painn_fast.kernels.neighbors import cpu

FARTHEST = 1e6
"""Cells between atoms; rounding of their positions is still far below that of float32."""
EMPTY = 1000
"""Cut-offs in the height of a cell beyond which it may be a mere box: images that no atom can see are left out."""


class Edges(NamedTuple):
    """Directed edges, sorted by receiver, sender and image; each has its opposite."""

    receiver: Tensor  # [E] int64
    sender: Tensor  # [E] int64
    shift: Tensor  # [E, 3] float64, Å
    mirror: Tensor  # [E] int64, index of the opposite


def molecule_lists(positions: np.ndarray, n_atoms: np.ndarray, cutoff: float) -> Edges:
    """Pairs within `cutoff` (Å, infinity for all) in molecules in vacuum, by comparing each atom with each.

    Args:
        positions: [N, 3] Å, of all molecules.
        n_atoms: [M].
        cutoff: Å.
    """
    atom_ptr = torch.from_numpy(np.append(0, np.cumsum(n_atoms)))
    row_ptr, sender, mirror = cpu.neighbors(torch.from_numpy(positions), atom_ptr, cutoff)
    receiver = torch.from_numpy(np.repeat(np.arange(len(positions)), np.diff(row_ptr.numpy())))
    return Edges(receiver, sender, torch.from_numpy(np.zeros((len(sender), 3))), mirror)


def neighbor_list(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float, where: Name = None) -> Edges:
    """Pairs within `cutoff`, images included.

    Args:
        positions: [n, 3] Å.
        cell: [3, 3] Å, rows are the vectors.
        pbc: [3] periodic directions.
        cutoff: Å.
        where: names the structure, if an error needs it.

    Raises:
        PaiNNFastError: for positions or cell vectors that are not finite or absurdly large, a periodic direction
            without a cell vector, parallel cell vectors, more neighbours than there can be; if atoms are so far outside
            the cell that numbers of images do not fit.
    """
    place = np.ascontiguousarray(positions, dtype=np.float64)
    periodic, box = np.array(pbc, dtype=bool), np.array(cell, dtype=np.float64)
    check_finite(place, where)
    check_cell(box, periodic, where)
    if not periodic.all():
        box = _filled(box, place, periodic)
    if periodic.any():
        apart = np.ptp(place @ np.linalg.inv(box), axis=0)  # cells
        if apart[periodic].max() > FARTHEST:  # images are numbers of 32 bits
            raise _too_far(float(apart[periodic].max()))
        height = heights(box)
        alone = periodic & (height > EMPTY * cutoff) & (apart * height + cutoff < height)
        if alone.any():
            periodic &= ~alone
            box = _filled(box, place, periodic)
    check_far(place, where)
    check_size(box, periodic, place, cutoff, where)
    search = vesin.NeighborList(cutoff=float(cutoff), full_list=False)  # one edge of each pair, in no order
    i, j, image = search.compute(points=place, box=box, periodic=periodic, quantities="ijS")
    i, j, image = i.astype(np.int64), j.astype(np.int64), image.reshape(-1, 3)
    order = np.argsort(_names(i, j, image), kind="stable")  # long runs are sorted already
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    half = image.astype(np.float64) @ box
    receiver, sender, shift = (np.concatenate(both)[order] for both in ((i, j), (j, i), (half, 0.0 - half)))
    mirror = np.concatenate([rank[len(i) :], rank[: len(i)]])[order]
    return Edges(*map(torch.from_numpy, (receiver, sender, shift, mirror)))


def joined(parts: Sequence[Edges], n_atoms: Sequence[int]) -> Edges:
    """The edges of parts with so many atoms each, in one list."""
    if len(parts) == 1:
        return parts[0]
    atom = np.cumsum([0, *n_atoms[:-1]]).tolist()
    edge = np.cumsum([0, *(len(part.receiver) for part in parts[:-1])]).tolist()
    return Edges(
        torch.cat([part.receiver + first for part, first in zip(parts, atom, strict=True)]),
        torch.cat([part.sender + first for part, first in zip(parts, atom, strict=True)]),
        torch.cat([part.shift for part in parts]),
        torch.cat([part.mirror + first for part, first in zip(parts, edge, strict=True)]),
    )


def _too_far(cells: float) -> PaiNNFastError:
    return PaiNNFastError(
        "atoms too far outside the cell", got=f"{cells:.4g} cells apart", fix="put them back, as with atoms.wrap()"
    )


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


def _names(i: np.ndarray, j: np.ndarray, image: np.ndarray) -> np.ndarray:
    """One number for each of the edges [2 E], those of pairs [E] and their opposites, that sorts as (receiver, sender,
    image) does."""
    reach = int(np.abs(image).max(initial=0))
    atoms, width = int(max(i.max(initial=0), j.max(initial=0))) + 1, 2 * reach + 1
    if atoms**2 * width**3 >= 2**63:
        raise _too_far(reach)
    number = (image + reach) @ np.array([width**2, width, 1])
    opposite = width**3 - 1 - number  # of the negative image
    return np.concatenate([(i * atoms + j) * width**3 + number, (j * atoms + i) * width**3 + opposite])
