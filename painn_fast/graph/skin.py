"""A neighbour list with a skin for many copies of one structure, rebuilt copy by copy when its atoms have moved."""

from __future__ import annotations

import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.batch import OF_MOLECULES, AtomicBatch
from painn_fast.graph.neighbors import Edges, joined, neighbor_list

SKIN = 1.0
"""Å."""


class SkinList:
    """Edges of copies that move a little at every step.

    A copy's list holds all pairs within cutoff + skin at its reference positions, and stays complete until one of its
    atoms is more than skin / 2 from there. The displacement is taken as it is, never by minimum image: an atom put back
    into the cell has moved a whole cell vector and its shifts are wrong.

    Args:
        one: a batch of the structure alone: elements, cell, charge and spin of every copy.
        cutoff: Å.
        skin: Å.
    """

    def __init__(self, one: AtomicBatch, cutoff: float, *, skin: float = SKIN) -> None:
        self.one = one
        self.numbers, self.cell, self.pbc = one.numbers, one.cell[0], one.pbc[0]
        self.cutoff, self.skin = cutoff, skin
        self.reference = torch.full_like(one.positions[None][:0], float("nan"))  # [B, n, 3]
        self.builds = 0
        self._edges: list[Edges] = []
        self._batch: AtomicBatch | None = None

    def batch(self, positions: Tensor) -> AtomicBatch:
        """The batch of all copies at positions [B, n, 3] Å.

        A copy that had a list once and has left where there can be one (positions that are not finite or absurdly far,
        all atoms at one point) is at NaN there: what a model gives for it is NaN, and the others go on.

        Raises:
            PaiNNFastError: if there is no list for the first positions of a copy.
        """
        if positions.shape != self.reference.shape:
            self.reference = torch.full_like(positions, float("nan"))
            self._edges = [Edges(*self.numbers[:0].expand(4, 0))] * len(positions)
        moved = (positions - self.reference).square().sum(-1).amax(1)  # [B]
        stale = torch.nonzero(~(moved <= (0.5 * self.skin) ** 2))[:, 0].tolist()  # NaN counts as moved
        if stale:
            positions = self._rebuild_all(stale, positions)
        assert self._batch is not None
        return self._batch.with_positions(positions.reshape(-1, 3))

    def rebuild_at(self, reference: Tensor) -> None:
        """Take up the lists of an earlier run: those that belong to its reference positions [B, n, 3]."""
        self.reference = reference[:0]
        self.batch(reference)

    def _rebuild_all(self, copies: list[int], positions: Tensor) -> Tensor:
        """Lists of these copies; the positions [B, n, 3] with NaN for those that have none any more."""
        builds, lost = self.builds, []
        for copy in copies:
            try:
                self._rebuild(copy, positions[copy])
            except PaiNNFastError:
                if bool(self.reference[copy].isnan().any()):
                    raise
                lost.append(copy)
        if self.builds > builds:
            self._batch = self._join()
        if lost:
            positions = positions.clone()
            positions[lost] = torch.nan
        return positions

    def _rebuild(self, copy: int, positions: Tensor) -> None:
        place, cell, pbc = (tensor.cpu().numpy() for tensor in (positions, self.cell, self.pbc))
        edges = neighbor_list(place, cell, pbc, self.cutoff + self.skin, lambda: f"copy {copy}")
        self._edges[copy] = Edges(*(tensor.to(positions.device) for tensor in edges))
        self.reference[copy] = positions
        self.builds += 1

    def _join(self) -> AtomicBatch:
        copies, n = self.reference.shape[:2]
        same = {name: getattr(self.one, name).repeat_interleave(copies, 0) for name in OF_MOLECULES}
        return AtomicBatch.of(
            self.one.n_atoms.repeat(copies),
            joined(self._edges, [n] * copies),
            numbers=self.numbers.repeat(copies),
            positions=self.reference.reshape(-1, 3),
            **same,
        )
