"""Dynamics in memory: states, integrators, guards. No files; `run` adds those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from painn_fast.md.estimators import Estimators
from painn_fast.md.forces import SPREAD, Evaluation, ForceField
from painn_fast.md.guards import Guards, Trip, check_start
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.state import State, System
from painn_fast.units import AMU_A2_PER_FS2, KB


@dataclass(eq=False)
class Group:
    """The trajectories of one molecule; integrator and estimators are those of the present phase."""

    system: System
    state: State
    """Changed in place."""
    temperature: Tensor  # [S] K, target of the guards
    integrator: RingPolymer
    estimators: Estimators

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

    A trajectory that trips a guard is frozen at its last good frame; the others go on.

    Args:
        groups: one for each molecule, in the order that the force field knows; their states are changed in place, and
            forces evaluated if they are missing.
        force_field: of all copies.
        guards: limits.

    Raises:
        PaiNNFastError: if the first frame has no finite or far too large forces.
    """

    def __init__(self, groups: Sequence[Group], force_field: ForceField, guards: Guards | None = None) -> None:
        self.groups, self.force_field = list(groups), force_field
        self.guards = guards or Guards()
        self.trips: list[Trip] = []
        self._copies = [group.state.copies for group in self.groups]
        self._limits: list[tuple[Estimators, Tensor] | None] = [None] * len(self.groups)
        if self.step_number == 0:
            for group, evaluation in zip(self.groups, self._evaluate(), strict=True):
                group.state.take(*evaluation[:2])
                check_start(group.state, self.guards)

    @property
    def step_number(self) -> int:
        """Steps done."""
        return self.groups[0].state.step

    @property
    def alive(self) -> bool:
        """Whether any trajectory is."""
        return any(bool(group.state.alive.any()) for group in self.groups)

    def step(self, properties: Sequence[str] = ()) -> list[dict[str, Tensor]]:
        """One time step; returns of each group observed properties averaged over beads [S, ...]."""
        for group in self.groups:
            group.integrator.advance(group.state)
        evaluations = self._evaluate(properties)
        for k, (group, evaluation) in enumerate(zip(self.groups, evaluations, strict=True)):
            self._close(k, group, evaluation)
        if self.trips:
            self._hold()
        return [group.averages(evaluation[2]) for group, evaluation in zip(self.groups, evaluations, strict=True)]

    def observe(self, properties: Sequence[str]) -> list[dict[str, Tensor]]:
        """Of each group properties of the present frame, averaged over beads [S, ...]; NaN for frozen trajectories."""
        if not properties:
            return [{} for _ in self.groups]
        evaluations = self._evaluate(properties)
        return [group.averages(evaluation[2]) for group, evaluation in zip(self.groups, evaluations, strict=True)]

    def _evaluate(self, properties: Sequence[str] = ()) -> list[Evaluation]:
        return self.force_field.together(self._copies, properties)

    def _close(self, k: int, group: Group, evaluation: Evaluation) -> None:
        """The end of a step, and guards."""
        energy, forces, observed = evaluation
        state, estimators = group.state, group.estimators
        limit = self._limits[k]
        if limit is None or limit[0] is not estimators:  # sum p^2 / m of the hottest that may be
            hottest = self.guards.hottest(estimators, group.temperature)
            limit = estimators, hottest * (estimators.n_beads * KB * estimators.degrees / AMU_A2_PER_FS2)
            self._limits[k] = limit
        fine = group.integrator.close(state, energy, forces, limit[1], self.guards.move, self.guards.force)
        spread = observed.get(SPREAD)
        if spread is not None:
            spread = spread.view(state.forces.shape[:-1])
            fine = fine and bool(spread.amax() < self.guards.spread)
        if fine:
            return
        seen = state, group.integrator.before(state), estimators, group.temperature
        tripped = self.guards.tripped(*seen, spread)
        for s in torch.nonzero(tripped)[:, 0].tolist():
            self.trips.append(self.guards.explain(s, *seen, group.system, spread))
        state.alive &= ~tripped

    def _hold(self) -> None:
        """Frozen trajectories stay in the batch, so that nothing changes for the others, and do not move."""
        for group in self.groups:
            state = group.state
            frozen = ~state.alive
            state.positions[frozen] = group.integrator.before(state)[frozen]
            state.momenta[frozen] = 0.0
            state.forces[frozen] = 0.0
            state.energy[frozen] = 0.0
            state.heat[frozen] = 0.0
