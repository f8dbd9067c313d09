"""Structures about a minimum, displaced along its normal modes: nearer than beads come, and farther."""

from __future__ import annotations

import ase
import numpy as np

from painn_fast.learn.minima import Minimum
from painn_fast.units import AMU_A2_PER_FS2, HBAR, KB, SPEED_OF_LIGHT

SOFT = 100.0
"""cm-1: modes below, torsions mostly, are displaced as if they were at it."""
NEAR = (30.0, 100.0, 300.0)
"""K, of classical displacements near a minimum."""
STRAINED = 2.5
"""Quantum amplitudes of a single mode, up to which it is displaced."""


def amplitudes(minimum: Minimum, temperature: float, *, quantum: bool) -> np.ndarray:
    """Standard deviation [K] of the normal coordinates, Å sqrt(amu), of harmonic oscillators at a temperature (K)."""
    omega = 2.0 * np.pi * SPEED_OF_LIGHT * np.maximum(np.abs(minimum.wavenumber), SOFT)  # 1/fs
    kt = KB * temperature
    energy = 0.5 * HBAR * omega / np.tanh(0.5 * HBAR * omega / kt) if quantum else np.full(len(omega), kt)
    return np.sqrt(energy / (AMU_A2_PER_FS2 * omega**2))


def near(minimum: Minimum, count: int, random: np.random.Generator) -> list[ase.Atoms]:
    """Displaced along all modes at random, as classical oscillators are at 30, 100 and 300 K in turn."""
    sizes = [amplitudes(minimum, temperature, quantum=False) for temperature in NEAR]
    return [_moved(minimum, sizes[k % len(NEAR)] * random.normal(size=len(sizes[0]))) for k in range(count)]


def strained(minimum: Minimum, count: int, temperature: float, random: np.random.Generator) -> list[ase.Atoms]:
    """Displaced along one mode after another, up to 2.5 quantum amplitudes, and as at 30 K along all others."""
    large, small = amplitudes(minimum, temperature, quantum=True), amplitudes(minimum, NEAR[0], quantum=False)
    made = []
    for k in range(count):
        q = small * random.normal(size=len(small))
        one = k % len(q)
        q[one] = STRAINED * large[one] * random.uniform(-1.0, 1.0)
        made.append(_moved(minimum, q))
    return made


def _moved(minimum: Minimum, q: np.ndarray) -> ase.Atoms:
    one = minimum.atoms.copy()
    one.positions += np.einsum("k,kni->ni", q, minimum.modes)
    return one
