"""Energies of a ring polymer, of one trajectory each [S], in eV.

Primitive and centroid-virial estimators: Herman, Bruskin, Berne, J. Chem. Phys. 76, 5150 (1982).
"""

from __future__ import annotations

from torch import Tensor

from painn_fast.md.normal_modes import ring_frequency
from painn_fast.md.state import State, System
from painn_fast.units import AMU_A2_PER_FS2, KB

UNITS = {
    "potential": "eV",
    "kinetic": "eV",
    "kinetic_primitive": "eV",
    "kinetic_virial": "eV",
    "conserved": "eV",
    "temperature": "K",
}
"""Names and units of what `Estimators` gives."""


class Estimators:
    """Estimators at one temperature and number of beads.

    Args:
        system: masses.
        n_beads: P.
        temperature: [S] K.
        removed: degrees of freedom of the centroid without motion: 3 when its momentum is conserved and zero, 6 when
            it does not turn either.
    """

    def __init__(self, system: System, n_beads: int, temperature: Tensor, *, removed: int = 0) -> None:
        self.n_beads = n_beads
        self.degrees = max(3 * system.n_atoms * n_beads - removed, 1)
        self.classical = 1.5 * system.n_atoms * KB * temperature  # [S], 3N / 2 beta
        self.per_mass = 0.5 * AMU_A2_PER_FS2 / system.masses[:, None]  # [N, 1]
        omega = ring_frequency(n_beads, temperature)
        self.stiffness = 0.5 * AMU_A2_PER_FS2 * system.masses[:, None] * omega[:, None, None, None] ** 2  # [S, 1, N, 1]

    def __call__(self, state: State) -> dict[str, Tensor]:
        """All of `UNITS` [S].

        potential: mean over beads. kinetic: of the momenta, over P^2, whose mean is 3N kB T / 2. kinetic_primitive and
        kinetic_virial: of the quantum particle. conserved: (H_P - heat from the thermostat) / P. temperature: of the
        momenta. With one bead these are the classical ones.
        """
        momenta = self.momenta_energy(state)
        springs = self.spring_energy(state)
        potential = state.energy.sum(1)
        P = self.n_beads
        return {
            "potential": potential / P,
            "kinetic": momenta / P**2,
            "kinetic_primitive": P * self.classical - springs / P,
            "kinetic_virial": self.classical + self.virial(state),
            "conserved": (momenta + springs + potential - state.heat) / P,
            "temperature": momenta * (2.0 / (P * KB * self.degrees)),
        }

    def momenta_energy(self, state: State) -> Tensor:
        """sum_j p_j^2 / 2m [S]."""
        return (state.momenta.square() * self.per_mass).flatten(1).sum(1)

    def spring_energy(self, state: State) -> Tensor:
        """sum_j m omega_P^2 (x_j - x_{j+1})^2 / 2 [S]; zero for one bead."""
        x = state.positions
        return ((x - x.roll(-1, dims=1)).square() * self.stiffness).flatten(1).sum(1)

    def virial(self, state: State) -> Tensor:
        """-(1 / 2P) sum_j (x_j - x_centroid) F_j [S]; zero for one bead."""
        away = state.positions - state.positions.mean(1, keepdim=True)
        return (away * state.forces).flatten(1).sum(1) * (-0.5 / self.n_beads)

    def kinetic_temperature(self, state: State) -> Tensor:
        """Temperature of the momenta [S], K."""
        return self.momenta_energy(state) * (2.0 / (self.n_beads * KB * self.degrees))
