"""Dynamics in memory: a state, an integrator, guards. No files; `run` adds those."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from painn_fast.md.estimators import Estimators
from painn_fast.md.forces import ForceField
from painn_fast.md.guards import Guards, Trip, check_start
from painn_fast.md.integrators import RingPolymer, evaluate_forces
from painn_fast.md.state import State, System


class Simulation:
    """Steps a state under guards. A trajectory that trips one is frozen at its last good frame; the others go on.

    Args:
        system: what does not move.
        state: taken over and changed in place; forces are evaluated if they are missing.
        force_field: of all copies.
        integrator: of the present phase; may be exchanged between steps.
        estimators: the same.
        temperature: [S] K, target of the guards.
        guards: limits.

    Raises:
        PaiNNFastError: if the first frame has no finite or far too large forces.
    """

    def __init__(
        self,
        system: System,
        state: State,
        force_field: ForceField,
        integrator: RingPolymer,
        estimators: Estimators,
        temperature: Tensor,
        guards: Guards | None = None,
    ) -> None:
        self.system, self.state, self.force_field = system, state, force_field
        self.integrator, self.estimators = integrator, estimators
        self.temperature = temperature
        self.guards = guards or Guards()
        self.trips: list[Trip] = []
        self._previous = state.positions.clone()
        if state.step == 0:
            evaluate_forces(state, force_field)
            check_start(state, self.guards)

    def step(self, properties: Sequence[str] = ()) -> dict[str, Tensor]:
        """One time step; returns observed properties averaged over beads [S, ...], NaN for frozen trajectories."""
        state = self.state
        self._previous.copy_(state.positions)
        observed = self.integrator.step(state, self.force_field, properties)
        seen = state, self._previous, self.estimators, self.temperature
        if not self.guards.quiet(*seen, self._spread()):
            self._trip(self.guards.tripped(*seen, self._spread()))
        if self.trips:
            self._hold()
        return self._average(observed)

    def observe(self, properties: Sequence[str]) -> dict[str, Tensor]:
        """Properties of the present frame, averaged over beads [S, ...]; NaN for frozen trajectories."""
        return self._average(self.force_field.observe(self.state.copies, properties)) if properties else {}

    def estimates(self) -> dict[str, Tensor]:
        """Energies and temperature [S], see `Estimators`; NaN for frozen trajectories."""
        return {name: self.masked(value) for name, value in self.estimators(self.state).items()}

    def masked(self, values: Tensor) -> Tensor:
        """Values [S, ...] with NaN for frozen trajectories."""
        if not self.trips:
            return values
        alive = self.state.alive.view(-1, *[1] * (values.ndim - 1))
        return torch.where(alive, values, torch.nan)

    def _average(self, observed: dict[str, Tensor]) -> dict[str, Tensor]:
        shape = self.state.positions.shape[:2]
        return {name: self.masked(value.unflatten(0, shape).mean(1)) for name, value in observed.items()}

    def _trip(self, tripped: Tensor) -> None:
        for s in torch.nonzero(tripped)[:, 0].tolist():
            seen = self.state, self._previous, self.estimators, self.temperature, self.system
            self.trips.append(self.guards.explain(s, *seen, self._spread()))
        self.state.alive &= ~tripped

    def _spread(self) -> Tensor | None:
        """Spread of the members' forces [S, P, N] eV/Å, if the force field has any."""
        spread = self.force_field.spread
        return None if spread is None else spread.view(self.state.forces.shape[:-1])

    def _hold(self) -> None:
        """Frozen trajectories stay in the batch, so that nothing changes for the others, and do not move."""
        state = self.state
        frozen = ~state.alive
        state.positions[frozen] = self._previous[frozen]
        state.momenta[frozen] = 0.0
        state.forces[frozen] = 0.0
        state.energy[frozen] = 0.0
        state.heat[frozen] = 0.0
