"""For tests of painn-fast and of whatever is built on it: tolerances, comparisons, random models and structures."""

from __future__ import annotations

from typing import Any

import ase
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from painn_fast.nn import Potential, PotentialConfig

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Relative to the largest magnitude of what is compared: equal to the reference, by dtype of the network."""


def assert_close(got: Any, expected: Any, tolerance: float, what: str = "values") -> None:
    """Largest deviation at most `tolerance` times the largest magnitude expected; says which entry is off."""
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


def rotated(atoms: ase.Atoms, *, seed: int = 1) -> tuple[ase.Atoms, np.ndarray]:
    """A copy rotated about the origin, cell included, and the rotation [3, 3] with R' = R @ rotation.T."""
    matrix = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ matrix.T, scale_atoms=False)
    copy.positions = atoms.positions @ matrix.T
    return copy, matrix
