"""Joint loss over whatever labels there are, and the statistics that the model starts from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from painn_fast import units
from painn_fast.graph import AtomicBatch
from painn_fast.nn import Potential
from painn_fast.train.dataset import Dataset
from painn_fast.train.settings import LossWeights


def joint_loss(
    results: dict[str, Tensor], labels: dict[str, Tensor], batch: AtomicBatch, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of mean squared errors over the labels that are there (not NaN); a term without any label is zero.

    The energy's square is divided by the number of atoms.

    Returns:
        The loss and its unweighted terms.
    """
    terms = {}
    for name, value in results.items():
        label = labels[name].to(value.dtype)
        known = ~torch.isnan(label)
        error = torch.where(known, value - torch.where(known, label, 0.0), 0.0) ** 2
        if name == "energy":
            error = error / batch.n_atoms
        terms[name] = error.sum() / known.sum().clamp(min=1)
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return total, terms


def set_references(potential: Potential, data: Dataset) -> None:
    """Start from the mean: atomic reference energies by least squares, the isotropic polarizability of an atom."""
    heads = potential.heads
    if "energy" in heads and data.labelled("energy"):
        known = ~torch.isnan(data.energy)
        counts = np.zeros((len(data), potential.config.representation.max_z))
        for row, molecule in zip(counts, data.molecules, strict=True):
            np.add.at(row, molecule.numbers.numpy(), 1)
        mask = known.numpy()
        reference = np.linalg.lstsq(counts[mask], data.energy.numpy()[mask], rcond=None)[0]
        heads["energy"].atomic_reference.copy_(
            torch.from_numpy(reference) / units.factor("energy", potential.config.energy_unit)
        )
    if "polarizability" in heads and data.labelled("polarizability"):
        trace = torch.einsum("nii->n", data.polarizability) / 3
        atoms = torch.tensor([molecule.n_total for molecule in data.molecules])
        last = heads["polarizability"].network.blocks[-1].context[-1]
        with torch.no_grad():
            last.bias[0] = float(torch.nanmean(trace / atoms))
