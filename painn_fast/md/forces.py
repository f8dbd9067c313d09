"""Models as force fields of dynamics."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ase
import torch
from torch import Tensor

from painn_fast.engine import Engine, Evaluator
from painn_fast.ensemble import Ensemble, Several, Together, evaluator_of
from painn_fast.evaluate import report_ignored_charges
from painn_fast.graph import AtomicBatch, batch_arrays, batch_atoms
from painn_fast.graph.batch import ALL_PAIRS_UP_TO, concatenate
from painn_fast.graph.skin import SKIN, SkinList
from painn_fast.md.force_field import SPREAD, Evaluation, ForceField, Launches
from painn_fast.nn import Potential

PER_ATOM = {"forces", SPREAD}
"""Results [N, ...], with an entry for each atom."""
COPIES_PER_CHUNK = 64
"""Copies of a molecule that the reference evaluates at once; the engine chooses for itself."""


class _Mixture(ForceField):
    """One that evaluates all molecules together."""

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        energy, forces, _ = self.evaluate(positions)
        return energy, forces

    def evaluate(self, positions: Tensor, properties: Sequence[str] = ()) -> Evaluation:
        return self.together([positions], properties)[0]


class ModelForces(_Mixture):
    """A potential as a force field for one molecule or several.

    The list of all pairs of a molecule is built once, and molecules are evaluated together; crystals, and clusters too
    large for that, have a list with a skin each.

    Args:
        potential: works on a copy of it. Of an ensemble forces are the mean over the members, and `evaluate` observes
            "forces_spread" [B, N] eV/Å in addition.
        atoms: elements, cell, charge (`info["charge"]`) and spin multiplicity (`info["spin"]`), of each molecule.
        backend: "auto", "fused" or "reference".
        skin: Å, of the list.

    Raises:
        PaiNNFastError: for an element that the model does not know, or a structure that it cannot evaluate.

    Example:
        >>> import torch
        >>> import painn_fast
        >>> from ase.build import molecule
        >>> from painn_fast.md import ModelForces
        >>> ethanol = molecule("CH3CH2OH")
        >>> field = ModelForces(painn_fast.load("ethanol"), ethanol)
        >>> beads = torch.tensor(ethanol.positions).expand(4, -1, -1)  # [B, N, 3] Å: four copies
        >>> energy, forces = field(beads)  # eV, eV/Å
        >>> energy.shape, forces.shape, forces.dtype
        (torch.Size([4]), torch.Size([4, 9, 3]), torch.float64)
    """

    def __init__(
        self, potential: Potential | Several, atoms: ase.Atoms | Sequence[ase.Atoms], *, backend: str = "auto",
        skin: float = SKIN,
    ) -> None:  # fmt: skip
        molecules = [atoms] if isinstance(atoms, ase.Atoms) else list(atoms)
        ones = [batch_atoms([molecule], potential.cutoff).to(potential.device) for molecule in molecules]
        for one in ones:
            report_ignored_charges(potential, one)
        potential = copy.deepcopy(potential)
        for member in potential.members if isinstance(potential, Several) else [potential]:
            member.requires_grad_(False).eval()
        for one in ones:
            potential.require_elements(one.elements)
        evaluator = evaluator_of(potential, backend)
        self._always = ("energy", "forces", SPREAD) if isinstance(potential, Ensemble) else ("energy", "forces")
        listed = [bool(one.pbc.any()) or not _compact(one, potential.cutoff + skin) for one in ones]
        small = [k for k, large in enumerate(listed) if not large]
        self._parts: list[tuple[list[int], _Copies]] = [
            ([k], _Listed(evaluator, ones[k], skin)) for k, large in enumerate(listed) if large
        ]
        if small:
            some = [ones[k] for k in small]
            copies = _Potential(evaluator, some) if evaluator.engine is None else _Fused(evaluator.engine, some)
            self._parts.append((small, copies))
        self._device = potential.device

    def observe(self, positions: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        return self._results([positions], tuple(properties))[0]

    def together(self, positions: Sequence[Tensor], properties: Sequence[str] = ()) -> list[Evaluation]:
        results = self._results(positions, (*self._always, *properties))
        return [(one.pop("energy"), one.pop("forces"), one) for one in results]

    def launches(self, positions: Sequence[Tensor]) -> Launches | None:
        (_, copies), *others = self._parts
        here = all(_is_at(x, self._device) and x.is_contiguous() for x in positions)
        return copies.launches(positions) if here and not others and isinstance(copies, _Fused) else None

    def state(self) -> dict[str, Tensor]:
        return {
            f"{k}.{name}": value for k, (_, copies) in enumerate(self._parts) for name, value in copies.state().items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        for k, (_, copies) in enumerate(self._parts):
            copies.restore({name: value.to(self._device) for name, value in _of(k, state).items()})

    def _results(self, positions: Sequence[Tensor], properties: tuple[str, ...]) -> list[dict[str, Tensor]]:
        results: list[dict[str, Tensor]] = [{}] * len(positions)
        for which, copies in self._parts:
            values = copies([_at(positions[k], self._device) for k in which], properties)
            for k, one in zip(which, values, strict=True):
                for name, value in one.items():
                    one[name] = _at(value, positions[k].device)
                results[k] = one
        return results


class SumForces(_Mixture):
    """The sum of several force fields, such as a potential and a correction to it.

    Args:
        members: force fields whose energies and forces add.
        observers: number of the member that gives a property, by its name; the first gives what is not named, and what
            it observes at every evaluation.
    """

    def __init__(self, members: Sequence[ForceField], observers: Mapping[str, int] | None = None) -> None:
        self.members, self.observers = members, observers or {}

    def observe(self, positions: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        shares = [(member, self._share(k, properties)) for k, member in enumerate(self.members)]
        return {name: value for one, names in shares if names for name, value in one.observe(positions, names).items()}

    def together(self, positions: Sequence[Tensor], properties: Sequence[str] = ()) -> list[Evaluation]:
        parts = [member.together(positions, self._share(k, properties)) for k, member in enumerate(self.members)]
        return [_summed(of_one) for of_one in zip(*parts, strict=True)]

    def launches(self, positions: Sequence[Tensor]) -> Launches | None:
        each = [launches for member in self.members if (launches := member.launches(positions)) is not None]
        if len(each) < len(self.members):
            return None
        return lambda: [
            (_added([energy for energy, _ in of_one]), _added([forces for _, forces in of_one]))
            for of_one in zip(*(evaluate() for evaluate in each), strict=True)
        ]

    def state(self) -> dict[str, Tensor]:
        return _states(self.members)

    def restore(self, state: dict[str, Tensor]) -> None:
        _restore(self.members, state)

    def _share(self, k: int, properties: Sequence[str]) -> list[str]:
        """Properties that a member gives."""
        return [name for name in properties if self.observers.get(name, 0) == k]


def _states(members: Sequence[ForceField]) -> dict[str, Tensor]:
    return {f"{k}.{name}": value for k, one in enumerate(members) for name, value in one.state().items()}


def _restore(members: Sequence[ForceField], state: dict[str, Tensor]) -> None:
    for k, member in enumerate(members):
        member.restore(_of(k, state))


def _is_at(tensor: Tensor, device: torch.device) -> bool:
    return tensor.device == device and tensor.dtype is torch.float64


def _at(tensor: Tensor, device: torch.device) -> Tensor:
    """The same numbers in float64 on a device; `Tensor.to` takes 2 us where there is nothing to do."""
    return tensor if _is_at(tensor, device) else tensor.to(device, torch.float64)


def _of(k: int, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the k-th part put into a state."""
    return {name.removeprefix(f"{k}."): value for name, value in state.items() if name.startswith(f"{k}.")}


