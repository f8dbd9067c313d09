"""Errors of a model on labelled structures, in the units that people quote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import Potential
from painn_fast.train.dataset import SPLITS, Dataset, join, read_npz
from painn_fast.train.settings import LABELS, DataFile

REPORT = {
    "energy": (units.KCAL_PER_MOL, "kcal/mol"),
    "forces": (units.KCAL_PER_MOL, "kcal/mol/Å per component"),
    "dipole": (units.DEBYE, "D per component"),
    "polarizability": (1.0, "Å³ per component"),
}
"""Unit that each error is quoted in, and its name."""


def predict(potential: Potential, data: Dataset, per_batch: int = 100) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Predictions and labels of every structure, for the labels that the model has a head for."""
    names = [name for name in LABELS if name in potential.properties]
    predicted: dict[str, list[Tensor]] = {name: [] for name in names}
    labelled: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, len(data), per_batch):
        batch, labels = data.select(range(start, min(start + per_batch, len(data)))).batch()
        with torch.no_grad():
            results = potential(batch.to(potential.device), names)
        for name in names:
            predicted[name].append(results[name].cpu())
            labelled[name].append(labels[name])
    return {k: torch.cat(v) for k, v in predicted.items()}, {k: torch.cat(v) for k, v in labelled.items()}


def errors(predicted: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, dict[str, float | int | str]]:
    """Mean absolute and root mean squared error of each property over its labels, in the units of `REPORT`."""
    table: dict[str, dict[str, float | int | str]] = {}
    for name, value in predicted.items():
        known = ~torch.isnan(labels[name])
        if not bool(known.any()):
            continue
        size, unit = REPORT[name]
        error = (value.double() - labels[name])[known] / size
        table[name] = {
            "mae": float(error.abs().mean()),
            "rmse": float(error.square().mean().sqrt()),
            "unit": unit,
            "labels": int(known.reshape(len(known), -1).any(dim=1).sum()),
        }
    return table


def error_table(
    potential: Potential,
    path: str | Path,
    *,
    split: str = "test",
    keys: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> dict[str, dict[str, float | int | str]]:
    """Errors of a model on a split ("train", "validation", "test" or "all") of an `.npz` file.

    Args:
        potential: the model.
        path: the file.
        split: which rows; a file without a split of its own is used whole, as "all".
        keys: array of each label, where it is not the usual one; "" leaves a label out.
        units: unit of "energy", "length", "dipole", "polarizability" where the file does not say.

    Raises:
        PaiNNFastError: as `read_npz`, and if no row of the split has a label that the model predicts.
    """
    path = Path(path)
    if not path.is_file():
        raise PaiNNFastError("no such data file", where=path)
    chosen: dict[str, Any] = {f"{kind}_unit": name for kind, name in (units or {}).items()}
    parts = read_npz(
        DataFile.parse({"file": path.name, "keys": dict(keys or {}), **chosen}, where=str(path)), path.parent
    )
    if split not in (*SPLITS, "all"):
        raise PaiNNFastError("unknown split", got=repr(split), expected=" | ".join((*SPLITS, "all")))
    data = join(list(parts.values())) if split == "all" else parts[split]
    table = errors(*predict(potential, data)) if len(data) else {}
    if not table:
        raise PaiNNFastError(
            "nothing to compare",
            where=f"{path}, split {split}",
            got=f"{len(data)} labelled rows",
            expected=f"labels of {', '.join(potential.properties)}",
        )
    return table


def format_errors(table: dict[str, dict[str, float | int | str]], properties: Sequence[str] = LABELS) -> str:
    """The table on one line, for progress."""
    return "  ".join(
        f"{name} {table[name]['mae']:.4f} {str(table[name]['unit']).removesuffix(' per component')}"
        for name in properties
        if name in table
    )
