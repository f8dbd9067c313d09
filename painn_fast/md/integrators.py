"""One step of classical and ring-polymer dynamics; one bead is velocity Verlet or Langevin, through the same code.

H_P = sum_j p_j^2 / 2m + sum_j m omega_P^2 (x_j - x_{j+1})^2 / 2 + sum_j V(x_j) at the temperature P T.

    without a thermostat   B(dt/2) A(dt) B(dt/2)                    velocity Verlet, RPMD
    with one               B(dt/2) A(dt/2) O(dt) A(dt/2) B(dt/2)    BAOAB: Leimkuhler, Matthews, AMRX 2013, 34

B kicks the beads with the forces of V; A moves the free ring polymer in normal modes, exactly in RPMD and T-RPMD; O is
the thermostat. PILE-L and PILE-G, which sample, move it by the Cayley transform instead: modes turn by
atan(omega dt / 2) in half a step, which gives the positions of a harmonic oscillator their exact variance whatever the
time step (Korol, Rosa-Raíces, Bou-Rabee, Miller, J. Chem. Phys. 152, 104102 (2020)). All but the forces is
`painn_fast.kernels.ring`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from painn_fast.kernels.ring import Ring, Steps, steps
from painn_fast.md.initial import remove_rotation
from painn_fast.md.normal_modes import mode_frequencies, normal_mode_matrix
from painn_fast.md.state import State, System
from painn_fast.md.thermostats import Ensemble, friction
from painn_fast.units import AMU_A2_PER_FS2, KB

if TYPE_CHECKING:
    from painn_fast.md.settings import Motion


SAMPLING = ("pile-l", "pile-g")
"""Ensembles whose time correlations mean nothing."""


class RingPolymer:
    """Propagates a `State` in place.

    Args:
        system: masses.
        ensemble: decides the thermostat.
        n_beads: P.
        temperature: [S] K, of the springs and the thermostat.
        time_step: fs, one or [S].
        tau0: time constant of the thermostat on the centroid, fs.
        seed: of the noise, one or [S] int64.
        removed: degrees of freedom of the centroid without motion, which pile-g does not count.
        remove_com_motion: motions of the whole centroid that the thermostat removes; the energy counts as heat.
    """

    def __init__(
        self,
        system: System,
        ensemble: Ensemble,
        n_beads: int,
        temperature: Tensor,
        time_step: float | Tensor,
        *,
        tau0: float = 100.0,
        seed: int | Tensor = 0,
        removed: int = 0,
        remove_com_motion: Sequence[Motion] = (),
    ) -> None:
        self.system, self.remove_com_motion = system, tuple(remove_com_motion)
        dt = torch.as_tensor(time_step, dtype=torch.float64, device=temperature.device).expand_as(temperature)
        omega = mode_frequencies(n_beads, temperature)
        gamma = friction(ensemble, omega, tau0)
        thermal = n_beads * KB / AMU_A2_PER_FS2 * temperature  # [S] amu Å^2 / fs^2
        none = torch.empty(len(temperature), 0, dtype=torch.float64, device=temperature.device)
        drift = (dt if gamma is None else 0.5 * dt)[:, None]  # A is whole, or before and after O
        angle = torch.atan(omega * drift) if ensemble in SAMPLING else omega * drift
        decay = none if gamma is None else gamma * dt[:, None]
        self.ring = Ring(
            kick=0.5 * dt / AMU_A2_PER_FS2,
            matrix=normal_mode_matrix(n_beads).to(temperature.device),
            cosine=torch.cos(angle),
            sinc=torch.where(omega > 0, torch.sin(angle) / omega, drift),
            pull=omega * torch.sin(angle),
            masses=system.masses,
            energy_unit=AMU_A2_PER_FS2,
            seed=torch.as_tensor(seed, dtype=torch.int64, device=temperature.device).repeat(len(temperature))
            if isinstance(seed, int)
            else seed,
            damping=torch.exp(-decay),
            noise=torch.sqrt(-torch.expm1(-2.0 * decay) * thermal[:, None]),
            rescaling=torch.stack([torch.exp(-dt / tau0), thermal], dim=1) if ensemble == "pile-g" else none,
            degrees=max(3 * system.n_atoms - removed, 1),
            rest="translation" in remove_com_motion,
        )
        self._bound: Steps | None = None

    def advance(self, state: State) -> None:
        """The first half of a step, before forces are evaluated: kick, free motion and thermostat."""
        state.step += 1
        self._steps(state).advance(state.step)
        if "rotation" in self.remove_com_motion:
            self._stop_rotation(state)

    def launch(self, state: State) -> None:
        """`advance`, but for `state.step`, by launches alone; the device counts on from the last step."""
        self._steps(state).advance()

    @property
    def launches(self) -> bool:
        """Whether `launch` can be asked for."""
        return "rotation" not in self.remove_com_motion

    def close(
        self, state: State, energy: Tensor, forces: Tensor, max_kinetic: Tensor, move: float, force: float
    ) -> None:
        """The second half: kick. A trajectory not finite or over a limit ends with this step, see `exceeded`.

        Args:
            state: takes energy and forces.
            energy: [S P] eV.
            forces: [S P, N, 3] eV/Å.
            max_kinetic: limit of sum p^2 / m of each trajectory [S].
            move: limit of the move of a bead in the step, Å.
            force: limit of a force, eV/Å.
        """
        self._steps(state).close(energy, forces, max_kinetic, move, force)

    def within_limits(self, state: State) -> bool:
        """Whether no trajectory exceeded a limit since the last call; waits for the device."""
        return self._steps(state).within_limits()

    def exceeded(self, state: State) -> Tensor:
        """Of each trajectory [S] the step that exceeded a limit, 0 for none; later steps leave it as it was then."""
        return self._steps(state).exceeded

    def before(self, state: State) -> Tensor:
        """Positions before the last step [S, P, N, 3] Å."""
        return self._steps(state).beads[3]

    def _steps(self, state: State) -> Steps:
        bound = self._bound
        if (
            bound is None
            or bound.beads[0] is not state.positions
            or bound.beads[1] is not state.momenta
            or bound.beads[2] is not state.forces
        ):
            x = state.positions
            rest = state.energy, state.heat, state.trajectory, state.alive, self.ring
            self._bound = bound = steps(x, state.momenta, state.forces, x.clone(), *rest)
        return bound

    def _stop_rotation(self, state: State) -> None:
        energy = self._kinetic(state.momenta)
        moving = (self.exceeded(state) == 0)[:, None, None, None]
        still = remove_rotation(state.momenta, state.positions, self.system.masses)
        state.momenta.copy_(torch.where(moving, still, state.momenta))
        state.heat += self._kinetic(state.momenta) - energy

    def _kinetic(self, momenta: Tensor) -> Tensor:
        return (momenta.square() / self.system.masses[:, None]).flatten(1).sum(1) * (0.5 * AMU_A2_PER_FS2)
