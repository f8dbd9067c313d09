"""The gradient of a loss of squares of energies and forces on a CPU, without autograd: a step of training.

The passes are those of `ops.py`. Here a part of a batch goes through all of them at once, in memory that its thread
has just used for another, and leaves nothing but its loss and the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from painn_fast.kernels.network import passes_cpu
from painn_fast.kernels.network.layout import Activations, Adjoints, NetworkWeights, activations, adjoints
from painn_fast.kernels.network.loss_cpu import energy_squares, force_squares
from painn_fast.kernels.network.ops import graph_of, parts, views_of
from painn_fast.kernels.network.reference import Weights
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.threads import run


class Structures(NamedTuple):
    """M molecules, N atoms and E edges sorted by receiver; no edge leaves its molecule."""

    s: Tensor  # [N, F], what the first layer begins with
    r: Tensor  # [E, 3], from receiver to sender
    n_atoms: Tensor  # [M]
    row_ptr: Tensor  # [N + 1]
    sender: Tensor  # [E]
    mirror: Tensor  # [E]


class Labels(NamedTuple):
    """What is held against results, float64; NaN where it is unknown."""

    energy: np.ndarray  # [M], of the sum over a molecule of what is read out
    energy_weight: np.ndarray  # [M], of its square
    forces: np.ndarray | None = None  # [N, 3], minus the derivative of that sum in the positions
    force_weight: float = 0.0


class Gradient(NamedTuple):
    """Of a loss, with the loss."""

    loss: float
    s: np.ndarray  # [N, F]
    weights: np.ndarray  # [P, all weights], of each part of the batch: to be added up, in order, before the next call


class _Memory(NamedTuple):
    """Of a part of a batch."""

    values: Activations
    tangents: Activations
    kept: Adjoints


class LossGradient:
    """Sums of weighted squares of errors of energies and forces, and their gradients in s and in the weights.

    Args:
        packed: the network, with a readout.
        like: arrays of the shapes of its weights.
        radial: functions of the filters.
    """

    def __init__(self, packed: NetworkWeights, like: Any, radial: Radial) -> None:
        self.packed, self.like, self.radial = packed, like, radial
        self._free: list[_Memory] = []
        """Memory that no thread is using."""
        self._sums = np.empty((0, 0))
        self._nothing = adjoints(0, 0, like.message_1.shape[-1], like.message_1.dtype)

    def __call__(self, given: Structures, labels: Labels, wait: Callable[[], object]) -> Gradient:
        """Of structures in the dtype of the weights, and labels of them; wait() returns once the weights are packed."""
        bounds, ends = parts(given.n_atoms), np.append(0, np.cumsum(given.n_atoms.numpy()))
        s = given.s.numpy()
        if len(self._sums) < len(bounds):
            self._sums = np.empty((len(bounds), sum(array.size for array in self.like)), s.dtype)
        sums = self._sums[: len(bounds)]
        g_s, losses = np.empty_like(s), np.zeros(len(bounds))

        graph = given.row_ptr, given.sender, given.mirror
        whole = graph_of(given.r, self.radial, graph, given.n_atoms)
        wait()

        def work(part: tuple[int, int], number: int) -> None:
            molecules, atoms = slice(*np.searchsorted(ends, part).tolist()), slice(*part)
            own = Labels(
                labels.energy[molecules], labels.energy_weight[molecules],
                None if labels.forces is None else labels.forces[atoms], labels.force_weight,
            )  # fmt: skip
            memory, to = self._memory(part[1] - part[0], s.dtype), views_of(sums[number], self.like)
            losses[number] = self._passes(memory, _within(whole, *part), s[atoms], own, g_s[atoms], to)
            self._free.append(memory)

        run(work, bounds)
        return Gradient(float(losses.sum()), g_s, sums)

    def _memory(self, atoms: int, dtype: np.dtype) -> _Memory:
        while self._free:
            with suppress(IndexError):  # another thread has taken the last
                memory = self._free.pop()
                if memory.values.s.shape[1] >= atoms:
                    return memory
        layers, _, features = self.like.message_1.shape
        hidden = len(self.like.readout_1)
        one, other = (activations(layers, atoms, features, dtype, keep="everything", hidden=hidden) for _ in range(2))
        return _Memory(one, other, adjoints(layers, atoms, features, dtype))

    def _passes(
        self, memory: _Memory, graph: passes_cpu.Graph, s: np.ndarray, labels: Labels,
        gs: np.ndarray, to: Weights,
    ) -> float:  # fmt: skip
        """The loss of one part; gs becomes the gradient in s, `to` that in the weights."""
        (values, tangents, kept), n = memory, len(s)
        values.s[0, :n] = s
        common: tuple[Any, ...] = self.packed, graph, values
        passes_cpu.forward(*common, 0, n)
        gs[:] = 0
        gv, g_read = np.zeros((n, 3 * s.shape[1]), s.dtype), np.empty(n, s.dtype)
        loss: float = energy_squares(values.read, graph.ends, labels.energy, labels.energy_weight, g_read)
        if labels.forces is None:
            none = graph.basis[:0], graph.u[:0]
            passes_cpu.reverse(*common, gs, gv, g_read, False, True, True, 0, n, *none, self._nothing, to)
            return loss
        ps, pv, one = np.zeros_like(gs), np.zeros_like(gv), np.ones_like(g_read)
        g_basis, g_edge, t_edge = (np.empty_like(array) for array in (graph.basis, graph.u, graph.u))
        passes_cpu.reverse(*common, ps, pv, one, True, False, False, 0, n, g_basis, g_edge, kept, to)
        edges = g_edge, graph.row_ptr, graph.sender, graph.mirror
        loss += force_squares(*edges, labels.forces, labels.force_weight, np.empty((n, 3)), t_edge)
        tangents.s[0, :n] = 0
        t_basis, tu = g_basis, g_edge  # whose values are not needed any more
        passes_cpu.tangent(*common, tangents, t_edge, True, 0, n, t_basis, tu)
        passes_cpu.dual_reverse(*common, tangents, t_basis, tu, gs, gv, g_read, kept, True, 0, n, to)
        return loss


def _within(graph: passes_cpu.Graph, first: int, last: int) -> passes_cpu.Graph:
    """The graph of some of the molecules, atoms `first` to `last` - 1."""
    low, high = int(graph.row_ptr[first]), int(graph.row_ptr[last])
    edges = slice(low, high)
    return passes_cpu.Graph(
        graph.basis[edges], graph.slope[edges], graph.u[edges], graph.inverse[edges],
        graph.row_ptr[first : last + 1] - low, graph.sender[edges] - first, graph.mirror[edges] - low,
        graph.ends[first:last] - first,
    )  # fmt: skip
