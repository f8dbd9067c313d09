"""The graph of a structure that is evaluated again and again, kept as long as its neighbour list holds."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import ase
import numpy as np
import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.batch import ALL_PAIRS_UP_TO, CLOSEST, AtomicBatch, batch_atoms
from painn_fast.graph.cells import FARTHEST
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.kernels import threads
from painn_fast.kernels.neighbors.cpu import list_holds

INT64, FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
Workspaces = MutableMapping[Any, Any]
"""What engines keep for a graph, by engine; one that is gone takes its workspace with it."""


class _Graph(NamedTuple):
    key: tuple[Any, ...]
    batch: AtomicBatch
    arrays: tuple[np.ndarray, ...]  # positions [n, 3] Å that the list was made for, receiver, sender [E], shift [E, 3]
    skin: float  # Å, infinite for all pairs
    workspaces: Workspaces

    def serves(self, skin: Callable[[], float]) -> bool:
        """Whether the caller takes a list with this skin."""
        return self.skin in (0.0, np.inf) or self.skin == skin()

    def holds(self, positions: np.ndarray) -> bool:
        """Whether the list is complete at positions [n, 3] Å, and `batch_atoms` has nothing to refuse there."""
        return bool(list_holds(positions, *self.arrays, (0.5 * self.skin) ** 2, FARTHEST, CLOSEST**2))


class KeptGraph:
    """The graph of the last structure and the workspaces of engines for it, until it has to be built again.

    All pairs of a small molecule hold at any positions. A larger or periodic structure whose atoms move a little from
    one call to the next gets a list with a skin, which holds until an atom has moved by half of it. Other elements,
    another cell, periodic directions, charge, multiplicity, cut-off, device or number of threads make another graph.
    Copies begin without one.
    """

    def __init__(self) -> None:
        self._last: _Graph | None = None
        self._positions = np.empty((0, 3))  # of the last call
        self.builds = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptGraph:
        return KeptGraph()

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptGraph, ()

    def batch(
        self, atoms: ase.Atoms, cutoff: float, device: torch.device, skin: Callable[[], float] = float
    ) -> tuple[AtomicBatch, Workspaces | None]:
        """A structure as a batch of one, with the workspaces for its graph; none where nothing can be kept.

        Args:
            atoms: the structure.
            cutoff: Å.
            device: of the batch.
            skin: gives the one that a list of a large structure may have, Å; 0 where pairs beyond the cut-off would
                change a bit of the results.

        Raises:
            PaiNNFastError: as `batch_atoms` does.
        """
        key, place = _key(atoms, cutoff, device), atoms.positions
        last = self._last
        if last is None or last.key != key or not last.serves(skin) or not last.holds(place):
            return self._build(atoms, cutoff, device, key, skin)
        self._positions = now = place.copy()
        return last.batch.with_positions(torch.from_numpy(now).to(device)), last.workspaces

    def _build(
        self, atoms: ase.Atoms, cutoff: float, device: torch.device, key: Any, skin: Callable[[], float]
    ) -> tuple[AtomicBatch, Workspaces | None]:
        """A new graph, with a skin if it would have held since the last call."""
        last, extra = self._last, 0.0
        if last is not None and last.key == key and not is_small(atoms):
            step = float(np.abs(atoms.positions - self._positions).max())
            extra = skin() if step <= 0.25 * skin() else 0.0
        batch, extra = _built(atoms, cutoff, extra)
        self.builds += 1
        if key is None:
            return batch.to(device), None
        arrays = tuple(tensor.numpy() for tensor in (batch.positions, batch.receiver, batch.sender, batch.shift))
        graph = _Graph(key, batch.to(device), arrays, extra, WeakKeyDictionary())
        self._last, self._positions = graph, arrays[0]
        return graph.batch, graph.workspaces


def is_small(atoms: ase.Atoms) -> bool:
    """Whether the list of a structure is every pair."""
    return len(atoms) <= ALL_PAIRS_UP_TO and True not in atoms.pbc.tolist()


def _built(atoms: ase.Atoms, cutoff: float, skin: float) -> tuple[AtomicBatch, float]:
    """The graph, and the skin that it has: none where a longer list would be refused."""
    if skin:
        try:
            return batch_atoms([atoms], cutoff + skin), skin
        except PaiNNFastError:  # raised again below, unless the skin is the reason
            pass
    return batch_atoms([atoms], cutoff), np.inf if is_small(atoms) else 0.0


def _key(atoms: ase.Atoms, cutoff: float, device: torch.device) -> tuple[Any, ...] | None:
    """All but the positions that a graph depends on; None for arrays that have to be converted, or are refused."""
    numbers, positions = atoms.arrays.get("numbers"), atoms.arrays.get("positions")
    if not (
        isinstance(numbers, np.ndarray) and numbers.dtype == INT64
        and isinstance(positions, np.ndarray) and positions.dtype == FLOAT64
        and positions.shape == (*numbers.shape, 3) and positions.flags.c_contiguous
    ):  # fmt: skip
        return None
    try:
        electronic = charge_and_multiplicity(atoms.info, where="") if atoms.info else None
    except PaiNNFastError:
        return None
    fixed = (numbers.tobytes(), atoms.cell.array.tobytes(), atoms.pbc.tobytes())
    return (*fixed, electronic, cutoff, device, threads.count())
