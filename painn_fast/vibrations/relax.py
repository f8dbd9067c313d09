"""The nearest stationary point of a model: BFGS to its neighbourhood, then Newton steps with its own Hessian."""

from __future__ import annotations

import ase
import numpy as np
from ase.optimize import BFGS

from painn_fast.ase import PaiNNCalculator
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.io.structures import refuse_constraints
from painn_fast.nn import Potential
from painn_fast.vibrations.derivatives import hessian

NEAR = 0.02
"""eV/Å: Newton steps follow BFGS from here on."""
BFGS_STEPS = 500
NEWTON_STEPS = 30
LOST = 5.0
"""Times that force, from which BFGS takes over again: the point was near a saddle, and the minimum is far."""
DESCENTS, CLOSER = 4, 4.0
"""Times that BFGS may begin, and by how much closer it comes each time."""
LONGEST = 0.1
"""Å: longest Newton step of an atom."""
FLOOR = 1e-4
"""eV/(Å^2 amu), that of 5 cm-1: smaller curvatures are set to this."""
SLOW = 0.2
"""Share of the force left by a step, above which the Hessian is computed again."""
LINEAR = 1e-3
"""Square root of the smallest over the largest moment of inertia, below which a molecule is linear: 1 mÅ in 1 Å."""


def relax(model: Potential, atoms: ase.Atoms, *, tolerance: float = 1e-5) -> ase.Atoms:
    """Relax a structure to the minimum of its basin.

    Args:
        model: best in float64; float32 cannot reach the default tolerance.
        atoms: a molecule in vacuum, the start.
        tolerance: largest force that may be left, eV/Å.

    Returns:
        A copy of `atoms` at the minimum.

    Raises:
        PaiNNFastError: for a periodic structure or one with constraints, and if it does not converge.

    Example:
        >>> import numpy as np
        >>> import painn_fast as pf
        >>> import torch
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import relax
        >>> model = pf.load("ethanol", dtype=torch.float64)
        >>> minimum = relax(model, molecule("CH3CH2OH"))
        >>> bool(np.abs(pf.evaluate(model, [minimum])["forces"][0]).max() < 1e-5)
        True
    """
    check_molecule(atoms)
    relaxed = atoms.copy()
    relaxed.calc = PaiNNCalculator(model, backend="reference")
    for descent in range(DESCENTS):
        if len(atoms) > 1:
            BFGS(relaxed, logfile=None).run(fmax=max(NEAR / CLOSER**descent, tolerance), steps=BFGS_STEPS)
        left = _newton(model, relaxed, tolerance)
        if left <= tolerance:
            relaxed.calc = None
            return relaxed
    raise PaiNNFastError(
        "the structure does not relax",
        where=atoms.get_chemical_formula(),
        got=f"a force of {left:.2g} eV/Å is left",
        expected=f"at most {tolerance:.0e} eV/Å",
        fix="start from a better structure; does the model know this molecule?",
    )


def check_molecule(atoms: ase.Atoms) -> None:
    """Raise PaiNNFastError unless `atoms` is a molecule in vacuum without constraints."""
    if atoms.pbc.any():
        raise PaiNNFastError("harmonic analysis is for molecules in vacuum", got=f"pbc={atoms.pbc.tolist()}")
    refuse_constraints([atoms], "harmonic analysis", fix="lines of a constrained structure are not those of a minimum")


def _newton(model: Potential, atoms: ase.Atoms, tolerance: float) -> float:
    """Newton steps with one Hessian by differences as long as they help, then analytic ones; the force that is left.

    On a rough surface the analytic Hessian holds within a mÅ of the point only: of little use far from the minimum, but
    exact for the last steps.
    """
    matrix, before = None, float("inf")
    for _ in range(NEWTON_STEPS):
        forces = evaluate(model, [atoms], ("forces",), backend="reference")["forces"][0]
        largest = float(np.linalg.norm(forces, axis=1).max())
        if largest <= tolerance or (matrix is not None and largest > LOST * NEAR):
            break
        if matrix is None or largest > SLOW * before:
            matrix = hessian(model, atoms, "differences" if matrix is None else "analytic")
        atoms.positions += _step(atoms, forces, matrix)
        before = largest
    return largest


def _step(atoms: ase.Atoms, forces: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Newton's step [n, 3] Å downhill along every mode but translations and rotations."""
    weight, frame, curvature, modes = internal_modes(atoms, hessian)
    slope = modes.T @ (frame.T @ (weight * forces.reshape(-1)))
    step = (weight * (frame @ (modes @ (slope / np.maximum(np.abs(curvature), FLOOR))))).reshape(-1, 3)
    longest = float(np.linalg.norm(step, axis=1).max())
    return step * min(1.0, LONGEST / longest) if longest > 0 else step


def internal_modes(atoms: ase.Atoms, hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues of a mass-weighted Hessian without translations and rotations.

    Args:
        atoms: n of them, with their masses.
        hessian: [3 n, 3 n] eV/Å^2.

    Returns:
        m^-1/2 of each coordinate [3 n], `internal_frame` [3 n, K], curvatures [K] eV/(Å^2 amu), ascending, and their
        modes in the frame [K, K].
    """
    weight, frame = np.repeat(atoms.get_masses() ** -0.5, 3), internal_frame(atoms)
    return weight, frame, *np.linalg.eigh(frame.T @ (weight[:, None] * hessian * weight) @ frame)


def internal_frame(atoms: ase.Atoms) -> np.ndarray:
    """Orthonormal mass-weighted displacements without translation and rotation [3 n, 3 n - 6], or - 5 if linear."""
    root = np.sqrt(atoms.get_masses())
    r = atoms.positions - atoms.get_center_of_mass()
    moments, axes = atoms.get_moments_of_inertia(vectors=True)
    shifts = [np.outer(root, axis).reshape(-1) for axis in np.eye(3)]
    turns = [
        (root[:, None] * np.cross(axis, r)).reshape(-1)
        for moment, axis in zip(moments, axes, strict=True)
        if moment > LINEAR**2 * moments.max()
    ]
    rigid = np.array([vector / np.linalg.norm(vector) for vector in (*shifts, *turns)])
    return np.linalg.svd(rigid)[2][len(rigid) :].T
