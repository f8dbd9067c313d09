"""For tests of painn-fast and of what is built on it: tolerances, comparisons, random models and structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ase
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from painn_fast.md.force_field import ForceField
from painn_fast.nn import Potential, PotentialConfig
from painn_fast.units import AMU_A2_PER_FS2

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Of two ways to compute the same, relative to the largest magnitude of what is compared, by dtype of the network."""


class Slope(NamedTuple):
    """How a derivative is compared with central differences of order four."""

    step: float  # Å, or strain
    error: float  # relative


SLOPE_TOLERANCE = {torch.float64: Slope(1e-4, 1e-7), torch.float32: Slope(2e-2, 1e-3)}
"""Of derivatives against finite differences."""
TABLE_TOLERANCE = 1e-4
"""Of forces by the CPU engine, whose filters come from a table of splines, against those of the reference."""


def assert_close(got: Any, expected: Any, tolerance: float, what: str = "values") -> None:
    """Largest deviation at most `tolerance` times the largest magnitude expected; the message names the entry."""
    got, expected = np.asarray(got, dtype=float), np.asarray(expected, dtype=float)
    assert got.shape == expected.shape, f"{what}: got shape {got.shape}, expected {expected.shape}"
    assert np.isfinite(got).all(), f"{what}: not finite"
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-12)
    error = np.abs(got - expected)
    worst = np.unravel_index(int(error.argmax()), error.shape) if error.size else ()
    assert error.max(initial=0.0) <= tolerance * scale, (
        f"{what}{list(map(int, worst))}: got {got[worst]:.12g}, expected {expected[worst]:.12g}, "
        f"off by {error[worst] / scale:.2e} of the largest, allowed {tolerance:.0e}"
    )


def random_potential(config: PotentialConfig, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Potential:
    """A model with random weights, biases and references included, so that no term hides behind a zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        potential = Potential(config).to(dtype)
        with torch.no_grad():
            for parameter in potential.parameters():
                if parameter.ndim == 1:
                    parameter.normal_(std=0.3)
                elif not parameter.any():
                    parameter.normal_(std=0.1)
            for name, buffer in potential.named_buffers():
                if name.endswith(("atomic_reference", "mean")):
                    buffer.normal_()
    return potential


def with_epsilon(potential: Potential, epsilon: float) -> Potential:
    """The same weights with another epsilon in |V v| = sqrt((V v)^2 + epsilon); a larger one is smoother."""
    config = potential.config
    representation = config.representation.model_copy(update={"epsilon": epsilon})
    copy = Potential(config.model_copy(update={"representation": representation})).to(potential.device, potential.dtype)
    copy.load_state_dict(potential.state_dict())
    return copy.eval()


def rotated(atoms: ase.Atoms, *, seed: int = 1) -> tuple[ase.Atoms, np.ndarray]:
    """A copy rotated about the origin, cell included, and the rotation [3, 3] with R' = R @ rotation.T."""
    matrix = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ matrix.T, scale_atoms=False)
    copy.positions = atoms.positions @ matrix.T
    return copy, matrix


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
