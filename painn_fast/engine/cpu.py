"""PaiNN's energy and forces on a CPU: chunks of molecules that stay in the cache, a compiled call and a thread each.

A large molecule alone is shared by all threads (`atom_blocks.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from painn_fast import units
from painn_fast.engine.atom_blocks import Blocks, divide, energy_and_forces_by_blocks
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
from painn_fast.engine.cpu_weights import pack_weights
from painn_fast.engine.electronic_cpu import ElectronicFeatures
from painn_fast.engine.passes_cpu import Pairs, Scratch, energy_and_forces, in_units, scratch
from painn_fast.graph import AtomicBatch
from painn_fast.kernels.radial.slopes import filter_basis_and_slope
from painn_fast.kernels.simd import LANES
from painn_fast.kernels.threads import count as thread_count
from painn_fast.nn import Potential
from painn_fast.nn.fused import radial

FROM_SCHEDULE = {"energy", "energies", "forces", "stress"}
SIMPLE = {"energy", "energies", "forces"}
"""Those that the conversion of units finds to be finite or not."""
FEATURES = ("s", "v")
"""Beside the names of properties."""
NONE = torch.empty(0), torch.empty(0)
CHUNK_ATOMS = 144
"""Atoms in a chunk: more read the weights less often, fewer keep their features in the cache."""


@dataclass(frozen=True)
class _Chunk:
    atoms: slice
    pairs: Pairs
    blocks: Blocks | None  # of one large molecule

    @property
    def size(self) -> int:
        """Atoms."""
        return self.atoms.stop - self.atoms.start


@dataclass(frozen=True)
class Workspace:
    """A graph, divided into chunks of whole molecules."""

    batch: AtomicBatch
    chunks: list[_Chunk]

    @cached_property
    def molecule(self) -> np.ndarray:
        """Of each atom [N]."""
        return self.batch.molecule.numpy()

    @cached_property
    def largest(self) -> tuple[int, int]:
        """Atoms and pairs that a thread needs memory for."""
        return (
            max(chunk.size for chunk in self.chunks),
            max(len(chunk.pairs.receiver) for chunk in self.chunks),
        )


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
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None

    def workspace(self, batch: AtomicBatch) -> Workspace:
        """The division of batches with this graph; costs a few hundredths of an evaluation."""
        require_graph(self.potential, batch)
        threads = self.threads or thread_count()
        sizes = batch.n_atoms.tolist()
        limit = min(CHUNK_ATOMS, max(LANES, -(-batch.n_total // threads)))
        ends, atoms = [0], 0
        for size in sizes:
            if atoms > ends[-1] and atoms + size - ends[-1] > limit:
                ends.append(atoms)
            atoms += size
        ends.append(atoms)
        numbers, molecule, receiver, sender, shift, mirror = (
            t.numpy() for t in (batch.numbers, batch.molecule, batch.receiver, batch.sender, batch.shift, batch.mirror)
        )
        first = np.flatnonzero(np.arange(len(mirror)) < mirror)  # each edge whose opposite comes later stands for both
        receiver, sender, shift = receiver[first], sender[first], shift[first]
        bounds, embedded = np.searchsorted(receiver, ends).tolist(), self._embed(batch)
        chunks = []
        for start, end, low, high in zip(ends[:-1], ends[1:], bounds[:-1], bounds[1:], strict=True):
            i, j = receiver[low:high] - start, sender[low:high] - start
            pairs = Pairs(numbers[start:end], i, j, shift[low:high], molecule[start:end], embedded[start:end])
            large = end - start > CHUNK_ATOMS  # which one molecule alone can be
            chunks.append(_Chunk(slice(start, end), *(divide(pairs, threads) if large else (pairs, None))))
        return Workspace(batch, chunks)

    def __call__(
        self, work: Workspace, positions: Tensor, properties: Sequence[str] = ("energy", "forces"), *,
        finite: bool = True,
    ) -> dict[str, Tensor]:  # fmt: skip
        """See `Engine.__call__`; results do not share memory with the workspace."""
        require_call(self.potential, work.batch, positions, properties)
        if finite and not self.checked:
            require_near(work.batch, positions)
        self._check(work, positions)
        results, numbers = self._evaluate(work, positions, properties)
        if finite and not numbers:
            require_near(work.batch, positions)
            require_finite(results, work.batch, positions)
        return results

    def with_features(
        self, work: Workspace, positions: Tensor, properties: Sequence[str]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Energies, forces and stress as of a call without `finite`, and the last s [N, F] and v [N, 3, F]."""
        self._check(work, positions)
        results, _ = self._evaluate(work, positions, (*properties, *FEATURES))
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
        return self._evaluate(self.workspace(batch), batch.positions, ("energies", "forces"))[0]

    def _features_of(self, batch: AtomicBatch) -> tuple[Tensor, Tensor]:
        """The same for a model without an energy: s [N, F] and v [N, 3, F]."""
        *_, s, v = self._passes(self.workspace(batch), _array(batch.positions), derivatives=False, features=True)
        return s, v

    def _evaluate(
        self, work: Workspace, positions: Tensor, properties: Sequence[str]
    ) -> tuple[dict[str, Tensor], bool]:
        """Results, and whether they are all known to be finite, and their positions near."""
        wanted, place = set(properties), _array(positions)
        derivatives, features = not wanted.isdisjoint({"forces", "stress"}), bool(wanted - FROM_SCHEDULE)
        energies, forces, virial, s, v = self._passes(work, place, derivatives=derivatives, features=features)
        energy = np.zeros(work.batch.n_molecules)
        numbers = in_units(energies, forces, place, work.molecule, self.unit, energy)
        results = self._results(work, positions, properties, energy, energies, forces, virial, s, v)
        return results, numbers and SIMPLE.issuperset(wanted)

    def _passes(
        self, work: Workspace, positions: np.ndarray, *, derivatives: bool, features: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor, Tensor]:
        """Energies [N], forces [N, 3] and virials [M, 3, 3] in model units, or none; features s and v, or none."""
        n, f, threads = len(positions), self.config.n_features, self.threads or thread_count()
        energies, forces = np.empty(n), np.empty((n, 3))
        virial = np.zeros((work.batch.n_molecules, 3, 3))
        s, v = (torch.empty(n, *shape, dtype=self.potential.dtype) for shape in ((f,), (3, f))) if features else NONE

        def run(chunk: _Chunk, together: bool = False) -> None:
            m, at = self._scratch(work), chunk.atoms
            self._make_basis(chunk.pairs, positions[at], m)
            args = (positions[at], derivatives, energies[at], forces[at], virial)
            if together and chunk.blocks:
                energy_and_forces_by_blocks(self.weights, chunk.pairs, m, chunk.blocks, self._threads(threads), *args)
            else:
                energy_and_forces(self.weights, chunk.pairs, m, *args)
            if features:
                count, kept = chunk.size, m.kept
                s[at] = torch.from_numpy(kept.s[0, :count, :f])
                v[at] = torch.from_numpy(kept.v[-1, :count].reshape(count, 3, -1)[:, :, :f])

        alone = []
        for chunk in work.chunks:
            if threads > 1 and chunk.blocks and chunk.size * threads > n:  # more than a thread's part
                run(chunk, together=True)
            else:
                alone.append(chunk)
        if threads == 1 or len(alone) == 1:
            for chunk in alone:
                run(chunk)
        else:
            list(self._threads(threads).map(run, alone))
        return energies, forces if derivatives else forces[:0], virial, s, v

    def _results(
        self, work: Workspace, positions: Tensor, properties: Sequence[str], energy: np.ndarray, energies: np.ndarray,
        forces: np.ndarray, virial: np.ndarray, s: Tensor, v: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        batch = work.batch
        made = {"energy": energy, "energies": energies, "forces": forces}
        results = {name: torch.from_numpy(made[name]) for name in properties if name in made}
        results |= zip(FEATURES, (s, v), strict=True) if FEATURES[0] in properties else {}
        if "stress" in properties:
            volume = torch.linalg.det(batch.cell).abs()[:, None, None]
            results["stress"] = -torch.from_numpy(virial) * self.unit / volume
        if len(results) < len(properties):
            others = [name for name in properties if name not in FROM_SCHEDULE]
            with torch.no_grad():
                results |= self.potential.results_of_heads(s, v, batch.with_positions(positions), others)
        return {name: results[name] for name in properties}

    def _make_basis(self, g: Pairs, positions: np.ndarray, m: Scratch) -> None:
        """The functions that exact filters are made of, and their derivatives, at the distances of all pairs."""
        if self._radial is None:
            return
        receiver, sender, shift, r = (torch.from_numpy(a) for a in (g.receiver, g.sender, g.shift, positions))
        x, y, z = ((r[sender] - r[receiver] + shift) * self.weights.unit).T
        d = torch.sqrt(x * x + y * y + z * z)  # one order of the sum, whatever else there is
        d = torch.where((d > 0) & (d < self._radial.cutoff), d, 0.5 * self._radial.cutoff)  # others give no message
        for k, values in enumerate(filter_basis_and_slope(d, self._radial)):
            m.basis[: len(d), k] = values.numpy()

    def _scratch(self, work: Workspace) -> Scratch:
        """The memory of this thread, grown if a chunk needs more."""
        atoms, pairs = work.largest
        have: Scratch | None = getattr(self._local, "scratch", None)
        if have is None or len(have.gs) < atoms or have.distance.shape[0] < pairs:
            w, hidden = self.weights, tuple(len(bias) for bias in self.weights.readout_bias)
            functions = w.filter.shape[2]
            have = scratch(atoms, pairs, self.config.n_layers, w.embedding.shape[1], functions, hidden, w.table.dtype)
            self._local.scratch = have
        return have

    def _threads(self, count: int) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(count, "painn-engine")
        return self._pool


def _array(positions: Tensor) -> np.ndarray:
    """Row by row in memory."""
    return np.ascontiguousarray(positions.detach().numpy())
