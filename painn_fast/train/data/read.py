"""From a file and its settings to labelled structures in eV, Å, e Å and Å³."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from painn_fast import units
from painn_fast.errors import PaiNNFastError, reading
from painn_fast.graph.cells import check_cells
from painn_fast.nn.defined import NEEDS_CELL
from painn_fast.train.data import totals
from painn_fast.train.data.dataset import PER_ATOM, SHAPES, SPLITS, Dataset
from painn_fast.train.data.find import find_data
from painn_fast.train.data.formats import read_frames
from painn_fast.train.data.frames import CONVENTION, UNIT, UNSTATED, Frames, listed
from painn_fast.train.data.labels import (
    KIND,
    factor_of,
    key_of,
    own_unit,
    scalars,
    size_of_unit,
    unit_of,
    units_line,
)
from painn_fast.train.data.names import looks_like, unused_line
from painn_fast.train.data.splits import draw, split_of
from painn_fast.train.settings import DataFile, SplitSizes

__all__ = ["draw", "find_data", "read_file", "read_frames", "read_split", "size_of_unit", "to_dataset"]


OF_GEOMETRY = ("masses", "tags")
"""Arrays of atoms that belong to a geometry and that no model takes."""


def read_file(source: DataFile, folder: str | Path = ".", names: tuple[str, ...] | None = None) -> Dataset:
    """All structures of one file with the labels `names` (None: the usual ones that it has) in our units.

    Raises:
        PaiNNFastError: as `read_frames`, and for an array that is missing or misshapen, a unit that is not declared or
            declared of nothing, positions or a cell that are not finite, a cell that spans no volume; names file, frame
            and array.
    """
    path = find_data(source.file, folder)
    with reading("not a readable data file", path):
        return to_dataset(read_frames(source, folder), source, path, names)


def to_dataset(frames: Frames, source: DataFile, path: Path, names: tuple[str, ...] | None = None) -> Dataset:
    """Frames of `path` with their labels in our units."""
    n, length = len(frames), factor_of(frames, source, "length", path)
    bad = ~np.isfinite(frames.positions).all(axis=1)
    if bad.any():
        row = int(np.searchsorted(np.cumsum(frames.n_atoms), np.flatnonzero(bad)[0], side="right"))
        raise PaiNNFastError("positions are not finite", where=f"{path}, frame {frames.frames[row]}")
    for label in source.keys:
        if names is not None and label not in (*names, *totals.LABELS):
            raise PaiNNFastError(
                "a key for a label that no head takes", where=f"{path}, keys.{label}", expected=" | ".join(names)
            )
    _check_units(frames, source, names, path)
    _check_loose_units(frames, source, path)
    wanted = dict.fromkeys([*(names if names is not None else (*frames.keys, *scalars(frames, source))), *source.keys])
    read = {name: _label(frames, source, name, path) for name in wanted if name not in totals.LABELS}
    labels = {name: values for name, values in read.items() if values is not None}
    label_units = {name: unit_of(frames, source, name) for name in labels}
    total = totals.totals(frames, source, path)
    cell = np.zeros((n, 3, 3)) if frames.cell is None else frames.cell * length
    pbc = np.zeros((n, 3), dtype=bool) if frames.pbc is None else frames.pbc
    check_cells(cell, pbc, lambda k: f"{path}, frame {frames.frames[k]}")
    data = Dataset(
        numbers=frames.numbers,
        positions=np.ascontiguousarray(frames.positions * length),
        n_atoms=frames.n_atoms,
        labels=labels,
        cell=cell,
        pbc=pbc,
        charge=total.charge,
        spin=total.multiplicity,
        file=np.zeros(n, dtype=np.int64),
        frame=frames.frames,
        files=(source.file,),
        units={name: own_unit(name, unit[0]) for name, unit in label_units.items() if unit},
        theory=frames.theory,
        notes=(units_line(frames, source, list(labels)), *_notes(frames, source, read, total)),
    )
    return data.without_undefined(NEEDS_CELL)


def _check_units(frames: Frames, source: DataFile, names: tuple[str, ...] | None, path: Path) -> None:
    """Raise PaiNNFastError for a unit in the settings that is of nothing: a misspelt one would go unnoticed."""
    known = {*units.KINDS, *frames.arrays, *frames.keys, *source.keys, *SHAPES, *KIND, *(names or ())}
    for name in source.units:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            raise PaiNNFastError(
                "a unit of nothing in this file",
                where=f"{path}, units.{name}"[:200],
                expected="length, a label or an array",
                fix=f"did you mean units.{near[0]}?" if near else None,
            )


def _check_loose_units(frames: Frames, source: DataFile, path: Path) -> None:
    """Raise PaiNNFastError for a unit that the file declares of nothing, where a convention would decide instead."""
    texts = (name for name, values in frames.arrays.items() if values.dtype.kind in "SU")
    for entry in (*frames.left, *texts):
        match = UNIT.fullmatch(entry)
        if match is None or (match[1] is None and source.units):
            continue
        labels = ("energy", "length", "forces", "stress", "dipole")
        likely = "energy" if match[1] is None else looks_like(match[1], labels)
        if likely is None or (match[1] is not None and likely != "length" and key_of(frames, source, likely) is None):
            continue
        if _by_convention(frames, source, likely):
            raise PaiNNFastError(
                "a unit, but not of what",
                where=f"{path}, '{entry[:60]}'",
                expected="energy_unit, length_unit, or the name of an array and _unit",
                fix=f'declare it under that name, or in the settings: units = {{ {likely} = "..." }}',
            )
    for kind, word in frames.loose_units.items():
        label = "forces" if kind == "force" else kind
        if (label == "length" or key_of(frames, source, label)) and _by_convention(frames, source, label):
            raise PaiNNFastError(
                f"a unit of {kind} in free text, where none is declared",
                where=path,
                got=word,
                expected=f"{label}_unit=..., or the free text without a unit",
                fix=f'declare it in the settings: units = {{ {label} = "..." }}, on the command line --data-unit',
            )


def _by_convention(frames: Frames, source: DataFile, label: str) -> bool:
    """Whether nothing but a convention decides the unit of a label."""
    return (unit_of(frames, source, label) or UNSTATED)[1] == CONVENTION


def _notes(
    frames: Frames, source: DataFile, labels: Mapping[str, np.ndarray | None], total: totals.Totals
) -> Iterator[str]:
    """What else the user should know: where total charges stand, notes of the reader, what is not used."""
    if total.arrays:
        yield f"{source.file}: total charge and multiplicity out of {listed(total.arrays)}"
    yield from frames.notes
    used = {key_of(frames, source, name) for name, values in labels.items() if values is not None}
    missing = [name for name, values in labels.items() if values is None and source.keys.get(name) != ""]
    missing += [] if total.arrays or frames.charge is not None else ["charge", "multiplicity"]
    line = unused_line(frames, source.file, [*(name for name in used if name), *total.arrays, *OF_GEOMETRY], missing)
    if line is not None:
        yield line
    if frames.theory:
        yield f"{source.file}: level of theory: {listed(frames.theory)}"


def read_split(
    source: DataFile, folder: str | Path = ".", names: tuple[str, ...] | None = None, sizes: SplitSizes | None = None
) -> dict[str, Dataset]:
    """Training, validation and test structures of one file; those without any label are left out.

    The split file of `sizes` counts, else the file's own split, else a draw by the seed of `sizes`.
    """
    path = find_data(source.file, folder)
    with reading("not a readable data file", path):
        frames = read_frames(source, folder)
        data = to_dataset(frames, source, path, names)
    split = split_of(frames, data, source, sizes or SplitSizes(), path, folder)
    return {name: data.select(np.flatnonzero(split == k)).with_labels() for k, name in enumerate(SPLITS)}


def _label(frames: Frames, source: DataFile, name: str, path: Path) -> np.ndarray | None:
    key = key_of(frames, source, name)
    if key is None:
        return None
    if key not in frames.arrays:
        what = "not numbers" if key in frames.left else "missing array"
        notes = [note for note in frames.notes if key in note]
        got = "; ".join(notes) or listed(frames.arrays)
        raise PaiNNFastError(what, where=f"{path}, '{key}'", got=got, fix=f"correct keys.{name}")
    if name == "stress" and "virial" in key.lower():
        raise PaiNNFastError(
            "a virial is no stress",
            where=f"{path}, '{key}'",
            expected="stress in energy per volume, positive under tension",
            fix="store -virial / volume, if the virial is -volume times the stress",
        )
    raw = frames.arrays[key]
    n = len(frames.numbers) if name in PER_ATOM else len(frames)
    want = (n, *SHAPES.get(name, ()))
    if raw.dtype.kind not in "fiub":
        raise PaiNNFastError("not numbers", where=f"{path}, '{key}'", got=raw.dtype)
    values = raw.astype(np.float64)
    shapes = {want, (*want[:1], math.prod(want[1:])), (*want, 1)}
    if name in PER_ATOM and (frames.n_atoms == frames.n_atoms[0]).all():  # by structures of equal size
        each = (len(frames), int(frames.n_atoms[0]))
        shapes |= {(*each, *want[1:]), (each[0], each[1] * math.prod(want[1:]))}
    if values.shape not in shapes:
        raise PaiNNFastError("wrong shape", where=f"{path}, '{key}'", got=values.shape, expected=want)
    values = values.reshape(want)
    if np.isinf(values).any():
        row = int(np.argwhere(np.isinf(values))[0, 0])
        row = int(np.searchsorted(np.cumsum(frames.n_atoms), row, side="right")) if name in PER_ATOM else row
        raise PaiNNFastError(
            "an infinite label",
            where=f"{path}, '{key}', frame {frames.frames[row]}",
            expected="NaN where a label is missing",
        )
    return values * factor_of(frames, source, name, path)
