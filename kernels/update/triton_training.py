"""The update block on a GPU for training, out of place: `norm`, `gate`, their adjoints, and the adjoints of these."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.update.triton import case, gate_fwd_kernel, launch, put_three, three, tile
from painn_fast.kernels.update.triton import norm_fwd as norm

__all__ = ["gate", "gate_adjoint", "gate_second", "norm", "norm_adjoint", "norm_second"]


@triton.jit(do_not_specialize=["n"])
def norm_adjoint_kernel(
    p_g_context, p_g_dot, p_vw, p_gs, p_g_vw, n,
    EPSILON: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """gs and g_vw from g_context and g_dot."""
    i, c, inside = tile(n, F, ROWS, COLUMNS)
    p_g_context += i * (2 * F) + c
    tl.store(p_gs + i * F + c, tl.load(p_g_context, mask=inside, other=0.0), mask=inside)
    gn = tl.load(p_g_context + F, mask=inside, other=0.0)
    gd = tl.load(p_g_dot + i * F + c, mask=inside, other=0.0)
    a0, a1, a2 = three(p_vw, i, c, inside, 2 * F)
    b0, b1, b2 = three(p_vw + F, i, c, inside, 2 * F)
    q = gn / tl.sqrt(a0 * a0 + a1 * a1 + a2 * a2 + EPSILON)
    put_three(p_g_vw, i, c, inside, gd * b0 + q * a0, gd * b1 + q * a1, gd * b2 + q * a2, 2 * F)
    put_three(p_g_vw + F, i, c, inside, gd * a0, gd * a1, gd * a2, 2 * F)


@triton.jit(do_not_specialize=["n"])
def norm_second_kernel(
    p_g_context, p_g_dot, p_vw, p_ts, p_t_vw, p_h_context, p_h_dot, p_h_vw, n,
    EPSILON: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Adjoint of `norm_adjoint`."""
    i, c, inside = tile(n, F, ROWS, COLUMNS)
    p_h_context += i * (2 * F) + c
    tl.store(p_h_context, tl.load(p_ts + i * F + c, mask=inside, other=0.0), mask=inside)
    gn = tl.load(p_g_context + i * (2 * F) + F + c, mask=inside, other=0.0)
    gd = tl.load(p_g_dot + i * F + c, mask=inside, other=0.0)
    a0, a1, a2 = three(p_vw, i, c, inside, 2 * F)
    b0, b1, b2 = three(p_vw + F, i, c, inside, 2 * F)
    ta0, ta1, ta2 = three(p_t_vw, i, c, inside, 2 * F)
    tb0, tb1, tb2 = three(p_t_vw + F, i, c, inside, 2 * F)
    per = 1.0 / tl.sqrt(a0 * a0 + a1 * a1 + a2 * a2 + EPSILON)
    hn = (ta0 * a0 + ta1 * a1 + ta2 * a2) * per
    q = gn * per
    z = q * hn * per
    tl.store(p_h_context + F, hn, mask=inside)
    hd = ta0 * b0 + ta1 * b1 + ta2 * b2 + tb0 * a0 + tb1 * a1 + tb2 * a2
    tl.store(p_h_dot + i * F + c, hd, mask=inside)
    x, y = q * ta0 - z * a0 + gd * tb0, q * ta1 - z * a1 + gd * tb1
    put_three(p_h_vw, i, c, inside, x, y, q * ta2 - z * a2 + gd * tb2, 2 * F)
    put_three(p_h_vw + F, i, c, inside, gd * ta0, gd * ta1, gd * ta2, 2 * F)


