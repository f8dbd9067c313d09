"""The message as a torch operation: twice differentiable in x, v, basis, weight and u."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from painn_fast.kernels.message import basis_cpu

SMALLEST = 64
"""Atoms below which a second thread costs more than it brings."""


def message(
    x: Tensor, v: Tensor, basis: Tensor, weight: Tensor, u: Tensor, row_ptr: Tensor, sender: Tensor, mirror: Tensor
) -> tuple[Tensor, Tensor]:
    """ds_i = sum_j a_ij, dv_i = sum_j (b_ij u_ij + c_ij v_j) with (a, b, c)_ij = x_j * (basis_ij weight).

    Args:
        x: [N, 3 F].
        v: [N, 3, F].
        basis: [E, K] radial basis times cut-off.
        weight: [K, 3 F].
        u: [E, 3] directions.
        row_ptr: [N + 1] rows of receivers.
        sender: [E].
        mirror: [E] index of each edge's opposite.

    Returns:
        ds [N, F], dv [N, 3, F]. Nothing of size E x F is made, forward or backward.
    """
    missing = -basis.shape[1] % 4
    if missing:
        basis, weight = pad(basis, (0, missing)), pad(weight, (0, 0, 0, missing))
    return _Message.apply(x, v, basis, weight, u, row_ptr, sender, mirror)


class _Message(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, basis: Tensor, weight: Tensor, u: Tensor, *graph: Tensor) -> Any:
        inputs = _contiguous(x, v, basis, weight, u)
        ctx.save_for_backward(x, v, basis, weight, u, *graph)
        ds, dv = torch.empty_like(inputs[1][:, 0], memory_format=torch.contiguous_format), torch.empty_like(inputs[1])
        _over_rows(basis_cpu.message, [*inputs, *graph[:2]], graph[0], [ds, dv])
        return ds, dv

    @staticmethod
    def backward(ctx: Any, gs: Tensor, gv: Tensor) -> Any:
        return *_Adjoint.apply(gs, gv, *ctx.saved_tensors), None, None, None


class _Adjoint(Function):
    @staticmethod
    def forward(ctx: Any, gs: Tensor, gv: Tensor, *inputs: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        given = _contiguous(gs, gv, *inputs[:5])
        graph = inputs[5:]
        ctx.save_for_backward(*given, *graph)
        return _sender_pass(basis_cpu.adjoint, [*given, *graph], given[2:], graph[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *tangents: Tensor | None) -> Any:
        gs, gv, *inputs = ctx.saved_tensors[:7]
        row_ptr, sender, mirror = ctx.saved_tensors[7:]
        moved = [torch.zeros_like(i) if t is None else t.contiguous() for i, t in zip(inputs, tangents, strict=True)]
        weight_moves = tangents[3] is not None
        ds, dv = torch.empty_like(gs), torch.empty_like(gv)
        _over_rows(basis_cpu.message_tangent, [*inputs, *moved, weight_moves, row_ptr, sender], row_ptr, [ds, dv])
        arguments = [gs, gv, *inputs, *moved, weight_moves, row_ptr, sender, mirror]
        return ds, dv, *_sender_pass(basis_cpu.adjoint_tangent, arguments, inputs, row_ptr), None, None, None


def _contiguous(*tensors: Tensor) -> list[Tensor]:
    """Kernels take plain memory; a gradient may be a stride-0 view."""
    return [tensor.detach().contiguous() for tensor in tensors]


def _sender_pass(kernel: Any, arguments: list[Any], like: list[Tensor], row_ptr: Tensor) -> tuple[Tensor, ...]:
    """Run an adjoint kernel; each part of the rows has its own sum for the weight, added in order."""
    x, v, basis, weight, u = (torch.empty_like(tensor) for tensor in like)
    parts = _parts(len(row_ptr) - 1)
    sums = weight.new_zeros(len(parts), *weight.shape)
    _run(kernel, arguments, parts, [[x, v, basis, sums[k], u] for k in range(len(parts))])
    return x, v, basis, sums.sum(dim=0), u


def _over_rows(kernel: Any, arguments: list[Any], row_ptr: Tensor, outputs: list[Tensor]) -> None:
    parts = _parts(len(row_ptr) - 1)
    _run(kernel, arguments, parts, [outputs] * len(parts))


def _parts(atoms: int) -> list[tuple[int, int]]:
    """Ranges of rows for the threads; two halves of a large batch whatever the threads, so that sums have one order."""
    if atoms < 2 * SMALLEST:
        return [(0, atoms)]
    return [(0, atoms // 2), (atoms // 2, atoms)]


def _run(kernel: Any, arguments: list[Any], parts: list[tuple[int, int]], outputs: list[list[Tensor]]) -> None:
    plain = [value.numpy() if isinstance(value, Tensor) else value for value in arguments]

    def call(part: int) -> None:
        kernel(*plain, *parts[part], *(tensor.numpy() for tensor in outputs[part]))

    if len(parts) == 1 or torch.get_num_threads() == 1:
        for part in range(len(parts)):
            call(part)
    else:
        list(_pool().map(call, range(len(parts))))


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)
