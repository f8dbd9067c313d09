"""Second derivatives of the message on a GPU: the message and its adjoint along a tangent of x, v, r and weight.

L = <gs, ds> + <gv, dv> is linear in gs and gv. The adjoint is dL/d(x, v, r, weight); its own adjoint, for incoming
tangents t of these four, is d/dt of dL/d(gs, gv), here `message_tangent`, and d/dt of dL/d(x, v, r, weight), here
`message_bwd_tangent` and `message_weight_bwd_tangent`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.message.triton import LANES, case, launch, plain, shape
from painn_fast.kernels.message.triton_adjoint import partials
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.radial.triton import (
    edge_geometry,
    filter_values,
    no_rows,
    radial_values,
    read,
    weight_rows,
    write,
    write_rows,
)


@triton.jit
def edge_tangent(p_tr, e, inverse, u0, u1, u2):
    """Derivatives of d and u along tr [E, 3]."""
    t0, t1, t2 = tl.load(p_tr + 3 * e), tl.load(p_tr + 3 * e + 1), tl.load(p_tr + 3 * e + 2)
    td = t0 * u0 + t1 * u1 + t2 * u2
    return td, (t0 - td * u0) * inverse, (t1 - td * u1) * inverse, (t2 - td * u2) * inverse


@triton.jit
def moved_filter(rows, t_rows, psi, g, fc, td, K: tl.constexpr, ORDER: tl.constexpr, MOVES: tl.constexpr):
    """(w, tw), and (w', tw') too with ORDER 1; with MOVES the weights themselves have a tangent."""
    values = filter_values(rows, psi, g, fc, K, ORDER + 1)
    tw = values[1] * td
    if ORDER >= 1:
        tdw = values[2] * td
    if MOVES:
        changes = filter_values(t_rows, psi, g, fc, K, ORDER)
        tw += changes[0]
        if ORDER >= 1:
            tdw += changes[1]
    if ORDER >= 1:
        return values[0], tw, values[1], tdw
    else:
        return values[0], tw


@triton.jit(do_not_specialize=["n", "rows"])
def message_tangent_kernel(
    p_x, p_v, p_r, p_weight, p_tx, p_tv, p_tr, p_tweight, p_first, p_widths, p_row_ptr, p_sender, p_tds, p_tdv,
    n, rows, C: tl.constexpr, F: tl.constexpr, BLOCK_F: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    """tds [N, F], tdv [N, 3, F] of `rows` receivers."""
    K: tl.constexpr = C.count
    MOVES: tl.constexpr = p_tweight is not None
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    begin = tl.program_id(0).to(tl.int64) * rows
    if HELD:
        wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
        ta, tb, tc = wa, wb, wc
        if MOVES:
            ta, tb, tc = weight_rows(p_tweight, f, K + 1, F, BLOCK_F)
    for i in range(begin, tl.minimum(begin + rows, n)):
        zero = tl.zeros((BLOCK_F,), p_tds.dtype.element_ty)
        tds, tdv0, tdv1, tdv2 = zero, zero, zero, zero
        for e in range(tl.load(p_row_ptr + i).to(tl.int64), tl.load(p_row_ptr + i + 1).to(tl.int64)):
            j = tl.load(p_sender + e).to(tl.int64)
            d, inverse, u0, u1, u2 = edge_geometry(p_r, e)
            if not (d >= C.cutoff):  # NaN is kept
                if not HELD:
                    wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
                    ta, tb, tc = wa, wb, wc
                    if MOVES:
                        ta, tb, tc = weight_rows(p_tweight, f, K + 1, F, BLOCK_F)
                td, tu0, tu1, tu2 = edge_tangent(p_tr, e, inverse, u0, u1, u2)
                psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 1)
                p_xj, p_txj = p_x + j * (3 * F), p_tx + j * (3 * F)
                w, tw = moved_filter(wa, ta, psi, g, fc, td, K, 0, MOVES)
                tds += read(p_txj, f, F, BLOCK_F) * w + read(p_xj, f, F, BLOCK_F) * tw
                w, tw = moved_filter(wb, tb, psi, g, fc, td, K, 0, MOVES)
                y = read(p_xj + F, f, F, BLOCK_F)
                m, tm = y * w, read(p_txj + F, f, F, BLOCK_F) * w + y * tw
                tdv0 += tm * u0 + m * tu0
                tdv1 += tm * u1 + m * tu1
                tdv2 += tm * u2 + m * tu2
                w, tw = moved_filter(wc, tc, psi, g, fc, td, K, 0, MOVES)
                y = read(p_xj + 2 * F, f, F, BLOCK_F)
                m, tm = y * w, read(p_txj + 2 * F, f, F, BLOCK_F) * w + y * tw
                p_vj, p_tvj = p_v + j * (3 * F), p_tv + j * (3 * F)
                tdv0 += tm * read(p_vj, f, F, BLOCK_F) + m * read(p_tvj, f, F, BLOCK_F)
                tdv1 += tm * read(p_vj + F, f, F, BLOCK_F) + m * read(p_tvj + F, f, F, BLOCK_F)
                tdv2 += tm * read(p_vj + 2 * F, f, F, BLOCK_F) + m * read(p_tvj + 2 * F, f, F, BLOCK_F)
        write(p_tds + i * F, f, tds, F, BLOCK_F)
        p_tdvi = p_tdv + i * (3 * F)
        write(p_tdvi, f, tdv0, F, BLOCK_F)
        write(p_tdvi + F, f, tdv1, F, BLOCK_F)
        write(p_tdvi + 2 * F, f, tdv2, F, BLOCK_F)


@triton.jit(do_not_specialize=["n", "rows", "edges"])
def message_bwd_tangent_kernel(
    p_gs, p_gv, p_x, p_v, p_r, p_weight, p_tx, p_tv, p_tr, p_tweight, p_first, p_widths, p_row_ptr, p_sender,
    p_mirror, p_hx, p_hv, p_hr, n, rows, edges, C: tl.constexpr, F: tl.constexpr, BLOCK_F: tl.constexpr,
    HELD: tl.constexpr,
):  # fmt: skip
    """hx [N, 3 F], hv [N, 3, F] of `rows` senders and hr [blocks, E, 3] of the edges that leave them."""
    K: tl.constexpr = C.count
    MOVES: tl.constexpr = p_tweight is not None
    block = tl.program_id(1)
    f = block * BLOCK_F + tl.arange(0, BLOCK_F)
    begin = tl.program_id(0).to(tl.int64) * rows
    if HELD:
        wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
        ta, tb, tc = wa, wb, wc
        if MOVES:
            ta, tb, tc = weight_rows(p_tweight, f, K + 1, F, BLOCK_F)
    for i in range(begin, tl.minimum(begin + rows, n)):
        p_xi, p_vi = p_x + i * (3 * F), p_v + i * (3 * F)
        p_txi, p_tvi = p_tx + i * (3 * F), p_tv + i * (3 * F)
        xa, xb, xc = read(p_xi, f, F, BLOCK_F), read(p_xi + F, f, F, BLOCK_F), read(p_xi + 2 * F, f, F, BLOCK_F)
        v0, v1, v2 = read(p_vi, f, F, BLOCK_F), read(p_vi + F, f, F, BLOCK_F), read(p_vi + 2 * F, f, F, BLOCK_F)
        ya, yb, yc = read(p_txi, f, F, BLOCK_F), read(p_txi + F, f, F, BLOCK_F), read(p_txi + 2 * F, f, F, BLOCK_F)
        tv0, tv1 = read(p_tvi, f, F, BLOCK_F), read(p_tvi + F, f, F, BLOCK_F)
        tv2 = read(p_tvi + 2 * F, f, F, BLOCK_F)
        zero = tl.zeros((BLOCK_F,), p_hx.dtype.element_ty)
        hxa, hxb, hxc, hv0, hv1, hv2 = zero, zero, zero, zero, zero, zero
        for row in range(tl.load(p_row_ptr + i).to(tl.int64), tl.load(p_row_ptr + i + 1).to(tl.int64)):
            j = tl.load(p_sender + row).to(tl.int64)
            e = tl.load(p_mirror + row).to(tl.int64)
            d, inverse, u0, u1, u2 = edge_geometry(p_r, e)
            r0, r1, r2 = tl.zeros_like(d), tl.zeros_like(d), tl.zeros_like(d)
            if not (d >= C.cutoff):  # NaN is kept
                if not HELD:
                    wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
                    ta, tb, tc = wa, wb, wc
                    if MOVES:
                        ta, tb, tc = weight_rows(p_tweight, f, K + 1, F, BLOCK_F)
                td, tu0, tu1, tu2 = edge_tangent(p_tr, e, inverse, u0, u1, u2)
                p_gvj = p_gv + j * (3 * F)
                h = read(p_gs + j * F, f, F, BLOCK_F)
                h0, h1 = read(p_gvj, f, F, BLOCK_F), read(p_gvj + F, f, F, BLOCK_F)
                h2 = read(p_gvj + 2 * F, f, F, BLOCK_F)
                psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 2)

                w, tw, dw, tdw = moved_filter(wa, ta, psi, g, fc, td, K, 1, MOVES)
                hxa += h * tw
                slope = dw * xa * h  # dL/dd at fixed u, and its tangent
                t_slope = (ya * dw + xa * tdw) * h

                w, tw, dw, tdw = moved_filter(wc, tc, psi, g, fc, td, K, 1, MOVES)
                gate, t_gate = h0 * v0 + h1 * v1 + h2 * v2, h0 * tv0 + h1 * tv1 + h2 * tv2
                hxc += gate * tw + t_gate * w
                slope += dw * xc * gate
                t_slope += (yc * dw + xc * tdw) * gate + xc * dw * t_gate
                m = yc * w + xc * tw
                hv0 += m * h0
                hv1 += m * h1
                hv2 += m * h2

                w, tw, dw, tdw = moved_filter(wb, tb, psi, g, fc, td, K, 1, MOVES)
                gate, t_gate = h0 * u0 + h1 * u1 + h2 * u2, h0 * tu0 + h1 * tu1 + h2 * tu2
                hxb += gate * tw + t_gate * w
                across = xb * w * inverse  # gr = (slope - across gate) u + across gv
                t_across = (yb * w + xb * tw) * inverse - across * inverse * td
                slope += (dw * xb - across) * gate
                t_slope += (yb * dw + xb * tdw - t_across) * gate + (xb * dw - across) * t_gate
                r0 = tl.sum(t_slope * u0 + slope * tu0 + t_across * h0)
                r1 = tl.sum(t_slope * u1 + slope * tu1 + t_across * h1)
                r2 = tl.sum(t_slope * u2 + slope * tu2 + t_across * h2)
            p_hre = p_hr + (block.to(tl.int64) * edges + e) * 3
            tl.store(p_hre, r0)
            tl.store(p_hre + 1, r1)
            tl.store(p_hre + 2, r2)
        p_hxi, p_hvi = p_hx + i * (3 * F), p_hv + i * (3 * F)
        write(p_hxi, f, hxa, F, BLOCK_F)
        write(p_hxi + F, f, hxb, F, BLOCK_F)
        write(p_hxi + 2 * F, f, hxc, F, BLOCK_F)
        write(p_hvi, f, hv0, F, BLOCK_F)
        write(p_hvi + F, f, hv1, F, BLOCK_F)
        write(p_hvi + 2 * F, f, hv2, F, BLOCK_F)


@triton.jit
def grown_along(rows, psi, g, fc, td, z, tz, K: tl.constexpr):
    """rows_k plus the derivative of psi_k g z along the tangent, and of fc z on the last row."""
    once, twice = g[0] * tz + g[1] * td * z, g[0] * td * z
    new = ()
    for k in tl.static_range(K):
        new += (rows[k] + psi[0][k] * once + psi[1][k] * twice,)
    new += (rows[K] + fc[0] * tz + fc[1] * td * z,)
    return new


@triton.jit(do_not_specialize=["n", "rows"])
def message_weight_bwd_tangent_kernel(
    p_gs, p_gv, p_x, p_v, p_r, p_tx, p_tv, p_tr, p_first, p_widths, p_row_ptr, p_sender, p_hw,
    n, rows, C: tl.constexpr, F: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """hw [programs, K + 1, 3 F]: one sum over `rows` receivers a program, in registers."""
    K: tl.constexpr = C.count
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    program = tl.program_id(0).to(tl.int64)
    begin = program * rows
    ha, hb, hc = no_rows(K + 1, BLOCK_F, p_hw.dtype.element_ty)
    for i in range(begin, tl.minimum(begin + rows, n)):
        p_gvi = p_gv + i * (3 * F)
        own = read(p_gs + i * F, f, F, BLOCK_F)
        own0, own1 = read(p_gvi, f, F, BLOCK_F), read(p_gvi + F, f, F, BLOCK_F)
        own2 = read(p_gvi + 2 * F, f, F, BLOCK_F)
        for e in range(tl.load(p_row_ptr + i).to(tl.int64), tl.load(p_row_ptr + i + 1).to(tl.int64)):
            j = tl.load(p_sender + e).to(tl.int64)
            d, inverse, u0, u1, u2 = edge_geometry(p_r, e)
            if not (d >= C.cutoff):  # NaN is kept
                td, tu0, tu1, tu2 = edge_tangent(p_tr, e, inverse, u0, u1, u2)
                psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 1)
                p_xj, p_vj = p_x + j * (3 * F), p_v + j * (3 * F)
                p_txj, p_tvj = p_tx + j * (3 * F), p_tv + j * (3 * F)
                z, tz = own * read(p_xj, f, F, BLOCK_F), own * read(p_txj, f, F, BLOCK_F)
                ha = grown_along(ha, psi, g, fc, td, z, tz, K)
                gate = own0 * u0 + own1 * u1 + own2 * u2
                y = read(p_xj + F, f, F, BLOCK_F)
                tz = gate * read(p_txj + F, f, F, BLOCK_F) + (own0 * tu0 + own1 * tu1 + own2 * tu2) * y
                hb = grown_along(hb, psi, g, fc, td, gate * y, tz, K)
                gate = own0 * read(p_vj, f, F, BLOCK_F) + own1 * read(p_vj + F, f, F, BLOCK_F)
                gate += own2 * read(p_vj + 2 * F, f, F, BLOCK_F)
                t_gate = own0 * read(p_tvj, f, F, BLOCK_F) + own1 * read(p_tvj + F, f, F, BLOCK_F)
                t_gate += own2 * read(p_tvj + 2 * F, f, F, BLOCK_F)
                y = read(p_xj + 2 * F, f, F, BLOCK_F)
                tz = gate * read(p_txj + 2 * F, f, F, BLOCK_F) + t_gate * y
                hc = grown_along(hc, psi, g, fc, td, gate * y, tz, K)
    write_rows(p_hw + program * ((K + 1) * 3 * F), f, ha, hb, hc, K + 1, F, BLOCK_F)


def message_tangent(
    x: Tensor, v: Tensor, r: Tensor, weight: Tensor, tx: Tensor | None, tv: Tensor | None, tr: Tensor | None,
    tweight: Tensor | None, radial: Radial, row_ptr: Tensor, sender: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """tds [N, F], tdv [N, 3, F]: `message_fwd` along a tangent of its first four arguments; None is zero."""
    x, v, r, weight, first, widths = plain(x, v, r, weight, radial.first, radial.widths)
    tangents = along(x, v, r, tx, tv, tr, tweight)
    n, f = x.shape[0], x.shape[1] // 3
    tds, tdv = x.new_empty(n, f), torch.empty_like(v)
    given = (x, v, r, weight, *tangents, first, widths, row_ptr, sender, tds, tdv)
    launch(_named("message_tangent", tweight), message_tangent_kernel, given, n, f, radial)
    return tds, tdv


def message_bwd_tangent(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, r: Tensor, weight: Tensor, tx: Tensor | None, tv: Tensor | None,
    tr: Tensor | None, tweight: Tensor | None, radial: Radial, row_ptr: Tensor, sender: Tensor, mirror: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """hx [N, 3 F], hv [N, 3, F], hr [E, 3]: `message_bwd` along a tangent of x, v, r and weight; gs and gv stand."""
    gs, gv, x, v, r, weight, first, widths = plain(gs, gv, x, v, r, weight, radial.first, radial.widths)
    tangents = along(x, v, r, tx, tv, tr, tweight)
    n, f = gs.shape
    name = _named("message_bwd_tangent", tweight)
    blocks = triton.cdiv(f, shape(name, f, device=gs.device)[0])
    hx, hv, hr = torch.empty_like(x), torch.empty_like(v), r.new_empty(blocks, *r.shape)
    given = (gs, gv, x, v, r, weight, *tangents, first, widths, row_ptr, sender, mirror, hx, hv, hr)
    launch(name, message_bwd_tangent_kernel, given, n, f, radial, len(r))
    return hx, hv, hr[0] if blocks == 1 else hr.sum(dim=0)


def message_weight_bwd_tangent(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, r: Tensor, tx: Tensor | None, tv: Tensor | None,
    tr: Tensor | None, radial: Radial, row_ptr: Tensor, sender: Tensor,
) -> Tensor:  # fmt: skip
    """[K + 1, 3 F]: `message_weight_bwd` along a tangent of x, v and r; a tangent of the weight does not matter."""
    gs, gv, x, v, r, first, widths = plain(gs, gv, x, v, r, radial.first, radial.widths)
    *tangents, _ = along(x, v, r, tx, tv, tr, None)
    n, f = gs.shape
    hw = gs.new_empty(partials(n), first.numel() + 1, 3 * f)
    given = (gs, gv, x, v, r, *tangents, first, widths, row_ptr, sender, hw)
    launch("message_weight_bwd_tangent", message_weight_bwd_tangent_kernel, given, n, f, radial, programs=len(hw))
    return hw.sum(dim=0)


def along(x: Tensor, v: Tensor, r: Tensor, *tangents: Tensor | None) -> list[Tensor | None]:
    """Plain tangents of x, v, r, zeros for None, and that of the weight, which costs a product only if there is one."""
    *given, tweight = tangents
    filled = [torch.zeros_like(a) if t is None else plain(a, t)[1] for a, t in zip((x, v, r), given, strict=True)]
    return [*filled, None if tweight is None else plain(x, tweight)[1]]


def _named(name: str, tweight: Tensor | None) -> str:
    return name if tweight is None else f"{name}, weight moves"


def cases(lanes: int = LANES) -> list[tuple[Any, ...]]:
    """Everything here, with and without a tangent of the weight."""
    kernels = (
        ("message_tangent", message_tangent_kernel, ("p_tweight",)),
        ("message_tangent, weight moves", message_tangent_kernel, ()),
        ("message_bwd_tangent", message_bwd_tangent_kernel, ("p_tweight",)),
        ("message_bwd_tangent, weight moves", message_bwd_tangent_kernel, ()),
        ("message_weight_bwd_tangent", message_weight_bwd_tangent_kernel, ()),
    )
    return [case(name, kernel, f, lanes, absent=absent) for name, kernel, absent in kernels for f in (64, 128)]
