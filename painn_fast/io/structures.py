"""Structures from files, through ASE, and what of them no verb can honour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import ase.db
import numpy as np
from ase.io.formats import filetype

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import names_of_charge_and_multiplicity
from painn_fast.io.ase_formats import check_json, iread
from painn_fast.io.database_rows import check_twice, decoded
from painn_fast.runtime.progress import warn


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
        kind = filetype(str(path))
        if kind == "json":
            check_json(Path(path))
        frames = _of_database(path) if kind in ("db", "json") else list(iread(path))
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
    empty = _drop_empty(frames, written_as_words=kind in ("extxyz", "xyz"))
    if empty:
        warn(f"{path}: {', '.join(empty)} without a value, or no number: read as if it were not there")
    return list(frames)


def _drop_empty(frames: Sequence[ase.Atoms], *, written_as_words: bool) -> list[str]:
    """Take out charges and multiplicities that are None, which ASE writes to XYZ as a name without a value and reads as
    True; names of those that are True, as a name with the value T is too."""
    found: dict[str, None] = {}
    for atoms in frames:
        for name in names_of_charge_and_multiplicity(atoms.info):
            value = atoms.info[name]
            if written_as_words and isinstance(value, bool | np.bool_) and value:
                found.setdefault(name)
                del atoms.info[name]
            elif str(value) == "None":
                del atoms.info[name]
    return list(found)


def _of_database(path: str | Path) -> list[ase.Atoms]:
    """Rows of a database of ASE or of SchNetPack, which may be in another unit of length and then says so.

    Charge and spin multiplicity, which stand among the key-value pairs or the data of a row, go to `info`.
    """
    database = ase.db.connect(path, serial=True)
    length = _length(database.metadata.get("_distance_unit", "Ang"), path)
    frames = []
    for row in database.select():
        where = f"{path}, row {row.id}"
        atoms = row.toatoms()
        if length != 1.0:
            atoms.set_cell(atoms.cell * length, scale_atoms=False)
            atoms.positions *= length
        pairs = {name: vars(row)[name] for name in row.key_value_pairs}  # row.charge is the sum of initial charges
        data = decoded(row.data, where)
        first, second = (
            {name: values[name] for name in names_of_charge_and_multiplicity(values)} for values in (pairs, data)
        )
        check_twice(first, second, where)
        atoms.info |= first | second
        frames.append(atoms)
    return frames


def _length(unit: Any, path: str | Path) -> float:
    """Size of a unit of length in Å; a number, as SchNetPack's databases may have it, is that size itself."""
    try:
        return float(unit) if isinstance(unit, int | float) and unit > 0 else units.factor("length", str(unit))
    except PaiNNFastError as error:
        raise PaiNNFastError(error.what, where=f"{path}, metadata", got=error.got, expected=error.expected) from None


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
