"""Relax many structures of one molecule in one batch of the engine."""

from __future__ import annotations

from collections.abc import Callable

import ase
import numpy as np

from painn_fast.evaluate import evaluate
from painn_fast.nn import Potential
from painn_fast.vibrations.derivatives import ATOMS_AT_ONCE

ENOUGH = 0.003
"""eV/Å: largest force that is left; above the rounding of float32."""
STEPS = 300
LONGEST = 0.15
"""Å: longest step of an atom."""
STIFF = 70.0
"""eV/Å^2: curvature before anything is known, as in ASE's BFGS."""


Evaluate = Callable[[list[ase.Atoms]], tuple[np.ndarray, np.ndarray]]
"""Energies [B] eV and forces [B, n, 3] eV/Å of structures."""


def minima(surface: Potential | Evaluate, structures: list[ase.Atoms]) -> tuple[list[ase.Atoms], np.ndarray]:
    """Relax structures of one molecule by BFGS, each with an inverse Hessian of its own, all forces in one batch.

    Args:
        surface: a model with an energy, or another method.
        structures: B of them, of n atoms in one order.

    Returns:
        Structures with no force above 0.003 eV/Å, those of 300 steps where that was not reached, and energies [B] eV.
    """
    compute = _of_model(surface) if isinstance(surface, Potential) else surface
    x = np.array([one.positions for one in structures])  # [B, n, 3]
    size = x[0].size
    inverse = np.repeat(np.eye(size)[None] / STIFF, len(x), axis=0)
    energies = np.zeros(len(x))
    step, before = np.zeros((len(x), size)), np.zeros((len(x), size))
    active = np.arange(len(x))
    for count in range(STEPS):
        moved = [structures[b].copy() for b in active]
        for one, positions in zip(moved, x[active], strict=True):
            one.positions = positions
        energies[active], forces = compute(moved)
        forces = forces.reshape(len(active), size)
        if count:
            inverse[active] = _update(inverse[active], step[active], before[active] - forces)
        before[active] = forces
        left = np.linalg.norm(forces.reshape(len(active), -1, 3), axis=2).max(axis=1) > ENOUGH
        active, forces = active[left], forces[left]
        if not len(active):
            break
        step[active] = _limited(np.einsum("bij,bj->bi", inverse[active], forces))
        x[active] += step[active].reshape(len(active), -1, 3)
    relaxed = [one.copy() for one in structures]
    for one, positions in zip(relaxed, x, strict=True):
        one.positions = positions
    return relaxed, energies


def _of_model(model: Potential) -> Evaluate:
    def compute(moved: list[ase.Atoms]) -> tuple[np.ndarray, np.ndarray]:
        results = evaluate(model, moved, ("energy", "forces"), atoms_per_batch=ATOMS_AT_ONCE)
        return np.array(results["energy"]), np.array(results["forces"], dtype=np.float64)

    return compute


def _update(inverse: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Inverse Hessians [B, D, D] after steps s, over which gradients changed by y [B, D]; kept where not convex."""
    slope = np.einsum("bi,bi->b", s, y)
    convex = slope > 1e-8 * np.linalg.norm(s, axis=1) * np.linalg.norm(y, axis=1)
    rho = np.where(convex, 1.0 / np.where(convex, slope, 1.0), 0.0)[:, None, None]
    hy = np.einsum("bij,bj->bi", inverse, y)
    curve = 1.0 + rho * np.einsum("bi,bi->b", y, hy)[:, None, None]
    cross = s[:, :, None] * hy[:, None, :]
    return inverse + rho * (curve * s[:, :, None] * s[:, None, :] - cross - cross.swapaxes(1, 2))


def _limited(steps: np.ndarray) -> np.ndarray:
    """Steps [B, D], shortened where an atom would go too far."""
    longest = np.linalg.norm(steps.reshape(len(steps), -1, 3), axis=2).max(axis=1)
    return steps * np.minimum(1.0, LONGEST / np.maximum(longest, 1e-12))[:, None]
