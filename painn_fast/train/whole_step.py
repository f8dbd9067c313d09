"""A training step as one CUDA graph: batches are padded to a few sizes, each of which is captured once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from painn_fast.engine.cuda_graph import captured
from painn_fast.graph import AtomicBatch
from painn_fast.nn import Potential
from painn_fast.runtime.progress import warn

PROPERTIES = {"energy", "forces"}
"""Labels of which an empty molecule changes nothing."""
SIZES = 4
"""Of batches, an octave."""
EDGES = 32
"""Of an atom of the padding, about: a program visits them one after another."""
GRAPHS = 8
"""Captured sizes that are kept; each holds the memory of a step."""


def bucket(count: int) -> int:
    """The next of a few numbers, `SIZES` an octave."""
    unit = 1 << max((count - 1).bit_length() - SIZES.bit_length(), 0)
    return -(-count // unit) * unit


def padded(batch: AtomicBatch, labels: Mapping[str, Tensor], cutoff: float) -> tuple[AtomicBatch, dict[str, Tensor]]:
    """A batch of a size of which there are few: another molecule, without labels, whose edges are beyond the cut-off.

    Args:
        batch: on a CPU.
        labels: of it.
        cutoff: Å.

    Returns:
        The same molecules and one more, and their labels, NaN for the last.
    """
    atoms, edges = batch.n_total, len(batch.sender)
    more_edges = bucket(max(edges, 2)) - edges
    more = bucket(atoms + max(1, more_edges // EDGES)) - atoms
    of_each = 2 * -(-more_edges // (2 * more))  # a pair of edges of an atom with itself is the smallest number
    number = torch.arange(more_edges)
    ends = atoms + number // max(of_each, 1)
    shift = torch.zeros(more_edges, 3, dtype=batch.shift.dtype)
    shift[:, 0] = 2.0 * cutoff * (1 - 2 * (number % 2))
    last = edges + (torch.arange(1, more + 1) * of_each).clamp(max=more_edges)
    grown = {
        "numbers": batch.numbers[:1].expand(more), "positions": batch.positions.new_zeros(more, 3),
        "molecule": batch.molecule.new_full((more,), batch.n_molecules), "n_atoms": batch.n_atoms.new_full((1,), more),
        "receiver": ends, "sender": ends, "shift": shift, "row_ptr": last, "cell": batch.cell.new_zeros(1, 3, 3),
        "pbc": batch.pbc.new_zeros(1, 3), "total_charge": batch.total_charge.new_zeros(1),
        "spin_multiplicity": batch.spin_multiplicity.new_ones(1),
    }  # fmt: skip
    whole = AtomicBatch(**{name: torch.cat([getattr(batch, name), value]) for name, value in grown.items()})
    missing = {name: more if len(value) == atoms and name == "forces" else 1 for name, value in labels.items()}
    filled = {
        name: torch.cat([value, value.new_full((missing[name], *value.shape[1:]), torch.nan)])
        for name, value in labels.items()
    }
    return whole.knowing(torch.cat([batch.mirror, edges + (number ^ 1)])), filled


@dataclass(frozen=True)
class Inputs:
    """What a step reads, in memory that stays."""

    batch: AtomicBatch
    labels: dict[str, Tensor]
    numbers: Tensor  # float32: learning rate, share of the average, count of each label

    @classmethod
    def like(cls, batch: AtomicBatch, labels: Mapping[str, Tensor], numbers: Tensor, device: torch.device) -> Inputs:
        """Copies on a device."""

        def copy(tensor: Tensor) -> Tensor:
            return tensor.to(device, copy=True)

        made = AtomicBatch(**{f.name: copy(getattr(batch, f.name)) for f in dataclasses.fields(batch)})
        made.__dict__["elements"], made.__dict__["periodic"] = frozenset(), batch.periodic  # which are checked before
        return cls(
            made.knowing(copy(batch.mirror)), {name: copy(value) for name, value in labels.items()}, copy(numbers)
        )

    def load(self, batch: AtomicBatch, labels: Mapping[str, Tensor], numbers: Tensor) -> None:
        """Take others of the same sizes."""
        for field in dataclasses.fields(batch):
            getattr(self.batch, field.name).copy_(getattr(batch, field.name))
        self.batch.mirror.copy_(batch.mirror)
        for name, value in labels.items():
            self.labels[name].copy_(value)
        self.numbers.copy_(numbers)


Gradients = Callable[[AtomicBatch, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


class WholeStep:
    """Steps on padded batches, as CUDA graphs on a GPU; elsewhere the same operations one by one.

    Args:
        gradients: leaves the gradients of a batch, its labels and the counts of these, and returns the loss.
        update: everything after that, from the loss, the learning rate and the share of the average.
        cutoff: Å.
        device: of the model.
    """

    def __init__(
        self, gradients: Gradients, update: Callable[[Tensor, Tensor, Tensor], None], cutoff: float,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.gradients, self.update, self.cutoff, self.device = gradients, update, cutoff, device
        self._runs: dict[tuple[int, int, int], tuple[Inputs, Callable[[], None]]] = {}
        self._ready, self._possible = False, True

    @classmethod
    def of(
        cls, gradients: Gradients, update: Callable[[Tensor, Tensor, Tensor], None], names: Collection[str],
        model: Potential,
    ) -> WholeStep | None:  # fmt: skip
        """For a model that learns these labels; None if padding would change others than these."""
        return cls(gradients, update, model.cutoff, model.device) if set(names) <= PROPERTIES else None

    def __call__(
        self, batch: AtomicBatch, labels: Mapping[str, Tensor], counts: Mapping[str, int], rate: float, share: float
    ) -> bool:
        """A step on a batch that is on a CPU; False, and nothing is done, where a step cannot be captured.

        The first one is not, so that everything that a step launches is loaded.
        """
        if not self._possible:
            return False
        given = *padded(batch, labels, self.cutoff), torch.tensor([rate, share, *counts.values()])
        if not self._ready:
            self._ready = True
            self._run(Inputs.like(*given, self.device), list(counts))()
            return True
        size = given[0].n_total, len(given[0].sender), given[0].n_molecules
        if size not in self._runs:
            try:
                inputs = Inputs.like(*given, self.device)
                run = self._run(inputs, list(counts))
                made = inputs, captured(run, self.device, partial(run, warm_up=True))
            except RuntimeError as error:
                self._possible = False
                warn(f"training steps are not captured as CUDA graphs: {error}".splitlines()[0])
                return False
            while len(self._runs) >= GRAPHS:
                del self._runs[next(iter(self._runs))]
            self._runs[size] = made
        inputs, run = self._runs[size]
        inputs.load(*given)
        run()
        return True

    def _run(self, inputs: Inputs, names: list[str]) -> Callable[..., None]:
        """A step on these inputs; to warm up, without a change of the model."""
        rate, share, *counts = inputs.numbers.unbind()
        known = dict(zip(names, counts, strict=True))

        def run(*, warm_up: bool = False) -> None:
            loss = self.gradients(inputs.batch, inputs.labels, known)
            if not warm_up:
                self.update(loss, rate, share)

        return run
