"""For tests of painn-fast and of what is built on it: tolerances, comparisons, random models and structures."""

from __future__ import annotations

from typing import Any, NamedTuple

import ase
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from painn_fast.nn import Potential, PotentialConfig

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

KERNEL_TOLERANCE = {"ieee": 1e-6, "tf32x3": 1e-6, "tf32": 2e-4, "bf16": 5e-4, "float64": 1e-12}
"""Of a GPU kernel, and of energies and forces by several, against float64: of the norm of a result, by the precision of
products. With "tf32" and "bf16" factors are rounded in float64 too."""


def assert_close(got: Any, expected: Any, tolerance: float, what: str = "values") -> None:
    """Largest deviation at most `tolerance` times the largest magnitude expected; the message names the entry."""
    got, expected = (
        np.asarray(one.detach() if isinstance(one, torch.Tensor) else one, dtype=float) for one in (got, expected)
    )
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
