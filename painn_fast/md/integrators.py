"""One step of classical and ring-polymer dynamics; one bead is velocity Verlet or Langevin, through the same code.

H_P = sum_j p_j^2 / 2m + sum_j m omega_P^2 (x_j - x_{j+1})^2 / 2 + sum_j V(x_j) at the temperature P T.

    without a thermostat   B(dt/2) A(dt) B(dt/2)                    velocity Verlet, RPMD
    with one               B(dt/2) A(dt/2) O(dt) A(dt/2) B(dt/2)    BAOAB: Leimkuhler, Matthews, AMRX 2013, 34

B kicks the beads with the forces of V; A moves the free ring polymer exactly, in normal modes; O is the thermostat.

| symbol     | here                |
|------------|---------------------|
| q, p of A  | `_q`, `_p` in modes |
| omega_k    | `omega`             |
| cos, sin/w | `_cos`, `_sinc`     |
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from painn_fast.md.forces import ForceField
from painn_fast.md.normal_modes import mode_frequencies, normal_mode_matrix
from painn_fast.md.state import State, System
from painn_fast.md.thermostats import Ensemble, Thermostat, friction
from painn_fast.units import AMU_A2_PER_FS2


class RingPolymer:
    """Propagates a `State` in place.

    Args:
        system: masses.
        ensemble: decides the thermostat.
        n_beads: P.
        temperature: [S] K, of the springs and the thermostat.
        time_step: fs.
        tau0: time constant of the thermostat on the centroid, fs.
        seed: of the noise.
    """

    def __init__(
        self,
        system: System,
        ensemble: Ensemble,
        n_beads: int,
        temperature: Tensor,
        time_step: float,
        *,
        tau0: float = 100.0,
        seed: int = 0,
    ) -> None:
        self.ensemble, self.time_step = ensemble, time_step
        S, P, N = len(temperature), n_beads, system.n_atoms
        device = system.masses.device
        omega = mode_frequencies(P, temperature)
        gamma = friction(ensemble, omega, tau0)
        self.thermostat = None if gamma is None else Thermostat(system.masses, gamma, temperature, time_step, seed)
        self._matrix = normal_mode_matrix(P).to(device).expand(S, P, P)
        self._kick = 0.5 * time_step / AMU_A2_PER_FS2
        self._set_drift(omega, system.masses, time_step if gamma is None else 0.5 * time_step)
        self._q, self._p, self._work = torch.empty(3, S, P, N, 3, dtype=torch.float64, device=device)

    def _set_drift(self, omega: Tensor, masses: Tensor, dt: float) -> None:
        """Coefficients: q' = cos q + (sin / omega) p / m, p' = cos p - m omega sin q; dt p / m for the centroid."""
        m = masses[:, None]  # [N, 1]
        sinc = torch.where(omega > 0, torch.sin(omega * dt) / omega, dt)
        self._cos = torch.cos(omega * dt)[:, :, None, None]  # [S, P, 1, 1]
        self._sinc = sinc[:, :, None, None] / m  # [S, P, N, 1]
        self._pull = (omega * torch.sin(omega * dt))[:, :, None, None] * m  # [S, P, N, 1]

    def step(self, state: State, force_field: ForceField, properties: Sequence[str] = ()) -> dict[str, Tensor]:
        """Advance by one time step.

        Args:
            state: with forces at its positions; changed in place.
            force_field: gives energies and forces of all S P copies in one call.
            properties: to be observed at the new positions in the same call.

        Returns:
            Observed properties of every copy [S P, ...].
        """
        self._kick_beads(state)
        self._drift(state)
        state.step += 1
        observed = evaluate_forces(state, force_field, properties)
        self._kick_beads(state)
        return observed

    def _kick_beads(self, state: State) -> None:
        state.momenta += torch.mul(state.forces, self._kick, out=self._work)

    def _drift(self, state: State) -> None:
        """A, or A O A, between a transformation to normal modes and back."""
        self._transform(self._matrix, state.positions, self._q)
        self._transform(self._matrix, state.momenta, self._p)
        self._free_ring()
        if self.thermostat is not None:
            state.heat += self.thermostat(self._p, state.trajectory, state.step)
            self._free_ring()
        self._transform(self._matrix.mT, self._q, state.positions)
        self._transform(self._matrix.mT, self._p, state.momenta)

    def _transform(self, matrix: Tensor, source: Tensor, target: Tensor) -> None:
        torch.bmm(matrix, source.flatten(2), out=target.flatten(2))  # one product a trajectory: no mixing of batches

    def _free_ring(self) -> None:
        q, p = self._q, self._p
        pull = torch.mul(q, self._pull, out=self._work)
        q.mul_(self._cos).add_(p * self._sinc)
        p.mul_(self._cos).sub_(pull)


def evaluate_forces(state: State, force_field: ForceField, properties: Sequence[str] = ()) -> dict[str, Tensor]:
    """Fill energy and forces of `state` at its positions; returns observed properties of every copy [S P, ...]."""
    energy, forces, observed = force_field.evaluate(state.copies, properties)
    state.energy.copy_(energy.view_as(state.energy))
    state.forces.copy_(forces.view_as(state.forces))
    return observed
