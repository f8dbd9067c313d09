"""The programs that are measured: each makes the work of one timed call out of a problem."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import cycle
from typing import Any, ClassVar

import torch
from torch import Tensor

from painn_fast import units
from painn_fast.ase import PaiNNCalculator
from painn_fast.bench.cases import PROPERTIES, SIMULATOR, TRAINING
from painn_fast.bench.problem import (
    ALL,
    LEARNING_RATE,
    Numbers,
    Problem,
    Work,
    loss,
    loss_weights,
    step_numbers,
    to_float64,
)
from painn_fast.engine import engine_for
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.kernels import threads
from painn_fast.nn import Potential
from painn_fast.train.direct_step import DirectStep
from painn_fast.train.optimizer import AdamW, FlatParameters

SHIFT = 0.01
"""Å."""


class Side:
    """One program.

    `prepare` does what happens once for a graph (memory, conversion of weights and inputs) and returns what is timed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    once: ClassVar[bool] = False
    """Whether its work takes so long that it is timed in one call, in CPU time."""

    def supports(self, problem: Problem) -> bool:
        """Whether there is anything to compare; if not, the side is left out silently."""
        return problem.mode != SIMULATOR

    def prepare(self, problem: Problem) -> Work:
        """The work of one call.

        Raises:
            Exception: whatever keeps this side from the problem; the report tells it.
        """
        raise NotImplementedError


class Reference(Side):
    """`Potential` as people read it, through autograd."""

    name, title, backend = "reference", "reference", "reference"

    def prepare(self, problem: Problem) -> Work:
        if problem.mode == "evaluate":
            return _end_to_end(problem, self.backend)
        if problem.mode == "calculator":
            return by_calculator(problem, lambda: PaiNNCalculator(problem.potential, backend=self.backend))
        if problem.mode in TRAINING:
            return _training_step(problem, self.backend)
        return self._batched(problem)

    def _batched(self, problem: Problem) -> Work:
        potential, batch, names = problem.potential, problem.batch, problem.properties

        def call() -> Numbers:
            with torch.no_grad(), potential.reference():  # the potential turns the tape on where forces need it
                return potential(batch, names)

        return Work(call, read_numbers)


class Fused(Reference):
    """The engine with its memory laid out; in training the fused operations."""

    name, title, backend = "fused", "painn-fast", "fused"

    def _batched(self, problem: Problem) -> Work:
        batch, names = problem.batch, problem.properties
        engine: Any = engine_for(problem.potential, "fused")
        workspace = engine.workspace(batch)
        return Work(lambda: engine(workspace, batch.positions, names), read_numbers)


class Compiled(Side):
    """The reference under `torch.compile`, from positions to atomic energies; the derivative by autograd."""

    name, title = "compile", "torch.compile"

    def __init__(self) -> None:
        self._known: tuple[Problem, Potential, Any] | None = None

    def prepare(self, problem: Problem) -> Work:
        if problem.mode in ("evaluate", "calculator", PROPERTIES):
            raise PaiNNFastError("not measured: the graph would be compiled for each shape")
        if self._known is None or self._known[0] is not problem:
            torch.compiler.reset()
            potential = copy.deepcopy(problem.potential)  # training moves its weights
            self._known = problem, potential, torch.compile(_energies(potential), dynamic=False, fullgraph=True)
        (_, potential, energies), batch = self._known, problem.batch

        def forward() -> Numbers:
            with torch.no_grad():
                return {"energy": _total(energies, batch)}

        def with_forces(create_graph: bool = False) -> Numbers:
            positions = batch.positions.detach().requires_grad_()
            value = batch.sum_over_atoms(energies(positions, batch))
            (gradient,) = torch.autograd.grad(value.sum(), positions, create_graph=create_graph)
            return {"energy": value, "forces": -gradient}

        if problem.mode in TRAINING:
            torch._functorch.config.donated_buffer = False  # or the graph cannot be differentiated again
            if problem.mode == "training_energy":
                return optimizer_step(potential, lambda: {"energy": _total(energies, batch)}, problem.targets)
            return optimizer_step(potential, lambda: with_forces(create_graph=True), problem.targets)
        return Work(forward if problem.mode == "forward" else with_forces, read_numbers)


