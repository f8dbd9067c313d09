"""Structures from files, through ASE, and what of them no verb can honour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import ase.db
import numpy as np

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import names_of_charge_and_multiplicity
from painn_fast.io.ase_formats import iread

DATABASE = ("key_value_pairs", "data")
"""Where ASE puts what the rows of a database have beside the structure."""


def read_structures(path: str | Path) -> list[ase.Atoms]:
    """All frames of a structure file in any format that ASE recognises; positions in Å.

    Cell, periodicity, masses, tags, constraints and momenta are those of the file, charge and spin multiplicity stand
    in `info` also where a database keeps them apart.

    Raises:
        PaiNNFastError: if the file is not there, cannot be read or holds no frame.
    """
    if not Path(path).is_file():
        raise PaiNNFastError("no such structure file", where=path)
    try:
        frames = list(iread(path))
        length = _length_unit(Path(path))
    except PaiNNFastError:
        raise
    except Exception as error:  # every reader of ASE fails in its own way
        raise PaiNNFastError(
            "not a readable structure file",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="xyz, or another format of ASE",
        ) from None
    if not frames:
        raise PaiNNFastError("a structure file without structures", where=path)
    for atoms in frames:
        _lift(atoms.info)
        if length != 1.0:
            atoms.set_cell(atoms.cell * length, scale_atoms=False)
            atoms.positions *= length
    return list(frames)


def _length_unit(path: Path) -> float:
    """Å in the unit of length of a file: databases of SchNetPack may be in another, and say so."""
    if path.suffix.lower() not in (".db", ".json"):
        return 1.0
    name = ase.db.connect(path, serial=True).metadata.get("_distance_unit", "Ang")
    return units.factor("length", str(name))


def _lift(info: dict[Any, Any]) -> None:
    """Charge and spin multiplicity of a row of a database to where those of all other formats are."""
    for part in DATABASE:
        values = info.get(part)
        if isinstance(values, dict):
            for name in names_of_charge_and_multiplicity(values):
                info.setdefault(name, values[name])


def refuse_constraints(frames: Sequence[ase.Atoms], what: str, *, where: object = None, fix: str = "") -> None:
    """Raise PaiNNFastError if a structure has constraints.

    Args:
        frames: structures.
        what: that does not honour them, such as "dynamics".
        where: the file that they come from.
        fix: what to do beside dropping them.
    """
    for k, atoms in enumerate(frames):
        if atoms.constraints:
            names = ", ".join(_describe(constraint) for constraint in atoms.constraints)
            place = f"structure {k} ({atoms.get_chemical_formula()})"
            raise PaiNNFastError(
                f"{what} cannot honour constraints of a structure",
                where=place if where is None else f"{where}, {place}",
                got=names if len(names) <= 200 else names[:197] + "...",
                expected="a structure without constraints",
                fix="drop them with atoms.set_constraint(), in a file of extended XYZ the column move_mask"
                + (f"; {fix}" if fix else ""),
            )


def _describe(constraint: Any) -> str:
    """Kind and atoms of a constraint."""
    try:
        atoms = np.unique(constraint.get_indices()).tolist()
    except Exception:  # not every constraint of ASE is of single atoms
        return type(constraint).__name__
    return f"{type(constraint).__name__} of atoms {', '.join(map(str, atoms))}"
