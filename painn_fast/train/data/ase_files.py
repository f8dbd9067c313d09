"""Whatever else ASE reads: energies, forces and stress of its calculators, numbers in `info` and `arrays`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase
import numpy as np

from painn_fast.errors import reading
from painn_fast.graph.charge import CHARGE_KEYS, MULTIPLICITY_KEYS, charge_and_multiplicity
from painn_fast.io.ase_formats import iread
from painn_fast.runtime.progress import counted
from painn_fast.train.data.extxyz import ASE_UNITS, THEORY, Texts, labelled
from painn_fast.train.data.frames import UNSTATED, Frames, Gather

GEOMETRY = ("numbers", "positions")
TOTALS = (*CHARGE_KEYS, *MULTIPLICITY_KEYS)


def read(path: Path) -> Frames:
    """All frames of a file.

    Raises:
        PaiNNFastError: naming file and frame.
    """
    entries = Entries(path)
    for atoms in counted(iread(path), f"reading {path.name}: structures"):
        where = f"{path}, frame {len(entries.gather)}"
        results = atoms.calc.results if atoms.calc else {}  # as they are: without constraints applied
        columns = {name: values for name, values in atoms.arrays.items() if name not in GEOMETRY}
        with reading("not a readable structure", where):
            entries.add(atoms, results, atoms.info, columns, where)
    return labelled(entries.gather, entries.texts, entries.conventions())


class Entries:
    """Structures of ASE with what stands beside them: results of calculators, and numbers that ASE does not define.

    Args:
        path: the file.
        first: whose entry has the name where both have one: "results", or "others"; the second is renamed.
    """

    def __init__(self, path: Path, first: str = "results") -> None:
        self.gather = Gather(path, strict=lambda name: False)
        self.texts = Texts(path)
        self.first = first
        self._calculated: dict[str, bool] = {}  # whether all values of a name come from calculators

    def add(
        self,
        atoms: ase.Atoms,
        results: Mapping[str, Any],
        others: Mapping[str, Any],
        columns: Mapping[str, np.ndarray],
        where: str,
    ) -> None:
        """One structure."""
        values, atom_values = dict[str, np.ndarray](), dict[str, np.ndarray]()
        for calculated, entries in ((True, results), (False, others), (False, columns)):
            for name, value in entries.items():
                if isinstance(value, str) and self.texts.add_unit(name, value, where):
                    continue
                if name == "split" and isinstance(value, str | int) and not calculated:
                    self.texts.add_split(str(value), len(self.gather))
                    continue
                if name == THEORY and isinstance(value, str) and value.strip() and not calculated:
                    self.texts.theory.setdefault(value.strip())
                    continue
                array = as_numbers(value)
                if array is None and value is not None and str(value) != "None" and name.lower() in TOTALS:
                    charge_and_multiplicity({name: value}, where=where)  # a number as text, or an error
                    array = np.array([float(value)])
                if array is None:
                    self.texts.left.setdefault(str(name))
                    continue
                own = self._name(name, results, others, calculated=calculated)
                self._calculated[own] = self._calculated.get(own, True) and calculated
                of_atoms = entries is columns or _of_atoms(own, array, len(atoms), calculated=calculated)
                (atom_values if of_atoms else values)[own] = array if of_atoms else array.ravel()
        cell, pbc = (np.array(atoms.cell), atoms.pbc) if atoms.pbc.any() else (None, None)
        if atoms.pbc.any() and not np.asarray(atoms.cell).any():
            self.texts.count_without_cell(len(self.gather))
        self.gather.add(atoms.numbers, atoms.positions, values, atom_values, cell, pbc)

    def conventions(self) -> dict[str, tuple[str, str]]:
        """Units of results of calculators as ASE defines them; of anything else none."""
        others = {name: UNSTATED for name, calculated in self._calculated.items() if not calculated}
        return {name: unit for name, unit in ASE_UNITS.items() if name not in others} | others

    def _name(self, name: str, results: Mapping[str, Any], others: Mapping[str, Any], *, calculated: bool) -> str:
        if name not in results or name not in others or calculated == (self.first == "results"):
            return name
        return f"calculator.{name}" if calculated else f"data.{name}"


def _of_atoms(name: str, array: np.ndarray, n: int, *, calculated: bool) -> bool:
    """Whether an entry beside a structure has a value for each of its atoms: by its name or its size."""
    if array.ndim == 0 or len(array) != n:
        return False
    if name in ("forces", "energies", "charges", "magmoms", "stresses") or "force" in name.lower():
        return True
    return array.ndim > 1 and not calculated and array.shape[1:] == (3,) and n not in (1, 3)


def as_numbers(value: Any) -> np.ndarray | None:
    """An array of numbers; None for texts, truth values and objects."""
    if value is None or isinstance(value, bool | np.bool_ | str | bytes):
        return None
    try:
        array = np.asarray(value)
        numbers = array.astype(np.float64) if array.dtype.kind in "fiu" else None
    except (TypeError, ValueError):
        return None
    return numbers if numbers is not None and numbers.size else None
