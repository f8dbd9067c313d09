"""Derivatives at a structure: Hessian, d mu / dR and d alpha / dR, by central differences or by autograd.

A minimum may sit where a vector channel of the network passes through zero, and |V v| = sqrt((V v)^2 + epsilon) bends
within about sqrt(epsilon) of its argument. Autograd gives the curvature at the point itself; vibrations, of 0.05 Å and
more, average over the surface around it, as do central differences over 0.01 and 0.02 Å.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
import torch

from painn_fast.engine import engine_for
from painn_fast.ensemble import Ensemble
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import ATOMS_PER_BATCH, evaluate
from painn_fast.graph import batch_atoms
from painn_fast.nn import Potential
from painn_fast.nn.derivatives import dipole_derivative, polarizability_derivative
from painn_fast.vibrations.method import METHODS, Method

STEP = 0.01
"""Å, the shorter one of two; the other is twice as long."""
ATOMS_AT_ONCE = 65536
"""Atoms of displaced structures in one batch of the engine: all those of a molecule of 70 atoms."""
Compute = Callable[[list[ase.Atoms]], Mapping[str, Any]]


@dataclass(frozen=True)
class Derivatives:
    """At one structure of n atoms; None for properties that the model lacks."""

    hessian: np.ndarray  # [3 n, 3 n] eV/Å^2, symmetric
    dipole: np.ndarray | None = None  # d mu / dR [3, n, 3], e
    polarizability: np.ndarray | None = None  # d alpha / dR [3, 3, n, 3], Å^2


def hessian(model: Potential, atoms: ase.Atoms, method: Method = "differences") -> np.ndarray:
    """Second derivative of the energy.

    Args:
        model: differences are taken in its own precision, on the engine where that runs it. Rounding of float32 forces
            moves the lines of ethanol and aspirin by 0.02 cm-1 at most; the analytic Hessian is float64 always.
        atoms: one structure, at a minimum or elsewhere.
        method: "differences", central ones of analytic forces over 0.01 and 0.02 Å with the h^2 term removed, or
            "analytic", the second derivative at the point itself.

    Returns:
        [3 n, 3 n] eV/Å^2, symmetric.

    Raises:
        PaiNNFastError: for an unknown method, or a structure that the model cannot handle.

    Example:
        >>> import numpy as np
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import hessian
        >>> matrix = hessian(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> matrix.shape, bool(np.array_equal(matrix, matrix.T))
        ((27, 27), True)
    """
    return derivatives(model, atoms, method, ()).hessian


def derivatives(
    model: Potential,
    atoms: ase.Atoms,
    method: Method = "differences",
    properties: Sequence[str] = ("dipole", "polarizability"),
) -> Derivatives:
    """Hessian as by `hessian`, and derivatives of the properties that the model has, by the same method.

    Raises:
        PaiNNFastError: for an unknown method, or a structure that the model cannot handle.
    """
    wanted = [name for name in properties if name in model.properties]
    if method == "differences":
        return next(derivatives_of_many(model, [atoms], wanted))
    if method == "analytic":
        return _analytic(in_float64(model), atoms, wanted)
    raise PaiNNFastError("unknown kind of Hessian", got=repr(method), expected=" | ".join(METHODS))


def derivatives_of_many(
    model: Potential, molecules: Sequence[ase.Atoms], properties: Sequence[str] = ("dipole", "polarizability")
) -> Iterator[Derivatives]:
    """Derivatives by differences, one entry a structure; displaced structures of many are evaluated together.

    Raises:
        PaiNNFastError: for a structure that the model cannot handle.
    """
    names, limit = ("forces", *(name for name in properties if name in model.properties)), atoms_at_once(model)
    evaluate(model, molecules[:1], names)  # a new engine checks itself on its first batch: on one structure, not on all

    def compute(moved: list[ase.Atoms]) -> Mapping[str, Any]:
        return evaluate(model, moved, names, atoms_per_batch=limit)

    for group in _groups(molecules, limit):
        for slopes in differences_of_many(compute, group):
            matrix = -slopes["forces"].reshape(3 * len(slopes["forces"]), -1)
            moved = {name: np.moveaxis(slopes[name], (0, 1), (-2, -1)) for name in names[1:]}
            yield Derivatives(0.5 * (matrix + matrix.T), moved.get("dipole"), moved.get("polarizability"))


def _groups(molecules: Sequence[ase.Atoms], limit: int) -> Iterator[list[ase.Atoms]]:
    """Structures whose displaced ones have about `limit` atoms together, which bounds the memory for them."""
    group: list[ase.Atoms] = []
    total = 0
    for atoms in molecules:
        group.append(atoms)
        total += 12 * len(atoms) ** 2
        if total >= limit:
            yield group
            group, total = [], 0
    if group:
        yield group


def atoms_at_once(model: Potential | Ensemble) -> int:
    """Atoms in one batch: engines divide it by themselves, tapes of autograd outgrow the caches."""
    engines = all(engine_for(one) for one in (model.members if isinstance(model, Ensemble) else [model]))
    return ATOMS_AT_ONCE if engines else ATOMS_PER_BATCH


def _analytic(model: Potential, atoms: ase.Atoms, properties: Sequence[str]) -> Derivatives:
    batch = batch_atoms([atoms], model.cutoff).to(model.device)
    exact = {"dipole": dipole_derivative, "polarizability": polarizability_derivative}
    with model.reference():  # plain torch: twice as fast in float64 as the operations that training takes
        slopes = {name: exact[name](model, batch).detach().cpu().numpy() for name in properties}
        return Derivatives(evaluate(model, [atoms], ("hessian",))["hessian"][0], **slopes)


def differences(compute: Compute, atoms: ase.Atoms, step: float = STEP) -> dict[str, np.ndarray]:
    """Derivatives of quantities with respect to positions; the error goes with the fourth power of the step.

    With D(h) = (f(R + h) - f(R - h)) / 2h, which is off by h^2 f''' / 6: (4 D(h) - D(2h)) / 3.

    Args:
        compute: structures in, one entry a structure for each quantity out; called once, with all 12 n of them.
        atoms: n of them.
        step: h, Å.

    Returns:
        For each quantity of shape [...]: [n, 3, ...], its unit per Å.
    """
    return differences_of_many(compute, [atoms], step)[0]


def differences_of_many(
    compute: Compute, molecules: Sequence[ase.Atoms], step: float = STEP
) -> list[dict[str, np.ndarray]]:
    """As `differences`, for many structures with one call of `compute`."""
    steps = (step, 2.0 * step)
    results = compute([moved for atoms in molecules for h in steps for moved in displaced(atoms, h)])
    ends = np.cumsum([12 * len(atoms) for atoms in molecules]).tolist()
    parts = [slice(end - 12 * len(atoms), end) for atoms, end in zip(molecules, ends, strict=True)]
    return [{name: _slope(entries[part], steps) for name, entries in results.items()} for part in parts]


def _slope(entries: Any, steps: tuple[float, float]) -> np.ndarray:
    """From values [12 n, ...] at displaced structures: [n, 3, ...]."""
    values = np.asarray(entries, dtype=np.float64)
    values = values.reshape(2, -1, 3, 2, *values.shape[1:])  # step, atom, axis, sign
    short, long = ((one[:, :, 0] - one[:, :, 1]) / (2.0 * h) for one, h in zip(values, steps, strict=True))
    return np.asarray((4.0 * short - long) / 3.0)


def displaced(atoms: ase.Atoms, step: float) -> list[ase.Atoms]:
    """Copies with one coordinate moved, atom by atom, axis by axis, by +step, then by -step Å."""
    moved = []
    for index in np.ndindex(*atoms.positions.shape):
        for sign in (1, -1):
            one = atoms.copy()
            one.positions[index] += sign * step
            moved.append(one)
    return moved


def in_float64(model: Potential) -> Potential:
    """The model itself if it is in float64, else a copy that is."""
    return model if model.dtype == torch.float64 else copy.deepcopy(model).double().eval()
