"""The message as a torch operation on a GPU: any order of derivative, up to the second by kernels without E x F."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import custom_op

from painn_fast.kernels.derivatives import views, wanted
from painn_fast.kernels.message.reference import message as reference
from painn_fast.kernels.radial.reference import Radial


class Edges(NamedTuple):
    """What messages of all layers share; the kernels compute radial functions and directions."""

    r: Tensor  # [E, 3] from receiver to sender
    radial: Radial
    row_ptr: Tensor  # [N + 1] rows of receivers
    sender: Tensor  # [E]
    mirror: Tensor  # [E] index of each edge's opposite


def message(x: Tensor, v: Tensor, weight: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
    """ds_i = sum_j a_ij, dv_i = sum_j (b_ij u_ij + c_ij v_j) with (a, b, c)_ij = x_j * w(d_ij).

    Args:
        x: [N, 3 F].
        v: [N, 3, F].
        weight: [K + 1, 3 F] of the filter, its bias in the last row.
        edges: vectors, graph and functions of the filter.

    Returns:
        ds [N, F], dv [N, 3, F].
    """
    r, radial, *graph = edges
    functions = radial.basis, radial.cutoff_function, float(radial.cutoff), float(radial.switch_on)
    ds, dv = _message(x, v, r, weight, *graph, radial.first, radial.widths, *functions)
    return ds, dv


@custom_op("painn_fast::message_gpu", mutates_args=())
def _message(
    x: Tensor, v: Tensor, r: Tensor, weight: Tensor, row_ptr: Tensor, sender: Tensor, mirror: Tensor, first: Tensor,
    widths: Tensor, basis: str, cutoff_function: str, cutoff: float, switch_on: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from painn_fast.kernels.message.triton import message_fwd

    radial = Radial(basis, first, widths, cutoff_function, cutoff, switch_on)
    return message_fwd(x, v, r, weight, radial, row_ptr, sender)


@_message.register_fake
def _(x: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(v.shape[0], v.shape[2]), v.new_empty(v.shape)


@custom_op("painn_fast::message_gpu_adjoint", mutates_args=())
def _adjoint(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, r: Tensor, weight: Tensor, row_ptr: Tensor, sender: Tensor,
    mirror: Tensor, first: Tensor, widths: Tensor, basis: str, cutoff_function: str, cutoff: float, switch_on: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Adjoints of x, v and r."""
    from painn_fast.kernels.message.triton_adjoint import message_bwd

    radial = Radial(basis, first, widths, cutoff_function, cutoff, switch_on)
    gx, gv_in, gr = message_bwd(gs, gv, x, v, r, weight, radial, row_ptr, sender, mirror)
    assert gv_in is not None  # vectors are not left out
    return gx, gv_in, gr


@_adjoint.register_fake
def _(gs: Tensor, gv: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in inputs[:3])


@custom_op("painn_fast::message_gpu_weight_adjoint", mutates_args=())
def _weight_adjoint(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, r: Tensor, row_ptr: Tensor, sender: Tensor, mirror: Tensor,
    first: Tensor, widths: Tensor, basis: str, cutoff_function: str, cutoff: float, switch_on: float,
) -> Tensor:  # fmt: skip
    """Adjoint of the weight, which the message is linear in."""
    from painn_fast.kernels.message.triton_adjoint import message_weight_bwd

    radial = Radial(basis, first, widths, cutoff_function, cutoff, switch_on)
    return message_weight_bwd(gs, gv, x, v, r, radial, row_ptr, sender)


