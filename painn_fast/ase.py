"""The ASE calculator."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import ase
import torch
from ase.calculators.calculator import Calculator, all_changes

from painn_fast.engine import check_backend
from painn_fast.ensemble import SPREAD, Ensemble
from painn_fast.evaluate import evaluate
from painn_fast.nn import Potential

FREE = {"energy", "energies", "forces", "stress"}
"""Properties that come with the energy and its derivative, computed at every call so that ASE asks once a step."""


class PaiNNCalculator(Calculator):
    """PaiNN for `ase.md`, `ase.optimize`, `ase.vibrations` and everything else that takes a calculator.

    Gives energy, free_energy, energies, forces, stress, dipole, charges, polarizability and hessian, as far as the
    model has the heads; eV, Å, e. Dipole and polarizability are for molecules in vacuum.

    Args:
        model: a potential, or what `painn_fast.load` takes (name, file), or an ensemble of them, whose spreads
            (`energy_spread` eV, `forces_spread` [n] eV/Å, ...) then stand in `results` too.
        device: "cpu", "cuda", ...: works on a copy there; None uses the model itself, where it is.
        backend: "auto" (the engine where it runs the model), "fused" or "reference"; Hessians come from the
            differentiable network always.
        dtype: torch.float32 or torch.float64 for the network, also by its name; None keeps the model's.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Raises:
        PaiNNFastError: for an element that the model does not know, positions that are not finite, atoms on top of each
            other, a property that the model does not have.
    """

    name = "painn-fast"
    implemented_properties: list[str] = [
        "energy", "free_energy", "energies", "forces", "stress", "dipole", "charges", "polarizability", "hessian",
    ]  # fmt: skip

    def __init__(
        self,
        model: Potential | Ensemble | str | Path,
        device: str | torch.device | None = None,
        backend: str = "auto",
        *,
        dtype: torch.dtype | str | None = None,
        **load_options: Any,
    ) -> None:
        super().__init__()
        check_backend(backend)
        self.backend = backend
        if not isinstance(model, Potential | Ensemble):
            from painn_fast.io import load

            model = load(model, **load_options)
        if device is not None or dtype is not None:
            from painn_fast.io.load import dtype_of

            model = copy.deepcopy(model) if isinstance(model, Potential) else model
            model = model.to(device=device, dtype=dtype_of(dtype))
        self.potential = model
        given = {*model.properties, "free_energy", "hessian"} if "energy" in model.properties else set(model.properties)
        self.implemented_properties = [name for name in type(self).implemented_properties if name in given]

    def calculate(
        self, atoms: ase.Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Fill `self.results` for `atoms`; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        wanted = {"energy" if name == "free_energy" else name for name in properties}
        if wanted & FREE:
            wanted |= FREE if self.atoms.pbc.all() else FREE - {"stress"}
        if isinstance(self.potential, Ensemble):
            wanted |= {f"{name}{SPREAD}" for name in wanted} & set(self.potential.properties)
        results = evaluate(self.potential, [self.atoms], sorted(wanted), backend=self.backend)
        self.results.update({name: entry[0] for name, entry in results.items()})
        if "energy" in self.results:
            self.results["free_energy"] = self.results["energy"]
