"""ASE databases (`.db`, `.json`), SchNetPack's among them, whose metadata say the units."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import ase
import ase.db
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.io.ase_formats import check_json
from painn_fast.progress import counted
from painn_fast.train.data.ase_files import add
from painn_fast.train.data.extxyz import KEYS, labelled
from painn_fast.train.data.frames import Frames, Gather, Keys

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


def read(path: Path) -> Frames:
    """All rows.

    Raises:
        PaiNNFastError: naming file and row.
    """
    gather, ids = Gather(path, strict=False), []
    try:
        if path.suffix.lower() == ".json":
            check_json(path)
        database = ase.db.connect(path, serial=True)
        metadata = dict(database.metadata)
        for row in counted(database.select(), f"reading {path.name}: rows", database.count()):
            ids.append(row.id)
            atoms = ase.Atoms(row.numbers, row.positions, cell=row.cell, pbc=row.pbc)
            add(gather, atoms, _found(row))
    except PaiNNFastError:
        raise
    except Exception as error:  # of sqlite, of JSON, of ASE
        raise PaiNNFastError(
            "not a readable ASE database",
            where=f"{path}, after row {ids[-1]}" if ids else path,
            got=f"{type(error).__name__}: {error}",
        ) from None
    return dataclasses.replace(_with_units(labelled(gather, {}), metadata, path), index=np.array(ids))


def _found(row: Any) -> dict[str, Any]:
    results = {name: row.get(name) for name in ("energy", "forces", "stress") if row.get(name) is not None}
    return {**results, **row.key_value_pairs, **row.data}


def _with_units(frames: Frames, metadata: dict[str, Any], path: Path) -> Frames:
    said = metadata.get("_property_unit_dict")
    if said is None:
        return frames
    distance = metadata.get("_distance_unit", "Ang")
    if not isinstance(said, dict) or not isinstance(distance, str):
        raise PaiNNFastError("units that cannot be read", where=f"{path}, metadata", got=f"{said!r}, {distance!r}")
    units = {name: (plain(str(unit)), "the file") for name, unit in said.items() if unit}
    return dataclasses.replace(
        frames, keys=SCHNETPACK, units={"length": distance}, units_from="the file", array_units=units
    )


def plain(unit: str) -> str:
    """A unit as we write it: a0^3 for "a0 a0 a0", eV/Ang^3 for "eV / Ang / Ang / Ang"."""
    if len(unit) > LONGEST:
        return unit
    unit = re.sub(r"\s*([/*])\s*", r"\1", unit.strip())
    again = re.compile(r"(?<![^\s/*])([^\s/*]+)((?:([ /*])\1)+)(?![^\s/*])")
    return again.sub(lambda match: f"{match[1]}^{match[2].count(match[3]) + 1}", unit)
