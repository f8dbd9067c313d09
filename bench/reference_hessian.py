"""Harmonic lines by electronic structure: `python bench/reference_hessian.py START.xyz OUT.npz`.

It can be interrupted and started again; ethanol takes half an hour.
Relaxes START at PBE0/def2-SVPD (density fitting, PySCF), then takes central differences of analytic forces, dipoles and
polarizabilities with steps of 0.01 Å, whose h^2 error is 1 cm-1 for an O-H stretch and less for others.
OUT holds numbers, positions (Å), hessian [3 n, 3 n] (eV/Å^2), dipole_derivative [3, n, 3] (e),
polarizability_derivative [3, 3, n, 3] (Å^2); `tests/data/ethanol_*_pbe0_hessian.npz` were made in this way.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize import BFGS

from painn_fast.label.methods import How

LEVEL, OPTIONS = "PBE0/def2-SVPD", (("grid_level", 3), ("conv_tol", 1e-10))
STEP = 0.01
"""Å."""
CONVERGED = 1.5e-3
"""eV/Å, the largest force that may be left: the noise of the grid."""


class _Reference(Calculator):
    """Energies and forces of the method, for ASE's optimizer."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        labels = self.method(atoms, False)
        self.results = {name: labels[name] for name in self.implemented_properties}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    method = How("pyscf", LEVEL, OPTIONS).make()
    journal = given.out.with_suffix(".journal")
    records = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    if not records:
        atoms = ase.io.read(given.start)
        atoms.calc = _Reference(method)
        BFGS(atoms, logfile="-").run(fmax=CONVERGED, steps=100)
        records = [_keep(journal, {"positions": atoms.positions.tolist()})]
    atoms = ase.io.read(given.start)
    atoms.positions = records[0]["positions"]
    todo = [(k, sign) for k in range(3 * len(atoms)) for sign in (1, -1)]
    for number, (k, sign) in enumerate(todo):
        if number + 1 < len(records):
            continue
        moved = atoms.copy()
        moved.positions.flat[k] += sign * STEP
        labels = method(moved, True)
        kept = {name: np.asarray(labels[name]).tolist() for name in labels if name != "energy"}
        records.append(_keep(journal, kept))
        print(f"{number + 1} of {len(todo)}", flush=True)
    plus, minus = ({name: np.array([r[name] for r in records[k::2]]) for name in records[1]} for k in (1, 2))
    slope = {name: (plus[name] - minus[name]).reshape(len(plus[name]), -1) / (2 * STEP) for name in plus}
    hessian = -slope["forces"]
    np.savez_compressed(
        given.out,
        numbers=atoms.numbers,
        positions=atoms.positions,
        hessian=(hessian + hessian.T) / 2,
        dipole_derivative=slope["dipole"].T.reshape(3, -1, 3),
        polarizability_derivative=slope["polarizability"].T.reshape(3, 3, -1, 3),
        level=f"{LEVEL}, density fitting, grid level 3 (PySCF)",
    )


def _keep(journal: Path, record: dict[str, Any]) -> dict[str, Any]:
    with journal.open("a") as file:
        file.write(json.dumps(record) + "\n")
    return record


if __name__ == "__main__":
    main()
