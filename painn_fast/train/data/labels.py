"""Which array of a file is which label, in which unit, and who says so."""

from __future__ import annotations

import re

import numpy as np

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.train.data.dataset import SHAPES
from painn_fast.train.data.frames import Frames
from painn_fast.train.settings import DataFile

KIND = {"dipole_magnitude": "dipole", "spatial_extent": "area"}
"""Kind of unit of labels that are not called by it."""
USUAL = {"forces": "eV/Ang", "stress": "eV/Ang^3"}
"""Our own units of labels that are no kind by themselves."""
ENERGY = {name.casefold() for name in units.ENERGY}


def size_of_unit(label: str, name: str) -> float:
    """A unit of a label in our own: eV, eV/Å, e Å, Å³, Å²; of other scalars eV, or 1 if it is no unit of energy."""
    if label in ("forces", "stress"):
        energy, _, length = name.rpartition("/")
        cube = re.fullmatch(r"(.*?)(?:\^3|³)", length)
        size = units.factor("length", cube[1] if cube else length)
        return units.factor("energy", energy) / (size**3 if label == "stress" else size)
    kind = KIND.get(label, label)
    if kind not in units.KINDS:
        kind = "energy" if name.casefold() in ENERGY else ""
    return units.factor(kind, name) if kind else 1.0


def own_unit(label: str, name: str) -> str:
    """Unit of a label after its conversion from `name`."""
    kind = KIND.get(label, label)
    if kind not in units.KINDS:
        kind = "energy" if name.casefold() in ENERGY else ""
    return USUAL.get(label) or (next(iter(units.KINDS[kind])) if kind else name)


def unit_of(frames: Frames, source: DataFile, label: str) -> tuple[str, str] | None:
    """Unit of a label, or "length", and who says so: the settings, else the file; None if nobody does."""
    array = key_of(frames, source, label)
    single = frames.array_units.get(array or label)
    for table, by in ((source.units, "the settings"), (frames.units, frames.units_from)):
        if table is frames.units and single is not None:
            return single
        for name in (label, *([array] if array else [])):
            if name in table:
                return table[name], by
        if label in ("forces", "stress") and "energy" in table:
            length = (source.units if "length" in source.units else frames.units).get("length", "Ang")
            return f"{table['energy']}/{length}" + "^3" * (label == "stress"), by
        if KIND.get(label, label) in table:
            return table[KIND.get(label, label)], by
    return None


def key_of(frames: Frames, source: DataFile, label: str) -> str | None:
    """Name of the array that holds a label; without a word of the settings never a scalar for a tensor, or a tensor for
    a scalar: `mu` may be either."""
    if label in source.keys:
        return source.keys[label] or None
    names = [key for key in frames.keys.get(label, (label,)) if key in frames.arrays]
    return next((key for key in names if label == "energy" or _fits(frames, key, label)), None)


def _fits(frames: Frames, key: str, label: str) -> bool:
    return (frames.arrays[key].size > len(frames)) == (label in SHAPES)


def factor_of(frames: Frames, source: DataFile, label: str, path: object) -> float:
    """Size of the unit of a label, or of "length", in our own.

    Raises:
        PaiNNFastError: if nobody says the unit, or it is unknown.
    """
    said = unit_of(frames, source, label)
    if said is None:
        kind = KIND.get(label, label)
        raise PaiNNFastError(
            f"missing unit of {label}",
            where=path,
            expected=" | ".join(units.KINDS[kind]) if kind in units.KINDS else "a unit of energy, or any other name",
            fix=f'set units.{label} for this file in the settings (units = {{ {label} = "..." }}), or store '
            f"'{label}_unit' in the file",
        )
    return size_of_unit(label, said[0]) if label != "length" else units.factor("length", said[0])


def scalars(frames: Frames, source: DataFile) -> list[str]:
    """Arrays of one number a structure that are no usual label and whose unit is known."""
    usual = {key_of(frames, source, label) for label in {**frames.keys, **source.keys}}
    return [
        name
        for name, values in frames.arrays.items()
        if name not in usual
        and values.shape in ((len(frames),), (len(frames), 1))
        and values.dtype.kind in "fiu"
        and unit_of(frames, source, name) is not None
    ]


def units_line(frames: Frames, source: DataFile, names: list[str]) -> str:
    """ "toy.npz: energy kcal/mol (the settings), length Ang (the file)"."""
    said = [(name, unit_of(frames, source, name)) for name in ("length", *names)]
    keys = {name: key_of(frames, source, name) for name in names}
    labels = {name: name if keys[name] in (None, name) else f"{name} = {keys[name]}" for name in names}
    text = ", ".join(f"{labels.get(name, name)} {unit[0]} ({unit[1]})" for name, unit in said if unit)
    return f"{source.file}: {text}"


def is_number(values: np.ndarray) -> bool:
    """Whether an array holds numbers."""
    return values.dtype.kind in "fiub"
