"""One case in one mode: the inputs that all sides share, and the numbers that each of them has to give."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.bench.cases import PROPERTIES, TRAINING, Case
from painn_fast.evaluate import evaluate
from painn_fast.graph import AtomicBatch, batch_atoms
from painn_fast.nn import Potential

ALL = ("energy", "forces", "dipole", "polarizability")
TOLERANCE = {**dict.fromkeys(ALL, 1e-4), "loss": 1e-4, "gradient": 1e-3}
"""Between a side in float32 and the reference in float64, relative to the largest magnitude."""
ENERGY_WEIGHT, FORCE_WEIGHT = 0.05, 0.95
"""Of the mean squared errors, as the paper has them for MD17."""
LEARNING_RATE = 1e-4

Numbers = dict[str, Tensor]


@dataclass
class Work:
    """What a side does in one timed call.

    Args:
        call: the work itself; its result may be anything.
        read: energies [M] eV, forces [N, 3] eV/Å, loss [] and gradient [parameters] out of that result; not timed.
        expected: what they must be, if that is not the numbers of the problem.
        steps: whether each call changes the weights, so that the first result alone can be compared.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Numbers]
    expected: Numbers | None = None
    steps: bool = False


@dataclass
class Problem:
    """One case in one mode on one device. M structures, N atoms, E edges."""

    case: Case
    mode: str
    potential: Potential
    structures: list[ase.Atoms] = field(init=False)
    batch: AtomicBatch = field(init=False)
    expected: Numbers = field(init=False)

    def __post_init__(self) -> None:
        self.structures = self.case.structures()
        graph = batch_atoms(self.structures, self.potential.cutoff, neighbors="list")
        self.batch = graph.to(self.potential.device)
        self.batch.mirror  # noqa: B018  part of the graph
        self.expected = self._step_in_float64() if self.mode in TRAINING else self._values_in_float64()

    @property
    def properties(self) -> tuple[str, ...]:
        """Of the potential, for this mode."""
        if self.mode == PROPERTIES:
            return ALL
        return ("energy",) if self.mode in ("forward", "training_energy") else ("energy", "forces")

    @property
    def targets(self) -> Numbers:
        """Labels of the training step, float32: energies [M] eV and forces [N, 3] eV/Å."""
        generator = torch.Generator().manual_seed(0)
        shapes = {"energy": (self.batch.n_molecules,), "forces": (self.batch.n_total, 3)}
        labels = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        return {name: label.to(self.potential.device) for name, label in labels.items()}

    def _values_in_float64(self) -> Numbers:
        double = copy.deepcopy(self.potential).double()
        values = evaluate(double, self.case.unit(), self.properties, backend="reference")
        numbers = {"energy": torch.tensor(values["energy"], dtype=torch.float64) * self.case.copies}
        numbers |= {name: torch.from_numpy(np.stack(values[name])) for name in values if name in ALL[2:]}
        if "forces" in values:
            tiled = [np.tile(forces, (self.case.copies, 1)) for forces in values["forces"]]
            numbers["forces"] = torch.from_numpy(np.concatenate(tiled))
        return numbers

    def _step_in_float64(self) -> Numbers:
        double = copy.deepcopy(self.potential).double()
        double.backend = "reference"
        outputs = double(self.batch, self.properties, create_graph=True)
        error = loss(outputs, self.targets)
        error.backward()
        return step_numbers(error, list(double.parameters()))


def loss_weights(names: Collection[str]) -> dict[str, float]:
    """Of the mean squared errors in the loss of a training step."""
    return {"energy": ENERGY_WEIGHT, "forces": FORCE_WEIGHT} if "forces" in names else {"energy": 1.0}


def loss(outputs: Mapping[str, Tensor], targets: Numbers) -> Tensor:
    """Weighted mean squared errors of energies [M] and, if they are given, forces [N, 3]."""
    weights = loss_weights(outputs)
    return torch.stack([w * (outputs[name] - targets[name]).square().mean() for name, w in weights.items()]).sum()


def step_numbers(error: Tensor, parameters: Sequence[Tensor]) -> Numbers:
    """Loss, and its gradient as one vector [parameters], after a training step."""
    flat = [torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1) for p in parameters]
    return {"loss": to_float64(error), "gradient": to_float64(torch.cat(flat))}


def to_float64(values: Tensor) -> Tensor:
    """On the CPU, off the tape."""
    return values.detach().cpu().double()


def disagreement(got: Numbers, expected: Numbers) -> dict[str, float]:
    """Largest deviation of each quantity relative to its largest magnitude; infinite if one is missing or no number."""
    errors = {}
    for name, right in expected.items():
        values = got.get(name)
        if values is None or values.shape != right.shape or not bool(torch.isfinite(values).all()):
            errors[name] = float("inf")
        else:
            scale = float(right.abs().max().clamp(min=1e-12))
            errors[name] = float((values - right).abs().max()) / scale
    return errors


def complaint(errors: dict[str, float]) -> str | None:
    """The quantities that deviate by more than the tolerance, or None."""
    texts = [
        f"{name} off by {error:.1e} of the largest, allowed {TOLERANCE[name]:.0e}"
        for name, error in errors.items()
        if not error <= TOLERANCE[name]
    ]
    return "; ".join(texts) or None
