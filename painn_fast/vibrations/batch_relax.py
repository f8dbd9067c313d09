"""Many structures relaxed at once by L-BFGS, each with a history of its own, all forces of a step in one batch.

Nocedal, Math. Comput. 35, 773 (1980); the curvature of directions without a history is that of the last step, which
saves a fifth of the steps. As in ASE, it is 70 eV/Å^2 to begin with, and no atom moves by more than 0.2 Å in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import UnitCellFilter

from painn_fast.ensemble import Ensemble
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import NUMBERED, evaluate
from painn_fast.nn import Potential
from painn_fast.vibrations.derivatives import atoms_at_once

CURVATURE = 70.0
"""eV/Å^2, of the first step."""
SOFTNESS = 1.0 / 140.0, 1.0 / 8.0
"""Å^2/eV, limits of the inverse curvature along them once there is a history."""
LONGEST = 0.2
"""Å: longest step of an atom."""
MEMORY = 50
"""Steps in the history of a structure."""


@dataclass(frozen=True)
class Relaxed:
    """A structure where its relaxation ended.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import relax_many
        >>> (end,) = relax_many(pf.load("ethanol"), [molecule("CH3CH2OH")])
        >>> end.converged, end.force < 0.01, end.atoms.get_potential_energy() == end.energy
        (True, True, True)
    """

    atoms: ase.Atoms  # with energy and forces, and stress where the cell was relaxed, as results of a calculator
    energy: float  # eV
    force: float  # eV/Å, largest on an atom; with a cell, of its strain too, as in ASE's UnitCellFilter
    steps: int
    converged: bool
    failure: str = ""  # of the model at the next step, which ended the relaxation


def relax_many(
    model: Potential | Ensemble,
    molecules: Sequence[ase.Atoms],
    *,
    tolerance: float = 0.01,
    steps: int = 1000,
    cell: bool = False,
    tell: Callable[[str], None] = lambda message: None,
) -> list[Relaxed]:
    """Relax many structures in one batch.

    Args:
        model: with an energy; in float32, forces below some 1e-4 eV/Å are rounding.
        molecules: different ones welcome, molecules and crystals; they are not changed. Constraints hold.
        tolerance: largest force on an atom at the end, eV/Å.
        steps: upper limit; a structure that has not converged by then, or comes to where the model fails, is returned
            as it is.
        cell: relax the cells of structures that are periodic in three directions too.
        tell: called with a line about the progress after each step.

    Returns:
        One entry a structure, in order.

    Raises:
        PaiNNFastError: for a structure that the model cannot handle.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import relax_many
        >>> ends = relax_many(pf.load("ethanol"), [molecule("CH3CH2OH"), molecule("CH3OH"), molecule("C2H6")])
        >>> [end.converged for end in ends]
        [True, True, True]
    """
    if not tolerance > 0 or steps < 0:
        raise PaiNNFastError(
            "not a limit of a relaxation", got=f"tolerance {tolerance}, {steps} steps", expected="positive numbers"
        )
    moving = [_Moving(atoms, cell=cell) for atoms in molecules]
    active, history, step = moving, History([one.size for one in moving]), 0
    while True:
        active = _evaluated(model, active, history, stress=cell, first=step == 0)
        for one in active:
            one.steps = step
        active = history.keep(active, [one.force > tolerance for one in active])
        largest = max((one.force for one in active), default=0.0)
        tell(f"step {step}: {len(active)} of {len(moving)} structures to relax, largest force {largest:.3g} eV/Å")
        if not active or step == steps:
            return [one.result(tolerance) for one in moving]
        step += 1
        positions = np.concatenate([one.optimizable.get_positions() for one in active])
        gradient = -np.concatenate([one.slope for one in active])
        moved = np.split(positions + history.step(positions, gradient), history.ends[:-1])
        for one, values in zip(active, moved, strict=True):
            one.before = one.optimizable.get_positions(), one.force, one.results
            one.optimizable.set_positions(values)


class _Moving:
    """A structure on its way, of `size` rows: its atoms, and three of its cell if that relaxes."""

    def __init__(self, atoms: ase.Atoms, *, cell: bool) -> None:
        self.atoms = atoms.copy()
        self.strained = cell and bool(atoms.pbc.all())
        self.optimizable = UnitCellFilter(self.atoms) if self.strained else self.atoms
        self.size = len(atoms) + 3 * self.strained
        self.steps = 0
        self.force = 0.0
        self.slope = np.zeros((self.size, 3))
        self.results: dict[str, Any] = {}
        self.before: Any = None  # positions, force and results of the last step
        self.failure = ""

    def take(self, results: dict[str, Any]) -> None:
        """Energy, forces and stress at the present positions."""
        self.results = results
        self.slope = results["forces"]
        if self.strained or self.atoms.constraints:
            self.atoms.calc = SinglePointCalculator(self.atoms, **results)
            self.slope = self.optimizable.get_forces()
        self.force = float(np.sqrt((self.slope**2).sum(axis=1).max(initial=0.0)))

    def give_up(self, failure: str) -> None:
        """Return to the last step, since the model fails at this one."""
        positions, self.force, self.results = self.before
        self.optimizable.set_positions(positions)
        self.failure = failure

    def result(self, tolerance: float) -> Relaxed:
        self.atoms.calc = SinglePointCalculator(self.atoms, **self.results)
        energy, converged = float(self.results["energy"]), self.force <= tolerance
        return Relaxed(self.atoms, energy, self.force, self.steps, converged, self.failure)


def _evaluated(
    model: Potential | Ensemble, active: list[_Moving], history: History, *, stress: bool, first: bool
) -> list[_Moving]:
    """Evaluate structures; those where the model fails, such as at atoms on top of each other, give up."""
    names = ["energy", "forces", *(["stress"] if stress and any(one.strained for one in active) else [])]
    while active:
        try:
            results = evaluate(model, [one.atoms for one in active], names, atoms_per_batch=atoms_at_once(model))
        except PaiNNFastError as error:
            match = NUMBERED.search(str(error.where))
            if first or match is None:
                raise
            active[int(match[1])].give_up(error.what)
            active = history.keep(active, [not one.failure for one in active])
            continue
        for k, one in enumerate(active):
            one.take({name: results[name][k] for name in names if name != "stress" or one.strained})
        break
    return active


class History:
    """Steps and changes of the gradient of M structures of `sizes` [M] rows, N in all, and the steps that follow."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._resize(np.array(sizes, dtype=int))
        self.pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # s [N, 3], y [N, 3], 1 / s.y [M]
        self.last: tuple[np.ndarray, np.ndarray] | None = None  # positions and gradient before the step

    def _resize(self, sizes: np.ndarray) -> None:
        self.sizes, self.ends = sizes, np.cumsum(sizes)
        self.starts = self.ends - sizes
        self.owner = np.repeat(np.arange(len(sizes)), sizes)

    def keep(self, structures: list[_Moving], wanted: list[bool]) -> list[_Moving]:
        """The structures that are wanted; the others are forgotten."""
        if all(wanted):
            return structures
        mask = np.array(wanted)
        rows = mask[self.owner]
        self._resize(self.sizes[mask])
        self.pairs = [(s[rows], y[rows], rho[mask]) for s, y, rho in self.pairs]
        self.last = self.last and (self.last[0][rows], self.last[1][rows])
        return [one for one, stays in zip(structures, wanted, strict=True) if stays]

    def step(self, positions: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """The next step [N, 3] Å from positions [N, 3] Å and the gradient [N, 3] eV/Å there."""
        if self.last is not None:
            s, y = positions - self.last[0], gradient - self.last[1]
            curvature = self._dot(s, y)
            usable = curvature > 1e-10 * np.sqrt(self._dot(s, s) * self._dot(y, y))  # else it leads uphill
            rho = np.divide(1.0, curvature, out=np.zeros_like(curvature), where=usable)
            self.pairs = [*self.pairs, (s, y, rho)][-MEMORY:]
        self.last = positions, gradient
        step = -self._inverse_hessian_on(gradient)
        length = np.sqrt(np.maximum.reduceat((step**2).sum(axis=1), self.starts))
        return step * self._rows(np.minimum(1.0, LONGEST / np.maximum(length, LONGEST)))

    def _inverse_hessian_on(self, gradient: np.ndarray) -> np.ndarray:
        """The recursion of two loops; pairs without a use have rho = 0 and change nothing."""
        q, shares = gradient.copy(), []
        for s, y, rho in reversed(self.pairs):
            shares.append(rho * self._dot(s, q))
            q -= self._rows(shares[-1]) * y
        q *= self._rows(self._softness())
        for (s, y, rho), share in zip(self.pairs, reversed(shares), strict=True):
            q += self._rows(share - rho * self._dot(y, q)) * s
        return q

    def _softness(self) -> np.ndarray:
        """Inverse curvature [M] along directions that the history does not know, s.y / y.y of the last step."""
        if not self.pairs:
            return np.full(len(self.sizes), 1.0 / CURVATURE)
        _, y, rho = self.pairs[-1]
        inverse = np.divide(1.0, rho * self._dot(y, y), out=np.full_like(rho, 1.0 / CURVATURE), where=rho > 0)
        return np.clip(inverse, *SOFTNESS)

    def _dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Scalar products of structures [M]."""
        return np.add.reduceat(np.einsum("ij,ij->i", a, b), self.starts)

    def _rows(self, values: np.ndarray) -> np.ndarray:
        """Values of structures [M] for each of their rows [N, 1]."""
        return values[self.owner][:, None]
