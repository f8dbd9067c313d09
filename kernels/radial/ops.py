"""What edges bring to every message, from their vectors, as one torch operation: radial basis and direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad

from painn_fast.kernels.derivatives import views, wanted
from painn_fast.kernels.radial.reference import Radial, filter_basis
from painn_fast.kernels.radial.slopes import filter_basis_and_slope


def basis_and_direction(r: Tensor, radial: Radial, columns: int, *, once: bool = False) -> tuple[Tensor, Tensor]:
    """Basis [E, columns] of the filter, with zeros behind the bias, and u [E, 3] = r / |r|, to any order.

    Args:
        r: [E, 3].
        once: nobody wants a second derivative in r, though r requires a gradient (see `blocks`).
    """
    if torch.compiler.is_compiling():
        return _plain(r, radial, columns)
    basis, u = _Geometry.apply(radial, columns, once, r)
    return basis, u


def _plain(r: Tensor, radial: Radial, columns: int) -> tuple[Tensor, Tensor]:
    d = torch.linalg.vector_norm(r, dim=1)
    basis = filter_basis(d, radial)
    return pad(basis, (0, columns - basis.shape[1])), r / d[:, None]


class _Geometry(Function):
    @staticmethod
    def forward(ctx: Any, radial: Radial, columns: int, once: bool, r: Tensor) -> Any:
        d = torch.linalg.vector_norm(r, dim=1)
        basis, slope = (pad(t, (0, columns - t.shape[1])) for t in filter_basis_and_slope(d, radial))
        u = r / d[:, None]
        ctx.given = radial, columns, once
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(r, d, u, slope)
        return basis, u

    @staticmethod
    def backward(ctx: Any, g_basis: Tensor | None, gu: Tensor | None) -> Any:
        r, d, u, slope = ctx.saved_tensors
        g_basis = torch.zeros_like(slope) if g_basis is None else g_basis
        gu = torch.zeros_like(u) if gu is None else gu
        return None, None, None, _Adjoint.apply(ctx.given, d, u, slope, g_basis, gu, r)


class _Adjoint(Function):
    """gr = gd u + (gu - <gu, u> u) / d with gd = <g_basis, basis'>."""

    @staticmethod
    def forward(
        ctx: Any, given: Any, d: Tensor, u: Tensor, slope: Tensor, g_basis: Tensor, gu: Tensor, r: Tensor
    ) -> Tensor:
        ctx.given = given
        ctx.save_for_backward(d, u, slope, g_basis, gu, r)
        d = d[:, None]
        along = torch.linalg.vecdot(g_basis, slope)[:, None] - torch.linalg.vecdot(gu, u)[:, None] / d
        return along * u + gu / d

    @staticmethod
    def backward(ctx: Any, t: Tensor) -> Any:
        d, u, slope, g_basis, gu, r = ctx.saved_tensors
        radial, columns, once = ctx.given
        if torch.is_grad_enabled() or (not once and wanted(ctx.next_functions[5][0])):
            return None, None, None, None, *_by_torch(radial, columns, (g_basis, gu, r), t)
        along = torch.linalg.vecdot(t, u)[:, None]
        return None, None, None, None, along * slope, (t - along * u) / d[:, None], None


def _by_torch(radial: Radial, columns: int, arguments: tuple[Tensor, ...], t: Tensor) -> tuple[Tensor, ...]:
    """Derivatives of <t, gr> in g_basis, gu and r, differentiable again."""
    track = torch.is_grad_enabled()
    with torch.enable_grad():
        g_basis, gu, r = views(arguments)
        (gr,) = torch.autograd.grad(_plain(r, radial, columns), r, (g_basis, gu), create_graph=True)
        return torch.autograd.grad(gr, (g_basis, gu, r), t, create_graph=track, materialize_grads=True)
