"""The message as a torch operation, differentiable as often as wanted; twice without anything of size E x F."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad

from painn_fast.kernels.dense.cpu import pack
from painn_fast.kernels.message import basis_cpu
from painn_fast.kernels.message.reference import message_of_filter
from painn_fast.kernels.radial.reference import Radial, filter_basis
from painn_fast.kernels.vector import LANES

SMALLEST = 32
"""Atoms below which a second thread costs more than it brings."""


class Edges(NamedTuple):
    """What messages of all layers share: geometry and graph."""

    basis: Tensor  # [E, K] radial basis times cut-off; the last used column carries the bias
    u: Tensor  # [E, 3]
    row_ptr: Tensor  # [N + 1] rows of receivers
    sender: Tensor  # [E]
    mirror: Tensor  # [E] index of each edge's opposite


def edges(r: Tensor, radial: Radial, row_ptr: Tensor, sender: Tensor, mirror: Tensor) -> Edges:
    """Prepare edge vectors r [E, 3], from receiver to sender, for `message`; differentiable in r."""
    d = torch.linalg.vector_norm(r, dim=1)
    basis = filter_basis(d, radial)
    return Edges(pad(basis, (0, -basis.shape[1] % LANES)), r / d[:, None], row_ptr, sender, mirror)


def message(x: Tensor, v: Tensor, weight: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
    """ds_i = sum_j a_ij, dv_i = sum_j (b_ij u_ij + c_ij v_j) with (a, b, c)_ij = x_j * w(d_ij).

    Args:
        x: [N, 3 F].
        v: [N, 3, F].
        weight: [K + 1, 3 F] of the filter, its bias in the last row.
        edges: what `edges` gives.

    Returns:
        ds [N, F], dv [N, 3, F].
    """
    f = v.shape[-1]
    missing = -f % LANES
    if missing:
        x, weight = (pad(t.unflatten(1, (3, f)), (0, missing)).flatten(1) for t in (x, weight))
        v = pad(v, (0, missing))
    ds, dv = _Message.apply(x, v, edges.basis, weight, edges.u, *edges[2:])
    return (ds[..., :f], dv[..., :f]) if missing else (ds, dv)


class _Message(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, basis: Tensor, weight: Tensor, u: Tensor, *graph: Tensor) -> Any:
        ctx.save_for_backward(x, v, basis, weight, u, *graph)
        return _message(x, v, basis, weight, u, *graph)

    @staticmethod
    def backward(ctx: Any, gs: Tensor, gv: Tensor) -> Any:
        return *_Adjoint.apply(gs, gv, *ctx.saved_tensors), None, None, None


class _Adjoint(Function):
    @staticmethod
    def forward(ctx: Any, gs: Tensor, gv: Tensor, *inputs: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gs, gv, *inputs)
        return _adjoint(gs, gv, *inputs)

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor | None) -> Any:
        if torch.is_grad_enabled():  # a third derivative is wanted
            return *_differentiable(ctx.saved_tensors, tangents), None, None, None
        return *_double_backward(*ctx.saved_tensors, tangents), None, None, None


def _differentiable(saved: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """The double backward in operations that torch can differentiate again."""
    row_ptr, sender = saved[7:9]
    receiver = torch.repeat_interleave(torch.arange(len(row_ptr) - 1, device=row_ptr.device), row_ptr.diff())
    # views, so that derivatives in one do not go through another that depends on it
    gs, gv, *inputs = (t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in saved[:7])
    outer = (gs, gv)
    x, v, basis, weight, u = inputs
    ds, dv = message_of_filter(x, v, basis[:, : len(weight)] @ weight, u, receiver, sender)
    first = torch.autograd.grad((ds, dv), inputs, outer, create_graph=True)
    moved = [(g, t) for g, t in zip(first, tangents, strict=True) if t is not None]
    return torch.autograd.grad(
        [g for g, _ in moved], (*outer, *inputs), [t for _, t in moved], create_graph=True, materialize_grads=True
    )


def _message(
    x: Tensor, v: Tensor, basis: Tensor, weight: Tensor, u: Tensor, row_ptr: Tensor, sender: Tensor, mirror: Tensor
) -> tuple[Tensor, Tensor]:
    x_, v_, basis_, u_ = _arrays(x, v.flatten(1), basis, u)
    ds, dv = x.new_empty(x.shape[0], v.shape[2]), v.new_empty(v.shape)
    graph = row_ptr.numpy(), sender.numpy()
    arguments = x_, v_, basis_, *_packed(weight), u_, *graph
    out = ds.numpy(), dv.flatten(1).numpy()
    _run(basis_cpu.message, arguments, [(part, out) for part in _parts(len(x))])
    return ds, dv


def _adjoint(gs: Tensor, gv: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    x, v, basis, weight, u = inputs[:5]
    given = _arrays(gs, gv.flatten(1), x, v.flatten(1), basis)
    panels, zero = _packed(weight)
    return _sender_pass(basis_cpu.adjoint, [*given, panels, _transposed(weight, basis)], [zero, *_arrays(u)], inputs)


def _double_backward(gs: Tensor, gv: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Derivatives of <tangents, adjoint> in gs, gv and in all that the adjoint depends on."""
    *inputs, tangents = rest
    x, v, basis, weight, u = inputs[:5]
    moved = [torch.zeros_like(i) if t is None else t for i, t in zip(inputs[:5], tangents, strict=True)]
    tx, tv, t_basis, t_weight, tu = moved
    panels, zero = _packed(weight)
    both = torch.cat([weight, t_weight], dim=1)  # side by side: the transpose has one above the other
    t_panels = panels
    if tangents[3] is not None:
        t_basis = torch.cat([t[:, : len(weight)] for t in (t_basis, basis)], dim=1)
        t_panels = _packed(torch.cat([weight, t_weight]))[0]
    x_, v_, basis_, u_ = _arrays(x, v.flatten(1), basis, u)
    tx_, tv_, t_basis_, tu_ = _arrays(tx, tv.flatten(1), t_basis, tu)
    ds, dv = torch.empty_like(x[:, : v.shape[2]], memory_format=torch.contiguous_format), v.new_empty(v.shape)
    graph = inputs[5].numpy(), inputs[6].numpy()
    arguments = x_, v_, basis_, panels, zero, u_, tx_, tv_, t_basis_, t_panels, tu_, *graph
    out = ds.numpy(), dv.flatten(1).numpy()
    _run(basis_cpu.message_tangent, arguments, [(part, out) for part in _parts(len(x))])
    given = [*_arrays(gs, gv.flatten(1)), x_, v_, basis_, panels, _transposed(weight, basis)]
    after = [zero, u_, tx_, tv_, t_basis_, t_panels, _transposed(both, basis), tu_]
    return ds, dv, *_sender_pass(basis_cpu.adjoint_tangent, given, after, inputs)


