"""Errors of a model on labelled structures, in the units that people quote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import Potential, ScalarHead
from painn_fast.nn.defined import NEEDS_CELL, NEEDS_VACUUM, defined
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
"""Units of reported errors unless others are requested; other energies in meV."""

STANDARD_ERROR = "mae_standard_error"

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
    has = {name: defined(name, data.pbc) for name in names}
    sizes = {name: len(data.numbers) if name in PER_ATOM else len(data) for name in names}
    results = {name: np.full((size, *SHAPES.get(name, ())), np.nan) for name, size in sizes.items()}
    batches = Batches(data, potential.cutoff, (), potential.device)
    start = 0
    while start < len(data):
        end = int(np.searchsorted(data.first, data.first[start] + atoms_per_batch, side="right")) - 1
        rows = np.arange(start, min(max(end, start + 1), len(data)))
        own = [name for name in names if has[name][rows].any()]
        with torch.no_grad():
            values = potential(batches(rows)[0], own) if own else {}
        for name in own:
            results[name][data.entries_of(name, rows)] = values[name].double().cpu().numpy()
        start += len(rows)
    return results


def usable(data: Dataset) -> Dataset:
    """The structures with a label of a property that they have: a dipole of a crystal is none."""
    return data.without_undefined(NEEDS_CELL | NEEDS_VACUUM).with_labels()


def report_unit(label: str, potential: Potential, chosen: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Size of the unit that errors of a label are quoted in, and its name."""
    name = (chosen or {}).get(label) or REPORT.get(label)
    if name is None:
        own = {head.name: head.unit for head in potential.config.heads if isinstance(head, ScalarHead)}[label]
        name = own if units.energy_size(own) is None else "meV"
    return size_of_unit(label, name), name


def errors(predicted: Arrays, data: Dataset, potential: Potential, chosen: Mapping[str, str] | None = None) -> Table:
    """Mean absolute and root mean squared error of each property over its labels, in the units of `REPORT`.

    Tensors count by component. The standard error of the mean absolute error is that of a sample of structures, whose
    atoms are not independent; a single structure has none.
    """
    table: Table = {}
    for name, value in predicted.items():
        known = np.isfinite(data.labels[name])
        if not known.any():
            continue
        size, unit = report_unit(name, potential, chosen)
        error = (value - data.labels[name]) / size
        spread = _standard_error(np.where(known, np.abs(error), 0.0), known, name, data)
        table[name] = {
            "mae": float(np.abs(error[known]).mean()),
            **({} if spread is None else {STANDARD_ERROR: spread}),
            "rmse": float(np.sqrt(np.square(error[known]).mean())),
            "unit": f"{unit} per component" if name in SHAPES else unit,
            "labels": int(by_row(known).any(axis=1).sum()),
        }
    return table


def _standard_error(values: np.ndarray, known: np.ndarray, name: str, data: Dataset) -> float | None:
    """Standard error of the mean of the `known` values: a ratio of sums over structures of unequal numbers.

    Cochran, Sampling Techniques (1977), section 2.11.
    """
    sums, counts = by_row(values).sum(axis=1), by_row(known).sum(axis=1)
    if name in PER_ATOM:
        sums, counts = (np.add.reduceat(array, data.first[:-1]) for array in (sums, counts))
    n = np.count_nonzero(counts)
    if n < 2:
        return None
    off = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(n / (n - 1) * np.square(off).sum()) / counts.sum())


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
        units: unit of "energy", "length", "dipole", "polarizability", ... that the file does not declare.
        report_units: units that errors are quoted in.
        options: further keys of a data file: symbols, geometry, periodic, exclude.
        tell: called with each note on the file: its units, and what of it is not used.

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
    data = usable(join(list(parts.values())) if split == "all" else parts[split])
    table = errors(predict(potential, data), data, potential, report_units) if len(data) else {}
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


def error_rows(table: Table) -> list[dict[str, float | int | str]]:
    """The table as rows of what is printed."""
    return [
        {
            "property": name,
            "MAE": f"{row['mae']:.4f}",
            "standard error": f"{row[STANDARD_ERROR]:.4f}" if STANDARD_ERROR in row else "",
            "RMSE": f"{row['rmse']:.4f}",
            "unit": row["unit"],
            "labels": row["labels"],
        }
        for name, row in table.items()
    ]


def format_errors(table: Table) -> str:
    """The table on one line, for progress."""
    return "  ".join(
        f"{name} {row['mae']:.4f} {str(row['unit']).removesuffix(' per component')}" for name, row in table.items()
    )
