"""Water with springs between all atoms, and the dipole of point charges: a reference that costs nothing."""

import os
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

LENGTHS = {(0, 1): 0.97, (0, 2): 0.97, (1, 2): 1.55}
"""Å."""
STIFFNESS = {(0, 1): 40.0, (0, 2): 40.0, (1, 2): 10.0}
"""eV/Å^2."""
CHARGES = np.array([-0.8, 0.4, 0.4])
"""e."""


class SpringWater(Calculator):
    """Atoms O, H, H."""

    implemented_properties = ["energy", "forces", "dipole"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions
        energy, forces = 0.0, np.zeros((3, 3))
        for (i, j), length in LENGTHS.items():
            r = x[j] - x[i]
            stretch = np.linalg.norm(r) - length
            push = STIFFNESS[i, j] * stretch * r / np.linalg.norm(r)
            energy += 0.5 * STIFFNESS[i, j] * stretch**2
            forces[i] += push
            forces[j] -= push
        self.results = {"energy": energy, "forces": forces, "dipole": CHARGES @ x}


class DearWater(SpringWater):
    """Stiffer springs, and another zero of the energy."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = 1.1 * self.results["energy"] - 2000.0
        self.results["forces"] *= 1.1


class CountedWater(SpringWater):
    """The same; `log` is a file with a line for each structure that was computed."""

    def __init__(self, log: str) -> None:
        super().__init__()
        self.log = Path(log)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        with self.log.open("a") as file:
            file.write(f"{self.atoms.positions.round(7).tolist()}\n")


class ProcessWater(SpringWater):
    """The same; the energy in eV is the number of its process, or zero where that has more than one thread."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = float(os.getpid()) if os.environ.get("OMP_NUM_THREADS") == "1" else 0.0
        with Path(os.environ["PROCESS_WATER"]).open("a") as file:
            file.write(f"{self.results['energy']:.0f}\n")
