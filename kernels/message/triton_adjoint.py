"""First derivatives of the message on a GPU, as training needs them: for any edge vectors, and for the weights."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.message.triton import LANES, case, launch, plain, shape
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.radial.triton import (
    edge_geometry,
    filter_values,
    grown,
    no_rows,
    radial_values,
    read,
    weight_rows,
    write,
    write_rows,
)

MOST_PARTIALS = 512
"""Partial sums of the gradient of a weight: enough programs to fill a GPU, few enough to add up afterwards."""


@triton.jit(do_not_specialize=["n", "rows", "edges"])
def message_bwd_kernel(
    p_gs, p_gv, p_x, p_v, p_r, p_weight, p_first, p_widths, p_row_ptr, p_sender, p_mirror, p_gx, p_gvin, p_gr,
    n, rows, edges, C: tl.constexpr, F: tl.constexpr, BLOCK_F: tl.constexpr, VECTORS: tl.constexpr,
    HELD: tl.constexpr,
):  # fmt: skip
    """gx [N, 3 F], gv_in [N, 3, F] of `rows` senders and gr [blocks, E, 3] of the edges that leave them.

    The mirror (j <- i) of each edge in the row of atom i is everything that i sends: it alone is visited here.
    """
    K: tl.constexpr = C.count
    block = tl.program_id(1)
    f = block * BLOCK_F + tl.arange(0, BLOCK_F)
    begin = tl.program_id(0).to(tl.int64) * rows
    if HELD:
        wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
    for i in range(begin, tl.minimum(begin + rows, n)):
        p_xi, p_vi = p_x + i * (3 * F), p_v + i * (3 * F)
        xa, xb = read(p_xi, f, F, BLOCK_F), read(p_xi + F, f, F, BLOCK_F)
        if VECTORS:
            xc = read(p_xi + 2 * F, f, F, BLOCK_F)
            v0, v1 = read(p_vi, f, F, BLOCK_F), read(p_vi + F, f, F, BLOCK_F)
            v2 = read(p_vi + 2 * F, f, F, BLOCK_F)
        zero = tl.zeros((BLOCK_F,), p_gx.dtype.element_ty)
        gxa, gxb, gxc, gv0, gv1, gv2 = zero, zero, zero, zero, zero, zero
        for row in range(tl.load(p_row_ptr + i).to(tl.int64), tl.load(p_row_ptr + i + 1).to(tl.int64)):
            j = tl.load(p_sender + row).to(tl.int64)
            e = tl.load(p_mirror + row).to(tl.int64)
            d, inverse, u0, u1, u2 = edge_geometry(p_r, e)
            r0, r1, r2 = tl.zeros_like(d), tl.zeros_like(d), tl.zeros_like(d)
            if not (d >= C.cutoff):  # NaN is kept
                if not HELD:
                    wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
                p_gvj = p_gv + j * (3 * F)
                h = read(p_gs + j * F, f, F, BLOCK_F)
                h0, h1 = read(p_gvj, f, F, BLOCK_F), read(p_gvj + F, f, F, BLOCK_F)
                h2 = read(p_gvj + 2 * F, f, F, BLOCK_F)
                psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 1)
                w, dw = filter_values(wa, psi, g, fc, K, 1)
                gxa += h * w
                radial = dw * xa * h
                w, dw = filter_values(wb, psi, g, fc, K, 1)
                along = h0 * u0 + h1 * u1 + h2 * u2
                gxb += along * w
                across = xb * w * inverse
                radial += (dw * xb - across) * along
                if VECTORS:
                    w, dw = filter_values(wc, psi, g, fc, K, 1)
                    gate = h0 * v0 + h1 * v1 + h2 * v2
                    gxc += gate * w
                    radial += dw * xc * gate
                    gv0 += w * h0
                    gv1 += w * h1
                    gv2 += w * h2
                r0 = tl.sum(radial * u0 + across * h0)
                r1 = tl.sum(radial * u1 + across * h1)
                r2 = tl.sum(radial * u2 + across * h2)
            p_gre = p_gr + (block.to(tl.int64) * edges + e) * 3
            tl.store(p_gre, r0)
            tl.store(p_gre + 1, r1)
            tl.store(p_gre + 2, r2)
        p_gxi = p_gx + i * (3 * F)
        write(p_gxi, f, gxa, F, BLOCK_F)
        write(p_gxi + F, f, gxb, F, BLOCK_F)
        write(p_gxi + 2 * F, f, gxc, F, BLOCK_F)
        if VECTORS:
            p_gvi = p_gvin + i * (3 * F)
            write(p_gvi, f, xc * gv0, F, BLOCK_F)
            write(p_gvi + F, f, xc * gv1, F, BLOCK_F)
            write(p_gvi + 2 * F, f, xc * gv2, F, BLOCK_F)


@triton.jit(do_not_specialize=["n", "rows"])
def message_weight_bwd_kernel(
    p_gs, p_gv, p_x, p_v, p_r, p_first, p_widths, p_row_ptr, p_sender, p_gw,
    n, rows, C: tl.constexpr, F: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """gw [programs, K + 1, 3 F]: one sum over `rows` receivers a program, in registers."""
    K: tl.constexpr = C.count
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    program = tl.program_id(0).to(tl.int64)
    begin = program * rows
    ga, gb, gc = no_rows(K + 1, BLOCK_F, p_gw.dtype.element_ty)
    for i in range(begin, tl.minimum(begin + rows, n)):
        p_gvi = p_gv + i * (3 * F)
        own = read(p_gs + i * F, f, F, BLOCK_F)
        own0, own1 = read(p_gvi, f, F, BLOCK_F), read(p_gvi + F, f, F, BLOCK_F)
        own2 = read(p_gvi + 2 * F, f, F, BLOCK_F)
        for e in range(tl.load(p_row_ptr + i).to(tl.int64), tl.load(p_row_ptr + i + 1).to(tl.int64)):
            j = tl.load(p_sender + e).to(tl.int64)
            d, inverse, u0, u1, u2 = edge_geometry(p_r, e)
            if not (d >= C.cutoff):  # NaN is kept
                p_xj, p_vj = p_x + j * (3 * F), p_v + j * (3 * F)
                psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 0)
                z = own * read(p_xj, f, F, BLOCK_F)
                ga = grown(ga, psi[0], g[0] * z, fc[0] * z, K)
                z = (own0 * u0 + own1 * u1 + own2 * u2) * read(p_xj + F, f, F, BLOCK_F)
                gb = grown(gb, psi[0], g[0] * z, fc[0] * z, K)
                z = own0 * read(p_vj, f, F, BLOCK_F) + own1 * read(p_vj + F, f, F, BLOCK_F)
                z += own2 * read(p_vj + 2 * F, f, F, BLOCK_F)
                z *= read(p_xj + 2 * F, f, F, BLOCK_F)
                gc = grown(gc, psi[0], g[0] * z, fc[0] * z, K)
    write_rows(p_gw + program * ((K + 1) * 3 * F), f, ga, gb, gc, K + 1, F, BLOCK_F)


def message_bwd(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, r: Tensor, weight: Tensor, radial: Radial, row_ptr: Tensor,
    sender: Tensor, mirror: Tensor, vectors: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:  # fmt: skip
    """Adjoint of `message_fwd` in x, v and r, for any r.

    Args:
        gs, gv: [N, F] and [N, 3, F], adjoints of ds and dv.
        mirror: [E] index of each edge's opposite.

    Returns:
        gx [N, 3 F], gv_in [N, 3, F] (None with `vectors` False), gr [E, 3].
    """
    gs, gv, x, v, r, weight, first, widths = plain(gs, gv, x, v, r, weight, radial.first, radial.widths)
    n, f = gs.shape
    blocks = triton.cdiv(f, shape("message_bwd", f, device=gs.device)[0])
    gx, gv_in = torch.empty_like(x), torch.empty_like(gv) if vectors else None
    gr = r.new_empty(blocks, *r.shape)
    given = (gs, gv, x, v, r, weight, first, widths, row_ptr, sender, mirror, gx, gv_in, gr)
    launch("message_bwd", message_bwd_kernel, given, n, f, radial, len(r), VECTORS=vectors)
    return gx, gv_in, gr[0] if blocks == 1 else gr.sum(dim=0)


def message_weight_bwd(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, r: Tensor, radial: Radial, row_ptr: Tensor, sender: Tensor
) -> Tensor:
    """Adjoint of `message_fwd` in its weight [K + 1, 3 F], which is linear in it and does not need its value.

    The number of partial sums depends on N alone, so that every device adds in the same order.
    """
    gs, gv, x, v, r, first, widths = plain(gs, gv, x, v, r, radial.first, radial.widths)
    n, f = gs.shape
    gw = gs.new_empty(partials(n), first.numel() + 1, 3 * f)
    given = (gs, gv, x, v, r, first, widths, row_ptr, sender, gw)
    launch("message_weight_bwd", message_weight_bwd_kernel, given, n, f, radial, programs=len(gw))
    return gw.sum(dim=0)


def partials(atoms: int) -> int:
    """Programs that share the atoms of a sum over all edges, none of them without an atom."""
    return triton.cdiv(atoms, triton.cdiv(atoms, MOST_PARTIALS)) if atoms else 0


def cases(lanes: int = LANES) -> list[tuple[Any, ...]]:
    """Everything here."""
    listed = [case("message_bwd", message_bwd_kernel, f, lanes, VECTORS=True) for f in (64, 128)]
    return listed + [case("message_weight_bwd", message_weight_bwd_kernel, f, lanes) for f in (64, 128)]
