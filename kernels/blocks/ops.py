"""All blocks of a network as one torch operation on a CPU, for training: its second derivative costs no tape.

Forces are adjoints of the operation, F = -dE/dr, and a loss over them asks for the derivative of these in the weights:

    d/dw <t, dE/dr>  =  d/dw (dE along t)

so that what differentiates an adjoint is a pass along its tangent t and one reverse of values and tangents together.
The reverse that the values need anyway (the loss has energies too) is done in the same pass: the adjoint leaves its
tangent with the operation, whose own backward comes after it, always, because the adjoint has read its `token`.
Third derivatives are taken by torch from `reference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from painn_fast.kernels.blocks import cpu, reference
from painn_fast.kernels.blocks.reference import Weights
from painn_fast.kernels.dense.cpu import pack
from painn_fast.kernels.derivatives import views, wanted
from painn_fast.kernels.threads import run
from painn_fast.kernels.vector import LANES

PART_ATOMS, MOST_PARTS = 40, 16
"""Atoms worth a thread of their own, and the most parts of a batch: gradients are summed part by part, in order."""


def supports(s: Tensor) -> bool:
    """Whether the operation runs for scalars like these [N, F]: on a CPU, where autograd needs it, F whole vectors."""
    plain = s.dtype in (torch.float32, torch.float64) and s.device.type == "cpu" and s.shape[1] % LANES == 0
    return plain and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def blocks(
    s: Tensor, basis: Tensor, u: Tensor, filters: Sequence[Tensor], weights: Sequence[Weights], epsilon: float,
    row_ptr: Tensor, sender: Tensor, mirror: Tensor, n_atoms: Tensor, *, edges_once: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`reference.blocks`, differentiable to any order.

    Args:
        basis: [E, K'], K' a multiple of LANES.
        mirror: [E] index of each edge's opposite.
        n_atoms: [M] atoms of each molecule; no edge leaves its molecule.
        edges_once: nobody wants derivatives in basis and u of anything but the features themselves: forces are taken,
            Hessians are not.
    """
    graph = tuple(t.detach().contiguous().numpy() for t in (row_ptr, sender, mirror))
    call = _Call(graph, epsilon, len(weights), parts(n_atoms), edges_once)
    s, v, _ = _Blocks.apply(call, s, basis, u, *filters, *(t for layer in weights for t in layer))
    return s, v


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


@dataclass
class _Call:
    """One evaluation: its graph, and what its passes leave for each other."""

    graph: tuple[np.ndarray, ...]
    epsilon: float
    layers: int
    parts: list[tuple[int, int]]
    edges_once: bool
    track: Any = None
    panels: Any = None
    tangents: dict[int, list[tuple[Any, ...]]] = field(default_factory=dict)
    """By pass of autograd: (track, t_basis, tu, ps, pv, still) of every adjoint that it has differentiated."""


class _Blocks(Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, s: Tensor, basis: Tensor, u: Tensor, *weights: Tensor) -> Any:
        call.panels = _panels(weights, call.layers)
        call.track = cpu.track(call.layers, s.detach().numpy())
        call.track.s[0] = s.detach().numpy()
        graph = _graph(call, basis, u)
        run(lambda part, _: cpu.forward(call.panels, graph, call.epsilon, call.track, *part), call.parts)
        token = s.new_zeros(())
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(token, s, basis, u, *weights)
        out, v = torch.from_numpy(call.track.s[-1].copy()), torch.from_numpy(call.track.v[-1].copy())
        return out, v.unflatten(1, (3, -1)), token

    @staticmethod
    def backward(ctx: Any, gs: Tensor | None, gv: Tensor | None, _: Tensor | None) -> Any:
        call, (token, s, basis, u, *weights) = ctx.call, ctx.saved_tensors
        nodes = [node for node, _ in ctx.next_functions]
        of_weights = any(map(wanted, nodes[3:]))
        of_edges = any(map(wanted, nodes[1:3])) and not (call.edges_once and of_weights)
        scalars = of_weights or wanted(nodes[0])
        gs = s.new_zeros(s.shape) if gs is None else gs
        gv = s.new_zeros(len(s), 3, s.shape[1]) if gv is None else gv
        if torch.is_grad_enabled():
            return None, *_Adjoint.apply(call, of_edges, of_weights, scalars, token, gs, gv, s, basis, u, *weights)
        left = call.tangents.pop(torch._C._current_graph_task_id(), [])
        results = _reverse(call, gs, gv, basis, u, weights, left[:1], of_edges, of_weights, scalars)
        for tangent in left[1:]:  # forces and, say, a gradient of the dipole in one loss
            more = _reverse(
                call, torch.zeros_like(gs), torch.zeros_like(gv), basis, u, weights, [tangent], of_edges, True, True
            )
            results = [a if b is None else b if a is None else a + b for a, b in zip(results, more, strict=True)]
        return None, *results


