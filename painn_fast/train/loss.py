"""The joint loss, and what a model starts from."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from painn_fast import units
from painn_fast.graph import AtomicBatch
from painn_fast.nn import EnergyHead, Potential, ScalarHead
from painn_fast.nn.config import PolarizabilityHead, SpatialExtentHead, head_name
from painn_fast.train.data import Dataset
from painn_fast.train.evaluation import predict


def joint_loss(
    results: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    batch: AtomicBatch,
    weights: Mapping[str, float],
    counts: Mapping[str, int] | Mapping[str, Tensor] | None = None,
    *,
    energy_per_atom: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of mean squared errors over the labels that are not NaN; a term without any label is zero.

    Args:
        results: predictions, one term each.
        labels: of the same names and shapes; NaN where missing.
        batch: of both.
        weights: of the terms.
        counts: numbers that the means are over, 1 or more, where this batch is only part of one.
        energy_per_atom: divide the square of the energy's error by the number of atoms.

    Returns:
        The loss and its unweighted terms.
    """
    terms = {}
    for name, value in results.items():
        label = labels[name].to(value.dtype)
        known = ~torch.isnan(label)
        error = torch.where(known, value - torch.where(known, label, 0.0), 0.0) ** 2
        if name == "energy" and energy_per_atom:
            error = error / batch.n_atoms
        count = known.sum().clamp(min=1) if counts is None else counts[name]
        terms[name] = error.sum() / count
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return total, terms


def set_references(potential: Potential, data: Dataset, kept: Collection[str] = ()) -> None:
    """Start from the mean of the data: contributions of elements by least squares, means, sizes of atoms.

    Args:
        potential: changed in place.
        data: labelled structures.
        kept: heads with weights of an earlier training; what they predict on average is corrected, the rest kept.
    """
    config = potential.config
    for head in config.heads:
        name, module = head_name(head), potential.heads[head_name(head)]
        rows = np.flatnonzero(data.structure_labelled(name))
        if not len(rows):
            continue
        part = data.select(rows)
        values: np.ndarray = part.labels[name]
        if name in kept:
            if not isinstance(head, EnergyHead | ScalarHead):
                continue
            values = values - predict(potential, part, (name,))[name]
        *_, bias = module.parameters()  # of the last layer; its first entry belongs to the scalar of an atom
        with torch.no_grad():
            match head:
                case ScalarHead(aggregation="mean"):
                    module.get_buffer("mean").add_(values.mean() / _unit(head, potential))
                case EnergyHead() | ScalarHead():
                    solution = _of_elements(part, values, config.representation.max_z) / _unit(head, potential)
                    module.get_buffer("atomic_reference").add_(torch.from_numpy(solution))
                case SpatialExtentHead():
                    bias[0] = values.sum() / _extent(part).sum()
                case PolarizabilityHead():
                    mean = np.trace(values, axis1=1, axis2=2) / 3 / part.n_atoms
                    bias[0] = mean.mean() / units.factor("polarizability", config.polarizability_unit)


def _unit(head: EnergyHead | ScalarHead, potential: Potential) -> float:
    unit = potential.config.energy_unit if isinstance(head, EnergyHead) else head.unit
    return units.energy_size(unit) or 1.0


def _of_elements(data: Dataset, values: np.ndarray, max_z: int) -> np.ndarray:
    """Contributions [max_z] whose sums over atoms come closest to the values; the smallest of many."""
    structure = np.repeat(np.arange(len(data)), data.n_atoms)
    counts = np.bincount(structure * max_z + data.numbers, minlength=len(data) * max_z).reshape(len(data), max_z)
    solution = np.zeros(max_z)
    present = counts.any(axis=0)
    solution[present] = np.linalg.lstsq(counts[:, present].astype(np.float64), values, rcond=None)[0]
    return solution


def _extent(data: Dataset) -> np.ndarray:
    """Sum of squared distances of atoms from the mean of their structure [n] Å²."""
    starts = data.first[:-1]
    centre = np.add.reduceat(data.positions, starts) / data.n_atoms[:, None]
    return np.add.reduceat(((data.positions - np.repeat(centre, data.n_atoms, axis=0)) ** 2).sum(axis=1), starts)