def _sender_pass(kernel: Any, before: list[Any], after: list[Any], inputs: Any) -> tuple[Tensor, ...]:
    """Run an adjoint kernel; each part of the rows has its own sum for the weight, added in order."""
    x, v, basis, weight, u = inputs[:5]
    mirror = inputs[7]
    gx, gv, rows, gu = x.new_empty(x.shape), v.new_empty(v.shape), basis.new_empty(basis.shape), u.new_empty(u.shape)
    parts = _parts(len(x))
    sums = weight.new_zeros(len(parts), *weight.shape)
    arguments = [*before, *after, *(t.numpy() for t in inputs[5:8])]
    outputs = [
        (part, (gx.numpy(), gv.flatten(1).numpy(), rows.numpy(), sums[k].numpy(), gu.numpy()))
        for k, part in enumerate(parts)
    ]
    _run(kernel, arguments, outputs)
    return gx, gv, rows[mirror], sums.sum(dim=0), gu


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Kernels take plain memory; a gradient may be a stride-0 view."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _packed(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Panels of a matrix, and the bias that it has not."""
    array = weight.detach().numpy()
    return pack(array), np.zeros(array.shape[1], array.dtype)


def _transposed(weight: Tensor, basis: Tensor) -> np.ndarray:
    """Panels of the transpose of a weight [K, .], with columns for all those of the basis."""
    return pack(pad(weight.detach().T, (0, basis.shape[1] - len(weight))).numpy())


def _parts(atoms: int) -> list[tuple[int, int]]:
    """Ranges of rows for the threads; two halves of a large batch whatever the threads, so that sums have one order."""
    if atoms < 2 * SMALLEST:
        return [(0, atoms)]
    return [(0, atoms // 2), (atoms // 2, atoms)]


def _run(kernel: Any, arguments: Any, parts: list[Any]) -> None:
    def call(part: Any) -> None:
        rows, outputs = part
        kernel(*arguments, *rows, *outputs)

    if len(parts) == 1 or torch.get_num_threads() == 1:
        for part in parts:
            call(part)
    else:
        list(_pool().map(call, parts))


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)
