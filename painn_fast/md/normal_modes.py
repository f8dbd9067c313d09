"""Normal modes of the free ring polymer.

q = C x with real orthogonal C: Ceriotti, Parrinello, Markland, Manolopoulos, J. Chem. Phys. 133, 124104 (2010), eq. 18.
Row 0 is the centroid times sqrt(P); rows k and P - k are the cosine and the sine of the same frequency.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from painn_fast.units import HBAR, KB


def normal_mode_matrix(n_beads: int) -> Tensor:
    """C [P, P] float64, rows are modes, columns beads; C C^T = 1."""
    P = n_beads
    k, j = np.meshgrid(np.arange(P), np.arange(P), indexing="ij")
    angle = 2.0 * math.pi / P * (k * j % P)  # reduced first: the argument stays exact for long rings
    matrix = np.where(k <= P // 2, np.cos(angle), np.sin(angle)) * math.sqrt(2.0 / P)
    matrix[0] = 1.0 / math.sqrt(P)
    if P % 2 == 0:
        matrix[P // 2] = np.where(j[0] % 2 == 0, 1.0, -1.0) / math.sqrt(P)
    return torch.from_numpy(matrix)


def ring_frequency(n_beads: int, temperature: Tensor) -> Tensor:
    """omega_P = P kB T / hbar [S] in 1/fs, of the springs between neighbouring beads; temperature [S] K."""
    return n_beads * KB * temperature / HBAR


def mode_frequencies(n_beads: int, temperature: Tensor) -> Tensor:
    """omega_k = 2 omega_P sin(k pi / P) [S, P] in 1/fs; temperature [S] K."""
    k = torch.arange(n_beads, dtype=torch.float64, device=temperature.device)
    return 2.0 * ring_frequency(n_beads, temperature)[:, None] * torch.sin(k * (math.pi / n_beads))
