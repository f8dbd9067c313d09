"""The message as a torch operation, differentiable as often as wanted; twice without anything of size E x F.

`edges` and `message` are for any device; below them is the CPU, `ops_triton.py` has the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn.functional import pad

from painn_fast.kernels import threads
from painn_fast.kernels.dense.cpu import pack
from painn_fast.kernels.derivatives import views
from painn_fast.kernels.message import edges_cpu, ops_triton
from painn_fast.kernels.message.ops_triton import GpuEdges
from painn_fast.kernels.message.reference import message_of_filter
from painn_fast.kernels.radial.ops import basis_and_direction
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.simd import LANES

SMALLEST = 32
"""Atoms below which a second thread costs more than it brings."""


class Edges(NamedTuple):
    """What messages of all layers share on a CPU: geometry and graph."""

    basis: Tensor  # [E, K] radial basis times cut-off; the last used column carries the bias
    u: Tensor  # [E, 3]
    row_ptr: Tensor  # [N + 1] rows of receivers
    sender: Tensor  # [E]
    mirror: Tensor  # [E] index of each edge's opposite


def edges(
    r: Tensor, radial: Radial, row_ptr: Tensor, sender: Tensor, mirror: Tensor, *, once: bool = False
) -> Edges | GpuEdges:  # fmt: skip
    """Prepare edge vectors r [E, 3], from receiver to sender, for `message`; differentiable in r.

    `once`: nobody wants second derivatives in r.
    """
    make = BACKENDS[r.device.type]
    graph = r, radial, row_ptr, sender, mirror
    return GpuEdges(*graph) if make is GpuEdges else make(*graph, once=once)


def message(x: Tensor, v: Tensor, weight: Tensor, edges: Edges | GpuEdges) -> tuple[Tensor, Tensor]:
    """ds_i = sum_j a_ij, dv_i = sum_j (b_ij u_ij + c_ij v_j) with (a, b, c)_ij = x_j * w(d_ij).

    Args:
        x: [N, 3 F].
        v: [N, 3, F].
        weight: [K + 1, 3 F] of the filter, its bias in the last row.
        edges: what `edges` gives.

    Returns:
        ds [N, F], dv [N, 3, F].
    """
    if isinstance(edges, GpuEdges):
        return ops_triton.message(x, v, weight, edges)
    return message_on_cpu(x, v, weight, edges)


def edges_on_cpu(
    r: Tensor, radial: Radial, row_ptr: Tensor, sender: Tensor, mirror: Tensor, *, once: bool = False
) -> Edges:  # fmt: skip
    """Basis and directions, once for all layers."""
    columns = radial.first.numel() + 1
    columns += -columns % LANES
    return Edges(*basis_and_direction(r, radial, columns, once=once), row_ptr, sender, mirror)


BACKENDS: dict[str, Callable[..., Edges | GpuEdges]]
BACKENDS = {"cpu": edges_on_cpu} | ({"cuda": GpuEdges} if find_spec("triton") else {})
"""What `edges` makes, by type of device."""


def message_on_cpu(x: Tensor, v: Tensor, weight: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
    """As `message`; features are padded to whole vectors of the processor."""
    f = v.shape[-1]
    missing = -f % LANES
    if missing:
        x, weight = (pad(t.unflatten(1, (3, f)), (0, missing)).flatten(1) for t in (x, weight))
        v = pad(v, (0, missing))
    ds, dv = _message(x, v, edges.basis, weight, edges.u, *edges[2:])
    return (ds[..., :f], dv[..., :f]) if missing else (ds, dv)


@custom_op("painn_fast::message", mutates_args=(), device_types="cpu")
def _message(
    x: Tensor, v: Tensor, basis: Tensor, weight: Tensor, u: Tensor, row_ptr: Tensor, sender: Tensor, mirror: Tensor
) -> tuple[Tensor, Tensor]:
    ds, dv = x.new_empty(v.shape[0], v.shape[2]), v.new_empty(v.shape)
    x_, v_, basis_, u_ = _arrays(x, v.flatten(1), basis, u)
    arguments = x_, v_, basis_, *_packed(weight), u_, *_arrays(row_ptr, sender, mirror), _alone(len(x))
    out = ds.numpy(), dv.flatten(1).numpy()
    _run(edges_cpu.message, arguments, [(part, out) for part in _parts(len(x))])
    return ds, dv


@_message.register_fake
def _(x: Tensor, v: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(v.shape[0], v.shape[2]), v.new_empty(v.shape)


@custom_op("painn_fast::message_adjoint", mutates_args=(), device_types="cpu")
def _adjoint(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, basis: Tensor, weight: Tensor, u: Tensor, row_ptr: Tensor,
    sender: Tensor, mirror: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Adjoints of x, v, basis, weight and u."""
    given = _arrays(gs, gv.flatten(1), x, v.flatten(1), basis)
    panels, zero = _packed(weight)
    (transposed,) = _arrays(pad(weight.detach().T, (0, basis.shape[1] - len(weight))))
    before, after = [*given, panels, transposed, zero, *_arrays(u)], [True, True]
    return _sender_pass(edges_cpu.adjoint, before, after, (x, v, basis, weight, u), (row_ptr, sender, mirror))


@_adjoint.register_fake
def _(gs: Tensor, gv: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in inputs[:5])


