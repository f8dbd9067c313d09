"""The force field of fourth order around a minimum, by central differences of forces along normal modes.

With h = 0.5 in dimensionless normal coordinates, steps of one mode reach 3 h and of two modes 2 h, and the error goes
with h^4: a step averages over the roughness of a surface, as the vibration itself does.
"""

from __future__ import annotations

from itertools import combinations

import ase
import numpy as np

from painn_fast.units import AMU_A2_PER_FS2, EV_IN_CM, HBAR, SPEED_OF_LIGHT
from painn_fast.vibrations.derivatives import Compute
from painn_fast.vibrations.perturbation import AnharmonicField

STEP = 0.5
"""Of a dimensionless normal coordinate; the amplitude of its zero-point motion is 0.7."""
_SINGLE, _PAIR = (-3, -2, -1, 1, 2, 3), ((1, 1), (1, -1), (-1, 1), (-1, -1), (2, 2), (2, -2), (-2, 2), (-2, -2))
MOMENT_OF_INERTIA = HBAR / (4.0 * np.pi * SPEED_OF_LIGHT * AMU_A2_PER_FS2)
"""Rotational constant times moment of inertia, cm-1 amu Å^2."""


def dimensionless(modes: np.ndarray, wavenumber: np.ndarray) -> np.ndarray:
    """dR/dq [K, n, 3] Å from dR/dQ [K, n, 3] 1/sqrt(amu) and wavenumbers [K] cm-1."""
    omega = 2.0 * np.pi * SPEED_OF_LIGHT * wavenumber  # 1/fs
    return modes * np.sqrt(HBAR / (AMU_A2_PER_FS2 * omega))[:, None, None]


def force_field(compute: Compute, atoms: ase.Atoms, wavenumber: np.ndarray, modes: np.ndarray) -> AnharmonicField:
    """Cubic and semi-quartic force constants, and derivatives of "dipole" and "polarizability" where there are any.

    Args:
        compute: structures in, "forces" and perhaps "dipole" and "polarizability" out, one entry a structure; called
            once, with 1 + 6 K + 4 K (K - 1) of them.
        atoms: at a minimum.
        wavenumber: [K] cm-1, of the modes that take part; positive.
        modes: dR/dQ [K, n, 3], 1/sqrt(amu).

    Returns:
        The field; its moments are the dipole's 3 and the polarizability's 9 components, e Å and Å^3.
    """
    along = dimensionless(modes, wavenumber)
    count = len(along)
    steps = [(), *(((i, s),) for i in range(count) for s in _SINGLE)]
    steps += [((i, s), (j, t)) for i, j in combinations(range(count), 2) for s, t in _PAIR]
    results = compute([moved(atoms, along, one) for one in steps])
    forces = np.asarray(results["forces"], dtype=np.float64).reshape(len(steps), -1)
    slope = -EV_IN_CM * forces @ along.reshape(count, -1).T  # dV/dq, cm-1
    moments = [
        np.asarray(results[name], dtype=np.float64).reshape(len(steps), -1)
        for name in ("dipole", "polarizability")
        if name in results
    ]
    values = np.concatenate([slope, *moments], axis=1)
    first, second, third = _differences(values, count)
    cubic = second[:, :, :count]
    cubic = (cubic + cubic.transpose(0, 2, 1) + cubic.transpose(2, 1, 0)) / 3.0
    return AnharmonicField(
        omega=np.asarray(wavenumber, dtype=np.float64),
        cubic=cubic,
        quartic=_symmetric(third[:, :, :count]),
        zeta=coriolis(atoms, modes),
        rotational=rotational_constants(atoms),
        first=first[:, count:].T,
        second=second[:, :, count:].transpose(2, 0, 1),
        third=third[:, :, count:].transpose(2, 0, 1),
    )


def moved(atoms: ase.Atoms, along: np.ndarray, steps: tuple[tuple[int, int], ...]) -> ase.Atoms:
    """A copy displaced by steps of modes, pairs of a mode and its number of steps."""
    other = atoms.copy()
    for mode, count in steps:
        other.positions += STEP * count * along[mode]
    return other


def _differences(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d/dq_i [K, C], d^2/dq_i dq_j [K, K, C] and d^3/dq_i^2 dq_j [K, K, C] of values [structures, C]."""
    centre, size = values[0], values.shape[1]
    one = values[1 : 1 + 6 * count].reshape(count, 6, size)
    at = {0: np.broadcast_to(centre, (count, size)), **{s: one[:, k] for k, s in enumerate(_SINGLE)}}
    first = (8.0 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12.0 * STEP)
    second, third = np.zeros((count, count, size)), np.zeros((count, count, size))
    modes = np.arange(count)
    second[modes, modes] = (16.0 * (at[1] + at[-1]) - (at[2] + at[-2]) - 30.0 * centre) / (12.0 * STEP**2)
    bend = 13.0 * (at[-1] - at[1]) - 8.0 * (at[-2] - at[2]) + (at[-3] - at[3])
    third[modes, modes] = bend / (8.0 * STEP**3)
    pairs = np.array(list(combinations(range(count), 2)), dtype=int).reshape(-1, 2)
    two = values[1 + 6 * count :].reshape(len(pairs), len(_PAIR), size)
    i, j = pairs.T
    mixed, twice_i, twice_j = 0.0, 0.0, 0.0
    for h, weight in ((1, 4.0 / 3.0), (2, -1.0 / 3.0)):
        corner = {signs: two[:, k] for k, signs in enumerate(_PAIR)}
        pp, pm, mp, mm = (corner[h * s, h * t] for s, t in _PAIR[:4])
        step = h * STEP
        mixed = mixed + weight * (pp - pm - mp + mm) / (4.0 * step**2)
        twice_i = twice_i + weight * (pp + mp - pm - mm - 2.0 * (at[h][j] - at[-h][j])) / (2.0 * step**3)
        twice_j = twice_j + weight * (pp + pm - mp - mm - 2.0 * (at[h][i] - at[-h][i])) / (2.0 * step**3)
    second[i, j] = second[j, i] = mixed
    third[i, j], third[j, i] = twice_i, twice_j
    return first, second, third


def _symmetric(fourth: np.ndarray) -> np.ndarray:
    """phi_iijk [K, K, K] with equal entries wherever the same constant was found in several ways."""
    fourth = (fourth + fourth.transpose(0, 2, 1)) / 2.0
    modes = np.arange(len(fourth))
    diagonal = fourth[:, modes, modes]  # phi_iijj
    diagonal = (diagonal + diagonal.T) / 2.0
    fourth[:, modes, modes] = diagonal
    return fourth


def rotational_constants(atoms: ase.Atoms) -> np.ndarray:
    """B [3] about the principal axes, cm-1; 0 about the axis of a linear molecule."""
    moments = atoms.get_moments_of_inertia()
    large = moments > 1e-6 * moments.max()
    return np.where(large, MOMENT_OF_INERTIA / np.where(large, moments, 1.0), 0.0)


def coriolis(atoms: ase.Atoms, modes: np.ndarray) -> np.ndarray:
    """Coriolis constants zeta [3, K, K] about the principal axes, from dR/dQ [K, n, 3] in 1/sqrt(amu)."""
    _, axes = atoms.get_moments_of_inertia(vectors=True)
    turned = modes @ axes.T * np.sqrt(atoms.get_masses())[:, None]
    zeta = np.cross(turned[:, None], turned[None]).sum(axis=2)  # [K, K, 3]
    return zeta.transpose(2, 0, 1)