@_weight_adjoint.register_fake
def _(gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, r: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(rest[3].shape[0] + 1, x.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.set_materialize_grads(False)
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.functions = inputs[len(tensors) :]


def _message_backward(ctx: Any, gs: Tensor | None, gv: Tensor | None) -> Any:
    x, v, r, weight, *graph = ctx.saved_tensors
    rest = (*graph, *ctx.functions)
    gs = x.new_zeros(v.shape[0], v.shape[2]) if gs is None else gs
    gv = torch.zeros_like(v) if gv is None else gv
    of_inputs = _adjoint(gs, gv, x, v, r, weight, *rest) if _wanted(ctx, 0, 1, 2) else (None, None, None)
    of_weight = _weight_adjoint(gs, gv, x, v, r, *rest) if _wanted(ctx, 3) else None
    return *of_inputs, of_weight, *[None] * len(rest)


def _adjoint_backward(ctx: Any, tx: Tensor | None, tv: Tensor | None, tr: Tensor | None) -> Any:
    """Along tangents t of x, v and r; see the double backward of README.md."""
    gs, gv, x, v, r, weight, row_ptr, sender, mirror, first, widths = ctx.saved_tensors
    basis, *others = ctx.functions
    graph, moved = (Radial(basis, first, widths, *others), row_ptr, sender), (tx, tv, tr)
    rest = [None] * 9
    if all(t is None for t in moved):
        return *[None] * 6, *rest
    if torch.is_grad_enabled():  # a third derivative is requested
        return *_along_in_torch([gs, gv, x, v, r, weight], moved, *graph), *rest
    from painn_fast.kernels.message import triton_second as kernels

    of_adjoints: Any = None, None
    of_inputs: Any = None, None, None
    of_weight = None
    if _wanted(ctx, 0, 1):
        of_adjoints = kernels.message_tangent(x, v, r, weight, *moved, None, *graph)
    if _wanted(ctx, 2, 3, 4):
        of_inputs = kernels.message_bwd_tangent(gs, gv, x, v, r, weight, *moved, None, *graph, mirror)
    if _wanted(ctx, 5):
        of_weight = kernels.message_weight_bwd_tangent(gs, gv, x, v, r, *moved, *graph)
    return *of_adjoints, *of_inputs, of_weight, *rest


def _weight_adjoint_backward(ctx: Any, t_weight: Tensor | None) -> Any:
    """<t_weight, adjoint of the weight> is the scalar L of README.md with t_weight for the weight."""
    gs, gv, x, v, r, *graph = ctx.saved_tensors
    rest = (*graph, *ctx.functions)
    if t_weight is None:
        return *[None] * 5, *[None] * len(rest)
    of_adjoints = _message(x, v, r, t_weight, *rest) if _wanted(ctx, 0, 1) else (None, None)
    of_inputs = _adjoint(gs, gv, x, v, r, t_weight, *rest) if _wanted(ctx, 2, 3, 4) else (None, None, None)
    return *of_adjoints, *of_inputs, *[None] * len(rest)


def _wanted(ctx: Any, *inputs: int) -> bool:
    """Whether this backward pass has a use for the gradient of any of these inputs; forces have none for the weight."""
    return any(wanted(ctx.next_functions[k][0]) for k in inputs)


def _along_in_torch(
    given: list[Tensor], tangents: tuple[Tensor | None, ...], radial: Radial, row_ptr: Tensor, sender: Tensor
) -> tuple[Tensor, ...]:
    """Derivatives of <tangents, adjoint> in gs, gv, x, v, r, weight, in operations that torch can differentiate."""
    gs, gv, x, v, r, weight = leaves = views(given)
    receiver = torch.repeat_interleave(torch.arange(len(row_ptr) - 1, device=row_ptr.device), row_ptr.diff())
    first, widths = radial.first.to(r.dtype), radial.widths.to(r.dtype)
    functions = Radial(radial.basis, first, widths, radial.cutoff_function, radial.cutoff, radial.switch_on)
    outputs = reference(x, v, r, weight, functions, receiver, sender)
    adjoint = torch.autograd.grad(outputs, (x, v, r), (gs, gv), create_graph=True, materialize_grads=True)
    moved = [(g, t) for g, t in zip(adjoint, tangents, strict=True) if t is not None]
    return torch.autograd.grad(
        [g for g, _ in moved], leaves, [t for _, t in moved], create_graph=True, materialize_grads=True
    )


_message.register_autograd(_message_backward, setup_context=_save)
_adjoint.register_autograd(_adjoint_backward, setup_context=_save)
_weight_adjoint.register_autograd(_weight_adjoint_backward, setup_context=_save)
