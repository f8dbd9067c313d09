"""Several models as one: their mean with their spread as a measure of its uncertainty, or their sum."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from painn_fast.engine import Evaluator, evaluator_for
from painn_fast.engine.committee import Committee, mean_and_spread
from painn_fast.engine.cpu import together
from painn_fast.engine.select import workspace_of
from painn_fast.errors import PaiNNFastError, UndefinedProperty
from painn_fast.graph import AtomicBatch
from painn_fast.graph.kept import Workspaces
from painn_fast.io import load
from painn_fast.nn import Potential

SPREAD = "_spread"
PER_ATOM = {"energies", "forces", "charges"}
VOIGT = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
"""Components of a stress, each once."""
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
        self._committee: Committee | None = None
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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_committee": None}

    def evaluator(self, backend: str = "auto", properties: Sequence[str] = ()) -> Together:
        """What computes properties of all members together; arguments as of `painn_fast.engine.evaluator_for`."""
        parts = [evaluator_for(member, backend, names) for member, names in self.shares(properties)]
        engines = [part.engine for part in parts if part.engine is not None]
        if len(engines) < len(parts):
            return Together(self, parts, None)
        if self._committee is None or any(a is not b for a, b in zip(self._committee.engines, engines, strict=True)):
            self._committee = Committee(self, engines)
        return Together(self, parts, self._committee)

    def require(self, properties: Sequence[str]) -> None:
        """Raise UndefinedProperty for the first that the members do not give."""
        for name in properties:
            if name not in self.properties and name != "hessian":
                raise UndefinedProperty(
                    f"{self.name} does not give this property", got=repr(name), expected=" | ".join(self.properties)
                )

    def require_elements(self, numbers: Set[int]) -> None:
        """As `Potential.require_elements`, of all members."""
        for member in self.members:
            member.require_elements(numbers)

    def check(self, batch: AtomicBatch, properties: Sequence[str]) -> None:
        """Raise PaiNNFastError for properties or elements that a member cannot give."""
        self.require(properties)
        for member, names in self.shares(properties):
            member.check(batch, [name for name in names if name != "hessian"])

    def shares(self, properties: Sequence[str]) -> list[tuple[Potential, list[str]]]:
        """Each member with the properties that it has to give for these."""
        raise NotImplementedError

    def combined(self, values: Mapping[str, Tensor], properties: Sequence[str]) -> dict[str, Tensor]:
        """Properties of a batch from what members give of their shares, by name those of all that give it [K, ...]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Together:
    """As `painn_fast.engine.Evaluator`, of several models: by their engines as one, or without these one by one."""

    potential: Several
    parts: list[Evaluator]
    engine: Committee | None

    def by_engine(self, properties: Sequence[str]) -> bool:
        """Whether the engines give them."""
        shares = zip(self.parts, self.potential.shares(properties), strict=True)
        return self.engine is not None and all(part.by_engine(names) for part, (_, names) in shares)

    def __call__(
        self, batch: AtomicBatch, properties: Sequence[str], *, finite: bool = False, kept: Workspaces | None = None
    ) -> dict[str, Tensor]:
        """Properties of a batch, see `Evaluator.__call__`."""
        if self.engine is not None and self.by_engine(properties):
            work = workspace_of(self.engine, batch, kept)
            return self.engine(work, batch.positions, properties, finite=finite)
        shares = zip(self.parts, self.potential.shares(properties), strict=True)
        results = [part(batch, names, finite=finite) for part, (_, names) in shares if names]
        return self.potential.combined(together(results), properties)


def evaluator_of(
    model: Potential | Several, backend: str = "auto", properties: Sequence[str] = ()
) -> Evaluator | Together:
    """What computes properties of one model or of several; arguments as of `painn_fast.engine.evaluator_for`."""
    return (
        model.evaluator(backend, properties)
        if isinstance(model, Several)
        else evaluator_for(model, backend, properties)
    )


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
        >>> [name for name in ensemble.properties if name.endswith("_spread")][:3]
        ['energy_spread', 'energies_spread', 'forces_spread']
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

    def combined(self, values: Mapping[str, Tensor], properties: Sequence[str]) -> dict[str, Tensor]:
        """Means and spreads."""
        made: dict[str, tuple[Tensor, Tensor]] = {}
        combined = {}
        for name in properties:
            of = name.removesuffix(SPREAD)
            if of not in made:
                made[of] = mean_and_spread(values[of])
            combined[name] = made[of][1] if name.endswith(SPREAD) else made[of][0]
        if f"stress{SPREAD}" in properties:  # each component once
            combined[f"stress{SPREAD}"] = mean_and_spread(values["stress"][..., *VOIGT])[1]
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

    def combined(self, values: Mapping[str, Tensor], properties: Sequence[str]) -> dict[str, Tensor]:
        """Sums of what adds, the rest from the member that gave it."""
        return {name: functools.reduce(torch.add, values[name].unbind(0)) for name in properties}
