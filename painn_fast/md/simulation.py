"""Dynamics in memory: states, integrators, guards. No files; `run` adds those."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from painn_fast.engine.cuda_graph import captured
from painn_fast.errors import PaiNNFastError
from painn_fast.md.estimators import Estimators
from painn_fast.md.force_field import SPREAD, Evaluation, ForceField, checked
from painn_fast.md.fragments import Fragments
from painn_fast.md.guards import Guards, LimitExceeded, check_start
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.state import State, System
from painn_fast.units import AMU_A2_PER_FS2, KB

CHECK_EVERY = 64
"""Steps on a GPU from one check of the limits to the next: a check waits for the device."""
FAILURES = ArithmeticError, PaiNNFastError
"""What a force field raises at positions that it cannot evaluate."""


@dataclass(eq=False)
class Group:
    """The trajectories of one molecule; integrator and estimators are those of the present stage."""

    system: System
    state: State
    """Changed in place."""
    temperature: Tensor  # [S] K, target of the guards
    integrator: RingPolymer
    estimators: Estimators
    fragments: Fragments | None = None
    """Checks the bonds."""

    def estimates(self) -> dict[str, Tensor]:
        """Energies and temperature [S], see `Estimators`; NaN for frozen trajectories."""
        return {name: self.masked(value) for name, value in self.estimators(self.state).items()}

    def masked(self, values: Tensor) -> Tensor:
        """Values [S, ...] with NaN for frozen trajectories."""
        alive = self.state.alive.view(-1, *[1] * (values.ndim - 1))
        return torch.where(alive, values, torch.nan)

    def averages(self, observed: dict[str, Tensor]) -> dict[str, Tensor]:
        """Properties of copies [S P, ...] averaged over beads [S, ...]; NaN for frozen trajectories."""
        shape = self.state.positions.shape[:2]
        return {
            name: self.masked(value.unflatten(0, shape).mean(1)) for name, value in observed.items() if name != SPREAD
        }


class Simulation:
    """Steps groups of trajectories under guards, all copies in one evaluation.

    A trajectory that exceeds a limit is frozen at its last good frame; the others go on. On a GPU a step is one CUDA
    graph, from the kick to the guards, and the processor reads their results every `CHECK_EVERY` steps: see
    `check_limits`.

    Args:
        groups: one for each molecule, in the order that the force field knows; their states are changed in place, and
            forces evaluated at step 0.
        force_field: of all copies.
        guards: limits.

    Raises:
        PaiNNFastError: if the first frame has no finite or far too large forces.
    """

    def __init__(self, groups: Sequence[Group], force_field: ForceField, guards: Guards | None = None) -> None:
        self.groups, self.force_field = list(groups), force_field
        self.guards = guards or Guards()
        self.exceeded: list[LimitExceeded] = []
        self.notes: list[LimitExceeded] = []
        """Bonds that broke in trajectories that are not stopped for it."""
        self.check_every = CHECK_EVERY if self.groups[0].state.positions.is_cuda else 1
        self._unchecked = 0
        self._copies = [group.state.copies for group in self.groups]
        self._limits: list[tuple[Estimators, Tensor] | None] = [None] * len(self.groups)
        self._whole: _Whole | None = None
        self._failures: dict[tuple[int, int], str] = {}
        if self.step_number == 0:
            for group, evaluation in zip(self.groups, self._first(), strict=True):
                group.state.take(*evaluation[:2])
                check_start(group.state, self.guards, group.system)
        self.alive = self._any_alive()

    @property
    def step_number(self) -> int:
        """Steps done."""
        return self.groups[0].state.step

    def step(self, properties: Sequence[str] = ()) -> list[dict[str, Tensor]]:
        """One time step; returns of each group observed properties averaged over beads [S, ...]."""
        observed = self._step(properties)
        self._check_bonds()
        self._unchecked += 1
        if properties or self._unchecked >= self.check_every:
            self.check_limits()
        return [group.averages(seen) for group, seen in zip(self.groups, observed, strict=True)]

    def check_limits(self) -> None:
        """Freeze what exceeded a limit since the last check, and describe it in `exceeded`.

        To be called before a state is read between steps: until then it is that of the step which exceeded the limit.
        """
        if self._unchecked:
            self._unchecked = 0
            for group in self.groups:
                if not group.integrator.within_limits(group.state):
                    self._freeze(group)
                if group.fragments is not None:
                    self.notes += group.fragments.notes(group.state)

    def observe(self, properties: Sequence[str]) -> list[dict[str, Tensor]]:
        """Of each group properties of the present frame, averaged over beads [S, ...]; NaN for frozen trajectories."""
        if not properties:
            return [{} for _ in self.groups]
        evaluations = self._evaluate(properties)
        return [group.averages(evaluation[2]) for group, evaluation in zip(self.groups, evaluations, strict=True)]

    def _step(self, properties: Sequence[str]) -> list[dict[str, Tensor]]:
        """A step without a check; properties of all copies."""
        if not properties and self._graph():
            return [{} for _ in self.groups]
        for group in self.groups:
            group.integrator.advance(group.state)
        evaluations = self._evaluate_moved(properties)
        for k, (group, (energy, forces, seen)) in enumerate(zip(self.groups, evaluations, strict=True)):
            self._close(k, energy, forces)
            if SPREAD in seen:
                self._check_spread(group, seen[SPREAD])
        return [seen for _, _, seen in evaluations]

    def _graph(self) -> bool:
        """Take the step by one launch, if that can be; not the first of a stage, which gives the device its number."""
        integrators = [group.integrator for group in self.groups]
        if self._whole is None or self._whole.integrators != integrators:
            self._whole = _Whole(integrators)
            return False
        whole = self._whole
        if whole.run is None and whole.possible:
            whole.run = self._captured()
            whole.possible = whole.run is not None
        if whole.run is None:
            return False
        whole.run()
        for group in self.groups:
            group.state.step += 1
        return True

    def _captured(self) -> Callable[[], None] | None:
        """A whole step of all groups, but for counting it; a limit of the spread needs every evaluation."""
        if math.isfinite(self.guards.spread):
            return None
        evaluate = self.force_field.launches(self._copies)
        if evaluate is None or not all(group.integrator.launches for group in self.groups):
            return None

        def run() -> None:
            for group in self.groups:
                group.integrator.launch(group.state)
            for k, (energy, forces) in enumerate(evaluate()):
                self._close(k, energy, forces)

        return captured(run, self._copies[0].device, warm_up=evaluate)

    def _evaluate(self, properties: Sequence[str], positions: Sequence[Tensor] | None = None) -> list[Evaluation]:
        """At the present positions or others of all copies."""
        x = self._copies if positions is None else positions
        return checked(self.force_field, self.force_field.together(x, properties), x, properties)

    def _first(self) -> list[Evaluation]:
        """Of the first frame."""
        try:
            return self._evaluate(())
        except ArithmeticError as error:
            raise PaiNNFastError(
                "the force field fails at the first frame", got=f"{type(error).__name__}: {error}",
                fix="check the structure: atoms on top of each other?",
            ) from error  # fmt: skip

    def _evaluate_moved(self, properties: Sequence[str]) -> list[Evaluation]:
        """At new positions; NaN of the trajectories where the force field fails, which a guard then stops."""
        try:
            return self._evaluate(properties)
        except FAILURES:
            return self._evaluate_others(properties)

    def _evaluate_others(self, properties: Sequence[str]) -> list[Evaluation]:
        """Find the trajectories where it fails, one by one, with all others at their last positions."""
        before = [group.integrator.before(group.state).flatten(0, 1) for group in self.groups]
        possible, failing = [x.clone() for x in self._copies], []
        for k, group in enumerate(self.groups):
            P = group.state.positions.shape[1]
            for s in range(len(group.state.alive)):
                rows = slice(s * P, (s + 1) * P)
                trial = [x.clone() for x in before]
                trial[k][rows] = self._copies[k][rows]
                try:
                    self._evaluate(properties, trial)
                except FAILURES as error:
                    self._failures[k, s] = str(error)
                    possible[k][rows] = before[k][rows]
                    failing.append((k, rows))
        evaluations = self._evaluate(properties, possible)
        for k, rows in failing:
            energy, forces, seen = evaluations[k]
            for values in (energy, forces, *seen.values()):
                values[rows] = torch.nan
        return evaluations

    def _check_bonds(self) -> None:
        """Where that is due; what breaks is marked on the device and read by the next `check_limits`."""
        for group in self.groups:
            if group.fragments is not None and group.fragments.due(group.state.step):
                group.fragments.check(group.state, group.integrator.exceeded(group.state))

    def _close(self, k: int, energy: Tensor, forces: Tensor) -> None:
        """The end of a step of a group."""
        group = self.groups[k]
        limit = self._limits[k]
        if limit is None or limit[0] is not group.estimators:  # sum p^2 / m at the maximum temperature
            estimators = group.estimators
            kelvin = self.guards.max_temperature(estimators, group.temperature)
            limit = estimators, kelvin * (estimators.n_beads * KB * estimators.degrees / AMU_A2_PER_FS2)
            self._limits[k] = limit
        group.integrator.close(group.state, energy, forces, limit[1], self.guards.move, self.guards.force)

    def _check_spread(self, group: Group, spread: Tensor) -> None:
        spread = spread.view(group.state.forces.shape[:-1])
        if not bool(spread.amax() < self.guards.spread):
            self._freeze(group, spread)

    def _freeze(self, group: Group, spread: Tensor | None = None) -> None:
        """Freeze and describe what exceeded a limit."""
        state, integrator = group.state, group.integrator
        exceeded, before = integrator.exceeded(state), integrator.before(state)
        if spread is not None:
            within = spread.flatten(1).amax(1) < self.guards.spread  # false for NaN
            exceeded[~within & (exceeded == 0)] = state.step
        stopped = (exceeded > 0) & state.alive
        k, fragments = self.groups.index(group), group.fragments
        seen = state, before, group.estimators, group.temperature, group.system, spread
        for s in torch.nonzero(stopped)[:, 0].tolist():
            step, failure = int(exceeded[s]), self._failures.pop((k, s), "")
            if fragments is not None and fragments.stopped(s, step):
                self.exceeded.append(fragments.describe(s, step, int(state.trajectory[s])))
            else:
                self.exceeded.append(self.guards.describe(s, step, *seen, failure))
        state.alive &= ~stopped
        state.positions[stopped] = before[stopped]
        for value in (state.momenta, state.forces, state.energy, state.heat):
            value[stopped] = 0.0
        self.alive = self._any_alive()

    def _any_alive(self) -> bool:
        return any(bool(group.state.alive.any()) for group in self.groups)


@dataclass
class _Whole:
    """A step by one launch."""

    integrators: list[RingPolymer]
    """Of the stage."""
    run: Callable[[], None] | None = None
    possible: bool = True