class _Adjoint(Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, edges: bool, of_weights: bool, scalars: bool, token: Tensor, gs: Tensor, gv: Tensor,
        s: Tensor, basis: Tensor, u: Tensor, *weights: Tensor,
    ) -> Any:  # fmt: skip
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gs, gv, s, basis, u, *weights)
        return tuple(_reverse(call, gs, gv, basis, u, list(weights), [], edges, of_weights, scalars))

    @staticmethod
    def backward(ctx: Any, ts: Tensor | None, t_basis: Tensor | None, tu: Tensor | None, *t_weights: Any) -> Any:
        call, (gs, gv, s, basis, u, *weights) = ctx.call, ctx.saved_tensors
        if torch.is_grad_enabled() or any(t is not None for t in t_weights):
            moved = [*_by_torch(call, [gs, gv, s, basis, u, *weights], [ts, t_basis, tu, *t_weights])]
            return None, None, None, None, None, *moved
        t_basis = torch.zeros_like(basis) if t_basis is None else t_basis
        tu = torch.zeros_like(u) if tu is None else tu
        track = cpu.track(call.layers, s.detach().numpy())
        track.s[0] = 0 if ts is None else ts.numpy()
        graph, arrays = _graph(call, basis, u), [t.contiguous().numpy() for t in (t_basis, tu)]
        still = ts is None
        run(lambda part, _: cpu.tangent(call.panels, graph, call.track, track, *arrays, still, *part), call.parts)
        h_gs, h_gv = torch.from_numpy(track.s[-1].copy()), torch.from_numpy(track.v[-1].copy())
        task = torch._C._current_graph_task_id()
        call.tangents.setdefault(task, []).append((track, *arrays, gs, gv, still))
        nothing = (None,) * (3 + len(weights))  # comes with the backward of `_Blocks`, which the token calls
        return None, None, None, None, gs.new_zeros(()), h_gs, h_gv.unflatten(1, (3, -1)), *nothing


def _reverse(
    call: _Call, gs: Tensor, gv: Tensor, basis: Tensor, u: Tensor, weights: Sequence[Tensor], tangent: Any,
    edges: bool, of_weights: bool, scalars: bool,
) -> list[Tensor | None]:  # fmt: skip
    """Adjoints of s, basis, u and weights, with those of the tangent's pass if there is one."""
    dual = bool(tangent)
    gs_, gv_ = _copies(gs, gv)
    rows, gu = (torch.zeros(t.shape if edges else (0, t.shape[1]), dtype=t.dtype) for t in (basis, u))
    total = sum(t.numel() for t in weights) if of_weights or dual else 0
    sums = torch.zeros(len(call.parts), total, dtype=basis.dtype)
    back, graph = _linear(weights, call.layers, basis.shape[1]), _graph(call, basis, u)
    outputs = [_gradients(one, weights, call.layers) for one in sums.numpy()]
    common: tuple[Any, ...] = call.panels, back, graph, call.track
    if dual:
        track, t_basis, tu, ps, pv, still = tangent[0]
        ps_, pv_ = (
            ps.detach().clone(memory_format=torch.contiguous_format).numpy(),
            pv.detach().flatten(1).clone().numpy(),
        )
        common = *common, track, t_basis, tu, gs_.numpy(), gv_.numpy(), ps_, pv_, edges, still
        run(lambda part, k: cpu.dual_reverse(*common, *part, rows.numpy(), gu.numpy(), outputs[k]), call.parts)
    else:
        common = *common, gs_.numpy(), gv_.numpy(), edges, of_weights, scalars
        run(lambda part, k: cpu.reverse(*common, *part, rows.numpy(), gu.numpy(), outputs[k]), call.parts)
    ends: list[Tensor | None] = [gs_ if scalars or dual else None, None, None]
    if edges:
        ends[1:] = [rows[torch.from_numpy(call.graph[2])], gu]
    if not total:
        return [*ends, *(None for _ in weights)]
    summed = sums[0] if len(sums) == 1 else torch.sum(sums, dim=0)
    parts = summed.split([t.numel() for t in weights])
    return [*ends, *(part.view(t.shape) for part, t in zip(parts, weights, strict=True))]


