"""ASE databases (`.db`, `.json`), SchNetPack's among them, whose metadata say the units."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase
import ase.db
import numpy as np
from ase.calculators.calculator import all_properties

from painn_fast.errors import PaiNNFastError, shown
from painn_fast.io.ase_formats import check_json
from painn_fast.progress import counted
from painn_fast.train.data.ase_files import Entries
from painn_fast.train.data.extxyz import KEYS, labelled
from painn_fast.train.data.frames import Frames, Keys

LONGEST = 200
"""Characters of a unit that is looked at."""
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
        database = ase.db.connect(path, serial=True)
        metadata = dict(database.metadata)
        units = _units(metadata, path)
        entries = Entries(path, "results" if units is None else "others")
        for row in counted(database.select(), f"reading {path.name}: rows", database.count()):
            ids.append(row.id)
            where = f"{path}, row {row.id}"
            atoms = ase.Atoms(row.numbers, row.positions, cell=row.cell, pbc=row.pbc)
            results = {name: row.get(name) for name in all_properties if row.get(name) is not None}
            columns = {name: row.get(name) for name in OF_ATOMS if row.get(name) is not None}
            pairs = {name: vars(row)[name] for name in row.key_value_pairs}  # row.charge is the sum of initial charges
            data = decoded(row.data, where)
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


def check_twice(pairs: Mapping[str, Any], data: Mapping[str, Any], where: str) -> None:
    """Raise PaiNNFastError if a key-value pair and an entry of `data` have one name and different values."""
    for name in pairs.keys() & data.keys():
        one, other = np.asarray(pairs[name]).ravel(), np.asarray(data[name]).ravel()
        if not np.array_equal(one, other):
            got = f"{shown(pairs[name], 60)} among the key-value pairs, {shown(data[name], 60)} in data"
            raise PaiNNFastError(f"two values of {name[:40]}", where=where, got=got, expected="one")


def decoded(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The entries of a row; arrays that SchNetPack 0.x wrote as base64 text, with shape and type beside, are decoded.

    Raises:
        PaiNNFastError: for a text that is not what stands beside it.
    """
    found = {}
    for name, value in data.items():
        shape, kind = data.get(f"_shape_{name}"), data.get(f"_dtype_{name}")
        if isinstance(value, str | bytes) and kind is not None:
            try:
                array = np.frombuffer(base64.b64decode(value, validate=True), dtype=_number_type(kind))
                value = array if shape is None else array.reshape([int(size) for size in np.atleast_1d(shape)])
            except (ValueError, TypeError) as error:
                got = f"{kind!s} {shape!s}: {error}"[:200]
                raise PaiNNFastError("an array that cannot be decoded", where=f"{where}, '{name}'", got=got) from None
        if not name.startswith(("_shape_", "_dtype_")):
            found[name] = value
    return found


def _number_type(name: Any) -> np.dtype[Any]:
    kind = np.dtype(str(name))
    if kind.kind not in "fiu":
        raise ValueError("not a type of numbers")
    return kind


def _units(metadata: Mapping[str, Any], path: Path) -> dict[str, tuple[str, str]] | None:
    """Units of arrays as SchNetPack's metadata have them, None if there are none. A number is a size in eV, Å and e."""
    said = metadata.get("_property_unit_dict")
    distance = metadata.get("_distance_unit", "Ang")
    if said is None and "_distance_unit" not in metadata:
        return None
    said = {} if said is None else said
    if not isinstance(said, dict) or not isinstance(distance, str | float | int):
        raise PaiNNFastError(
            "units that cannot be read", where=f"{path}, metadata", got=f"{said!r}, {distance!r}"[:200]
        )
    return {name: (plain(str(unit)), "the file") for name, unit in said.items() if unit}


def _described(metadata: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Units out of ASE's descriptions of keys: short text, long text, unit."""
    said = metadata.get("key_descriptions")
    return {
        str(name): (plain(str(entry[2])), "the file")
        for name, entry in (said.items() if isinstance(said, dict) else ())
        if isinstance(entry, list | tuple) and len(entry) == 3 and entry[2]
    }


def plain(unit: str) -> str:
    """A unit as we write it: a0^3 for "a0 a0 a0", eV/Ang^3 for "eV / Ang / Ang / Ang"."""
    if len(unit) > LONGEST:
        return unit
    unit = re.sub(r"\s*([/*])\s*", r"\1", unit.strip())
    again = re.compile(r"(?<![^\s/*])([^\s/*]+)((?:([ /*])\1)+)(?![^\s/*])")
    return again.sub(lambda match: f"{match[1]}^{match[2].count(match[3]) + 1}", unit)
