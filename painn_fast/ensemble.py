"""Several models of the same properties as one: their mean, and their spread as a measure of its uncertainty."""

from __future__ import annotations

import copy
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


class Ensemble:
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

    def __init__(self, members: Sequence[Potential | str | Path], **load_options: Any) -> None:
        if isinstance(members, str | Path | Potential):
            raise PaiNNFastError("one model where a list is expected", got=type(members).__name__, fix="write a list")
        self.members = [one if isinstance(one, Potential) else load(one, **load_options) for one in members]
        if len(self.members) < 2:
            raise PaiNNFastError("an ensemble needs two models or more", got=len(self.members))
        common = [name for name in self.members[0].properties if all(name in m.properties for m in self.members)]
        if not common:
            raise PaiNNFastError(
                "models without a property in common", got=" | ".join(", ".join(m.properties) for m in self.members)
            )
        self.properties = (*common, *(f"{name}{SPREAD}" for name in common))

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
                    "the ensemble does not give this property", got=repr(name), expected=" | ".join(self.properties)
                )
        for member in self.members:
            member.check(batch, [name for name in self.needed(properties) if name != "hessian"])

    @staticmethod
    def needed(properties: Sequence[str]) -> list[str]:
        """Properties that the members have to give for these, in the same order."""
        return list(dict.fromkeys(name.removesuffix(SPREAD) for name in properties))


def combined(results: Sequence[dict[str, list[Any]]], properties: Sequence[str]) -> dict[str, list[Any]]:
    """Means and spreads of what members give for the same structures, one dictionary each."""
    combined = {}
    for name in properties:
        of_members = (result[name.removesuffix(SPREAD)] for result in results)
        combined[name] = [_combine(name, entries) for entries in zip(*of_members, strict=True)]
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
