"""Mean forces on the centroids of ring polymers, with little scatter from single frames.

The mean over the beads of one frame scatters as the spread of the beads does: by the third derivative of the potential
along a stiff bond, times the fluctuation of the mean square of the beads about the centroid. That fluctuation has a
control variate of known mean. For each internal mode k of the ring polymer, integration by parts over its coordinates
q_k gives

    < (q_k[j] - q_k[i]) (w . dU/dq_k) > = P kB T

at a fixed centroid, whatever the potential, where U is that of the beads and their springs and w the displacement of
atoms i and j, the centre of mass at rest, that moves j along an axis by 1 relative to i. Harmonic beads fluctuate on
both sides alike, so that what is left after subtraction is of higher order (zero-variance estimators: Assaraf,
Caffarel, Phys. Rev. Lett. 83, 4682 (1999)). Coefficients are those of a linear regression; the mean is right for any.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from painn_fast.md.normal_modes import mode_frequencies, normal_mode_matrix
from painn_fast.units import AMU_A2_PER_FS2, KB

FRAMES_PER_COEFFICIENT = 10
"""Fewest frames; fewer would fit the scatter."""


def mean_forces(
    beads: np.ndarray,
    forces: np.ndarray,
    masses: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    temperature: float,
    at_centroid: np.ndarray,
) -> np.ndarray:
    """Forces on centroids, means over beads with the scatter along bonds reduced.

    Args:
        beads: [n, P, N, 3] Å, n frames of path integrals in equilibrium.
        forces: [n, P, N, 3] eV/Å.
        masses: [N] amu.
        pairs: bonded atoms.
        temperature: K.
        at_centroid: [n, N, 3] eV/Å, forces of the potential at the centroids; the scatter is that of the difference.

    Returns:
        [n, N, 3] eV/Å; the plain means over beads of a single bead, or of few frames.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra.mean_force import mean_forces
        >>> beads = np.random.default_rng(0).normal(size=(5, 2, 2, 3))
        >>> few = mean_forces(beads, -beads, np.ones(2), [(0, 1)], 300.0, -beads.mean(axis=1))
        >>> np.allclose(few, -beads.mean(axis=1))
        True
    """
    mean, centroids = forces.mean(axis=1), beads.mean(axis=1)
    n, P = beads.shape[:2]
    omega = mode_frequencies(P, torch.tensor([temperature], dtype=torch.float64))[0, 1:].numpy()
    shells = np.unique(omega.round(9), return_inverse=True)[1]  # modes of one frequency count together
    unknowns = 3 + 2 * len(set(shells.tolist()))
    if P == 1 or n < FRAMES_PER_COEFFICIENT * unknowns:
        return mean
    matrix = normal_mode_matrix(P).numpy()[1:]
    result = mean.copy()
    for i, j in pairs:
        q = np.einsum("kp,npx->nkx", matrix, beads[:, :, j] - beads[:, :, i])
        reduced = masses[[j, i]] / masses[[i, j]].sum()  # how far i and j move against each other
        towards = reduced[1] * forces[:, :, j] - reduced[0] * forces[:, :, i]  # w . F of each bead along each axis
        springs = masses[i] * masses[j] / masses[[i, j]].sum() * AMU_A2_PER_FS2 * omega[:, None] ** 2
        slope = springs * q - np.einsum("kp,npx->nkx", matrix, towards)
        axis = centroids[:, j] - centroids[:, i]
        length = np.linalg.norm(axis, axis=-1)
        axis /= length[:, None]
        along = np.einsum("nkx,nx->nk", q, axis) * np.einsum("nkx,nx->nk", slope, axis) - P * KB * temperature
        across = np.einsum("nkx,nkx->nk", q, slope) - 3 * P * KB * temperature - along
        variates = np.stack([kind[:, shells == k].sum(1) for kind in (along, across) for k in set(shells.tolist())], 1)
        difference = mean - at_centroid
        tension = 0.5 * ((difference[:, j] - difference[:, i]) * axis).sum(-1)
        x = (length - length.mean()) / length.std()
        known = np.stack([np.ones(n), x, x**2], axis=1)
        coefficients = np.linalg.lstsq(np.concatenate([known, variates], axis=1), tension, rcond=None)[0]
        noise = (variates @ coefficients[known.shape[1] :])[:, None] * axis
        result[:, j] -= noise
        result[:, i] += noise
    return result
