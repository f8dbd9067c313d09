"""PaiNN's energy and forces on a CPU: chunks of molecules that stay in the cache, a compiled call and a thread each.

A large molecule alone is shared by all threads (`atom_blocks.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from painn_fast import units
from painn_fast.engine.atom_blocks import energy_and_forces_by_blocks
from painn_fast.engine.check import (
    AGREEMENT,
    CHECKED_EDGES,
    EXACT,
    check_engine,
    check_features,
    require_call,
    require_finite,
    require_graph,
    require_near,
)
from painn_fast.engine.chunks import Chunk, Memory, Workspace, divided
from painn_fast.engine.cpu_weights import pack_weights
from painn_fast.engine.electronic_cpu import ElectronicFeatures
from painn_fast.engine.passes_cpu import Pairs, Scratch, energy_and_forces, in_units
from painn_fast.graph import AtomicBatch
from painn_fast.kernels.radial.slopes import filter_basis_and_slope
from painn_fast.kernels.threads import count as thread_count
from painn_fast.nn import Potential
from painn_fast.nn.fused import radial

DERIVATIVES = {"forces", "stress"}
SIMPLE = {"energy", "energies", "forces"}
"""Those that the conversion of units finds to be finite or not."""
NONE = torch.empty(0), torch.empty(0)
FEATURES = ("s", "v")
"""Beside the names of properties."""
FROM_PASSES = {*FEATURES, *SIMPLE, *DERIVATIVES}
"""Properties that no other head gives."""


@dataclass(frozen=True)
class _Passes:
    """The passes of one engine, and what they fill, in model units."""

    engine: CpuEngine
    work: Workspace
    positions: np.ndarray  # [N, 3] Å
    derivatives: bool
    energies: np.ndarray  # [N]
    forces: np.ndarray  # [N, 3]
    virial: np.ndarray  # [M, 3, 3]
    s: Tensor  # [N, F], or none [0], like the next
    v: Tensor  # [N, 3, F]

    def run(self, chunk: Chunk, memory: Memory, threads: int = 1) -> None:
        """Those over a chunk; on several threads together if it is one large molecule."""
        engine, at = self.engine, chunk.atoms
        m = memory.scratch(engine.kind, *self.work.largest)
        engine.make_basis(chunk.pairs, self.positions[at], m)
        args = (self.positions[at], self.derivatives, self.energies[at], self.forces[at], self.virial)
        if threads > 1 and chunk.blocks:
            pool = memory.threads(threads)
            energy_and_forces_by_blocks(engine.weights, chunk.pairs, m, chunk.blocks, pool, *args)
        else:
            energy_and_forces(engine.weights, chunk.pairs, m, *args)
        if len(self.s):
            count, f, kept = chunk.size, self.s.shape[1], m.kept
            self.s[at] = torch.from_numpy(kept.s[0, :count, :f])
            self.v[at] = torch.from_numpy(kept.v[-1, :count].reshape(count, 3, -1)[:, :, :f])

    def others(self, names: Sequence[str], positions: Tensor) -> dict[str, Tensor]:
        """Results that are none of `SIMPLE`."""
        batch, potential = self.work.batch, self.engine.potential
        results = dict(zip(FEATURES, (self.s, self.v), strict=True)) if FEATURES[0] in names else {}
        if "stress" in names:
            volume = torch.linalg.det(batch.cell).abs()[:, None, None]
            results["stress"] = -torch.from_numpy(self.virial) * float(self.engine.unit[0]) / volume
        of_heads = [name for name in names if name not in FROM_PASSES]
        if of_heads:
            with torch.no_grad():
                results |= potential.results_of_heads(self.s, self.v, batch.with_positions(positions), of_heads)
        return results


def evaluate(
    engines: Sequence[CpuEngine], works: Sequence[Workspace], positions: Tensor, shares: Sequence[Sequence[str]],
    memory: Memory, threads: int,
) -> tuple[dict[str, Tensor], bool]:  # fmt: skip
    """Properties of one batch by K engines, which take turns at the threads or share them.

    Args:
        engines: K of them.
        works: their workspaces for the batch, divided alike.
        positions: [N, 3] Å.
        shares: names of the properties of each; all have the same ones of `SIMPLE` and stress.
        memory: of the threads.
        threads: how many.

    Returns:
        Values [K, ...] by name, of others than those the values of the engines that share in them, in order; and
        whether they are all known to be finite, and the positions near.
    """
    count, (n, m), place = len(engines), (len(positions), works[0].batch.n_molecules), _array(positions)
    wanted = set().union(*shares)
    simple, derivatives = SIMPLE & wanted, not wanted.isdisjoint(DERIVATIVES)
    energies, energy, virial = np.empty((count, n)), np.zeros((count, m)), np.zeros((count, m, 3, 3))
    forces = np.empty((count, n if derivatives else 0, 3))
    each = [
        _Passes(engine, work, place, derivatives, energies[k], forces[k], virial[k], *engine.features(n, names))
        for k, (engine, work, names) in enumerate(zip(engines, works, shares, strict=True))
    ]
    alone = []
    for passes in each:
        for chunk in passes.work.chunks:
            if threads > 1 and chunk.blocks and chunk.size * threads > n * count:  # more than a thread's part
                passes.run(chunk, memory, threads)
            else:
                alone.append((passes, chunk, memory))
    memory.share(_Passes.run, alone, threads)
    unit = engines[0].unit if count == 1 else np.concatenate([engine.unit for engine in engines])
    numbers = in_units(energies, forces, place, works[0].molecule, unit, energy)
    made = {"energy": energy, "energies": energies, "forces": forces}
    values = {name: torch.from_numpy(made[name]) for name in simple}
    if len(simple) < len(wanted):
        others = [passes.others(names, positions) for passes, names in zip(each, shares, strict=True)]
        values |= together(others)
    return values, numbers and len(simple) == len(wanted)


def together(results: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Results of several models, by name those of all that have it, one after another, [K, ...] float64."""
    if len(results) == 1:
        return {name: value[None] for name, value in results[0].items()}
    names = dict.fromkeys(name for one in results for name in one)
    return {name: torch.stack([one[name].double() for one in results if name in one]) for name in names}