def _summed(parts: Sequence[Evaluation]) -> Evaluation:
    observed = {name: value for part in parts for name, value in part[2].items() if name != SPREAD}
    if SPREAD in parts[0][2]:
        observed[SPREAD] = parts[0][2][SPREAD]
    return _added([part[0] for part in parts]), _added([part[1] for part in parts]), observed


def _added(values: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.add, values)


def _compact(one: AtomicBatch, reach: float) -> bool:
    """Whether all pairs are few, or all within reach (Å)."""
    return one.n_total <= ALL_PAIRS_UP_TO or float(torch.cdist(one.positions, one.positions).max()) <= reach


def _all_pairs(one: AtomicBatch, positions: Tensor) -> AtomicBatch:
    """Copies of a molecule at positions [B, N, 3] with an edge for every pair."""
    charge, spin = float(one.total_charge[0]), float(one.spin_multiplicity[0])
    batch = batch_arrays(one.numbers.cpu(), positions.cpu(), total_charge=charge, spin=spin)
    return batch.to(positions.device)


class _Copies(Protocol):
    """Properties of copies of some molecules at positions [B, N, 3] each, by one of the ways below."""

    def __call__(self, positions: Sequence[Tensor], properties: tuple[str, ...]) -> list[dict[str, Tensor]]: ...

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to take up."""
        return


class _Fused(_Copies):
    """Molecules, by the engine; it chooses how many copies go together."""

    def __init__(self, engine: Engine, ones: Sequence[AtomicBatch]) -> None:
        self.engine, self.ones = engine, ones
        self._workspaces: dict[tuple[int, ...], Any] = {}

    def __call__(self, positions: Sequence[Tensor], properties: tuple[str, ...]) -> list[dict[str, Tensor]]:
        work = self._workspace(positions)
        return _apart(self.engine(work, _flat(positions), properties, finite=False), positions)

    def launches(self, positions: Sequence[Tensor]) -> Launches | None:
        """See `ForceField.launches`; the engine for CPUs has none."""
        make = getattr(self.engine, "launches", None)
        if make is None:
            return None
        flat = _flat(positions)
        run = make(self._workspace(positions), flat)
        if run is None:
            return None

        def evaluate() -> list[tuple[Tensor, Tensor]]:
            if len(positions) > 1:
                torch.cat([x.reshape(-1, 3) for x in positions], out=flat)
            return [(one["energy"], one["forces"]) for one in _apart(run(), positions)]

        return evaluate

    def _workspace(self, positions: Sequence[Tensor]) -> Any:
        copies = tuple(x.shape[0] for x in positions)
        if copies not in self._workspaces:
            graphs = [_all_pairs(one, x) for one, x in zip(self.ones, positions, strict=True)]
            self._workspaces[copies] = self.engine.workspace(graphs[0] if len(graphs) == 1 else concatenate(graphs))
        return self._workspaces[copies]


def _flat(positions: Sequence[Tensor]) -> Tensor:
    """All atoms [N, 3]: of one molecule the same memory, of several a copy."""
    return positions[0].reshape(-1, 3) if len(positions) == 1 else torch.cat([x.reshape(-1, 3) for x in positions])


def _apart(results: dict[str, Tensor], positions: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Results of a batch, molecule by molecule; forces [B, N, 3]."""
    each = [results]
    if len(positions) > 1:
        copies, atoms = [len(x) for x in positions], [x.shape[0] * x.shape[1] for x in positions]
        parts = {name: value.split(atoms if name in PER_ATOM else copies) for name, value in results.items()}
        each = [{name: part[k] for name, part in parts.items()} for k in range(len(positions))]
    for x, one in zip(positions, each, strict=True):
        for name in PER_ATOM & one.keys():
            one[name] = one[name].view(*x.shape[:2], *one[name].shape[1:])
    return each


