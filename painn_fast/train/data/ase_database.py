"""ASE databases (`.db`, `.json`), SchNetPack's among them, whose metadata state the units."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase
import ase.db
import numpy as np
from ase.calculators.calculator import all_properties

from painn_fast.errors import PaiNNFastError
from painn_fast.io.ase_formats import check_json
from painn_fast.io.database_rows import check_twice, others
from painn_fast.runtime.progress import counted
from painn_fast.train.data.ase_files import Entries
from painn_fast.train.data.extxyz import KEYS, labelled
from painn_fast.train.data.frames import Frames, Keys

LONGEST = 200
"""Characters of a unit that is rewritten."""
SCHNETPACK: Keys = {
    **KEYS,
    "energy": ("energy", "energy_U0"),
    "dipole": ("dipole", "dipole_moment"),
    "dipole_magnitude": ("dipole_moment",),
    "spatial_extent": ("electronic_spatial_extent",),
}
"""Names of its data sets."""
OF_ATOMS = ("initial_charges", "initial_magmoms", "masses", "tags", "momenta")
"""Columns of atoms that a row may have."""


def read(path: Path) -> Frames:
    """All rows.

    Results of calculators are in ASE's units. What else a row has, its `data` and its key-value pairs, has the units of
    SchNetPack's metadata or of ASE's key descriptions, or none.

    Raises:
        PaiNNFastError: naming file and row.
    """
    ids = list[int]()
    try:
        if path.suffix.lower() == ".json":
            check_json(path)
        with ase.db.connect(path, serial=True) as database:  # which closes it
            metadata = dict(database.metadata)
            units = _units(metadata, path)
            entries = Entries(path, "results" if units is None else "others")
            for row in counted(database.select(), f"reading {path.name}: rows", database.count()):
                ids.append(row.id)
                where = f"{path}, row {row.id}"
                atoms = ase.Atoms(row.numbers, row.positions, cell=row.cell, pbc=row.pbc)
                results = {name: row.get(name) for name in all_properties if row.get(name) is not None}
                columns = {name: row.get(name) for name in OF_ATOMS if row.get(name) is not None}
                pairs, data = others(row, where)
                check_twice(pairs, data, where)
                entries.add(atoms, results, {**pairs, **data}, columns, where)
    except PaiNNFastError:
        raise
    except Exception as error:  # of sqlite, of JSON, of ASE
        raise PaiNNFastError(
            "not a readable ASE database",
            where=f"{path}, after row {ids[-1]}" if ids else path,
            got=f"{type(error).__name__}: {error}",
        ) from None
    own = _described(metadata) | (units or {})
    frames = labelled(entries.gather, entries.texts, entries.conventions() | own, SCHNETPACK)
    if units is not None:
        distance = str(metadata.get("_distance_unit", "Ang"))
        frames = dataclasses.replace(frames, units={"length": plain(distance)}, units_from="the file")
    return dataclasses.replace(frames, index=np.array(ids))


def _units(metadata: Mapping[str, Any], path: Path) -> dict[str, tuple[str, str]] | None:
    """Units of arrays as SchNetPack's metadata have them, None if there are none. A number is a size in eV, Å and e."""
    stated, distance = metadata.get("_property_unit_dict"), metadata.get("_distance_unit", "Ang")
    if stated is None and "_distance_unit" not in metadata:
        return None
    if not isinstance(stated, dict | None) or not isinstance(distance, str | float | int):
        got = f"{stated!r}, {distance!r}"[:200]
        raise PaiNNFastError("units that cannot be read", where=f"{path}, metadata", got=got)
    return {name: (plain(str(unit)), "the file") for name, unit in (stated or {}).items() if unit}


def _described(metadata: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Units out of ASE's descriptions of keys: short text, long text, unit."""
    descriptions = metadata.get("key_descriptions")
    return {
        str(name): (plain(str(entry[2])), "the file")
        for name, entry in (descriptions.items() if isinstance(descriptions, dict) else ())
        if isinstance(entry, list | tuple) and len(entry) == 3 and entry[2]
    }


def plain(unit: str) -> str:
    """A unit as we write it: a0^3 for "a0 a0 a0", eV/Ang^3 for "eV / Ang / Ang / Ang"."""
    if len(unit) > LONGEST:
        return unit
    unit = re.sub(r"\s*([/*])\s*", r"\1", unit.strip())
    again = re.compile(r"(?<![^\s/*])([^\s/*]+)((?:([ /*])\1)+)(?![^\s/*])")
    return again.sub(lambda match: f"{match[1]}^{match[2].count(match[3]) + 1}", unit)
