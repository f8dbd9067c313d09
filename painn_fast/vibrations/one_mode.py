"""The fundamental of one normal mode alone: exact on the model's potential, and by perturbation theory.

Where the two differ, a potential of fourth order does not describe the mode: it is strongly anharmonic, or the model
was not trained on the displacements that its zero-point motion reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ase
import numpy as np

from painn_fast.units import EV_IN_CM
from painn_fast.vibrations.fourth_order import STEP, dimensionless, moved

STEPS = range(-8, 9)
"""Of the differences, so out to 4 dimensionless units: the fundamental of an O-H bond by Morse is exact to 1 cm-1."""

Energies = Callable[[list[ase.Atoms]], Sequence[float]]


def exact_fundamentals(energies: Energies, atoms: ase.Atoms, wavenumber: np.ndarray, modes: np.ndarray) -> np.ndarray:
    """First excitation energy [K] cm-1 of motion along each mode alone, in a basis of sinc functions.

    Args:
        energies: structures in, eV out.
        atoms: at a minimum.
        wavenumber: [K] cm-1, positive.
        modes: dR/dQ [K, n, 3], 1/sqrt(amu).

    Source: Colbert and Miller, J. Chem. Phys. 96, 1982 (1992).
    """
    along = dimensionless(modes, wavenumber)
    structures = [moved(atoms, along, ((mode, steps),)) for mode in range(len(along)) for steps in STEPS]
    potential = EV_IN_CM * np.asarray(energies(structures), dtype=np.float64).reshape(len(modes), len(STEPS))
    apart = np.subtract.outer(STEPS, STEPS)
    sign = np.where(apart % 2, -1.0, 1.0)
    kinetic = sign * np.divide(2.0, apart**2, out=np.full(apart.shape, np.pi**2 / 3.0), where=apart != 0)
    matrices = wavenumber[:, None, None] * kinetic / (2.0 * STEP**2)
    matrices[:, range(len(STEPS)), range(len(STEPS))] += potential
    levels = np.linalg.eigvalsh(matrices)
    return np.asarray(levels[:, 1] - levels[:, 0])


def perturbed_fundamentals(omega: np.ndarray, cubic: np.ndarray, quartic: np.ndarray) -> np.ndarray:
    """First excitation energy [K] cm-1 of each mode alone by second order, from phi_iii and phi_iiii [K] cm-1."""
    return omega + quartic / 8.0 - 5.0 * cubic**2 / (24.0 * omega)
