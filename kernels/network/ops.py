"""A whole network as one torch operation on a CPU: the second derivative of training costs no tape.

Forces are adjoints of the operation, F = -dE/dr, and a loss over them asks for the derivative of these in the weights:

    d/dw <t, dE/dr>  =  d/dw (dE along t)

so that what differentiates an adjoint is a pass along its tangent t and one reverse of values and tangents together.
The reverse that the values need anyway (the loss has energies too) is done in the same pass: the adjoint leaves its
tangent with the operation, whose own backward comes after it, always, because the adjoint has read its `token`.
Derivatives twice in the edges, and third ones, are taken by torch from `reference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad

from painn_fast.kernels.derivatives import views, wanted
from painn_fast.kernels.network import passes_cpu, reference
from painn_fast.kernels.network.layout import Activations, Adjoints, Keep, NetworkWeights, activations, adjoints
from painn_fast.kernels.network.packing import arrays, fill, network_panels, padded
from painn_fast.kernels.network.reference import Weights
from painn_fast.kernels.radial.cpu import edge_functions
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.threads import ours, run

PART_ATOMS, MOST_PARTS = 40, 16
"""Atoms worth a thread of their own, and the most parts of a batch: gradients are summed part by part, in order."""
DTYPES = (torch.float32, torch.float64)


def network(
    s: Tensor, r: Tensor, radial: Radial, weights: Weights, activation: str, epsilon: float, row_ptr: Tensor,
    sender: Tensor, mirror: Tensor, n_atoms: Tensor, *, edges_once: bool = False, edges_or_weights: bool = False,
    packed: Packed | None = None, keep: Keep = "everything",
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`reference.network` on a CPU in a dtype of `DTYPES`, differentiable to any order.

    Args:
        s, r, radial, weights, activation, epsilon, row_ptr, sender, mirror: as the reference has them.
        n_atoms: [M] atoms of each molecule; no edge leaves its molecule.
        edges_once: derivatives in r are taken of the results only, never of gradients: forces, no Hessians.
        edges_or_weights: a pass of autograd that asks for gradients of the weights gets none in r; one that asks for
            those in r alone gets them, to any order.
        packed: of these weights, if they are known from before.
        keep: "for positions" where gradients of the weights are possible but unlikely: they take a second forward pass.

    Returns:
        s [N, F], v [N, 3, F] and read [N], zeros where H = 0.
    """
    f, weights = s.shape[1], padded(weights)
    s = pad(s, (0, weights.message_1.shape[-1] - f)) if weights.message_1.shape[-1] > f else s
    with ours():  # a parallel operation of torch just before would leave its threads spinning on our cores
        graph = graph_of(r, radial, (row_ptr, sender, mirror), n_atoms)
    call = _Call(radial, activation, epsilon, graph, parts(n_atoms), edges_once, edges_or_weights, keep)
    if packed is not None:
        call.weights, call.packed = packed
    if torch.is_grad_enabled() and any(t.requires_grad for t in (s, r, *weights)):
        s, v, read, _ = _Network.apply(call, s, r, *weights)
    else:
        s, v, read = _forward(call, s, weights, keep="nothing")
    return s[:, :f], v[..., :f], read


class Packed(NamedTuple):
    """Weights as the passes read them."""

    weights: Any  # `Weights` of arrays
    panels: NetworkWeights


def pack_weights(weights: Weights, activation: str, epsilon: float, *, backward: bool = True) -> Packed:
    """Pack weights, padded before, for many evaluations; without `backward` for results alone."""
    given = arrays(weights)
    panels = network_panels(given, epsilon, activation, backward=backward)
    fill(panels, given)
    return Packed(given, panels)


