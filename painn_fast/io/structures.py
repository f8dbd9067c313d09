"""Structures from files, through ASE, and refusal of their constraints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import ase.db
import ase.io
import numpy as np
from ase.io.formats import filetype

from painn_fast import units
from painn_fast.errors import PaiNNFastError, reading
from painn_fast.graph.charge import names_of_charge_and_multiplicity
from painn_fast.io.ase_formats import check_json, iread
from painn_fast.io.database_rows import check_twice, others
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.progress import warn

LENGTH_UNITS = ("length_unit", "length_units")
"""Entries of a comment line, or of `info`, that declare the unit of positions and cell."""


def read_structures(path: str | Path) -> list[ase.Atoms]:
    """All frames of a structure file in any format that ASE recognises; positions in Å, converted from `length_unit`.

    Cell, periodicity, masses, tags, constraints and momenta are those of the file; charge and spin multiplicity are in
    `info`, also those that a database stores elsewhere.

    Raises:
        PaiNNFastError: if the file is missing, cannot be read or holds no frame.
    """
    if not Path(path).is_file():
        raise PaiNNFastError("no such structure file", where=path)
    with reading("not a readable structure file", path, expected="xyz, or another format of ASE"):
        kind = filetype(str(path))
        if kind == "json":
            check_json(Path(path))
        frames = _of_database(path) if kind in ("db", "json") else list(iread(path))
    if not frames:
        raise PaiNNFastError("a structure file without structures", where=path)
    for k, atoms in enumerate(frames):
        for name in [name for name in atoms.info if str(name).lower() in LENGTH_UNITS][:1]:
            _to_angstrom(atoms, atoms.info[name], f"{path}, frame {k}, '{name}'")
            atoms.info[name] = "Ang"
    empty = _drop_empty(frames, written_as_words=kind in ("extxyz", "xyz"))
    if empty:
        warn(f"{path}: {', '.join(empty)} without a value, or no number: ignored")
    return list(frames)


def write_extxyz(path: str | Path, frames: ase.Atoms | Sequence[ase.Atoms], comment: str = "") -> None:
    """Write structures as extended XYZ, whole or not at all."""
    with atomic_write(path) as temporary:
        ase.io.write(temporary, frames, format="extxyz", comment=comment)


def _drop_empty(frames: Sequence[ase.Atoms], *, written_as_words: bool) -> list[str]:
    """Take out charges and multiplicities that are None, which ASE writes to XYZ as a name without a value and reads as
    True; names of those that are True, as a name with the value T is too."""
    empty: dict[str, None] = {}
    for atoms in frames:
        for name in names_of_charge_and_multiplicity(atoms.info):
            value = atoms.info[name]
            if written_as_words and isinstance(value, bool | np.bool_) and value:
                empty.setdefault(name)
                del atoms.info[name]
            elif str(value) == "None":
                del atoms.info[name]
    return list(empty)


def _of_database(path: str | Path) -> list[ase.Atoms]:
    """Rows of a database of ASE or of SchNetPack, whose metadata may state another unit of length.

    Charge and spin multiplicity, from the key-value pairs or the data of a row, go to `info`.
    """
    frames = []
    with ase.db.connect(path, serial=True) as database:  # which closes it
        unit = database.metadata.get("_distance_unit", "Ang")
        for row in database.select():
            where = f"{path}, row {row.id}"
            atoms = row.toatoms()
            _to_angstrom(atoms, unit, f"{path}, metadata")
            first, second = (
                {name: values[name] for name in names_of_charge_and_multiplicity(values)}
                for values in others(row, where)
            )
            check_twice(first, second, where)
            atoms.info |= first | second
            frames.append(atoms)
    return frames


def _to_angstrom(atoms: ase.Atoms, unit: Any, where: str) -> None:
    """Convert positions and cell; a number, as SchNetPack's databases may have it, is the size of the unit in Å."""
    try:
        size = float(unit) if isinstance(unit, int | float) and unit > 0 else units.factor("length", str(unit))
    except PaiNNFastError as error:
        raise error.replaced(where=where) from None
    if size != 1.0:
        atoms.set_cell(atoms.cell * size, scale_atoms=False)
        atoms.positions *= size


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
            name = f"structure {k} ({atoms.get_chemical_formula()})"
            raise PaiNNFastError(
                f"{what} cannot honour constraints of a structure",
                where=name if where is None else f"{where}, {name}",
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
