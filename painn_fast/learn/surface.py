"""Potential energy surfaces by any method that labels, in worker processes: for ring polymers, minima, differences."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.label.methods import How
from painn_fast.label.workers import Entry, Workers
from painn_fast.md import ForceField

Energies = tuple[np.ndarray, np.ndarray]
"""energies [B] eV, forces [B, n, 3] eV/Å."""
Evaluate = Callable[[Sequence[ase.Atoms]], Energies]


class MethodForces(ForceField):
    """A method as a force field of one molecule.

    Args:
        how: the method.
        atoms: elements, charge and spin multiplicity.
        workers: processes, or their number; default: one for each processor.

    Example:
        >>> import torch
        >>> from ase.build import molecule
        >>> from painn_fast.label.methods import How
        >>> from painn_fast.learn.surface import MethodForces
        >>> water = molecule("H2O")
        >>> with MethodForces(How("model:ethanol"), water) as field:
        ...     energy, forces = field(torch.tensor(water.positions).expand(3, -1, -1))  # eV, eV/Å
        >>> energy.shape, forces.shape
        (torch.Size([3]), torch.Size([3, 3, 3]))
    """

    def __init__(self, how: How, atoms: ase.Atoms, workers: int | Workers | None = None) -> None:
        self.how, self.atoms = how, how.charged(atoms)
        count = workers or os.cpu_count() or 1
        self.workers = count if isinstance(count, Workers) else Workers(how, count)

    def __enter__(self) -> Self:
        self.workers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.workers.__exit__(kind, error, trace)

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        energies, forces = self.evaluated(self.structures(positions.numpy(force=True)))
        return torch.from_numpy(energies).to(positions), torch.from_numpy(forces).to(positions)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to take up: forces depend on positions alone."""
        return

    def evaluated(self, structures: Sequence[ase.Atoms]) -> Energies:
        """Energies and forces; NaN where the method fails.

        Raises:
            PaiNNFastError: if it fails for all of them.
        """
        entries = self.entries(structures)
        failed = [entry["failed"] for entry in entries if "failed" in entry]
        if len(failed) == len(entries):
            raise PaiNNFastError(f"{self.how.method} fails", where=structures[0].get_chemical_formula(), got=failed[0])
        lost = {"energy": np.nan, "forces": np.full((len(self.atoms), 3), np.nan)}
        kept = [lost if "failed" in entry else entry for entry in entries]
        return np.array([one["energy"] for one in kept]), np.array([one["forces"] for one in kept])

    def entries(self, structures: Sequence[ase.Atoms], *, with_polarizability: bool = False) -> list[Entry]:
        """Labels of structures in their order."""
        return self.workers.all(structures, with_polarizability=with_polarizability)

    def structures(self, positions: np.ndarray) -> list[ase.Atoms]:
        """The molecule at positions [B, n, 3]."""
        frames = [self.atoms.copy() for _ in positions]
        for frame, x in zip(frames, positions, strict=True):
            frame.positions = x
        return frames