def parts(n_atoms: Tensor) -> list[tuple[int, int]]:
    """Ranges of atoms, of whole molecules and about one size, a power of 2 of them so that threads have equal shares.

    They depend on the batch alone, not on the threads, and so do the sums of gradients over them.
    """
    ends = np.cumsum(n_atoms.numpy())
    total = int(ends[-1]) if len(ends) else 0
    count = min(MOST_PARTS, 2 ** (max(1, total // PART_ATOMS).bit_length() - 1))
    cuts = [int(ends[np.searchsorted(ends, total * k / count)]) for k in range(1, count)]
    bounds = sorted({0, *cuts, total})
    return list(pairwise(bounds)) or [(0, 0)]


def graph_of(r: Tensor, radial: Radial, graph: tuple[Tensor, Tensor, Tensor], n_atoms: Tensor) -> passes_cpu.Graph:
    """Geometry and graph (row_ptr, sender, mirror) as the passes read them."""
    arrays = [*edge_functions(r.detach(), graph[2], radial), *(t.contiguous().numpy() for t in graph)]
    return passes_cpu.Graph(*[*arrays, np.repeat(np.cumsum(n_atoms.numpy()), n_atoms.numpy())])


class _Tangent(NamedTuple):
    """What the derivative of an adjoint keeps for the reverse of values and tangents."""

    track: Activations
    basis: np.ndarray
    u: np.ndarray
    kept: Adjoints
    still: bool
    late: np.ndarray | None
    """Tangent of the edges, if only that reverse needs the pass, which is then done with it."""


@dataclass
class _Call:
    """One evaluation: its graph, and what its passes keep for each other."""

    radial: Radial
    activation: str
    epsilon: float
    graph: passes_cpu.Graph
    parts: list[tuple[int, int]]
    edges_once: bool
    edges_or_weights: bool
    keep: Keep
    weights: Any = None
    """Arrays, as torch has them."""
    packed: Any = None
    track: Any = None
    tangents: dict[int, list[_Tangent]] = field(default_factory=dict)
    """By pass of autograd, those of every adjoint that it has differentiated."""

    @property
    def hidden(self) -> int:
        """Of the readout."""
        return len(self.weights.readout_1)

    def tangent(self, to: _Tangent, t_edge: np.ndarray, part: tuple[int, int]) -> None:
        """The pass along t_edge [E, 3]."""
        passes_cpu.tangent(self.packed, self.graph, self.track, to.track, t_edge, to.still, *part, to.basis, to.u)


def views_of(flat: np.ndarray, weights: Any) -> Any:
    """Views of a gradient in the shapes of `weights`, which are arrays."""
    ends = list(accumulate(array.size for array in weights))
    shaped: Any = [flat[e - w.size : e].reshape(w.shape) for e, w in zip(ends, weights, strict=True)]
    return Weights(*shaped)


def _forward(call: _Call, s: Tensor, weights: Weights, *, keep: Keep) -> tuple[Tensor, Tensor, Tensor]:
    """Results; `call` keeps the weights and the activations."""
    if call.packed is None:
        call.weights, call.packed = pack_weights(weights, call.activation, call.epsilon, backward=keep != "nothing")
    call.keep, call.track = keep, _track(call, s, keep=keep)
    given = call.packed, call.graph, call.track
    run(lambda part, _: passes_cpu.forward(*given, *part), call.parts)
    return _results(call.track)


def _complete(call: _Call, s: Tensor, weights: Sequence[Tensor]) -> None:
    """Have all activations, those for gradients of the weights too."""
    if call.keep != "everything":
        _forward(call, s, Weights(*weights), keep="everything")


def _track(call: _Call, s: Tensor | None, *, keep: Keep = "everything") -> Activations:
    """Memory for a pass that begins with s [N, F], or with zeros."""
    layers, _, features = call.weights.message_1.shape
    atoms, dtype = len(call.graph.ends), call.weights.message_1.dtype
    track = activations(layers, atoms, features, dtype, keep=keep, hidden=call.hidden)
    track.s[0] = 0 if s is None else s.detach().numpy()
    return track


class _Network(Function):
    @staticmethod
    @ours()
    def forward(ctx: Any, call: _Call, s: Tensor, r: Tensor, *weights: Tensor) -> Any:
        results = _forward(call, s, Weights(*weights), keep=call.keep)
        token = s.new_zeros(())
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(token, s, r, *weights)
        return *results, token

    @staticmethod
    @ours()
    def backward(ctx: Any, gs: Tensor | None, gv: Tensor | None, g_read: Tensor | None, _: Tensor | None) -> Any:
        call, (token, s, r, *weights) = ctx.call, ctx.saved_tensors
        nodes = [node for node, _ in ctx.next_functions]
        of_weights = any(map(wanted, nodes[2:]))
        of_edges = wanted(nodes[1]) and not ((call.edges_once or call.edges_or_weights) and of_weights)
        scalars = of_weights or wanted(nodes[0])
        gs = s.new_zeros(s.shape) if gs is None else gs
        gv = s.new_zeros(len(s), 3, s.shape[1]) if gv is None else gv
        g_read = s.new_zeros(len(s)) if g_read is None else g_read
        outer = gs, gv, g_read
        if torch.is_grad_enabled():
            return None, *_Adjoint.apply(call, of_edges, of_weights, scalars, token, *outer, s, r, *weights)
        if of_weights:
            _complete(call, s, weights)
        left = call.tangents.pop(torch._C._current_graph_task_id(), [])
        results = _reverse(call, outer, left[:1], of_edges, of_weights, scalars)
        for tangent in left[1:]:  # forces and, say, a gradient of the dipole in one loss
            nothing = [torch.zeros_like(t) for t in outer]
            more = _reverse(call, nothing, [tangent], of_edges, True, True)
            results = [a if b is None else b if a is None else a + b for a, b in zip(results, more, strict=True)]
        return None, *results


class _Adjoint(Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, edges: bool, of_weights: bool, scalars: bool, token: Tensor, gs: Tensor, gv: Tensor,
        g_read: Tensor, s: Tensor, r: Tensor, *weights: Tensor,
    ) -> Any:  # fmt: skip
        layers, _, features = call.weights.message_1.shape
        ctx.call, ctx.kept = call, adjoints(layers, len(s), features, call.weights.message_1.dtype)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gs, gv, g_read, s, r, *weights)
        if of_weights:
            _complete(call, s, weights)
        return tuple(_reverse(call, (gs, gv, g_read), [], edges, of_weights, scalars, ctx.kept))

    @staticmethod
    def backward(ctx: Any, ts: Tensor | None, t_edge: Tensor | None, *t_weights: Any) -> Any:
        call, (gs, gv, g_read, s, r, *weights) = ctx.call, ctx.saved_tensors
        nodes = [node for node, _ in ctx.next_functions]
        twice = wanted(nodes[5]) and not (call.edges_once or (call.edges_or_weights and any(map(wanted, nodes[6:]))))
        if torch.is_grad_enabled() or twice or any(t is not None for t in t_weights):
            moved = [*_by_torch(call, [gs, gv, g_read, s, r, *weights], [ts, t_edge, *t_weights])]
            return None, None, None, None, None, *moved
        return _Adjoint._tangent(call, ctx.kept, nodes, ts, t_edge, s, r, *weights)

    @staticmethod
    @ours()
    def _tangent(
        call: _Call, kept: Adjoints, nodes: list[Any], ts: Tensor | None, t_edge: Tensor | None, s: Tensor, r: Tensor,
        *weights: Tensor,
    ) -> Any:  # fmt: skip
        """The pass along a tangent, or what is left of it for the reverse of values and tangents."""
        _complete(call, s, weights)
        track = _track(call, ts)
        t_edge = torch.zeros_like(r) if t_edge is None else t_edge.contiguous()
        t_basis, tu, still = np.empty_like(call.graph.basis), np.empty_like(call.graph.u), ts is None
        late = not any(map(wanted, nodes[1:4]))
        left = _Tangent(track, t_basis, tu, kept, still, t_edge.numpy() if late else None)
        call.tangents.setdefault(torch._C._current_graph_task_id(), []).append(left)
        nothing = (None,) * (2 + len(weights))  # comes with the backward of `_Network`, which the token calls
        if late:
            return None, None, None, None, s.new_zeros(()), None, None, None, *nothing
        run(lambda part, _: call.tangent(left, t_edge.numpy(), part), call.parts)
        return None, None, None, None, s.new_zeros(()), *_results(track), *nothing


def _results(track: Activations) -> tuple[Tensor, Tensor, Tensor]:
    """s [N, F], v [N, 3, F] and what is read out [N], at the end of a pass."""
    s, v, read = (torch.from_numpy(array.copy()) for array in (track.s[-1], track.v[-1], track.read))
    return s, v.unflatten(1, (3, -1)), read


def _reverse(
    call: _Call, outer: Sequence[Tensor], tangent: list[_Tangent], edges: bool, of_weights: bool,
    scalars: bool, kept: Adjoints | None = None,
) -> list[Tensor | None]:  # fmt: skip
    """Adjoints of s, r and weights, with those of the tangent's pass if there is one."""
    graph, dual = call.graph, bool(tangent)
    total = sum(array.size for array in call.weights) if of_weights or dual else 0
    sums = np.empty((len(call.parts), total), graph.u.dtype)
    outputs = [views_of(one, call.weights) if total else call.weights for one in sums]  # which are not written to
    common: tuple[Any, ...] = call.packed, graph, call.track
    gs, gv, g_read = _copies(*outer)
    g_edge = np.empty_like(graph.u) if edges else np.empty((0, 3), graph.u.dtype)

    def work(part: tuple[int, int], k: int) -> None:
        if dual:
            t = tangent[0]
            if t.late is not None:
                call.tangent(t, t.late, part)
            passes_cpu.dual_reverse(*common, *t[:3], gs, gv, g_read, t.kept, t.still, *part, outputs[k])
        else:
            to = g_basis, g_edge, room, outputs[k]
            passes_cpu.reverse(*common, gs, gv, g_read, edges, of_weights, scalars, *part, *to)

    room = adjoints(0, 0, gs.shape[1], gs.dtype) if kept is None else kept
    if not dual:
        g_basis = np.empty_like(graph.basis[: len(g_edge)])
    run(work, call.parts)
    ends = [torch.from_numpy(gs) if scalars or dual else None, torch.from_numpy(g_edge) if edges else None]
    if not total:
        return [*ends, *(None for _ in call.weights)]
    return [*ends, *map(torch.from_numpy, views_of(_summed(sums), call.weights))]


def _summed(sums: np.ndarray) -> np.ndarray:
    """The sum over parts, in order, left in the first."""
    cuts = np.linspace(0, sums.shape[1], 5).astype(int).tolist()

    def add(columns: tuple[int, int], _: int) -> None:
        to = sums[0, slice(*columns)]
        for other in sums[1:]:
            to += other[slice(*columns)]

    if len(sums) > 1:
        run(add, list(pairwise(cuts)))
    return sums[0]


def _copies(s: Tensor, v: Tensor, read: Tensor) -> tuple[np.ndarray, ...]:
    """Plain memory that a pass may write to."""
    return tuple(t.detach().clone(memory_format=torch.contiguous_format).numpy() for t in (s, v.flatten(1), read))


def _by_torch(call: _Call, arguments: list[Tensor], tangents: list[Tensor | None]) -> Sequence[Tensor]:
    """Derivatives of <tangents, adjoint> in the adjoint's arguments, differentiable again."""
    row_ptr, sender, mirror = (torch.from_numpy(array) for array in call.graph[4:7])
    track = torch.is_grad_enabled()
    with torch.enable_grad():
        *outer, s, r = first = views(arguments)[:5]
        weights = views(arguments[5:])
        inputs = [s, r, *weights]
        given = s, r, call.radial, Weights(*weights), call.activation, call.epsilon, row_ptr, sender, mirror
        out = reference.network(*given)
        adjoint = torch.autograd.grad(out, inputs, outer, create_graph=True, materialize_grads=True)
        moved = [(g, t) for g, t in zip(adjoint, tangents, strict=True) if t is not None]
        return torch.autograd.grad(
            [g for g, _ in moved], [*first, *weights], [t for _, t in moved], create_graph=track, materialize_grads=True
        )
