"""Message and its adjoint on a GPU, as functions of a program that owns some atoms and all of their features.

Rows of a tile are atoms: these walk their CSR rows in step, up to the longest. Sums are those of `triton.py`, edge by
edge in the same order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from painn_fast.kernels.radial.triton import filter_values, radial_values, weight_rows
from painn_fast.kernels.update.triton import put_three, three


@triton.jit
def row(p_row_ptr, i, mask):
    """First edge and number of edges of atoms i, and the largest number."""
    first = tl.load(p_row_ptr + i, mask=mask, other=0).to(tl.int64)
    count = tl.load(p_row_ptr + i + 1, mask=mask, other=0).to(tl.int64) - first
    return first, count, tl.max(count)


@triton.jit
def vectors_of(p_positions, p_shift, i, j, e, inside, UNIT: tl.constexpr, DTYPE: tl.constexpr):
    """r of edges e from float64, rounded once; of those that are not inside any but zero."""
    unit = tl.full(e.shape, UNIT, tl.float64)  # a bare number would be single precision
    p_i, p_j, p_shift = p_positions + 3 * i, p_positions + 3 * j, p_shift + 3 * e
    x = tl.load(p_j, mask=inside, other=1.0) - tl.load(p_i, mask=inside, other=0.0)
    y = tl.load(p_j + 1, mask=inside, other=1.0) - tl.load(p_i + 1, mask=inside, other=0.0)
    z = tl.load(p_j + 2, mask=inside, other=1.0) - tl.load(p_i + 2, mask=inside, other=0.0)
    x = ((x + tl.load(p_shift, mask=inside, other=0.0)) * unit).to(DTYPE)
    y = ((y + tl.load(p_shift + 1, mask=inside, other=0.0)) * unit).to(DTYPE)
    return x, y, ((z + tl.load(p_shift + 2, mask=inside, other=0.0)) * unit).to(DTYPE)


@triton.jit
def geometry(x, y, z, inside, CUTOFF: tl.constexpr):
    """`edge_geometry`, and which edges are within the cut-off or NaN; the others have harmless numbers."""
    square = x * x + y * y + z * z
    inverse = tl.rsqrt(square)
    d = square * inverse
    d += 0.5 * inverse * (square - d * d)
    near = inside & ~(d >= CUTOFF)  # NaN is kept
    d, inverse = tl.where(near, d, 0.5 * CUTOFF), tl.where(near, inverse, 2.0 / CUTOFF)
    return near, d, inverse, x * inverse, y * inverse, z * inverse


@triton.jit
def gather(
    p_x, p_v, p_s, p_positions, p_shift, p_r, p_weight, p_first, p_widths, p_row_ptr, p_sender, p_s_out, p_v_out,
    i, mask, C: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, VECTORS: tl.constexpr,
    HELD: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """s + ds, v + dv of atoms i; where there are positions r comes from them, and is written."""
    K: tl.constexpr = C.count
    DTYPE: tl.constexpr = p_s.dtype.element_ty
    first, count, most = row(p_row_ptr, i, mask)
    for start in range(0, F, BLOCK):
        f = start + tl.arange(0, BLOCK)[None, :]
        if HELD:
            wa, wb, wc = weight_rows(p_weight, f + tl.zeros((ROWS, 1), tl.int32), K + 1, F, BLOCK)
        ds = tl.load(p_s + i * F + f, mask=mask, other=0.0)
        if VECTORS:
            dv0, dv1, dv2 = three(p_v, i, f, mask, F)
        else:
            zero = tl.zeros((ROWS, BLOCK), DTYPE)
            dv0, dv1, dv2 = zero, zero, zero
        for k in range(most):
            e, inside = first + k, k < count
            j = tl.load(p_sender + e, mask=inside, other=0).to(tl.int64)
            if p_positions is not None:
                x, y, z = vectors_of(p_positions, p_shift, i, j, e, inside, UNIT, DTYPE)
                tl.store(p_r + 3 * e, x, mask=inside)
                tl.store(p_r + 3 * e + 1, y, mask=inside)
                tl.store(p_r + 3 * e + 2, z, mask=inside)
            else:
                x = tl.load(p_r + 3 * e, mask=inside, other=1.0)
                y = tl.load(p_r + 3 * e + 1, mask=inside, other=1.0)
                z = tl.load(p_r + 3 * e + 2, mask=inside, other=1.0)
            near, d, inverse, u0, u1, u2 = geometry(x, y, z, inside, C.cutoff)
            if not HELD:
                wa, wb, wc = weight_rows(p_weight, f + tl.zeros((ROWS, 1), tl.int32), K + 1, F, BLOCK)
            psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 0)
            xa, xb, xc = three(p_x, j, f, near, F)
            b = xb * filter_values(wb, psi, g, fc, K, 0)[0]
            ds += xa * filter_values(wa, psi, g, fc, K, 0)[0]
            dv0 += b * u0
            dv1 += b * u1
            dv2 += b * u2
            if VECTORS:
                c = xc * filter_values(wc, psi, g, fc, K, 0)[0]
                v0, v1, v2 = three(p_v, j, f, near, F)
                dv0 += c * v0
                dv1 += c * v1
                dv2 += c * v2
        tl.store(p_s_out + i * F + f, ds, mask=mask)
        put_three(p_v_out, i, f, mask, dv0, dv1, dv2, F)


@triton.jit
def scatter(
    p_gs, p_gv, p_x, p_v, p_r, p_weight, p_first, p_widths, p_row_ptr, p_sender, p_gx, p_gv_out, i, mask,
    C: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, VECTORS: tl.constexpr,
    HELD: tl.constexpr,
):  # fmt: skip
    """gx, gv + gv_in of atoms i, and the three components of the force on them, where r[mirror] = -r."""
    K: tl.constexpr = C.count
    DTYPE: tl.constexpr = p_gs.dtype.element_ty
    first, count, most = row(p_row_ptr, i, mask)
    none = tl.zeros((ROWS,), DTYPE)
    force0, force1, force2 = none, none, none
    for start in range(0, F, BLOCK):
        f = start + tl.arange(0, BLOCK)[None, :]
        if HELD:
            wa, wb, wc = weight_rows(p_weight, f + tl.zeros((ROWS, 1), tl.int32), K + 1, F, BLOCK)
        xa, xb, xc = three(p_x, i, f, mask, F)
        own = tl.load(p_gs + i * F + f, mask=mask, other=0.0)
        own0, own1, own2 = three(p_gv, i, f, mask, F)
        zero = tl.zeros((ROWS, BLOCK), DTYPE)
        f0, f1, f2, pull = zero, zero, zero, zero
        if VECTORS:
            v0, v1, v2 = three(p_v, i, f, mask, F)
            gxa, gxb, gxc, gv0, gv1, gv2 = zero, zero, zero, zero, zero, zero
        for k in range(most):
            e, inside = first + k, k < count
            j = tl.load(p_sender + e, mask=inside, other=0).to(tl.int64)
            x = tl.load(p_r + 3 * e, mask=inside, other=1.0)
            y = tl.load(p_r + 3 * e + 1, mask=inside, other=1.0)
            z = tl.load(p_r + 3 * e + 2, mask=inside, other=1.0)
            near, d, inverse, u0, u1, u2 = geometry(x, y, z, inside, C.cutoff)
            if not HELD:
                wa, wb, wc = weight_rows(p_weight, f + tl.zeros((ROWS, 1), tl.int32), K + 1, F, BLOCK)
            h = tl.load(p_gs + j * F + f, mask=near, other=0.0)
            h0, h1, h2 = three(p_gv, j, f, near, F)
            psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 1)
            w, dw = filter_values(wa, psi, g, fc, K, 1)
            ya, yb, yc = three(p_x, j, f, near, F)
            radial = dw * (own * ya + h * xa)
            if VECTORS:
                gxa += h * w
            w, dw = filter_values(wb, psi, g, fc, K, 1)
            mirror = -(h0 * u0 + h1 * u1 + h2 * u2)
            both = (own0 * u0 + own1 * u1 + own2 * u2) * yb + mirror * xb
            across = w * inverse
            radial += (dw - across) * both
            pull += across * yb  # times own: what i receives across the bond, taken out of the sum over edges
            across *= xb
            if VECTORS:
                gxb += mirror * w
                w, dw = filter_values(wc, psi, g, fc, K, 1)
                y0, y1, y2 = three(p_v, j, f, near, F)
                gate = own0 * y0 + own1 * y1 + own2 * y2
                mirror = h0 * v0 + h1 * v1 + h2 * v2
                radial += dw * (gate * yc + mirror * xc)
                gxc += mirror * w
                gv0 += w * h0
                gv1 += w * h1
                gv2 += w * h2
            f0 += radial * u0 - across * h0
            f1 += radial * u1 - across * h1
            f2 += radial * u2 - across * h2
        force0 += tl.sum(f0 + pull * own0, axis=1)
        force1 += tl.sum(f1 + pull * own1, axis=1)
        force2 += tl.sum(f2 + pull * own2, axis=1)
        if VECTORS:
            put_three(p_gx, i, f, mask, gxa, gxb, gxc, F)
            put_three(p_gv_out, i, f, mask, own0 + xc * gv0, own1 + xc * gv1, own2 + xc * gv2, F)
    return force0, force1, force2
