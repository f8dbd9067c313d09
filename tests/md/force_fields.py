"""Force fields whose dynamics is known, for tests of dynamics."""

import os
import signal
from collections.abc import Sequence

import torch
from torch import Tensor

from painn_fast.md import ForceField
from painn_fast.units import AMU_A2_PER_FS2


class Harmonic(ForceField):
    """Independent isotropic oscillators about the origin or `centre`: E = sum m omega^2 |x - x0|^2 / 2.

    Observes the dipole sum_i x_i (unit charges) and the polarizability sum_i x_i x_i^T, as numbers in e Å and Å³.

    Args:
        masses: [N] amu.
        omega: angular frequency, 1/fs, one or [N].
        centre: [N, 3] Å.
    """

    def __init__(self, masses: Tensor, omega: float | Tensor, centre: Tensor | None = None) -> None:
        self.stiffness = (masses * torch.as_tensor(omega, dtype=torch.float64) ** 2 * AMU_A2_PER_FS2)[:, None]  # [N, 1]
        self.centre = torch.zeros(len(masses), 3, dtype=torch.float64) if centre is None else centre

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        away = positions - self.centre
        forces = -self.stiffness * away
        return -0.5 * (forces * away).sum((1, 2)), forces

    def observe(self, positions: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        given = {"dipole": positions.sum(1), "polarizability": positions.mT @ positions}
        return {name: given[name] for name in properties}


class Free(ForceField):
    """No forces."""

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(positions), dtype=torch.float64), torch.zeros_like(positions)


class Morse(ForceField):
    """A Morse potential between every pair: depth (1 - exp(-steepness (d - length)))^2 - depth.

    Args:
        depth: eV.
        steepness: 1/Å.
        length: Å.
    """

    def __init__(self, depth: float = 0.5, steepness: float = 1.5, length: float = 1.5) -> None:
        self.depth, self.steepness, self.length = depth, steepness, length

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        i, j = torch.triu_indices(positions.shape[1], positions.shape[1], 1)
        r = positions[:, j] - positions[:, i]  # [B, pairs, 3]
        d = torch.linalg.vector_norm(r, dim=-1)
        decay = torch.exp(-self.steepness * (d - self.length))
        energy = self.depth * ((1.0 - decay) ** 2 - 1.0)
        slope = 2.0 * self.depth * self.steepness * (1.0 - decay) * decay
        pull = (slope / d)[:, :, None] * r
        forces = torch.zeros_like(positions).index_add_(1, i, pull).index_add_(1, j, -pull)
        return energy.sum(1), forces


class StopsAfter(Morse):
    """Morse whose process gets a signal at the n-th evaluation."""

    def __init__(self, n: int, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.left, self.number = n, number

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().__call__(positions)
