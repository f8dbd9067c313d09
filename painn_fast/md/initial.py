"""How dynamics starts: beads and momenta."""

from __future__ import annotations

import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.kernels.random import normal
from painn_fast.md.normal_modes import mode_frequencies, normal_mode_matrix
from painn_fast.md.state import System
from painn_fast.units import AMU_A2_PER_FS2, KB

MOMENTA, BEADS = 1, 2
"""Streams of the random numbers; the thermostat has 0."""
LINEAR = 1e-3
"""Relative size of the smallest principal moment of inertia below which a structure counts as linear."""


def maxwell_boltzmann(
    system: System, n_beads: int, temperature: Tensor, *, seed: int | Tensor, trajectory: Tensor, step: int = 0
) -> Tensor:
    """Momenta of all beads [S, P, N, 3] amu Å/fs: normal, variance m P kB T; temperature [S] K."""
    S, P, N = len(trajectory), n_beads, system.n_atoms
    noise = normal(seed, trajectory, step, P * N * 3, MOMENTA).view(S, P, N, 3)
    variance = P * KB / AMU_A2_PER_FS2 * temperature[:, None, None, None] * system.masses[:, None]
    return noise * torch.sqrt(variance)


def remove_translation(momenta: Tensor, masses: Tensor) -> Tensor:
    """Momenta [S, P, N, 3] with the centroid of the centre of mass at rest."""
    velocity = momenta.mean(1, keepdim=True).sum(2, keepdim=True) / masses.sum()
    return momenta - velocity * masses[:, None]


def remove_rotation(momenta: Tensor, positions: Tensor, masses: Tensor) -> Tensor:
    """Momenta [S, P, N, 3] with no angular momentum of the centroids about their centre of mass."""
    m = masses[:, None]
    x = positions.mean(1)  # [S, N, 3]
    x = x - (m * x).sum(1, keepdim=True) / masses.sum()
    p = momenta.mean(1)
    angular = torch.linalg.cross(x, p).sum(1)  # [S, 3]
    squares = (m * x * x).sum((1, 2))[:, None, None] * torch.eye(3, dtype=x.dtype, device=x.device)
    inertia = squares - torch.einsum("snx,sny->sxy", m * x, x)
    spin = (torch.linalg.pinv(inertia, rtol=LINEAR, hermitian=True) @ angular[:, :, None])[:, :, 0]
    return momenta - (m * torch.linalg.cross(spin[:, None, :].expand_as(x), x))[:, None]


def rotations(positions: Tensor, masses: Tensor) -> int:
    """Rotational degrees of freedom of a structure [N, 3]: 0 of an atom, 2 of a linear molecule, else 3."""
    x = positions - (masses[:, None] * positions).sum(0) / masses.sum()
    spread = torch.linalg.svdvals(masses.sqrt()[:, None] * x)  # its second value is zero on a line, all on a point
    line = len(masses) == 2 or bool(spread[1:2].sum() ** 2 <= LINEAR * spread[0] ** 2)
    return 0 if len(masses) == 1 else 2 if line else 3


def ring_positions(
    system: System, positions: Tensor, n_beads: int, temperature: Tensor, *, start: str, seed: int | Tensor,
    trajectory: Tensor,
) -> Tensor:  # fmt: skip
    """Positions of all beads [S, P, N, 3] Å around those of one structure a trajectory.

    Args:
        system: masses.
        positions: [S, N, 3] Å.
        n_beads: P.
        temperature: [S] K.
        start: "collapsed" puts all beads on the structure; "free" spreads them as those of free particles.
        seed: of the noise, one or [S].
        trajectory: numbers of the trajectories [S].

    Raises:
        PaiNNFastError: for another start.
    """
    S, P, N = len(trajectory), n_beads, system.n_atoms
    centre = positions[:, None].expand(S, P, N, 3)
    if start == "collapsed":
        return centre.clone()
    if start != "free":
        raise PaiNNFastError("unknown start of the beads", got=repr(start), expected="collapsed | free")
    omega = mode_frequencies(P, temperature)[:, :, None, None]  # [S, P, 1, 1]
    variance = P * KB / AMU_A2_PER_FS2 * temperature[:, None, None, None] / (system.masses[:, None] * omega**2)
    variance[:, 0] = 0.0
    noise = normal(seed, trajectory, 0, P * N * 3, BEADS).view(S, P, N, 3)
    modes = noise * torch.sqrt(variance)
    matrix = normal_mode_matrix(P).to(positions.device)
    return centre + (matrix.T @ modes.flatten(2)).view(S, P, N, 3)
