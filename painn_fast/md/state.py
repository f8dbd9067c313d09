"""What moves: S trajectories of P beads of N atoms, in one set of tensors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import ase
import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.cells import check_cell, check_far
from painn_fast.graph.charge import charge_and_multiplicity, set_charge_and_multiplicity

MASSES = (1e-6, 1e12)
"""amu: from lighter than an electron to atoms that stand still."""


@dataclass(frozen=True)
class System:
    """What does not move: one molecule or crystal, the same in every copy."""

    numbers: Tensor  # [N] int64
    masses: Tensor  # [N] float64, amu
    cell: Tensor  # [3, 3] float64, Å, rows are the vectors
    pbc: Tensor  # [3] bool
    total_charge: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))  # [] e
    spin_multiplicity: Tensor = field(default_factory=lambda: torch.ones((), dtype=torch.float64))  # [] 2S + 1
    tags: Tensor | None = None  # [N] int64, of the user's; nothing depends on them

    @classmethod
    def from_atoms(cls, atoms: ase.Atoms, device: torch.device | str = "cpu") -> System:
        """Atomic numbers, masses (isotopes included), cell, periodicity, charge, spin multiplicity and tags of `atoms`.

        Raises:
            PaiNNFastError: for an empty structure, positions that are not finite or absurdly large, numbers of no
                element, a cell whose periodic vectors span nothing, masses that are not positive, a charge or a spin
                that cannot be read.
        """
        if len(atoms) == 0:
            raise PaiNNFastError("a structure without atoms", expected="at least one atom")
        wrong = ~np.isfinite(atoms.positions).all(axis=1)
        if wrong.any():
            atom = int(np.flatnonzero(wrong)[0])
            raise PaiNNFastError(
                "positions are not finite", where=f"atom {atom}", got=atoms.positions[atom], expected="numbers in Å"
            )
        known = (atoms.numbers >= 0) & (atoms.numbers < len(chemical_symbols))
        if not known.all():
            atom = int(known.argmin())
            raise PaiNNFastError(
                "no such element", where=f"atom {atom}", got=int(atoms.numbers[atom]),
                expected=f"atomic numbers up to {len(chemical_symbols) - 1}",
            )  # fmt: skip
        check_far(atoms.positions, atoms.get_chemical_formula)
        check_cell(atoms.cell.array, atoms.pbc, atoms.get_chemical_formula)
        masses = atoms.get_masses()
        sensible = (masses >= MASSES[0]) & (masses <= MASSES[1])  # false for NaN
        if not sensible.all():
            atom = int(sensible.argmin())
            raise PaiNNFastError(
                "masses must be positive and finite", where=f"atom {atom}", got=masses[atom],
                expected=f"{MASSES[0]:g} to {MASSES[1]:g} amu",
            )  # fmt: skip
        charge, multiplicity = charge_and_multiplicity(atoms.info, where=atoms.get_chemical_formula())
        return cls(
            numbers=torch.tensor(atoms.numbers, dtype=torch.int64, device=device),
            masses=torch.tensor(masses, dtype=torch.float64, device=device),
            cell=torch.tensor(atoms.cell.array, dtype=torch.float64, device=device),
            pbc=torch.tensor(atoms.pbc, dtype=torch.bool, device=device),
            total_charge=torch.tensor(charge, dtype=torch.float64, device=device),
            spin_multiplicity=torch.tensor(multiplicity, dtype=torch.float64, device=device),
            tags=torch.tensor(atoms.get_tags(), dtype=torch.int64, device=device) if atoms.has("tags") else None,
        )

    @property
    def n_atoms(self) -> int:
        """N."""
        return self.numbers.shape[0]

    def atoms(self, positions: np.ndarray | Tensor) -> ase.Atoms:
        """`ase.Atoms` of this system at positions [N, 3] Å; charge and spin multiplicity stand in `info`."""
        atoms = ase.Atoms(
            self.numbers.cpu().numpy(),
            positions=np.asarray(positions),
            masses=self.masses.cpu().numpy(),
            cell=self.cell.cpu().numpy(),
            pbc=self.pbc.cpu().numpy(),
            tags=None if self.tags is None else self.tags.cpu().numpy(),
        )
        set_charge_and_multiplicity(atoms.info, float(self.total_charge), float(self.spin_multiplicity))
        return atoms


@dataclass
class State:
    """Everything that a step changes. Steps work in place."""

    positions: Tensor  # [S, P, N, 3] float64, Å, never wrapped into the cell
    momenta: Tensor  # [S, P, N, 3] float64, amu Å/fs
    forces: Tensor  # [S, P, N, 3] float64, eV/Å, at `positions`
    energy: Tensor  # [S, P] float64, eV, potential energy of each copy
    heat: Tensor  # [S] float64, eV, given to the ring polymer by the thermostat so far
    trajectory: Tensor  # [S] int64, numbers that key the noise
    alive: Tensor  # [S] bool, False once a limit is exceeded
    step: int = 0

    @classmethod
    def at(cls, positions: Tensor, momenta: Tensor, trajectory: Tensor | None = None) -> State:
        """A state at step 0 with forces and energy still to be evaluated (NaN until then)."""
        S, P = positions.shape[:2]
        device = positions.device
        return cls(
            positions=positions.clone(),
            momenta=momenta.clone(),
            forces=torch.full_like(positions, float("nan")),
            energy=torch.full((S, P), float("nan"), dtype=torch.float64, device=device),
            heat=torch.zeros(S, dtype=torch.float64, device=device),
            trajectory=torch.arange(S, device=device) if trajectory is None else trajectory.to(device),
            alive=torch.ones(S, dtype=torch.bool, device=device),
        )

    def take(self, energy: Tensor, forces: Tensor) -> None:
        """Energy [S P] eV and forces [S P, N, 3] eV/Å of all copies."""
        self.energy.copy_(energy.view_as(self.energy))
        self.forces.copy_(forces.view_as(self.forces))

    @property
    def copies(self) -> Tensor:
        """Positions as one batch of structures [S P, N, 3], a view."""
        return self.positions.flatten(0, 1)

    def to(self, device: torch.device | str) -> State:
        """The same state on another device."""
        return State(**{name: value.to(device) for name, value in self.tensors().items()}, step=self.step)

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are tensors, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "step"}