@custom_op("painn_fast::message_double_backward", mutates_args=(), device_types="cpu")
def _double_backward(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, basis: Tensor, weight: Tensor, u: Tensor, row_ptr: Tensor,
    sender: Tensor, mirror: Tensor, tx: Tensor, tv: Tensor, t_basis: Tensor, t_weight: Tensor | None, tu: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Derivatives of <tangents, adjoint> in gs, gv and in all that the adjoint depends on."""
    panels, zero = _packed(weight)
    t_panels, both = panels, torch.cat([weight, torch.zeros_like(weight)], dim=1)
    if t_weight is not None:
        t_basis = torch.cat([t[:, : len(weight)] for t in (t_basis, basis)], dim=1)
        t_panels, both = _packed(torch.cat([weight, t_weight]))[0], torch.cat([weight, t_weight], dim=1)
    x_, v_, basis_, u_ = _arrays(x, v.flatten(1), basis, u)
    tx_, tv_, t_basis_, tu_ = _arrays(tx, tv.flatten(1), t_basis, tu)
    ds, dv = x.new_empty(v.shape[0], v.shape[2]), v.new_empty(v.shape)
    arguments = x_, v_, basis_, panels, zero, u_, tx_, tv_, t_basis_, t_panels, tu_, *_arrays(row_ptr, sender)
    arguments = *arguments, *_arrays(mirror), _alone(len(x))
    out = ds.numpy(), dv.flatten(1).numpy()
    _run(edges_cpu.message_tangent, arguments, [(part, out) for part in _parts(len(x))])
    before = [*_arrays(gs, gv.flatten(1)), x_, v_, basis_, panels, _transposed(weight, basis)]
    before += [zero, u_, tx_, tv_, t_basis_, t_panels, _transposed(both, basis), tu_]
    inputs = (x, v, basis, weight, u)
    return ds, dv, *_sender_pass(edges_cpu.adjoint_tangent, before, [], inputs, (row_ptr, sender, mirror))


@_double_backward.register_fake
def _(*inputs: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in inputs[:7] if t is not None)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _message_backward(ctx: Any, gs: Tensor | None, gv: Tensor | None) -> Any:
    x, v, *rest = ctx.saved_tensors
    gs = x.new_zeros(v.shape[0], v.shape[2]) if gs is None else gs
    gv = torch.zeros_like(v) if gv is None else gv
    return *_adjoint(gs, gv, x, v, *rest), None, None, None


def _adjoint_backward(ctx: Any, *tangents: Tensor | None) -> Any:
    saved = ctx.saved_tensors
    tx, tv, t_basis, t_weight, tu = (
        torch.zeros_like(i) if t is None and k != 3 else t
        for k, (i, t) in enumerate(zip(saved[2:7], tangents, strict=True))
    )
    return *_double_backward(*saved, tx, tv, t_basis, t_weight, tu), None, None, None


def _third(ctx: Any, *outer: Tensor | None) -> Any:
    """The derivative of the double backward, in operations that torch can differentiate again."""
    saved = ctx.saved_tensors
    with torch.enable_grad():
        arguments = [views([t])[0] if t is not None and t.is_floating_point() else t for t in saved]
        results = _differentiable(arguments)
        given = [(r, g) for r, g in zip(results, outer, strict=True) if g is not None]
        wanted = [t for t in arguments if t is not None and t.is_floating_point()]
        gradients = iter(
            torch.autograd.grad(
                [r for r, _ in given], wanted, [g for _, g in given], create_graph=True, materialize_grads=True
            )
        )
    return tuple(next(gradients) if t is not None and t.is_floating_point() else None for t in arguments)


def _differentiable(arguments: list[Tensor]) -> tuple[Tensor, ...]:
    """`_double_backward` in plain torch."""
    gs, gv, x, v, basis, weight, u, row_ptr, sender, _, *tangents = arguments
    receiver = torch.repeat_interleave(torch.arange(len(row_ptr) - 1, device=row_ptr.device), row_ptr.diff())
    inputs = (x, v, basis, weight, u)
    ds, dv = message_of_filter(x, v, basis[:, : len(weight)] @ weight, u, receiver, sender)
    first = torch.autograd.grad((ds, dv), inputs, (gs, gv), create_graph=True)
    moved = [(g, t) for g, t in zip(first, tangents, strict=True) if t is not None]
    return torch.autograd.grad(
        [g for g, _ in moved], (gs, gv, *inputs), [t for _, t in moved], create_graph=True, materialize_grads=True
    )


_message.register_autograd(_message_backward, setup_context=_save)
_adjoint.register_autograd(_adjoint_backward, setup_context=_save)
_double_backward.register_autograd(_third, setup_context=_save)


def _sender_pass(
    kernel: Any, before: list[Any], after: list[Any], inputs: tuple[Tensor, ...], graph: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run an adjoint kernel; each part of the rows has its own sum for the weight, added in order."""
    gx, gv, g_basis, g_weight, gu = (t.new_zeros(t.shape) for t in inputs)
    parts = _parts(len(gx))
    sums = g_weight.new_zeros(len(parts), *g_weight.shape)
    outputs = [
        (part, (gx.numpy(), gv.flatten(1).numpy(), g_basis.numpy(), sums[k].numpy(), gu.numpy()))
        for k, part in enumerate(parts)
    ]
    _run(kernel, [*before, *_arrays(*graph), _alone(len(gx)), *after], outputs)
    return gx, gv, g_basis, torch.sum(sums, dim=0), gu


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Kernels take plain memory; a gradient may be a stride-0 view."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _alone(atoms: int) -> np.ndarray:
    """`ends` of rows each on its own: the bases of an edge and its mirror are two inputs."""
    return np.arange(1, atoms + 1)


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
    threads.run(lambda part, _: kernel(*arguments, *part[0], *part[1]), parts)
