"""Many structures relaxed at once, each with a quasi-Newton method of its own, all forces of a step in one batch."""

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
from painn_fast.vibrations.quasi_newton import quasi_newton


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
    active, step = moving, 0
    while True:
        active = _evaluated(model, active, stress=cell, first=step == 0)
        for one in active:
            one.steps = step
        active = [one for one in active if one.force > tolerance]
        largest = max((one.force for one in active), default=0.0)
        tell(f"step {step}: {len(active)} of {len(moving)} structures to relax, largest force {largest:.3g} eV/Å")
        if not active or step == steps:
            return [one.result(tolerance) for one in moving]
        step += 1
        for one in active:
            one.advance()


class _Moving:
    """A structure on its way."""

    def __init__(self, atoms: ase.Atoms, *, cell: bool) -> None:
        self.atoms = atoms.copy()
        self.strained = cell and bool(atoms.pbc.all())
        self.optimizable = UnitCellFilter(self.atoms) if self.strained else self.atoms
        self.search = quasi_newton(len(atoms) + 3 * self.strained)
        self.steps = 0
        self.force = 0.0
        self.slope = np.zeros((0, 3))  # forces, of the cell too
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

    def advance(self) -> None:
        """Take the next step."""
        positions = self.optimizable.get_positions()
        self.before = positions, self.force, self.results
        self.optimizable.set_positions(positions + self.search.step(positions, -self.slope))

    def give_up(self, failure: str) -> None:
        """Return to the last step, since the model fails at this one."""
        positions, self.force, self.results = self.before
        self.optimizable.set_positions(positions)
        self.failure = failure

    def result(self, tolerance: float) -> Relaxed:
        self.atoms.calc = SinglePointCalculator(self.atoms, **self.results)
        energy, converged = float(self.results["energy"]), self.force <= tolerance
        return Relaxed(self.atoms, energy, self.force, self.steps, converged, self.failure)


def _evaluated(model: Potential | Ensemble, active: list[_Moving], *, stress: bool, first: bool) -> list[_Moving]:
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
            active = [one for one in active if not one.failure]
            continue
        for k, one in enumerate(active):
            one.take({name: results[name][k] for name in names if name != "stress" or one.strained})
        break
    return active