@triton.jit(do_not_specialize=["n"])
def gate_adjoint_kernel(
    p_gs, p_gv, p_y, p_vw, p_dot, p_gy, p_g_vw, p_g_dot, n,
    F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """gy, g_vw and g_dot from gs and gv."""
    i, c, inside = tile(n, F, ROWS, COLUMNS)
    p_y += i * (3 * F) + c
    p_gy += i * (3 * F) + c
    gs = tl.load(p_gs + i * F + c, mask=inside, other=0.0)
    B = tl.load(p_y + F, mask=inside, other=0.0)
    G = tl.load(p_y + 2 * F, mask=inside, other=0.0)
    dot = tl.load(p_dot + i * F + c, mask=inside, other=0.0)
    b0, b1, b2 = three(p_vw + F, i, c, inside, 2 * F)
    g0, g1, g2 = three(p_gv, i, c, inside, F)
    tl.store(p_gy, gs, mask=inside)
    tl.store(p_gy + F, g0 * b0 + g1 * b1 + g2 * b2, mask=inside)
    tl.store(p_gy + 2 * F, gs * dot, mask=inside)
    tl.store(p_g_dot + i * F + c, gs * G, mask=inside)
    zero = tl.zeros_like(gs)
    put_three(p_g_vw, i, c, inside, zero, zero, zero, 2 * F)
    put_three(p_g_vw + F, i, c, inside, B * g0, B * g1, B * g2, 2 * F)


@triton.jit(do_not_specialize=["n"])
def gate_second_kernel(
    p_gs, p_gv, p_y, p_vw, p_dot, p_ty, p_t_vw, p_t_dot, p_h_gs, p_h_gv, p_hy, p_h_vw, p_h_dot, n,
    F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Adjoint of `gate_adjoint`."""
    i, c, inside = tile(n, F, ROWS, COLUMNS)
    p_y += i * (3 * F) + c
    p_ty += i * (3 * F) + c
    p_hy += i * (3 * F) + c
    gs = tl.load(p_gs + i * F + c, mask=inside, other=0.0)
    B = tl.load(p_y + F, mask=inside, other=0.0)
    G = tl.load(p_y + 2 * F, mask=inside, other=0.0)
    dot = tl.load(p_dot + i * F + c, mask=inside, other=0.0)
    tA = tl.load(p_ty, mask=inside, other=0.0)
    tB = tl.load(p_ty + F, mask=inside, other=0.0)
    tG = tl.load(p_ty + 2 * F, mask=inside, other=0.0)
    td = tl.load(p_t_dot + i * F + c, mask=inside, other=0.0)
    b0, b1, b2 = three(p_vw + F, i, c, inside, 2 * F)
    tb0, tb1, tb2 = three(p_t_vw + F, i, c, inside, 2 * F)
    g0, g1, g2 = three(p_gv, i, c, inside, F)
    zero = tl.zeros_like(gs)
    tl.store(p_h_gs + i * F + c, tA + tG * dot + td * G, mask=inside)
    put_three(p_h_gv, i, c, inside, tB * b0 + tb0 * B, tB * b1 + tb1 * B, tB * b2 + tb2 * B, F)
    tl.store(p_hy, zero, mask=inside)
    tl.store(p_hy + F, tb0 * g0 + tb1 * g1 + tb2 * g2, mask=inside)
    tl.store(p_hy + 2 * F, td * gs, mask=inside)
    tl.store(p_h_dot + i * F + c, tG * gs, mask=inside)
    put_three(p_h_vw, i, c, inside, zero, zero, zero, 2 * F)
    put_three(p_h_vw + F, i, c, inside, tB * g0, tB * g1, tB * g2, 2 * F)


def norm_adjoint(g_context: Tensor, g_dot: Tensor, vw: Tensor, epsilon: float, gs: Tensor, g_vw: Tensor) -> None:
    """gs [N, F] and g_vw [N, 3, 2 F] from g_context [N, 2 F] and g_dot [N, F]."""
    launch(norm_adjoint_kernel, gs.shape, g_context, g_dot, vw, gs, g_vw, EPSILON=epsilon)


def norm_second(
    g_context: Tensor, g_dot: Tensor, vw: Tensor, epsilon: float, ts: Tensor, t_vw: Tensor, h_context: Tensor,
    h_dot: Tensor, h_vw: Tensor,
) -> None:  # fmt: skip
    """Adjoint of `norm_adjoint`: from tangents ts [N, F] and t_vw [N, 3, 2 F] those of its first three arguments."""
    tensors = (g_context, g_dot, vw, ts, t_vw, h_context, h_dot, h_vw)
    launch(norm_second_kernel, ts.shape, *tensors, EPSILON=epsilon)


def gate(s: Tensor, v: Tensor, y: Tensor, vw: Tensor, dot: Tensor, s_out: Tensor, v_out: Tensor) -> None:
    """s_out [N, F] = s + A + G dot; v_out [N, 3, F] = v + B W."""
    launch(gate_fwd_kernel, s.shape, s, v, y, vw, dot, s_out, v_out, VECTORS=True)


def gate_adjoint(
    gs: Tensor, gv: Tensor, y: Tensor, vw: Tensor, dot: Tensor, gy: Tensor, g_vw: Tensor, g_dot: Tensor
) -> None:
    """gy [N, 3 F], g_vw [N, 3, 2 F], g_dot [N, F] from gs [N, F] and gv [N, 3, F], which are those of s and v too."""
    launch(gate_adjoint_kernel, gs.shape, gs, gv, y, vw, dot, gy, g_vw, g_dot)


def gate_second(
    gs: Tensor, gv: Tensor, y: Tensor, vw: Tensor, dot: Tensor, ty: Tensor, t_vw: Tensor, t_dot: Tensor, h_gs: Tensor,
    h_gv: Tensor, hy: Tensor, h_vw: Tensor, h_dot: Tensor,
) -> None:  # fmt: skip
    """Adjoint of `gate_adjoint`: from tangents ty [N, 3 F], t_vw [N, 3, 2 F], t_dot [N, F] those of its arguments."""
    tensors = (gs, gv, y, vw, dot, ty, t_vw, t_dot, h_gs, h_gv, hy, h_vw, h_dot)
    launch(gate_second_kernel, gs.shape, *tensors)


def cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """What the static report compiles."""
    made = []
    for features in (64, 128):
        made += [case(k, features, EPSILON=1e-8) for k in (norm_adjoint_kernel, norm_second_kernel)]
        made += [case(k, features) for k in (gate_adjoint_kernel, gate_second_kernel)]
    return made
