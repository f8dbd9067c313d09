"""Several models as one: their mean with their spread as a measure of its uncertainty, or their sum."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError, UndefinedProperty
from painn_fast.graph import AtomicBatch
from painn_fast.io import load
from painn_fast.nn import Potential

SPREAD = "_spread"
PER_ATOM = {"energies", "forces", "charges"}
ADDED = {"energy", "energies", "forces", "stress", "hessian"}
"""Properties that add in a sum of models."""


class Several:
    """Models that are evaluated on the same structures, and combined.

    Args:
        members: models, or what `painn_fast.load` takes.
        load_options: further arguments of `painn_fast.load`, such as energy_unit; for all members.
    """

    name: str
    """In messages."""
    properties: tuple[str, ...]

    def __init__(self, members: Sequence[Potential | str | Path], **load_options: Any) -> None:
        if isinstance(members, str | Path | Potential):
            raise PaiNNFastError("one model where a list is expected", got=type(members).__name__, fix="write a list")
        self.members = [one if isinstance(one, Potential) else load(one, **load_options) for one in members]
        if len(self.members) < 2:
            raise PaiNNFastError(f"{self.name} needs two models or more", got=len(self.members))

    @property
    def cutoff(self) -> float:
        """Å, the longest of the members'."""
        return max(member.cutoff for member in self.members)

    @property
    def device(self) -> torch.device:
        """Of the members."""
        return self.members[0].device

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy on another device, or in another dtype."""
        other = copy.copy(self)
        other.members = [copy.deepcopy(member).to(device=device, dtype=dtype) for member in self.members]
        return other

    def check(self, batch: AtomicBatch, properties: Sequence[str]) -> None:
        """Raise PaiNNFastError for properties or elements that a member cannot give."""
        for name in properties:
            if name not in self.properties and name != "hessian":
                raise UndefinedProperty(
                    f"{self.name} does not give this property", got=repr(name), expected=" | ".join(self.properties)
                )
        for member, names in self.shares(properties):
            member.check(batch, [name for name in names if name != "hessian"])

    def shares(self, properties: Sequence[str]) -> list[tuple[Potential, list[str]]]:
        """Each member with the properties that it has to give for these."""
        raise NotImplementedError

    def combined(self, results: Sequence[dict[str, list[Any]]], properties: Sequence[str]) -> dict[str, list[Any]]:
        """Properties of structures from what the members give of their shares, one dictionary each."""
        raise NotImplementedError


class Ensemble(Several):
    """Models trained alike from different seeds. Works in `pf.evaluate` and the ASE calculator as one model does.

    A property is the mean over the members. Its spread, as "forces_spread", is their standard deviation (with K - 1
    for K members); that of a vector or a tensor is the root of the sum over its components, for forces one number an
    atom.

    Args:
        members: two models or more, or what `painn_fast.load` takes.
        load_options: further arguments of `painn_fast.load`, such as energy_unit; for all members.

    Raises:
        PaiNNFastError: for less than two, or models without a property in common.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> ensemble = pf.Ensemble(["ethanol", "aspirin"])
        >>> ensemble.properties
        ('energy', 'energies', 'forces', 'stress', 'energy_spread', 'energies_spread', 'forces_spread', 'stress_spread')
        >>> pf.evaluate(ensemble, [molecule("H2O")], ["forces_spread"])["forces_spread"][0].shape  # eV/Å
        (3,)
    """

    name = "an ensemble"

    def __init__(self, members: Sequence[Potential | str | Path], **load_options: Any) -> None:
        super().__init__(members, **load_options)
        common = [name for name in self.members[0].properties if all(name in m.properties for m in self.members)]
        if not common:
            raise PaiNNFastError(
                "models without a property in common", got=" | ".join(", ".join(m.properties) for m in self.members)
            )
        self.properties = (*common, *(f"{name}{SPREAD}" for name in common))

    def shares(self, properties: Sequence[str]) -> list[tuple[Potential, list[str]]]:
        needed = list(dict.fromkeys(name.removesuffix(SPREAD) for name in properties))
        return [(member, needed) for member in self.members]

    def combined(self, results: Sequence[dict[str, list[Any]]], properties: Sequence[str]) -> dict[str, list[Any]]:
        """Means and spreads."""
        combined = {}
        for name in properties:
            of_members = (result[name.removesuffix(SPREAD)] for result in results)
            combined[name] = [_combine(name, entries) for entries in zip(*of_members, strict=True)]
        return combined


class Sum(Several):
    """Models whose energies add, such as a potential and a correction to it. Works in `pf.evaluate` and the ASE
    calculator as one model does.

    Energies, forces, stress and Hessians are the sums over all members; any other property is that of the first member
    that has it.

    Args:
        members: two models or more, or what `painn_fast.load` takes.
        load_options: further arguments of `painn_fast.load`, such as energy_unit; for all members.

    Raises:
        PaiNNFastError: for less than two, or a member without an energy.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> twice = pf.Sum(["ethanol", "ethanol"])
        >>> atoms = [molecule("CH3CH2OH")]
        >>> one, two = (pf.evaluate(model, atoms)["energy"][0] for model in ("ethanol", twice))  # eV
        >>> two == 2 * one, "dipole" in twice.properties
        (True, True)
    """

    name = "a sum of models"

    def __init__(self, members: Sequence[Potential | str | Path], **load_options: Any) -> None:
        super().__init__(members, **load_options)
        for k, member in enumerate(self.members):
            if "energy" not in member.properties:
                raise PaiNNFastError(
                    "a model without an energy in a sum", where=f"member {k}", got=", ".join(member.properties),
                    expected="energy",
                )  # fmt: skip
        self._first: dict[str, int] = {}
        for k, member in enumerate(self.members):
            for name in member.properties:
                self._first.setdefault(name, k)
        self.properties = tuple(
            name for name in self._first if name not in ADDED or all(name in one.properties for one in self.members)
        )

    def shares(self, properties: Sequence[str]) -> list[tuple[Potential, list[str]]]:
        return [
            (member, [name for name in properties if name in ADDED or self._first.get(name) == k])
            for k, member in enumerate(self.members)
        ]

    def combined(self, results: Sequence[dict[str, list[Any]]], properties: Sequence[str]) -> dict[str, list[Any]]:
        """Sums of what adds, the rest from the member that gave it."""
        combined = {}
        for name in properties:
            given = (result[name] for result in results if name in result)
            combined[name] = [functools.reduce(operator.add, entries) for entries in zip(*given, strict=True)]
        return combined


def _combine(name: str, entries: Sequence[Any]) -> Any:
    values = np.array(entries, dtype=np.float64)  # [K, ...]
    if not name.endswith(SPREAD):
        mean = values.mean(axis=0)
        return mean if mean.ndim else float(mean)
    return spread(values, per_atom=name.removesuffix(SPREAD) in PER_ATOM)


def spread(values: np.ndarray | Tensor, *, per_atom: bool) -> Any:
    """Standard deviation over members of values [K, ...], all components together or, in [K, n, ...], of each atom."""
    variance = np.var(np.asarray(values), axis=0, ddof=1)
    if per_atom:
        return np.sqrt(variance.reshape(len(variance), -1).sum(axis=1))
    return float(np.sqrt(variance.sum()))
