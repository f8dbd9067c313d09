"""Labelled structures as a training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import charge_and_multiplicity, set_charge_and_multiplicity
from painn_fast.runtime.atomic import atomic_write
from painn_fast.train.data.dataset import SHAPES

NPZ = ".npz"
FORMATS = (".xyz", ".extxyz", NPZ)
UNITS = {
    "energy": "eV", "forces": "eV/Ang", "stress": "eV/Ang^3", "dipole": "e Ang", "polarizability": "Ang^3",
}  # fmt: skip
"""Labels and the units that they are written in."""
IN_NPZ = {"energy": "E", "forces": "F"}
"""Names of labels in `.npz` that differ."""
OLD = {*UNITS, "force", "mu", "alpha", "theory", "free_energy"}
"""Names of labels that a structure may bring along from an earlier labelling."""


def write(path: Path, structures: list[ase.Atoms], labels: list[dict[str, Any]], level: str) -> None:
    """Write `.npz` (structures of one composition) or extended XYZ, in eV, eV/Å, eV/Å³, e Å and Å³.

    Either has cell, periodicity, charge, spin multiplicity, masses and tags of the structures, the units of all labels
    and the level of theory.

    Args:
        path: file.
        structures: n of them.
        labels: of each, as `painn_fast.label.methods.Labels`.
        level: of theory.

    Raises:
        PaiNNFastError: for structures of different compositions in one `.npz`.
    """
    with atomic_write(path) as temporary:
        if path.suffix == NPZ:
            check_composition(structures, path)
            _write_npz(temporary, structures, labels, level)
        else:
            frames = [_with_labels(atoms, own, level) for atoms, own in zip(structures, labels, strict=True)]
            ase.io.write(temporary, frames, format="extxyz")


def _with_labels(atoms: ase.Atoms, labels: dict[str, Any], level: str) -> ase.Atoms:
    labelled = atoms.copy()
    labelled.set_constraint()  # or readers that honour it would see forces of 0
    for name in list(labelled.info):
        if str(name).removesuffix("_unit").lower() in OLD:
            del labelled.info[name]
    for name in OLD & labelled.arrays.keys():
        del labelled.arrays[name]
    charge, multiplicity = charge_and_multiplicity(atoms.info, where=atoms.get_chemical_formula())
    set_charge_and_multiplicity(labelled.info, charge, multiplicity)
    own = {name: labels[name] for name in ("energy", "forces", "stress", "dipole") if name in labels}
    results = {name: value if name == "energy" else np.asarray(value) for name, value in own.items()}
    labelled.calc = SinglePointCalculator(labelled, **results)
    if "polarizability" in labels:
        labelled.info["polarizability"] = np.asarray(labels["polarizability"]).reshape(9)
    labelled.info |= {f"{name}_unit": unit for name, unit in UNITS.items() if name in labels}
    labelled.info |= {"length_unit": "Ang", "theory": level}
    return labelled


def check_composition(structures: list[ase.Atoms], path: Path) -> None:
    """Refuse structures that one `.npz` does not take: of other atoms, or in another order, than the first.

    Raises:
        PaiNNFastError: naming the first of them.
    """
    first = structures[0]
    for k, atoms in enumerate(structures):
        if not np.array_equal(atoms.numbers, first.numbers):
            raise PaiNNFastError(
                "structures of different compositions", where=path,
                got=f"structure {k}: {atoms.symbols}, structure 0: {first.symbols}",
                expected="the same atoms in the same order", fix="choose an output .xyz",
            )  # fmt: skip


def _write_npz(temporary: Path, structures: list[ase.Atoms], labels: list[dict[str, Any]], level: str) -> None:
    numbers = structures[0].numbers
    shapes = {name: SHAPES.get(name, ()) for name in UNITS} | {"forces": (len(numbers), 3)}
    arrays: dict[str, np.ndarray] = {
        IN_NPZ.get(name, name): np.array(
            [_full(name, entry[name]) if name in entry else np.full(shape, np.nan) for entry in labels]
        )
        for name, shape in shapes.items()
        if any(name in entry for entry in labels)
    }
    arrays |= {"R": np.array([atoms.positions for atoms in structures]), "z": numbers, "theory": np.array(level)}
    arrays |= _geometry(structures)
    arrays |= {f"{name}_unit": np.array(unit) for name, unit in UNITS.items() if IN_NPZ.get(name, name) in arrays}
    arrays["length_unit"] = np.array("Ang")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its keyword allow_pickle is no array


def _full(name: str, value: Any) -> np.ndarray:
    """A label as it is written, stress [3, 3]."""
    array = np.asarray(value, dtype=np.float64)
    return voigt_6_to_full_3x3_stress(array) if name == "stress" and array.shape == (6,) else array


def _geometry(structures: list[ase.Atoms]) -> dict[str, np.ndarray]:
    """Arrays beside elements and positions that one of the structures has: cell [n, 3, 3] Å, rows are the vectors, pbc
    [n, 3], charge e and spin 2S + 1 [n, 1], masses amu and tags [n, a]."""
    arrays: dict[str, np.ndarray] = {}
    if any(atoms.cell.array.any() for atoms in structures):
        arrays["cell"] = np.array([atoms.cell.array for atoms in structures])
        arrays["pbc"] = np.array([atoms.pbc for atoms in structures])
    both = np.array([charge_and_multiplicity(a.info, where=a.get_chemical_formula()) for a in structures])
    if (both != (0.0, 1.0)).any():
        arrays |= {"charge": both[:, :1], "spin": both[:, 1:]}  # [n, 1]: with n atoms, [n] may be taken for theirs
    for name, read in (("masses", ase.Atoms.get_masses), ("tags", ase.Atoms.get_tags)):
        if any(atoms.has(name) for atoms in structures):
            arrays[name] = np.array([read(atoms) for atoms in structures])
    return arrays
