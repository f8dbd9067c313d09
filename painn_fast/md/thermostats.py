"""White-noise Langevin thermostats on the normal modes of the ring polymer.

PILE-L: Ceriotti, Parrinello, Markland, Manolopoulos, J. Chem. Phys. 133, 124104 (2010), eqs. 27-28 and 36.
T-RPMD: Rossi, Ceriotti, Manolopoulos, J. Chem. Phys. 140, 234116 (2014), lambda = 1/2 and a free centroid.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from painn_fast.kernels.random import normal
from painn_fast.units import AMU_A2_PER_FS2, KB

Ensemble = Literal["nve", "langevin", "rpmd", "t-rpmd", "pile-l"]
"""nve and langevin are the names of rpmd and pile-l with one bead."""

LAMBDA = {"pile-l": 1.0, "langevin": 1.0, "t-rpmd": 0.5}
NOISE = 0
"""Stream of the random numbers; those of the start have others."""


def friction(ensemble: Ensemble, omega: Tensor, tau0: float) -> Tensor | None:
    """Friction of each mode, None without a thermostat.

    Args:
        ensemble: which.
        omega: frequencies of the modes [S, P], 1/fs.
        tau0: time constant of the centroid, fs.

    Returns:
        gamma [S, P] in 1/fs: 2 lambda omega_k, and 1 / tau0 or nothing on the centroid.
    """
    if ensemble not in LAMBDA:
        return None
    gamma = 2.0 * LAMBDA[ensemble] * omega
    gamma[:, 0] = 0.0 if ensemble == "t-rpmd" else 1.0 / tau0
    return gamma


class Thermostat:
    """The O part of a step: p <- exp(-gamma dt) p + sqrt(1 - exp(-2 gamma dt)) sqrt(m P kB T) xi, exact for any dt.

    Args:
        masses: [N] amu.
        gamma: friction of the modes [S, P], 1/fs.
        temperature: [S] K; modes are sampled at P times this.
        time_step: fs.
        seed: of the noise.
    """

    def __init__(self, masses: Tensor, gamma: Tensor, temperature: Tensor, time_step: float, seed: int) -> None:
        P = gamma.shape[1]
        self.seed = seed
        self.damping = torch.exp(-gamma * time_step)[:, :, None, None]  # [S, P, 1, 1]
        variance = -torch.expm1(-2.0 * gamma * time_step) * (P * KB / AMU_A2_PER_FS2) * temperature[:, None]  # [S, P]
        self.kick = torch.sqrt(variance[:, :, None, None] * masses[:, None])  # [S, P, N, 1]
        self.per_mass = 0.5 * AMU_A2_PER_FS2 / masses[:, None]  # [N, 1]

    def __call__(self, momenta: Tensor, trajectory: Tensor, step: int) -> Tensor:
        """Change momenta of the modes [S, P, N, 3] in place; returns the heat given to each trajectory [S], eV."""
        noise = normal(self.seed, trajectory, step, momenta[0].numel(), NOISE).view_as(momenta)
        before = momenta.square()
        momenta.mul_(self.damping).add_(noise.mul_(self.kick))
        return momenta.square().sub_(before).mul_(self.per_mass).flatten(1).sum(1)
