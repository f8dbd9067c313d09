"""Which array of a file is which label, in which unit, and where the unit was declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.train.data.dataset import PER_ATOM, SHAPES
from painn_fast.train.data.frames import CONVENTION, UNSTATED, Frames
from painn_fast.train.settings import DataFile

KIND = {"dipole_magnitude": "dipole", "spatial_extent": "area", "forces": "force"}
"""Kind of unit of labels that are not called by it."""
PER_LENGTH = {"forces": "", "stress": "^3"}
"""Labels whose unit is that of energies over one of length, and its power."""


def kind_of(label: str, unit: str) -> str | None:
    """Kind of the unit of a label: its own, for other scalars energy; None where `unit` is a name of something else."""
    kind = KIND.get(label, label)
    if kind in units.KINDS:
        return kind
    return None if units.energy_size(unit) is None else "energy"


def size_of_unit(label: str, name: str) -> float:
    """A unit of a label in our own: eV, eV/Å, e Å, Å³, Å²; of other scalars eV, or 1 if it is no unit of energy.

    A number, as SchNetPack's databases may have it, is that size itself.
    """
    kind = kind_of(label, name)
    if _is_size(name):
        return float(name)
    return 1.0 if kind is None else units.factor(kind, name)


def own_unit(label: str, name: str) -> str:
    """Unit of a label after its conversion from `name`."""
    kind = kind_of(label, name)
    if kind is None:
        return "1" if _is_size(name) else name
    return next(iter(units.KINDS[kind]))


def _is_size(unit: str) -> bool:
    """Whether a unit is a number, its size in eV, Å and e."""
    try:
        return 0 < float(unit) < float("inf")
    except ValueError:
        return False


def unit_of(frames: Frames, source: DataFile, label: str) -> tuple[str, str] | None:
    """Unit of a label, or "length", and where it was declared: the settings, else the file; None if in neither."""
    array = key_of(frames, source, label)
    names, single = (label, *([array] if array else [])), frames.array_units.get(array or label)
    length = (source.units if "length" in source.units else frames.units).get("length", "Ang")
    in_settings = _declared(source.units, names, length)
    if label in PER_LENGTH and not any(name in source.units for name in names):  # it follows from the energy's unit
        own = single if single is not None and single != UNSTATED and single[1] != CONVENTION else None
        own = own or next(((frames.units[name], frames.units_from) for name in names if name in frames.units), None)
        in_settings = in_settings if own is None else None
    if in_settings is not None:
        return in_settings, "the settings"
    if single is not None and single != UNSTATED:
        return single
    in_file = _declared(frames.units, names, length)
    if in_file is not None:
        return in_file, frames.units_from
    energy = unit_of(frames, source, "energy") if label in PER_LENGTH else None
    if energy is None or (energy[1] == CONVENTION and not _usual(frames, source, label, array)):
        return None  # ASE's convention covers only what ASE defines
    return _per_length(energy[0], length, label), energy[1]


def _usual(frames: Frames, source: DataFile, label: str, array: str | None) -> bool:
    """Whether an array stands beside an energy and is called as its format has it, as `force` in extended XYZ."""
    usual = array in frames.keys.get(label, ()) and frames.array_units.get(array or "") != UNSTATED
    return usual and key_of(frames, source, "energy") is not None


def _declared(table: Mapping[str, str], names: Sequence[str], length: str) -> str | None:
    """Unit of the label names[0] in a table of units of labels, arrays and kinds."""
    label = names[0]
    for name in names:
        if name in table:
            return table[name]
    if label in PER_LENGTH and "energy" in table:
        return _per_length(table["energy"], length, label)
    return table.get(KIND.get(label, label))


def _per_length(energy: str, length: str, label: str) -> str:
    if _is_size(energy) or _is_size(length):
        size = size_of_unit("energy", energy) / size_of_unit("length", length) ** (3 if label == "stress" else 1)
        return repr(size)
    return f"{energy}/{length}{PER_LENGTH[label]}"


def key_of(frames: Frames, source: DataFile, label: str) -> str | None:
    """Name of the array that holds a label; only the settings can take a scalar for a tensor, or a tensor for a scalar:
    `mu` may be either."""
    if label in source.keys:
        return source.keys[label] or None
    names = [key for key in frames.keys.get(label, (label,)) if key in frames.arrays]
    return next((key for key in names if _fits(frames, key, label)), None)


def _fits(frames: Frames, key: str, label: str) -> bool:
    values = frames.arrays[key]
    if label not in PER_ATOM and frames.of_atoms(key) and len(values) == len(frames.numbers):
        return False  # a column of atoms that is called like a label of structures
    return label == "energy" or (values.size > len(frames)) == (label in SHAPES)


def factor_of(frames: Frames, source: DataFile, label: str, path: object) -> float:
    """Size of the unit of a label, or of "length", in our own.

    Raises:
        PaiNNFastError: if the unit is not declared, or unknown.
    """
    unit = unit_of(frames, source, label)
    if unit is None:
        kind = KIND.get(label, label)
        raise PaiNNFastError(
            f"missing unit of {label}",
            where=path,
            expected=" | ".join(units.KINDS[kind]) if kind in units.KINDS else "a unit of energy, or any other name",
            fix=f'set units.{label} for this file in the settings (units = {{ {label} = "..." }}), or store '
            f"'{label}_unit' in the file",
        )
    try:
        return size_of_unit(label, unit[0])
    except PaiNNFastError as error:
        fix = f'set units.{label} for this file in the settings (units = {{ {label} = "..." }})'
        raise error.replaced(where=f"{path}, unit by {unit[1]}", fix=fix) from None


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
    entries = []
    for name in ("length", *names):
        key, unit = key_of(frames, source, name), unit_of(frames, source, name)
        label = name if name == "length" or key in (None, name) else f"{name} = {key}"
        entries += [f"{label} {unit[0]} ({unit[1]})"] if unit else []
    return f"{source.file}: {', '.join(entries)}"
