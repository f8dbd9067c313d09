"""Methods that label structures, described by plain data, from which each worker process makes its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import (
    CHARGE_KEYS,
    MULTIPLICITY_KEYS,
    charge_and_multiplicity,
    names_of_charge_and_multiplicity,
    set_charge_and_multiplicity,
)
from painn_fast.label.finite_field import Field, polarizability

Labels = dict[str, Any]
"""energy float eV, forces [n, 3] eV/Å without constraints applied, stress [6] eV/Å³ (ASE's sign and Voigt order) of
structures periodic in three directions, dipole [3] e Å of molecules, polarizability [3, 3] Å³; those that the method
gives."""
Method = Callable[[ase.Atoms, bool], Labels]
"""Of a structure, with the polarizability or without."""
DEFAULT_LEVEL = {"pyscf": "PBE0/def2-SVPD", "tblite": "GFN2-xTB"}
TOTALS = (*CHARGE_KEYS, *MULTIPLICITY_KEYS)


@dataclass(frozen=True)
class How:
    """A method as plain data, as the journal has it.

    Args:
        method: "pyscf", "tblite", "model:NAME" for a model of ours, or "module:Class" for a calculator of ASE.
        level: theory; "PBE0/def2-SVPD" for pyscf, "GFN2-xTB" for tblite.
        options: further arguments: grid_level, conv_tol and memory (MB) for pyscf, those of the calculator for others;
            a total charge (e) and spin multiplicity there are those of all structures.
        properties: names of labels, such as ("dipole", "polarizability"), so that forces are not computed; () for all
            that the method gives.
    """

    method: str
    level: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    properties: tuple[str, ...] = ()

    @property
    def theory(self) -> str:
        """Level of theory as labelled files state it: "PBE0/def2-SVPD, pyscf", and options that are set."""
        level = self.level or DEFAULT_LEVEL.get(self.method)
        options = [f"{name}={value}" for name, value in self.options if not self._is_total(name)]
        return ", ".join([*([level] if level else []), self.method, *options])

    @property
    def foreign(self) -> bool:
        """Whether it is a calculator of another package, of which nothing is assumed."""
        return self.method not in DEFAULT_LEVEL and not self.method.startswith("model:")

    def charged(self, atoms: ase.Atoms, where: str = "") -> ase.Atoms:
        """A copy with total charge and spin multiplicity, its own or those of the options, as "charge" and "spin".

        Raises:
            PaiNNFastError: for a charge or a spin that cannot be read, or that contradicts the options.
        """
        where = where or atoms.get_chemical_formula()
        asked = {name.lower(): value for name, value in self.options if self._is_total(name)}
        stated = {name.lower() for name in names_of_charge_and_multiplicity(atoms.info) if atoms.info[name] is not None}
        totals = []
        for keys, own, ours in zip(
            (CHARGE_KEYS, MULTIPLICITY_KEYS),
            charge_and_multiplicity(atoms.info, where=where),
            charge_and_multiplicity(asked, where="options"),
            strict=True,
        ):
            if asked.keys() & keys and stated & {*keys} and own != ours:
                raise PaiNNFastError(
                    "structure and options contradict each other", where=f"{where}, '{keys[0]}'", got=own,
                    expected=f"{ours:g}, as the options have it", fix="leave one of them out",
                )  # fmt: skip
            totals.append(ours if asked.keys() & keys else own)
        copy = atoms.copy()
        set_charge_and_multiplicity(copy.info, *totals)
        return copy

    def _is_total(self, name: str) -> bool:
        """Whether an option is a charge or a multiplicity; "spin" of a calculator that is not ours may be anything."""
        return name.lower() in TOTALS and not (self.foreign and name.lower() == "spin")

    def make(self) -> Method:
        """The method itself; of a structure without one of the properties that are asked for, it raises.

        Raises:
            PaiNNFastError: if it is not installed, or does not understand its level or options.
        """
        made, asked = self._make(), self.properties

        def method(atoms: ase.Atoms, with_polarizability: bool) -> Labels:
            labels = made(self.charged(atoms), with_polarizability)
            if not asked:
                return labels
            wanted = [name for name in asked if name != "polarizability" or with_polarizability]
            missing = [name for name in wanted if name not in labels]
            if missing:
                raise PaiNNFastError(
                    "the method does not give this", where=f"{self.theory}, {atoms.get_chemical_formula()}",
                    got=", ".join(missing), expected=" | ".join(labels),
                )  # fmt: skip
            return {name: labels[name] for name in wanted}

        return method

    def _make(self) -> Method:
        given = {name: value for name, value in self.options if self.foreign or not self._is_total(name)}
        level = self.level or DEFAULT_LEVEL.get(self.method, "")
        with_forces = not self.properties or "forces" in self.properties
        if self.method == "pyscf":
            _require("pyscf", "pyscf")
            from painn_fast.label import pyscf

            return pyscf.method(level, given, with_forces)
        if self.method == "tblite":
            fresh = {"cache_api": False}  # with a guess from the structure before, labels would depend on their order
            return _tblite({"method": level, "verbosity": 0, **fresh, **given})
        if self.method.startswith("model:"):
            from painn_fast.ase import PaiNNCalculator

            return of_calculator(PaiNNCalculator(self.method.removeprefix("model:"), **given), with_forces)
        return of_calculator(_load(self.method, given), with_forces)


def _tblite(options: dict[str, Any]) -> Method:
    """GFN2-xTB and its like, with polarizabilities of molecules by finite fields, seven calculations instead of one."""
    _require("tblite", "tblite")

    def in_field(field: np.ndarray | None) -> Method:
        more = {} if field is None else {"electric_field": Field(field.tolist())}
        return of_calculator(_load("tblite.ase:TBLite", {**options, **more}))

    without = in_field(None)

    def method(atoms: ase.Atoms, with_polarizability: bool) -> Labels:
        labels = without(atoms, False)
        if with_polarizability and "dipole" in labels:
            labels["polarizability"] = polarizability(lambda field: in_field(field)(atoms, False)["dipole"])
        return labels

    return method


def _require(module: str, package: str) -> None:
    if find_spec(module) is None:
        raise PaiNNFastError(f"{package} is not installed", fix=f"pip install {package}")


def _load(name: str, options: Mapping[str, Any]) -> Any:
    """A calculator by module and class."""
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            raise AttributeError
        return getattr(importlib.import_module(module), attribute)(**options)
    except (ImportError, AttributeError) as error:
        raise PaiNNFastError(
            "no such calculator",
            got=repr(name),
            expected="pyscf | tblite | model:NAME | module:Class, such as ase.calculators.emt:EMT",
            fix=str(error) or None,
        ) from None
    except TypeError as error:
        raise PaiNNFastError("the calculator does not take these options", where=name, got=str(error)) from None
    except Exception as error:  # a program, a file or an environment variable that it needs
        got = f"{type(error).__name__}: {error}"
        raise PaiNNFastError("the calculator cannot be set up", where=name, got=got) from None


def of_calculator(calculator: Any, with_forces: bool = True) -> Method:
    """A calculator of ASE as a method; what it raises PropertyNotImplementedError for is left out."""
    given = set(calculator.implemented_properties)
    if not {"energy", "forces"} <= given:
        raise PaiNNFastError("a calculator without energy and forces", got=", ".join(sorted(given)))

    def method(atoms: ase.Atoms, with_polarizability: bool) -> Labels:
        one = atoms.copy()
        one.set_constraint()  # or ASE would give forces of 0 on fixed atoms
        if hasattr(calculator, "reset"):  # of no structure before
            calculator.reset()
        _set_charge(calculator, one)
        one.calc = calculator
        labels: Labels = {"energy": float(one.get_potential_energy())}
        if with_forces:
            labels["forces"] = one.get_forces()
        wanted = ["stress"] * bool(one.pbc.all()) + ["dipole"] * (not one.pbc.any())
        for name in [*wanted, *["polarizability"] * with_polarizability]:
            if name in given:
                with suppress(PropertyNotImplementedError):
                    labels[name] = np.asarray(calculator.get_property(name, one), dtype=float)
        if "polarizability" in labels:
            labels["polarizability"] = labels["polarizability"].reshape(3, 3)
        return labels

    return method


def _set_charge(calculator: Any, atoms: ase.Atoms) -> None:
    """Charge and multiplicity in the ways that calculators take them: parameters, or initial values of atoms.

    `atoms.info`, which others read, has them already.
    """
    charge, multiplicity = charge_and_multiplicity(atoms.info, where=atoms.get_chemical_formula())
    known = {**getattr(calculator, "default_parameters", {}), **(getattr(calculator, "parameters", None) or {})}
    names = {"charge": charge, "multiplicity": multiplicity, "mult": multiplicity}
    setting = {name: int(value) if value == int(value) else value for name, value in names.items() if name in known}
    if setting:
        calculator.set(**setting)
    n = len(atoms)
    if charge and not atoms.has("initial_charges") and "charge" not in setting:
        atoms.set_initial_charges(np.full(n, charge / n))
    if multiplicity > 1 and not atoms.has("initial_magmoms") and not setting.keys() & {"multiplicity", "mult"}:
        atoms.set_initial_magnetic_moments(np.full(n, (multiplicity - 1) / n))
