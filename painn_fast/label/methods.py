"""What labels a structure: a function that a worker process makes for itself from plain words."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import ase
import numpy as np

from painn_fast import units
from painn_fast.errors import PaiNNFastError

Labels = dict[str, Any]
"""energy float eV, forces [n, 3] eV/Å, dipole [3] e Å, polarizability [3, 3] Å³; as far as the method gives them."""
Method = Callable[[ase.Atoms, bool], Labels]
"""Of a structure, with the polarizability or without."""


@dataclass(frozen=True)
class How:
    """A method in words, as they stand in the journal.

    Args:
        method: "pyscf", "tblite", "model:NAME" for a model of ours, or "module:Class" for a calculator of ASE.
        level: theory; "PBE0/def2-SVPD" for pyscf, "GFN2-xTB" for tblite.
        options: further arguments: grid_level, conv_tol and memory (MB) for pyscf, those of the calculator for others.
    """

    method: str
    level: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def make(self) -> Method:
        """The method itself.

        Raises:
            PaiNNFastError: if it is not there, or does not understand its level or options.
        """
        given = dict(self.options)
        if self.method == "pyscf":
            return _pyscf(self.level or "PBE0/def2-SVPD", given)
        if self.method == "tblite":
            _require("tblite", "tblite")
            return _of_calculator(
                _load("tblite.ase:TBLite", {"method": self.level or "GFN2-xTB", "verbosity": 0, **given})
            )
        if self.method.startswith("model:"):
            from painn_fast.ase import PaiNNCalculator

            return _of_calculator(PaiNNCalculator(self.method.removeprefix("model:"), **given))
        return _of_calculator(_load(self.method, given))


def _require(module: str, package: str) -> None:
    if find_spec(module) is None:
        raise PaiNNFastError(f"{package} is not installed", fix=f"pip install {package}, or painn-fast[label]")


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


def _of_calculator(calculator: Any) -> Method:
    given = set(calculator.implemented_properties)
    if not {"energy", "forces"} <= given:
        raise PaiNNFastError("a calculator without energy and forces", got=", ".join(sorted(given)))

    def method(atoms: ase.Atoms, with_polarizability: bool) -> Labels:
        one = atoms.copy()
        one.calc = calculator
        labels: Labels = {"energy": float(one.get_potential_energy()), "forces": one.get_forces()}
        if "dipole" in given and not one.pbc.any():
            labels["dipole"] = one.get_dipole_moment()
        if "polarizability" in given and with_polarizability:
            labels["polarizability"] = np.asarray(calculator.get_property("polarizability", one)).reshape(3, 3)
        return labels

    return method


def _pyscf(level: str, options: dict[str, Any]) -> Method:
    """Kohn-Sham DFT or Hartree-Fock with density fitting; the gradient includes the response of the grid."""
    _require("pyscf", "pyscf")
    xc, slash, basis = level.partition("/")
    unknown = options.keys() - {"grid_level", "conv_tol", "memory"}
    if not slash or unknown:
        raise PaiNNFastError(
            "pyscf does not understand this",
            got=", ".join(sorted(unknown)) or repr(level),
            expected="a level such as PBE0/def2-SVPD; options grid_level, conv_tol, memory",
        )
    with warnings.catch_warnings(action="ignore"):  # pyscf-properties calls each of its modules "under testing"
        from pyscf import dft, gto, lib, scf

    lib.num_threads(1)

    def method(atoms: ase.Atoms, with_polarizability: bool) -> Labels:
        charge, spin = int(atoms.info.get("charge", 0)), int(atoms.info.get("spin", 1)) - 1
        molecule = gto.M(
            atom=[(int(z), place) for z, place in zip(atoms.numbers, atoms.positions, strict=True)],
            basis=basis,
            charge=charge,
            spin=spin,
            unit="Angstrom",
            verbose=0,
            max_memory=float(options.get("memory", 4000)),
        )
        if xc.upper() == "HF":
            field = (scf.UHF if spin else scf.RHF)(molecule).density_fit()
        else:
            field = (dft.UKS if spin else dft.RKS)(molecule, xc=xc.lower()).density_fit()
            field.grids.level = int(options.get("grid_level", 2))
        field.conv_tol = float(options.get("conv_tol", 1e-9))
        energy = field.kernel()
        if not field.converged:
            raise PaiNNFastError("the self-consistent field did not converge")
        slope = field.nuc_grad_method()
        slope.grid_response = True
        labels = {
            "energy": float(energy) * units.HARTREE,
            "forces": -slope.kernel() * (units.HARTREE / units.BOHR),
            "dipole": field.dip_moment(unit="AU", verbose=0) * units.BOHR,
        }
        if with_polarizability:
            labels["polarizability"] = _pyscf_polarizability(field, spin) * units.BOHR**3
        return labels

    return method


def _pyscf_polarizability(field: Any, spin: int) -> np.ndarray:
    _require("pyscf.prop", "pyscf-properties")
    if spin:
        raise PaiNNFastError("polarizabilities of open shells are not there", fix="use --polarizability-every 0")
    with warnings.catch_warnings(action="ignore"):
        from pyscf.prop.polarizability import rhf, rks

    module = rks if hasattr(field, "xc") else rhf
    tensor: np.ndarray = module.Polarizability(field).polarizability()
    return tensor
