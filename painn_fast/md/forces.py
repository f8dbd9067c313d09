"""Where dynamics gets its forces: a protocol, and the model behind it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import ase
import torch
from torch import Tensor

from painn_fast.engine import GIVES, Engine, engine_for
from painn_fast.graph import AtomicBatch, batch_arrays, batch_atoms
from painn_fast.graph.batch import ALL_PAIRS_UP_TO
from painn_fast.graph.skin import SKIN, SkinList
from painn_fast.nn import Potential

COPIES_PER_CHUNK = 64
"""Copies of a molecule that the reference evaluates at once; the engine chooses for itself."""
Evaluation = tuple[Tensor, Tensor, dict[str, Tensor]]
"""energy [B] eV, forces [B, N, 3] eV/Å, observed properties [B, ...]."""


class ForceField(Protocol):
    """Energies and forces of B copies of one structure; inherit for the defaults of all methods but `__call__`."""

    spread: Tensor | None = None
    """Of an ensemble: standard deviation of the force on each atom [B, N] eV/Å at the last evaluation."""

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energy [B] eV and forces [B, N, 3] eV/Å at positions [B, N, 3] Å, all float64."""
        ...

    def observe(self, positions: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        """Properties of each copy: dipole [B, 3] e Å, polarizability [B, 3, 3] Å³, float64."""
        raise NotImplementedError(f"{type(self).__name__} gives no {', '.join(properties)}")

    def evaluate(self, positions: Tensor, properties: Sequence[str] = ()) -> Evaluation:
        """Energy, forces and properties of the same positions, in one pass where that saves work."""
        energy, forces = self(positions)
        return energy, forces, self.observe(positions, properties) if properties else {}

    def state(self) -> dict[str, Tensor]:
        """What decides the last bit of the results besides positions; goes into restart files."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""


class ModelForces(ForceField):
    """A potential as a force field.

    Molecules keep one list of all pairs for ever; crystals, and clusters too large for that, have a list with a skin.

    Args:
        potential: works on a copy of it.
        atoms: elements, cell, charge (`info["charge"]`) and spin multiplicity (`info["spin"]`).
        backend: "auto", "fused" or "reference".
        skin: Å, of the list.

    Raises:
        PaiNNFastError: for an element that the model does not know, or a structure that it cannot evaluate.
    """

    def __init__(self, potential: Potential, atoms: ase.Atoms, *, backend: str = "auto", skin: float = SKIN) -> None:
        one = batch_atoms([atoms], potential.cutoff).to(potential.device)
        potential = copy.deepcopy(potential).requires_grad_(False).eval()
        if backend == "reference":
            potential.representation.backend = "reference"
        potential.require_elements(one.numbers)
        fused = engine_for(potential, backend)
        copies: _Copies
        if bool(one.pbc.any()) or not _compact(one, potential.cutoff + skin):
            copies = _Listed(potential, fused, one, skin)
        elif fused is not None:
            copies = _Fused(fused, one)
        else:
            copies = _Reference(potential, one)
        self._copies, self._device = copies, potential.device

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        energy, forces, _ = self.evaluate(positions)
        return energy, forces

    def observe(self, positions: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        return self._results(positions, tuple(properties))

    def evaluate(self, positions: Tensor, properties: Sequence[str] = ()) -> Evaluation:
        results = self._results(positions, ("energy", "forces", *properties))
        return results.pop("energy"), results.pop("forces").view_as(positions), results

    def state(self) -> dict[str, Tensor]:
        return self._copies.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        self._copies.restore({name: value.to(self._device) for name, value in state.items()})

    @torch.no_grad()
    def _results(self, positions: Tensor, properties: tuple[str, ...]) -> dict[str, Tensor]:
        results = self._copies(positions.to(self._device), properties)
        return {name: value.to(positions.device, torch.float64) for name, value in results.items()}


class EnsembleForces(ForceField):
    """The mean of several force fields, and their spread.

    Args:
        members: two or more.
    """

    def __init__(self, members: Sequence[ForceField]) -> None:
        self.members = members

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        energy, forces, _ = self.evaluate(positions)
        return energy, forces

    def observe(self, positions: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        return _mean([member.observe(positions, properties) for member in self.members])

    def evaluate(self, positions: Tensor, properties: Sequence[str] = ()) -> Evaluation:
        parts = [member.evaluate(positions, properties) for member in self.members]
        energies, forces = torch.stack([part[0] for part in parts]), torch.stack([part[1] for part in parts])
        self.spread = forces.var(dim=0).sum(dim=-1).sqrt()
        return energies.mean(0), forces.mean(0), _mean([part[2] for part in parts])

    def state(self) -> dict[str, Tensor]:
        return {f"{k}.{name}": value for k, one in enumerate(self.members) for name, value in one.state().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        for k, member in enumerate(self.members):
            own = {name.removeprefix(f"{k}."): v for name, v in state.items() if name.startswith(f"{k}.")}
            if own:
                member.restore(own)


def _mean(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}


def _compact(one: AtomicBatch, reach: float) -> bool:
    """Whether all pairs are few, or all within reach (Å)."""
    return one.n_total <= ALL_PAIRS_UP_TO or float(torch.cdist(one.positions, one.positions).max()) <= reach


def _all_pairs(one: AtomicBatch, positions: Tensor) -> AtomicBatch:
    """Copies of a molecule at positions [B, N, 3] with an edge for every pair."""
    charge, spin = float(one.total_charge[0]), float(one.spin_multiplicity[0])
    batch = batch_arrays(one.numbers.cpu(), positions.cpu(), total_charge=charge, spin=spin)
    return batch.to(positions.device)


class _Copies(Protocol):
    """Properties of B copies at positions [B, N, 3], by one of the ways below."""

    def __call__(self, positions: Tensor, properties: tuple[str, ...]) -> dict[str, Tensor]: ...

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to take up."""
        return


class _Fused(_Copies):
    """A molecule, by the engine; it chooses how many copies go together."""

    def __init__(self, engine: Engine, one: AtomicBatch) -> None:
        self.engine, self.one = engine, one
        self._workspaces: dict[int, Any] = {}

    def __call__(self, positions: Tensor, properties: tuple[str, ...]) -> dict[str, Tensor]:
        if len(positions) not in self._workspaces:
            self._workspaces[len(positions)] = self.engine.workspace(_all_pairs(self.one, positions))
        results = self.engine(self._workspaces[len(positions)], positions.reshape(-1, 3), properties)
        if "forces" in results:
            results["forces"] = results["forces"].view_as(positions)
        return results


class _Reference(_Copies):
    """A molecule, by the readable network."""

    def __init__(self, potential: Potential, one: AtomicBatch) -> None:
        self.potential, self.one = potential, one
        self._graphs: dict[int, AtomicBatch] = {}

    def __call__(self, positions: Tensor, properties: tuple[str, ...]) -> dict[str, Tensor]:
        parts = [self.potential(self._graph(chunk), properties) for chunk in positions.split(COPIES_PER_CHUNK)]
        return {name: torch.cat([part[name] for part in parts]) for name in properties}

    def _graph(self, positions: Tensor) -> AtomicBatch:
        if len(positions) not in self._graphs:
            self._graphs[len(positions)] = _all_pairs(self.one, positions)
        return self._graphs[len(positions)].with_positions(positions.reshape(-1, 3))


class _Listed(_Copies):
    """A crystal or a large cluster, by either, with a list that is rebuilt as atoms move."""

    def __init__(self, potential: Potential, fused: Engine | None, one: AtomicBatch, skin: float) -> None:
        self.potential, self.fused = potential, fused
        self.list = SkinList(one, potential.cutoff, skin=skin)
        self._workspace: tuple[int, Any] | None = None

    def __call__(self, positions: Tensor, properties: tuple[str, ...]) -> dict[str, Tensor]:
        batch = self.list.batch(positions)
        if self.fused is None or not GIVES.issuperset(properties):
            return self.potential(batch, properties)
        if self._workspace is None or self._workspace[0] != self.list.builds:
            self._workspace = self.list.builds, self.fused.workspace(batch)
        return self.fused(self._workspace[1], batch.positions, properties)

    def state(self) -> dict[str, Tensor]:
        return {"neighbor_reference": self.list.reference}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.list.rebuild_at(state["neighbor_reference"])