def _total(energies: Callable[..., Tensor], batch: Any) -> Tensor:
    total: Tensor = batch.sum_over_atoms(energies(batch.positions, batch))
    return total


def _energies(potential: Potential) -> Callable[..., Tensor]:
    length = units.factor("length", potential.config.length_unit)

    def energies(positions: Tensor, batch: Any) -> Tensor:
        moved = batch.with_positions(positions)
        s, v = potential.representation(moved, (moved.edge_vectors() / length).to(torch.float32))
        return potential.results_of_heads(s, v, moved, ("energies",))["energies"]

    return energies


def read_numbers(result: Numbers) -> Numbers:
    """Energies, forces, dipoles and polarizabilities out of a dictionary that holds them among others."""
    return {name: to_float64(result[name]) for name in ALL if name in result}


def _end_to_end(problem: Problem, backend: str) -> Work:
    """`evaluate`: neighbour lists, batches, transfer to the device and back."""
    potential, structures, names = problem.potential, problem.structures, problem.properties

    return Work(lambda: evaluate(potential, structures, names, backend=backend), read_lists)


def by_calculator(problem: Problem, make: Callable[[], Any]) -> Work:
    """Forces and energies as ASE asks for them, structure by structure, with a calculator each.

    Every call moves all atoms by `SHIFT`, forth and back: ASE keeps the results of a structure that has not moved.
    """
    structures, shifts = [atoms.copy() for atoms in problem.structures], cycle((SHIFT, -SHIFT))
    for atoms in structures:
        atoms.calc = make()

    def call() -> dict[str, list[Any]]:
        shift = next(shifts)
        for atoms in structures:
            atoms.positions += shift
        forces = [atoms.get_forces() for atoms in structures]
        return {"forces": forces, "energy": [atoms.get_potential_energy() for atoms in structures]}

    return Work(call, read_lists)


def read_lists(result: dict[str, list[Any]]) -> Numbers:
    """Energies and forces out of lists with an entry a structure."""
    numbers = {"energy": torch.tensor(result["energy"], dtype=torch.float64)}
    if "forces" in result:
        numbers["forces"] = torch.cat([torch.from_numpy(forces).double() for forces in result["forces"]])
    return numbers


def _training_step(problem: Problem, backend: str) -> Work:
    """Energies, forces, loss, gradient and AdamW, on weights of its own."""
    potential = copy.deepcopy(problem.potential).train()
    potential.backend = backend
    if backend == "fused" and not potential.fused:
        raise PaiNNFastError("the fused operations do not run here", where=str(potential.device))
    batch, targets, names = problem.batch, problem.targets, problem.properties
    if backend == "reference":
        return optimizer_step(potential, lambda: potential(batch, names, create_graph=True), targets)
    return _as_in_our_loop(potential, problem)


def _as_in_our_loop(potential: Potential, problem: Problem) -> Work:
    """A step of our training loop, of a model of its own."""
    batch, names, flat = problem.batch, problem.properties, FlatParameters(potential)
    targets = {name: target for name, target in problem.targets.items() if name in names}
    weights, counts = loss_weights(names), {name: target.numel() for name, target in targets.items()}
    direct = DirectStep.of(potential, flat, weights, energy_per_atom=False)
    optimizer = AdamW(flat, weight_decay=0.01)  # torch's default

    def gradient() -> Tensor:
        if direct is not None:
            return direct(batch, targets, counts)
        flat.zero_grad()
        error = loss(potential(batch, names, create_graph=True), targets)
        error.backward()
        flat.collect()
        return error

    def call() -> Tensor:
        with threads.ours():
            error = gradient()
            optimizer.step(LEARNING_RATE)
        return error

    return Work(call, lambda error: step_numbers(error, list(potential.parameters())), steps=True)


def optimizer_step(
    model: torch.nn.Module,
    outputs: Callable[[], Any],
    targets: Numbers,
    parameters: Callable[[], list[Tensor]] | None = None,
) -> Work:
    """A step of AdamW on what `outputs` gives for energy and forces; `parameters` in our order, if not the model's."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def call() -> Tensor:
        optimizer.zero_grad()
        error = loss(outputs(), targets)
        error.backward()
        optimizer.step()
        return error

    def read(error: Tensor) -> Numbers:
        return step_numbers(error, parameters() if parameters else list(model.parameters()))

    return Work(call, read, steps=True)