class _Potential(_Copies):
    """Molecules without an engine, one after another."""

    def __init__(self, evaluator: Evaluator | Together, ones: Sequence[AtomicBatch]) -> None:
        self.evaluator, self.ones = evaluator, ones
        self._graphs: dict[tuple[int, int], AtomicBatch] = {}

    def __call__(self, positions: Sequence[Tensor], properties: tuple[str, ...]) -> list[dict[str, Tensor]]:
        return [self._one(k, x, properties) for k, x in enumerate(positions)]

    def _one(self, k: int, positions: Tensor, properties: tuple[str, ...]) -> dict[str, Tensor]:
        parts = [self.evaluator(self._graph(k, chunk), properties) for chunk in positions.split(COPIES_PER_CHUNK)]
        return _apart({name: torch.cat([part[name] for part in parts]) for name in properties}, [positions])[0]

    def _graph(self, k: int, positions: Tensor) -> AtomicBatch:
        key = k, len(positions)
        if key not in self._graphs:
            self._graphs[key] = _all_pairs(self.ones[k], positions)
        return self._graphs[key].with_positions(positions.reshape(-1, 3))


class _Listed(_Copies):
    """A crystal or a large cluster, by either, with a list that is rebuilt as atoms move."""

    def __init__(self, evaluator: Evaluator | Together, one: AtomicBatch, skin: float) -> None:
        self.evaluator = evaluator
        self.list = SkinList(one, evaluator.potential.cutoff, skin=skin)
        self._workspace: tuple[int, Any] | None = None

    def __call__(self, positions: Sequence[Tensor], properties: tuple[str, ...]) -> list[dict[str, Tensor]]:
        return _apart(self._all(positions[0], properties), positions)

    def _all(self, positions: Tensor, properties: tuple[str, ...]) -> dict[str, Tensor]:
        batch = self.list.batch(positions)
        engine = self.evaluator.engine
        if engine is None or not self.evaluator.by_engine(properties):
            return self.evaluator(batch, properties)
        if self._workspace is None or self._workspace[0] != self.list.builds:
            self._workspace = self.list.builds, engine.workspace(batch)
        return engine(self._workspace[1], batch.positions, properties, finite=False)

    def state(self) -> dict[str, Tensor]:
        return {"neighbor_reference": self.list.reference}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.list.rebuild_at(state["neighbor_reference"])
