"""The ASE calculator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes, all_properties

from painn_fast.engine import check_backend
from painn_fast.ensemble import SPREAD, Ensemble, Several
from painn_fast.errors import PaiNNFastError, UndefinedProperty
from painn_fast.evaluate import evaluate_again, loaded
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.graph.kept import KeptGraph
from painn_fast.nn import Potential

OF_ASE = frozenset(all_properties)
ARRAYS = [name for name in all_changes if name not in ("cell", "pbc")]
"""What ASE compares of `Atoms.arrays`."""
FREE = {"energy", "energies", "forces", "stress"}
"""Properties that come with the energy and its derivative, computed at every call so that ASE asks once a step."""


class PropertyError(UndefinedProperty, PropertyNotImplementedError):
    """What ASE expects of a property that a calculator does not have or that is not defined for the structure."""


class Results(dict[str, Any]):
    """Results by name. ASE's own code, which takes all of them at once, sees only those that ASE has a name for;
    polarizability, hessian and spreads are found by their names."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__({name: value for name, value in values.items() if name in OF_ASE})
        self.others = {name: value for name, value in values.items() if name not in OF_ASE}

    def __missing__(self, name: str) -> Any:
        return self.others[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.others

    def get(self, name: str, default: Any = None) -> Any:
        return dict.get(self, name, self.others.get(name, default))


class PaiNNCalculator(Calculator):
    """PaiNN for `ase.md`, `ase.optimize`, `ase.vibrations` and everything else that takes a calculator.

    Gives energy, free_energy, energies, forces, stress, dipole, charges, polarizability and hessian, as far as the
    model has the heads; eV, Å, e. Dipole and polarizability are for molecules in vacuum, stress for structures that are
    periodic in three directions. Total charge (e) and spin multiplicity are read from `atoms.info`, by the names in
    `painn_fast.graph.charge`; a change of them is a change of the structure. One that the network has no embedding of
    is reported once.

    Args:
        model: a potential, or what `painn_fast.load` takes (name, file), or an ensemble of them, whose spreads
            (`energy_spread` eV, `forces_spread` [n] eV/Å, ...) then stand in `results` too, or a sum of them.
        device: "cpu", "cuda", ...: works on a copy there; None uses the model itself, where it is.
        backend: "auto" (the engine where it runs the model), "fused" or "reference"; Hessians come from the
            differentiable network always.
        dtype: torch.float32 or torch.float64 for the network, also by its name; None keeps the model's.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Raises:
        PaiNNFastError: for an element that the model does not know, positions that are not finite, atoms on top of each
            other, a charge or a spin that cannot be read; for a property that the model does not have, or that is not
            defined for the structure, one that is ASE's PropertyNotImplementedError too.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> ethanol = molecule("CH3CH2OH")
        >>> ethanol.calc = pf.PaiNNCalculator("ethanol")
        >>> round(ethanol.get_potential_energy(), 1)  # eV
        -4211.2
        >>> ethanol.get_forces().shape, ethanol.get_dipole_moment().shape  # eV/Å, e Å
        ((9, 3), (3,))
    """

    name = "painn-fast"
    atoms: ase.Atoms | None
    results: dict[str, Any]
    implemented_properties: list[str] = [
        "energy", "free_energy", "energies", "forces", "stress", "dipole", "charges", "polarizability", "hessian",
    ]  # fmt: skip
    ignored_changes: set[str] = {"initial_charges", "initial_magmoms"}

    def __init__(
        self,
        model: Potential | Several | str | Path,
        device: str | torch.device | None = None,
        backend: str = "auto",
        *,
        dtype: torch.dtype | str | None = None,
        **load_options: Any,
    ) -> None:
        super().__init__()
        check_backend(backend)
        self.backend = backend
        model = loaded(model, load_options)
        if device is not None or dtype is not None:
            from painn_fast.io.load import device_of, dtype_of

            model = copy.deepcopy(model) if isinstance(model, Potential) else model
            model = model.to(device=device_of(device), dtype=dtype_of(dtype))
        self.potential = model
        self._graph = KeptGraph()
        given = {*model.properties, "free_energy", "hessian"} if "energy" in model.properties else set(model.properties)
        self.implemented_properties = [name for name in type(self).implemented_properties if name in given]

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What differs from the structure that `results` belong to, by ASE's names, and "info" for charge and spin."""
        before = self.atoms
        if before is None:
            return list(all_changes)
        mine, others = before.arrays, atoms.arrays
        pairs = [("cell", before.cell.array, atoms.cell.array), ("pbc", before.pbc, atoms.pbc)]
        pairs += [(name, mine.get(name), others.get(name)) for name in ARRAYS if name not in self.ignored_changes]
        changes = [name for name, a, b in pairs if name not in self.ignored_changes and not _same(a, b, tol)]
        if (before.info or atoms.info) and _electronic(before) != _electronic(atoms):
            changes.append("info")
        return changes

    def get_property(self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True) -> Any:
        """A property of `atoms`, a copy; None if it would have to be calculated and that is not allowed."""
        if name not in self.implemented_properties:
            raise PropertyError(
                "the model does not give this property",
                got=repr(name),
                expected=" | ".join(self.implemented_properties),
            )
        changes: list[str] = []
        if atoms is None:
            atoms = self.atoms
        elif changes := self.check_state(atoms):
            self.atoms, self.results = None, {}
        if name not in self.results:
            if not allow_calculation:
                return None
            self.calculate(atoms, [name], changes)
        result = self.results[name]
        return result.copy() if isinstance(result, np.ndarray) else result

    def calculate(
        self, atoms: ase.Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Fill `self.results` for `atoms`; called by ASE."""
        if atoms is not None and atoms is not self.atoms:
            self.atoms = atoms.copy()
        if self.atoms is None:
            raise PaiNNFastError("no structure to evaluate", got="a calculator without atoms", fix="give it some")
        before = {} if system_changes else self._all_results()
        self.results = {}
        wanted = {"energy" if name == "free_energy" else name for name in properties}
        if wanted & FREE:
            wanted |= FREE if self.atoms.pbc.all() else FREE - {"stress"}
        if isinstance(self.potential, Ensemble):
            wanted |= {f"{name}{SPREAD}" for name in wanted} & set(self.potential.properties)
        try:
            values = evaluate_again(self.potential, self.atoms, sorted(wanted), self._graph, backend=self.backend)
        except UndefinedProperty as error:
            raise PropertyError(
                error.what, where=error.where, got=error.got, expected=error.expected, fix=error.fix
            ) from None
        fresh = {name: np.array(one) if isinstance(one, np.ndarray) else one for name, (one,) in values.items()}
        if "energy" in fresh:
            fresh["free_energy"] = fresh["energy"]
        self.results = Results({**before, **fresh})

    def _all_results(self) -> dict[str, Any]:
        return {**self.results, **getattr(self.results, "others", {})}


def _same(a: np.ndarray | None, b: np.ndarray | None, tol: float) -> bool:
    """What ASE's `compare_atoms` finds, in a tenth of its time: `np.allclose` with an absolute tolerance alone."""
    if a is None or b is None or a.shape != b.shape:
        return a is b
    if a.dtype == b.dtype and a.tobytes() == b.tobytes():
        return True
    if a.size and abs(a.item(0) - b.item(0)) > tol:  # most often all atoms have moved
        return False
    with np.errstate(invalid="ignore"):  # infinity less infinity, which are equal
        near = np.abs(np.subtract(a, b, dtype=np.float64)) <= tol
    return bool((near | (a == b)).all())


def _electronic(atoms: ase.Atoms) -> tuple[float, float] | None:
    """Charge and multiplicity; None if they cannot be read, which is an error of the evaluation."""
    try:
        return charge_and_multiplicity(atoms.info, where="")
    except PaiNNFastError:
        return None