def _copies(s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Plain memory that a pass may write to."""
    first, second = (t.detach().clone(memory_format=torch.contiguous_format) for t in (s, v.flatten(1)))
    return first, second


def _by_torch(call: _Call, arguments: list[Tensor], tangents: list[Tensor | None]) -> Sequence[Tensor]:
    """Derivatives of <tangents, adjoint> in the adjoint's arguments, differentiable again."""
    row_ptr, sender, _ = (torch.from_numpy(array) for array in call.graph)
    track = torch.is_grad_enabled()
    with torch.enable_grad():
        gs, gv, *inputs = views(arguments)
        s, basis, u, *weights = inputs
        layers = _layers(weights, call.layers)
        out = reference.blocks(s, basis, u, weights[: call.layers], layers, call.epsilon, row_ptr, sender)
        first = torch.autograd.grad(out, inputs, (gs, gv), create_graph=True, materialize_grads=True)
        moved = [(g, t) for g, t in zip(first, tangents, strict=True) if t is not None]
        return torch.autograd.grad(
            [g for g, _ in moved], (gs, gv, *inputs), [t for _, t in moved], create_graph=track, materialize_grads=True
        )


def _graph(call: _Call, basis: Tensor, u: Tensor) -> cpu.Graph:
    return cpu.Graph(*(t.detach().contiguous().numpy() for t in (basis, u)), *call.graph)


def _layers(weights: Sequence[Any], layers: int) -> list[Weights]:
    return [Weights(*weights[k : k + 9]) for k in range(layers, len(weights), 9)]


def _panels(weights: Sequence[Tensor], layers: int) -> cpu.Panels:
    """Weights as the way forward reads them."""
    arrays = [t.detach().contiguous().numpy() for t in weights]

    def packed(name: str) -> tuple[np.ndarray, ...]:
        return tuple(pack(getattr(layer, name).T) for layer in _layers(arrays, layers))

    def plain(name: str) -> tuple[np.ndarray, ...]:
        return tuple(getattr(layer, name) for layer in _layers(arrays, layers))

    names = ("message_1", "message_2", "update_1", "update_2")
    return cpu.Panels(
        filter=tuple(pack(w) for w in arrays[:layers]),
        mix=packed("mix"),
        zero=np.zeros(arrays[0].shape[1], arrays[0].dtype),
        **{name: packed(name) for name in names},
        **{f"{name}_bias": plain(f"{name}_bias") for name in names},
    )


def _linear(weights: Sequence[Tensor], layers: int, columns: int) -> cpu.Linear:
    """Weights as the way back reads them; filters transposed, with as many columns as the basis has."""
    arrays = [t.detach().contiguous().numpy() for t in weights]
    filters = []
    for w in arrays[:layers]:
        filters.append(np.zeros((w.shape[1], columns), w.dtype))
        filters[-1][:, : len(w)] = w.T
    return _by_name(filters, _layers(arrays, layers))


def _gradients(flat: np.ndarray, weights: Sequence[Tensor], layers: int) -> cpu.Linear:
    """Views of a gradient in the shapes of the weights; empty ones if it is."""
    arrays, start = [], 0
    for t in weights:
        shape = tuple(t.shape) if len(flat) else (0,) * t.ndim
        size = t.numel() if len(flat) else 0
        arrays.append(flat[start : start + size].reshape(shape))
        start += size
    return _by_name(arrays[:layers], _layers(arrays, layers))


def _by_name(filters: Sequence[np.ndarray], layers: Sequence[Weights]) -> cpu.Linear:
    rest = {name: tuple(getattr(layer, name) for layer in layers) for name in Weights._fields}
    return cpu.Linear(filter=tuple(filters), **rest)
