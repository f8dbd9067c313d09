"""Joint loss over whatever labels there are, and the statistics that the model starts from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from painn_fast import units
from painn_fast.graph import AtomicBatch
from painn_fast.nn import Potential
from painn_fast.nn.heads import Atomwise, Polarizability
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
    config, heads = potential.config, dict(potential.heads.items())
    energy, polarizability = heads.get("energy"), heads.get("polarizability")
    if isinstance(energy, Atomwise) and data.labelled("energy"):
        reference = _energies_of_elements(data, config.representation.max_z)
        energy.atomic_reference.copy_(reference / units.factor("energy", config.energy_unit))
    if isinstance(polarizability, Polarizability) and data.labelled("polarizability"):
        trace = torch.einsum("nii->n", data.polarizability) / 3
        atoms = torch.tensor([molecule.n_total for molecule in data.molecules])
        *_, bias = polarizability.network.parameters()  # of the last layer: [isotropic part, gate]
        with torch.no_grad():
            bias[0] = float(torch.nanmean(trace / atoms)) / units.factor("polarizability", config.polarizability_unit)


def _energies_of_elements(data: Dataset, max_z: int) -> Tensor:
    """Energies [max_z] eV whose sums over atoms come closest to the labels; the smallest where that leaves a choice."""
    known = torch.isfinite(data.energy)
    counts = torch.stack([torch.bincount(molecule.numbers, minlength=max_z) for molecule in data.molecules]).double()
    solution = np.linalg.lstsq(counts[known].numpy(), data.energy[known].numpy(), rcond=None)[0]
    return torch.from_numpy(solution)
