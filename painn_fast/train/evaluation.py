"""Errors of a model on labelled structures, in the units that people quote."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import Potential, ScalarHead
from painn_fast.nn.defined import NEEDS_CELL, defined, depends_on_cell
from painn_fast.train.data import SPLITS, Dataset, join, read_split
from painn_fast.train.data.dataset import PER_ATOM, SHAPES, Batches, by_row
from painn_fast.train.data.read import size_of_unit
from painn_fast.train.settings import DataFile, labels_of

REPORT = {
    "energy": "kcal/mol",
    "forces": "kcal/mol/Å",
    "stress": "eV/Å^3",
    "dipole": "D",
    "dipole_magnitude": "D",
    "polarizability": "Å³",
    "spatial_extent": "a0^2",
}
"""Units that errors are quoted in, where nobody asks for others; other energies in meV."""

Arrays = dict[str, np.ndarray]
Table = dict[str, dict[str, float | int | str]]


def predict(
    potential: Potential, data: Dataset, names: Sequence[str] | None = None, atoms_per_batch: int = 2000
) -> Arrays:
    """Predictions for every structure, in the shapes of its labels; by default for the labels that `data` has.

    NaN where a property is not defined, such as the stress of a molecule.

    Args:
        potential: the model.
        data: structures.
        names: what to predict; must be in both.
        atoms_per_batch: upper limit; a larger structure makes a batch of its own.
    """
    names = [name for name in labels_of(potential.config.heads) if name in data.labels] if names is None else names
    has = {name: defined(name, data.pbc) for name in names if depends_on_cell(name)}
    if all(values.all() for values in has.values()):
        return _predict(potential, data, names, atoms_per_batch)
    results = {
        name: np.full((len(data.numbers if name in PER_ATOM else data), *SHAPES.get(name, ())), np.nan)
        for name in names
    }
    table = np.stack([has.get(name, np.ones(len(data), dtype=bool)) for name in names], axis=1)
    for kind in np.unique(table, axis=0):
        rows = np.flatnonzero((table == kind).all(axis=1))
        own = [name for name, asked in zip(names, kind, strict=True) if asked]
        for name, values in _predict(potential, data.select(rows), own, atoms_per_batch).items():
            results[name][data.entries_of(name, rows)] = values
    return results


def _predict(potential: Potential, data: Dataset, names: Sequence[str], atoms_per_batch: int) -> Arrays:
    batches = Batches(data, potential.cutoff, (), potential.device)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    start = 0
    while start < len(data) and names:
        end = int(np.searchsorted(data.first, data.first[start] + atoms_per_batch, side="right")) - 1
        end = min(max(end, start + 1), len(data))
        with torch.no_grad():
            results = potential(batches(np.arange(start, end))[0], names)
        for name in names:
            parts[name].append(results[name].double().cpu().numpy())
        start = end
    return {name: np.concatenate(part) for name, part in parts.items() if part}


def without_undefined(data: Dataset) -> Dataset:
    """The same set without the labels of properties that a structure does not have, such as the dipole of a crystal.

    A note says how many they are.
    """
    labels, notes = dict(data.labels), list(data.notes)
    for name in data.labels:
        lost = ~defined(name, data.pbc) & data.structure_labelled(name) if depends_on_cell(name) else np.zeros(0, bool)
        if lost.any():
            labels[name] = np.where(lost.reshape(-1, *[1] * len(SHAPES.get(name, ()))), np.nan, labels[name])
            why = "not periodic in three directions" if name in NEEDS_CELL else "periodic"
            fix = "" if name in NEEDS_CELL else "; molecules in boxes are read with periodic = false"
            notes.append(f"{name} of {lost.sum()} structures is not used, as they are {why}{fix}")
    if len(notes) == len(data.notes):
        return data
    left = dataclasses.replace(data, labels=labels, notes=tuple(notes))
    known = [~np.isnan(by_row(values)).all(axis=1) for name, values in labels.items() if name not in PER_ATOM]
    known += [left.structure_labelled(name) for name in labels if name in PER_ATOM]
    return left.select(np.flatnonzero(np.logical_or.reduce(known)))


def report_unit(label: str, potential: Potential, chosen: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Size of the unit that errors of a label are quoted in, and its name."""
    name = (chosen or {}).get(label) or REPORT.get(label)
    if name is None:
        own = {head.name: head.unit for head in potential.config.heads if isinstance(head, ScalarHead)}[label]
        name = own if units.energy_size(own) is None else "meV"
    return size_of_unit(label, name), name


def errors(predicted: Arrays, labels: Arrays, potential: Potential, chosen: Mapping[str, str] | None = None) -> Table:
    """Mean absolute and root mean squared error of each property over its labels, in the units of `REPORT`.

    Tensors count by component.
    """
    table: Table = {}
    for name, value in predicted.items():
        known = np.isfinite(labels[name])
        if not known.any():
            continue
        size, unit = report_unit(name, potential, chosen)
        error = (value - labels[name])[known] / size
        table[name] = {
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt(np.square(error).mean())),
            "unit": f"{unit} per component" if name in SHAPES else unit,
            "labels": int(by_row(known).any(axis=1).sum()),
        }
    return table


def error_table(
    potential: Potential,
    path: str | Path,
    *,
    split: str = "test",
    keys: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    report_units: Mapping[str, str] | None = None,
    tell: Callable[[str], object] | None = None,
    **options: Any,
) -> Table:
    """Errors of a model on a split ("train", "validation", "test" or "all") of a file of labelled structures.

    Args:
        potential: the model.
        path: the file.
        split: which rows.
        keys: array of each label, where it is not the usual one; "" leaves a label out.
        units: unit of "energy", "length", "dipole", "polarizability", ... where the file does not say.
        report_units: units that errors are quoted in.
        options: further keys of a data file: symbols, geometry, periodic, exclude.
        tell: what takes the notes on the file, line by line: its units, and what of it is not used.

    Raises:
        PaiNNFastError: as `read_split`, and if no row of the split has a label that the model predicts.
    """
    path = Path(path)
    if not path.exists():
        raise PaiNNFastError("no such data file", where=path)
    if split not in (*SPLITS, "all"):
        raise PaiNNFastError("unknown split", got=repr(split), expected=" | ".join((*SPLITS, "all")))
    values = {"file": path.name, "keys": dict(keys or {}), "units": dict(units or {}), **options}
    source = DataFile.parse(values, where=str(path))
    names = labels_of(potential.config.heads)
    parts = read_split(source, path.parent, names)
    data = without_undefined(join(list(parts.values())) if split == "all" else parts[split])
    table = errors(predict(potential, data), data.labels, potential, report_units) if len(data) else {}
    if not table:
        raise PaiNNFastError(
            "nothing to compare",
            where=f"{path}, split {split}",
            got="; ".join((f"{len(data)} labelled rows", *data.notes)),
            expected=f"labels of {', '.join(names)}",
        )
    if tell is not None:
        for note in data.notes:
            tell(note)
    return table


def format_errors(table: Table) -> str:
    """The table on one line, for progress."""
    return "  ".join(
        f"{name} {row['mae']:.4f} {str(row['unit']).removesuffix(' per component')}" for name, row in table.items()
    )
