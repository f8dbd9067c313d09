"""Copies of one structure in one batch, in a cell that may change from call to call."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import ase
import numpy as np
import torch

from painn_fast.ensemble import Several
from painn_fast.evaluate import evaluate_batch, report_ignored_charges
from painn_fast.graph import AtomicBatch, batch_arrays, batch_atoms
from painn_fast.graph.kept import Workspaces, is_small
from painn_fast.graph.skin import SkinList
from painn_fast.kernels import threads
from painn_fast.nn import Potential


class Copies:
    """Evaluates copies of a structure; neighbour lists and workspaces are kept as long as they hold.

    Args:
        model: a potential, an ensemble or a sum.
        atoms: elements, periodic directions, charge and spin multiplicity; it is changed.
        backend: "auto", "fused" or "reference".
    """

    def __init__(self, model: Potential | Several, atoms: ase.Atoms, backend: str = "auto") -> None:
        self.model, self.atoms, self.backend = model, atoms, backend
        self._built_for: tuple[object, ...] | None = None
        self._all_pairs: AtomicBatch | None = None
        self._list: SkinList | None = None
        self._builds = 0
        self._kept: Workspaces = WeakKeyDictionary()

    def __call__(
        self, positions: np.ndarray, properties: Sequence[str] = ("energy", "forces")
    ) -> dict[str, list[float | np.ndarray]]:
        """Properties of copies at positions [B, n, 3] Å in the cell that `atoms` has now.

        Returns:
            As `painn_fast.evaluate`.

        Raises:
            PaiNNFastError: as `painn_fast.evaluate` does; names a copy by its index.
        """
        batch = self._batch(positions)
        return evaluate_batch(self.model, batch, properties, backend=self.backend, kept=self._kept)

    def _batch(self, positions: np.ndarray) -> AtomicBatch:
        key = (len(positions), self.atoms.cell.array.tobytes(), threads.count())
        if self._built_for != key:
            self._build(positions)
            self._built_for = key
        placed = torch.from_numpy(positions).to(self.model.device)
        if self._all_pairs is not None:
            return self._all_pairs.with_positions(placed.reshape(-1, 3))
        assert self._list is not None
        batch = self._list.batch(placed)
        if self._list.builds != self._builds:
            self._builds, self._kept = self._list.builds, WeakKeyDictionary()
        return batch

    def _build(self, positions: np.ndarray) -> None:
        """Of a structure that is refused nothing is kept."""
        self._built_for = None
        self.atoms.positions = positions[0]
        one = batch_atoms([self.atoms], self.model.cutoff)
        self.model.check(one, ("energy", "forces"))
        report_ignored_charges(self.model, one)
        self._kept, self._builds, self._all_pairs, self._list = WeakKeyDictionary(), 0, None, None
        if is_small(self.atoms):
            charge, spin = float(one.total_charge[0]), float(one.spin_multiplicity[0])
            pairs = batch_arrays(one.numbers, positions, total_charge=charge, spin=spin)
            self._all_pairs = pairs.to(self.model.device)
        else:
            self._list = SkinList(one.to(self.model.device), self.model.cutoff)
