"""Labelled structures as a training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from painn_fast.atomic import atomic_write
from painn_fast.errors import PaiNNFastError

FORMATS = (".xyz", ".extxyz", ".npz")


def write(path: Path, structures: list[ase.Atoms], labels: list[dict[str, Any]], level: str) -> None:
    """Write `.npz` (structures of one composition) or extended XYZ, in eV, eV/Å, e Å and Å³.

    Raises:
        PaiNNFastError: for structures of different compositions in one `.npz`.
    """
    with atomic_write(path) as temporary:
        if path.suffix == ".npz":
            _write_npz(temporary, structures, labels, level, path)
        else:
            ase.io.write(
                temporary, [_with_labels(*pair) for pair in zip(structures, labels, strict=True)], format="extxyz"
            )


def _with_labels(atoms: ase.Atoms, labels: dict[str, Any]) -> ase.Atoms:
    labelled = atoms.copy()
    own = {name: np.asarray(labels[name]) for name in ("forces", "dipole") if name in labels}
    labelled.calc = SinglePointCalculator(labelled, energy=labels["energy"], **own)
    if "polarizability" in labels:
        labelled.info["polarizability"] = np.asarray(labels["polarizability"]).reshape(9)
        labelled.info["polarizability_unit"] = "Ang^3"
    return labelled


def _write_npz(
    temporary: Path, structures: list[ase.Atoms], labels: list[dict[str, Any]], level: str, path: Path
) -> None:
    numbers = structures[0].numbers
    if any(not np.array_equal(atoms.numbers, numbers) for atoms in structures):
        raise PaiNNFastError("structures of different compositions", where=path, fix="choose an output .xyz")
    shapes = {"energy": (), "forces": (len(numbers), 3), "dipole": (3,), "polarizability": (3, 3)}
    names = {"energy": "E", "forces": "F", "dipole": "dipole", "polarizability": "polarizability"}
    arrays: dict[str, np.ndarray] = {
        names[name]: np.array([entry.get(name, np.full(shape, np.nan)) for entry in labels], dtype=np.float64)
        for name, shape in shapes.items()
        if any(name in entry for entry in labels)
    }
    arrays |= {"R": np.array([atoms.positions for atoms in structures]), "z": numbers, "theory": np.array(level)}
    units = {"energy": "eV", "length": "Ang", "dipole": "e Ang", "polarizability": "Ang^3"}
    arrays |= {f"{kind}_unit": np.array(name) for kind, name in units.items()}
    with temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its keyword allow_pickle is no array