class CpuEngine:
    """Energies, forces, stress and properties of batches, equal to the potential's own: in float32 within the error of
    the table of filters, in float64 within rounding.

    The energy and the forces of a molecule are the same numbers, bit for bit, whatever else is in its batch and
    whatever the number of threads.

    Args:
        potential: a model without a `refusal`; its weights are read once.
        threads: None takes torch's number.
    """

    def __init__(self, potential: Potential, *, threads: int | None = None) -> None:
        self.potential = potential.eval()
        self.config = potential.config.representation
        self.unit = np.array([units.factor("energy", potential.config.energy_unit)])
        self.threads = threads
        self.checked = False
        self._agreement = AGREEMENT if potential.dtype == torch.float32 else EXACT
        self.weights = pack_weights(potential)
        self._embed = ElectronicFeatures(potential)
        self._radial = radial(potential.representation) if self.weights.filter.size else None
        """Where filters are exact; otherwise the weights have a table of them."""
        self._memory = Memory()
        w = self.weights
        hidden = tuple(len(bias) for bias in w.readout_bias)
        self.kind = self.config.n_layers, w.embedding.shape[1], w.filter.shape[2], hidden, w.table.dtype

    def workspace(self, batch: AtomicBatch, like: Workspace | None = None) -> Workspace:
        """The division of batches with this graph; costs a few hundredths of an evaluation.

        Args:
            batch: molecules.
            like: the workspace of another engine for this batch, divided alike.
        """
        require_graph(self.potential, batch)
        chunks = divided(batch, self.threads or thread_count()) if like is None else like
        return chunks.embedding(self._embed(batch))

    def __call__(
        self, work: Workspace, positions: Tensor, properties: Sequence[str] = ("energy", "forces"), *,
        finite: bool = True,
    ) -> dict[str, Tensor]:  # fmt: skip
        """See `Engine.__call__`; results do not share memory with the workspace."""
        self.check_call(work, positions, properties, finite=finite)
        values, numbers = self._values(work, positions, properties)
        results = {name: values[name][0] for name in properties}
        if finite and not numbers:
            require_near(work.batch, positions)
            require_finite(results, work.batch, positions)
        return results

    def check_call(self, work: Workspace, positions: Tensor, properties: Sequence[str], *, finite: bool) -> None:
        """What `__call__` checks before it evaluates; in the first one the engine itself."""
        require_call(self.potential, work.batch, positions, properties)
        if finite and not self.checked:
            require_near(work.batch, positions)
        self._check(work, positions)

    def features(self, n: int, properties: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Memory for s and v of n atoms, or none if these properties do not need them."""
        if FROM_PASSES.issuperset(properties) and FEATURES[0] not in properties:
            return NONE
        f, dtype = self.config.n_features, self.potential.dtype
        return torch.empty(n, f, dtype=dtype), torch.empty(n, 3, f, dtype=dtype)

    def with_features(
        self, work: Workspace, positions: Tensor, properties: Sequence[str]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Energies, forces and stress as of a call without `finite`, and the last s [N, F] and v [N, 3, F]."""
        self._check(work, positions)
        values, _ = self._values(work, positions, (*properties, *FEATURES))
        s, v = (values[name][0] for name in FEATURES)
        return {name: values[name][0] for name in properties}, s, v

    def _check(self, work: Workspace, positions: Tensor) -> None:
        """Compare the first batch with the reference."""
        if not self.checked and len(work.batch.sender) <= CHECKED_EDGES:
            batch = work.batch.with_positions(positions.detach())
            if "energy" in self.potential.known:
                self.checked = check_engine(self._by_name, self.potential, batch, self._agreement)
            else:
                self.checked = check_features(self._features_of, self.potential, batch, self._agreement)

    def _by_name(self, batch: AtomicBatch) -> dict[str, Tensor]:
        """What is compared with the reference."""
        values, _ = self._values(self.workspace(batch), batch.positions, ("energies", "forces"))
        return {name: value[0] for name, value in values.items()}

    def _features_of(self, batch: AtomicBatch) -> tuple[Tensor, Tensor]:
        """The same for a model without an energy: s [N, F] and v [N, 3, F]."""
        values, _ = self._values(self.workspace(batch), batch.positions, FEATURES)
        return values["s"][0], values["v"][0]

    def _values(self, work: Workspace, positions: Tensor, properties: Sequence[str]) -> tuple[dict[str, Tensor], bool]:
        return evaluate([self], [work], positions, [properties], self._memory, self.threads or thread_count())

    def make_basis(self, g: Pairs, positions: np.ndarray, m: Scratch) -> None:
        """The functions that exact filters are made of, and their derivatives, at the distances of all pairs."""
        if self._radial is None:
            return
        receiver, sender, shift, r = (torch.from_numpy(a) for a in (g.receiver, g.sender, g.shift, positions))
        x, y, z = ((r[sender] - r[receiver] + shift) * self.weights.unit).T
        d = torch.sqrt(x * x + y * y + z * z)  # one order of the sum, whatever else there is
        d = torch.where((d > 0) & (d < self._radial.cutoff), d, 0.5 * self._radial.cutoff)  # others give no message
        for k, values in enumerate(filter_basis_and_slope(d, self._radial)):
            m.basis[: len(d), k] = values.numpy()


def _array(positions: Tensor) -> np.ndarray:
    """Row by row in memory."""
    return np.ascontiguousarray(positions.detach().numpy())
