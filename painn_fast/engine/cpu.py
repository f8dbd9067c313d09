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

FROM_SCHEDULE = {"energy", "energies", "forces", "stress"}
SIMPLE = {"energy", "energies", "forces"}
"""Those that the conversion of units finds to be finite or not."""
NONE = torch.empty(0), torch.empty(0)
FEATURES = ("s", "v")
"""Beside the names of properties."""


@dataclass(frozen=True)
class Call:
    """One evaluation by one engine: what is wanted, and what its passes fill."""

    engine: CpuEngine
    work: Workspace
    positions: np.ndarray  # [N, 3] Å
    properties: Sequence[str]
    derivatives: bool
    energies: np.ndarray  # [N] in model units, like all below
    forces: np.ndarray  # [N, 3]
    virial: np.ndarray  # [M, 3, 3]
    s: Tensor  # [N, F], or none [0], like the next
    v: Tensor  # [N, 3, F]

    def run(self, chunk: Chunk, memory: Memory, threads: int = 1) -> None:
        """The passes over a chunk; on several threads together if it is one large molecule."""
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


def run_passes(calls: Sequence[Call], memory: Memory, threads: int) -> None:
    """The passes of several calls: a thread takes a chunk of one of them, or all threads share a large molecule."""
    total, alone = sum(len(call.positions) for call in calls), []
    for call in calls:
        for chunk in call.work.chunks:
            if threads > 1 and chunk.blocks and chunk.size * threads > total:  # more than a thread's part
                call.run(chunk, memory, threads)
            else:
                alone.append((call, chunk, memory))
    memory.share(Call.run, alone, threads)


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
        self.unit = units.factor("energy", potential.config.energy_unit)
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
        call = self.call(work, positions, properties, finite=finite)
        run_passes([call], self._memory, self.threads or thread_count())
        return self.results(call, positions, finite=finite)

    def call(self, work: Workspace, positions: Tensor, properties: Sequence[str], *, finite: bool) -> Call:
        """What `__call__` is to evaluate, after its checks; `run_passes` and `results` are to follow."""
        require_call(self.potential, work.batch, positions, properties)
        if finite and not self.checked:
            require_near(work.batch, positions)
        self._check(work, positions)
        return self._call(work, positions, properties)

    def results(self, call: Call, positions: Tensor, *, finite: bool) -> dict[str, Tensor]:
        """What `__call__` returns, of passes that have been run."""
        results, numbers = self._results(call, positions)
        if finite and not numbers:
            require_near(call.work.batch, positions)
            require_finite(results, call.work.batch, positions)
        return results

    def with_features(
        self, work: Workspace, positions: Tensor, properties: Sequence[str]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Energies, forces and stress as of a call without `finite`, and the last s [N, F] and v [N, 3, F]."""
        self._check(work, positions)
        results = self._evaluate(work, positions, (*properties, *FEATURES))
        s, v = (results.pop(name) for name in FEATURES)
        return results, s, v

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
        return self._evaluate(self.workspace(batch), batch.positions, ("energies", "forces"))

    def _features_of(self, batch: AtomicBatch) -> tuple[Tensor, Tensor]:
        """The same for a model without an energy: s [N, F] and v [N, 3, F]."""
        call = self._call(self.workspace(batch), batch.positions, FEATURES)
        run_passes([call], self._memory, self.threads or thread_count())
        return call.s, call.v

    def _evaluate(self, work: Workspace, positions: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        call = self._call(work, positions, properties)
        run_passes([call], self._memory, self.threads or thread_count())
        return self._results(call, positions)[0]

    def _call(self, work: Workspace, positions: Tensor, properties: Sequence[str]) -> Call:
        n, f, wanted = work.batch.n_total, self.config.n_features, set(properties)
        s, v = NONE
        if not FROM_SCHEDULE.issuperset(wanted):
            s, v = (torch.empty(n, *shape, dtype=self.potential.dtype) for shape in ((f,), (3, f)))
        energies, forces, virial = np.empty(n), np.empty((n, 3)), np.zeros((work.batch.n_molecules, 3, 3))
        derivatives = not wanted.isdisjoint({"forces", "stress"})
        return Call(self, work, _array(positions), properties, derivatives, energies, forces, virial, s, v)

    def _results(self, call: Call, positions: Tensor) -> tuple[dict[str, Tensor], bool]:
        """Results, and whether they are all known to be finite, and their positions near."""
        batch, properties = call.work.batch, call.properties
        energy, forces = np.zeros(batch.n_molecules), call.forces if call.derivatives else call.forces[:0]
        numbers = in_units(call.energies, forces, call.positions, call.work.molecule, self.unit, energy)
        made = {"energy": energy, "energies": call.energies, "forces": forces}
        results = {name: torch.from_numpy(made[name]) for name in properties if name in made}
        results |= zip(FEATURES, (call.s, call.v), strict=True) if FEATURES[0] in properties else {}
        if "stress" in properties:
            volume = torch.linalg.det(batch.cell).abs()[:, None, None]
            results["stress"] = -torch.from_numpy(call.virial) * self.unit / volume
        if len(results) < len(properties):
            others = [name for name in properties if name not in FROM_SCHEDULE]
            with torch.no_grad():
                results |= self.potential.results_of_heads(call.s, call.v, batch.with_positions(positions), others)
        return {name: results[name] for name in properties}, numbers and SIMPLE.issuperset(properties)

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
