"""The update block as two torch operations, differentiable to any order; on a GPU by kernels, up to the second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from painn_fast.kernels.derivatives import views
from painn_fast.kernels.update import reference


def norm(s: Tensor, vw: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Context [N, 2 F] = (s, sqrt(|V|^2 + epsilon)) and dot [N, F] = <V, W>.

    Args:
        s: [N, F].
        vw: [N, 3, 2 F], V and W side by side.
        epsilon: inside the root.
    """
    run = _backend(s, vw)
    return reference.norm(s, vw, epsilon) if run is None else _Norm.apply(run, s, vw, epsilon)


def gate(s: Tensor, v: Tensor, y: Tensor, vw: Tensor, dot: Tensor) -> tuple[Tensor, Tensor]:
    """s + A + G <V, W> and v + B W.

    Args:
        s: [N, F].
        v: [N, 3, F].
        y: [N, 3 F] = (A, B, G).
        vw: [N, 3, 2 F], V and W side by side.
        dot: [N, F] = <V, W>.
    """
    run = _backend(s, v, y, vw, dot)
    return reference.gate(s, v, y, vw, dot) if run is None else _Gate.apply(run, s, v, y, vw, dot)


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, run: Run, s: Tensor, vw: Tensor, epsilon: float) -> Any:
        ctx.save_for_backward(vw)
        ctx.run, ctx.epsilon = run, epsilon
        n, f = s.shape
        outputs = s.new_empty(n, 2 * f), s.new_empty(n, f)
        run("norm", s, vw, epsilon, *outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, g_context: Tensor, g_dot: Tensor) -> Any:
        return None, *_NormAdjoint.apply(ctx.run, g_context, g_dot, *ctx.saved_tensors, ctx.epsilon), None


class _NormAdjoint(Function):
    @staticmethod
    def forward(ctx: Any, run: Run, g_context: Tensor, g_dot: Tensor, vw: Tensor, epsilon: float) -> Any:
        ctx.save_for_backward(g_context, g_dot, vw)
        ctx.run, ctx.epsilon = run, epsilon
        outputs = g_dot.new_empty(g_dot.shape), vw.new_empty(vw.shape)
        run("norm_adjoint", g_context, g_dot, vw, epsilon, *outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, ts: Tensor, t_vw: Tensor) -> Any:
        saved: Any = ctx.saved_tensors
        if torch.is_grad_enabled():  # a third derivative is requested

            def adjoint(g_context: Tensor, g_dot: Tensor, vw: Tensor) -> Sequence[Tensor]:
                s = torch.zeros_like(g_dot)
                return _adjoint(lambda s, vw: reference.norm(s, vw, ctx.epsilon), (s, vw), (g_context, g_dot))

            return None, *_adjoint(adjoint, saved, (ts, t_vw)), None
        outputs = [tensor.new_empty(tensor.shape) for tensor in saved]
        ctx.run("norm_second", *saved, ctx.epsilon, ts, t_vw, *outputs)
        return None, *outputs, None


class _Gate(Function):
    @staticmethod
    def forward(ctx: Any, run: Run, s: Tensor, v: Tensor, y: Tensor, vw: Tensor, dot: Tensor) -> Any:
        ctx.save_for_backward(y, vw, dot)
        ctx.run = run
        outputs = s.new_empty(s.shape), v.new_empty(v.shape)
        run("gate", s, v, y, vw, dot, *outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, gs: Tensor, gv: Tensor) -> Any:
        return None, gs, gv, *_GateAdjoint.apply(ctx.run, gs, gv, *ctx.saved_tensors)


class _GateAdjoint(Function):
    @staticmethod
    def forward(ctx: Any, run: Run, gs: Tensor, gv: Tensor, y: Tensor, vw: Tensor, dot: Tensor) -> Any:
        ctx.save_for_backward(gs, gv, y, vw, dot)
        ctx.run = run
        outputs = [tensor.new_empty(tensor.shape) for tensor in (y, vw, dot)]
        run("gate_adjoint", gs, gv, y, vw, dot, *outputs)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, ty: Tensor, t_vw: Tensor, t_dot: Tensor) -> Any:
        saved: Any = ctx.saved_tensors
        if torch.is_grad_enabled():  # a third derivative is requested

            def adjoint(gs: Tensor, gv: Tensor, *inputs: Tensor) -> Sequence[Tensor]:
                s, v = torch.zeros_like(gs), torch.zeros_like(gv)
                return _adjoint(lambda *given: reference.gate(s, v, *given), inputs, (gs, gv))

            return None, *_adjoint(adjoint, saved, (ty, t_vw, t_dot))
        outputs = [tensor.new_empty(tensor.shape) for tensor in saved]
        ctx.run("gate_second", *saved, ty, t_vw, t_dot, *outputs)
        return None, *outputs


def _adjoint(function: Callable[..., Any], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Sequence[Tensor]:
    """Adjoints of the inputs by torch, differentiable again."""
    aliases = views(inputs)  # an input may depend on another, and these are partial derivatives
    return torch.autograd.grad(function(*aliases), aliases, cotangents, create_graph=True, materialize_grads=True)


Run = Callable[..., None]
"""Runs a kernel by its name; outputs come last."""


def _backend(*tensors: Tensor) -> Run | None:
    """What runs the kernels where these tensors are; None for plain torch, which torch.compile fuses by itself."""
    dtype, device = tensors[0].dtype, tensors[0].device
    if (
        torch.compiler.is_compiling()
        or dtype not in DTYPES
        or any(t.dtype != dtype or t.device != device for t in tensors[1:])
    ):
        return None
    return KERNELS.get(device.type)


def on_gpu(name: str, *arguments: Tensor | float) -> None:
    """Run a Triton kernel; inputs may have any strides."""
    from painn_fast.kernels.update import triton_training

    getattr(triton_training, name)(*(a.detach().contiguous() if isinstance(a, Tensor) else a for a in arguments))


DTYPES = (torch.float32, torch.float64)
KERNELS: dict[str, Run] = {"cuda": on_gpu} if find_spec("triton") else {}
"""By type of device."""
