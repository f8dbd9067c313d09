"""PaiNN's energy and forces on a GPU: memory that stays, one CUDA graph an evaluation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from painn_fast.engine import check
from painn_fast.engine.check import (
    CHECKED_EDGES,
    check_engine,
    require_call,
    require_finite,
    require_graph,
    require_near,
)
from painn_fast.engine.cuda_graph import StreamOrder, captured
from painn_fast.engine.gpu_weights import pack
from painn_fast.engine.layers_gpu import launch_layers
from painn_fast.engine.passes_gpu import BlasNode, Buffers, FusedNode, Node, Wanted, buffers, launch_all
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.nn import Potential

AGREEMENT = {"ieee": check.AGREEMENT, "tf32x3": check.AGREEMENT, "tf32": 2e-2, "bf16": 2e-1}
"""By precision, relative to the largest derivative by an edge: far above rounding, far below a mistake."""
ROUNDING = {"ieee": 1.0, "tf32x3": 4.0, "tf32": 2.0**13, "bf16": 2.0**16}
"""Of a factor in a product, in units of that of float32."""
NODES = ("auto", "fused", "blas")
FUSED_UP_TO = {"ieee": 16384, "tf32": 2048, "bf16": 2048}
"""Atoms up to which a layer is one launch each way; products of the BLAS, which need many more launches and passes over
memory, share weights among more atoms. Chosen without measuring: "ieee" by `kernels.tools.model`."""
FROM_SCHEDULE = {"energy", "energies", "forces", "stress"}
FORCES = Wanted(forces=True, stress=False, vectors=False)
GROWTH = 1.25
"""Memory that is too small grows by this at least; edges, whose number changes as atoms move, begin with it."""


@dataclass(frozen=True)
class GpuWorkspace:
    """A graph on the device of the model."""

    batch: AtomicBatch

    @cached_property
    def atom_ptr(self) -> Tensor:
        """[M + 1]."""
        return torch.nn.functional.pad(self.batch.n_atoms.cumsum(0), (1, 0))

    @property
    def size(self) -> tuple[int, int, int]:
        """Atoms, edges and molecules."""
        return self.batch.n_total, len(self.batch.sender), self.batch.n_molecules


@dataclass
class _Plan:
    """Memory for graphs up to a size, what is in it, and the captured evaluations that use it."""

    memory: Buffers
    size: tuple[int, int, int]
    node: Node
    loaded: GpuWorkspace | None = None
    mirrored: bool = False
    runs: dict[Wanted, Callable[[], None]] = field(default_factory=dict)


class GpuEngine:
    """Energies, forces, stress and properties of batches, equal to the potential's own within rounding.

    With the fused node kernels the energies and forces of a molecule are the same numbers, bit for bit, whatever else
    is in its batch; a BLAS chooses its order of sums by the number of atoms.

    On a CUDA device an evaluation is captured once for each size of memory and replayed; elsewhere (Triton's
    interpreter) its kernels are launched one by one. Stress is not captured.

    Args:
        potential: a model without a `refusal`; its weights are read once.
        precision: of the factors in matrix products; sums are in the network's dtype. "ieee" is the network's dtype,
            "tf32" and "bf16" are faster and good to 3 and 2 digits, "tf32x3" is nearly float32 on tensor cores; no BLAS
            has it, so that its node kernels are fused always.
        node: "fused" is few launches, "blas" the fastest products, "auto" chooses by the number of atoms.
    """

    def __init__(self, potential: Potential, precision: str = "ieee", node: str = "auto") -> None:
        if precision not in AGREEMENT:
            raise PaiNNFastError("unknown precision", got=repr(precision), expected=" | ".join(AGREEMENT))
        if node not in NODES or (node, precision) == ("blas", "tf32x3"):
            expected = " | ".join(NODES[:2] if precision == "tf32x3" else NODES)
            raise PaiNNFastError("unknown kind of node kernels", got=f"{node!r}, {precision}", expected=expected)
        if precision != "ieee" and potential.dtype != torch.float32:
            raise PaiNNFastError("only float32 networks have this precision", got=f"{precision}, {potential.dtype}")
        self.potential = potential.eval()
        self.precision = precision
        self.node = node
        self.checked = False
        self.weights = pack(potential, torch.bfloat16 if precision == "bf16" else None)
        self._plans: dict[int, _Plan] = {}
        self._lock, self._order = threading.RLock(), StreamOrder(potential.device)

    def workspace(self, batch: AtomicBatch) -> GpuWorkspace:
        """The graph of a batch, for evaluations at other positions."""
        require_graph(self.potential, batch)
        same = batch.numbers.device == self.potential.device and batch.sender.device == self.potential.device
        return GpuWorkspace(batch if same else batch.to(self.potential.device))

    @torch.no_grad()
    def __call__(
        self, work: GpuWorkspace, positions: Tensor, properties: Sequence[str] = ("energy", "forces"), *,
        finite: bool = True,
    ) -> dict[str, Tensor]:  # fmt: skip
        """See `Engine.__call__`; `finite` waits for the device.

        Positions may be on any device; results are on the same, and share no memory with the engine.
        """
        require_call(self.potential, work.batch, positions, properties)
        if finite:
            require_near(work.batch, positions)
        if not self.checked and work.size[1] <= CHECKED_EDGES:
            batch = work.batch.with_positions(positions.detach().to(self.potential.device))
            limits = AGREEMENT[self.precision], ROUNDING[self.precision]
            with self._lock, _blas(tf32=False):
                self.checked = check_engine(self._by_name, self.potential, batch, *limits)
        results = self._evaluate(work, positions, properties)
        if finite:
            require_finite(results, work.batch, positions)
        return results

    def _by_name(self, batch: AtomicBatch) -> dict[str, Tensor]:
        """What is compared with the reference."""
        return self._evaluate(self.workspace(batch), batch.positions, ("energies", "forces"))

    def _evaluate(self, work: GpuWorkspace, positions: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        wanted = Wanted(
            forces="forces" in properties and "stress" not in properties,
            stress="stress" in properties,
            vectors=bool(set(properties) - FROM_SCHEDULE),
        )
        with self._lock:
            self._order.enter(tensor for plan in self._plans.values() for tensor in plan.memory.tensors())
            plan = self._plan(work)
            self._load(plan, work, wanted.stress)
            plan.memory.positions[: work.size[0]].copy_(positions)
            self._run(plan, wanted)
            results = self._results(plan.memory, work, properties)
        return {name: results[name].to(positions.device) for name in properties}

    def launches(self, work: GpuWorkspace, positions: Tensor) -> Callable[[], dict[str, Tensor]]:
        """Energy [M] and forces [N, 3] at what lies in `positions` [N, 3] Å on the device when it is called.

        It only launches, and works in memory of its own, that of the results included, so that it can be a part of a
        CUDA graph: a call overwrites the results of the one before.
        """
        plan = self._new_plan(self._capacity(work.size, None), work.size[0].bit_length())
        with torch.no_grad():
            self._load(plan, work, mirrored=False)
        results = {"energy": plan.memory.total[: work.size[2]], "forces": plan.memory.forces[: work.size[0]]}

        @torch.no_grad()
        def run() -> dict[str, Tensor]:
            self._launch(plan, FORCES, positions)
            return dict(results)

        return run

    def _plan(self, work: GpuWorkspace) -> _Plan:
        """Memory that is large enough, and less than twice as large as needed: one a power of two of atoms."""
        kind = work.size[0].bit_length()
        plan = self._plans.get(kind)
        if plan is None or any(have < need for have, need in zip(plan.size, work.size, strict=True)):
            size = self._capacity(work.size, None if plan is None else plan.size)
            self._plans.pop(kind, None)
            del plan  # its memory goes before the larger one comes
            plan = self._plans[kind] = self._new_plan(size, kind)
        return plan

    def _new_plan(self, size: tuple[int, int, int], kind: int) -> _Plan:
        """Memory for graphs up to a size, and of up to 2^kind atoms."""
        return _Plan(buffers(self.weights, *size, self.potential.device), size, self._node(1 << kind))

    @staticmethod
    def _capacity(need: tuple[int, int, int], have: tuple[int, int, int] | None) -> tuple[int, int, int]:
        """Atoms as needed at first, and never more than the power of two above."""
        atoms, edges, molecules = need
        if have is not None:
            atoms, edges, molecules = (max(n, int(GROWTH * h)) if n > h else h for n, h in zip(need, have, strict=True))
            atoms = min(atoms, 1 << need[0].bit_length())
        else:
            edges = int(GROWTH * edges)
        return -(-atoms // 16) * 16, -(-max(edges, 1) // 256) * 256, molecules

    def _load(self, plan: _Plan, work: GpuWorkspace, mirrored: bool) -> None:
        """Put a graph into the memory of a plan, unless the plan holds it already."""
        m, batch, (n, e, molecules) = plan.memory, work.batch, work.size
        if plan.loaded is not work:
            plan.loaded, plan.mirrored = None, False
            m.numbers.zero_()
            m.numbers[:n] = batch.numbers
            m.row_ptr.fill_(e)
            m.row_ptr[: n + 1] = batch.row_ptr
            m.atom_ptr.fill_(n)
            m.atom_ptr[: molecules + 1] = work.atom_ptr
            for have, given in ((m.receiver, batch.receiver), (m.sender, batch.sender), (m.shift, batch.shift)):
                have[:e] = given
                have[e:] = 0
            torch.index_select(self.weights.embedding, 0, m.numbers, out=m.s_first)
            torch.index_select(self.weights.first_x, 0, m.numbers, out=m.x[0])
            plan.loaded = work
        if mirrored and not plan.mirrored:
            m.mirror[:e] = batch.mirror
            plan.mirrored = True

    def _run(self, plan: _Plan, wanted: Wanted) -> None:
        """Evaluate what is in the memory of a plan."""
        if wanted.stress:
            self._launch(plan, wanted)
            return
        if wanted not in plan.runs:
            plan.runs[wanted] = captured(lambda: self._launch(plan, wanted), self.potential.device)
        with torch.cuda.device_of(plan.memory.positions):
            plan.runs[wanted]()

    def _launch(self, plan: _Plan, wanted: Wanted, positions: Tensor | None = None) -> None:
        """Launch an evaluation; the BLAS chooses its kernels here, not where a graph is replayed."""
        w, m = self.weights, plan.memory
        x = m.positions if positions is None else positions
        with _blas(tf32=self.precision == "tf32"):
            if isinstance(plan.node, FusedNode) and len(w.readout) == 1 and not wanted.stress:
                launch_layers(w, m, wanted, self.precision, x)
            else:
                launch_all(w, m, wanted, plan.node, x)

    def _node(self, atoms: int) -> Node:
        """By the power of two of atoms, so that results do not depend on what was evaluated before."""
        fused = atoms <= FUSED_UP_TO.get(self.precision, atoms) if self.node == "auto" else self.node == "fused"
        return FusedNode(self.precision) if fused else BlasNode()

    def _results(self, m: Buffers, work: GpuWorkspace, properties: Sequence[str]) -> dict[str, Tensor]:
        """Our units, memory of its own; what is not requested is not made."""
        n, f, results = work.size[0], self.potential.config.representation.n_features, {}
        energy = self.weights.energy_unit
        if "energy" in properties:
            results["energy"] = m.total[: work.size[2]].clone()
        if "energies" in properties:
            results["energies"] = m.atomic[:n] * energy
        if "stress" in properties:
            virial = torch.segment_reduce(m.virial[:n].flatten(1), "sum", lengths=work.batch.n_atoms, axis=0)
            volume = torch.linalg.det(work.batch.cell).abs()[:, None, None]
            results["stress"] = virial.unflatten(1, (3, 3)) * energy / volume
        if "forces" in properties:
            stress = "stress" in properties
            results["forces"] = m.pair_force[:n] * (energy * self.weights.unit) if stress else m.forces[:n].clone()
        others = [name for name in properties if name not in FROM_SCHEDULE]
        if others:
            batch = work.batch.with_positions(m.positions[:n])
            with _blas(tf32=self.precision == "tf32"):
                results |= self.potential.results_of_heads(m.s[:n, :f], m.v[-1, :n, :, :f], batch, others)
        return results


_BLAS = threading.RLock()
"""Of a setting of the whole process. Taken after the lock of an engine, never before."""


@contextmanager
def _blas(*, tf32: bool) -> Iterator[None]:
    """TF32 in products of float32 by the BLAS, or not, whatever the process has set; one thread at a time."""
    matmul = torch.backends.cuda.matmul
    with _BLAS:
        before = getattr(matmul, "fp32_precision", None)  # since torch 2.9; the older name sets both
        allowed = matmul.allow_tf32 if before is None else before == "tf32"
        matmul.allow_tf32 = tf32
        try:
            yield
        finally:
            matmul.allow_tf32 = allowed
            if before is not None:
                matmul.fp32_precision = before
