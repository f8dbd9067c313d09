"""Message and its adjoint on a GPU, as functions of a program that owns some atoms and all of their features.

Rows of a tile are atoms: these walk their CSR rows in step, up to the longest, one edge at a time, or two where filters
are products on tensor cores (DOT). Sums are those of `triton.py`, edge by edge in the same order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from painn_fast.kernels.radial.triton import basis_tile, filter_values, half_turns, radial_values, weight_rows
from painn_fast.kernels.update.triton import put_three, three


@triton.jit
def row(p_row_ptr, i, mask):
    """First edge and number of edges of atoms i, and the largest number."""
    first = tl.load(p_row_ptr + i, mask=mask, other=0).to(tl.int64)
    count = (tl.load(p_row_ptr + i + 1, mask=mask, other=0).to(tl.int64) - first).to(tl.int32)
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
def geometry(x, y, z, inside, CUTOFF: tl.constexpr, DOT: tl.constexpr):
    """`edge_geometry`, and which edges are within the cut-off or NaN; the others have harmless numbers."""
    square = tl.fma(z, z, tl.fma(y, y, x * x))
    inverse = tl.rsqrt(square)
    d = square * inverse
    d += 0.5 * inverse * (square - d * d)
    inverse = tl.fma(tl.fma(-d, inverse, 1.0), inverse, inverse)
    near = inside & ~(d >= CUTOFF)  # NaN is kept
    if not DOT:
        d, inverse = tl.where(near, d, 0.5 * CUTOFF), tl.where(near, inverse, 2.0 / CUTOFF)
    return near, d, inverse, x * inverse, y * inverse, z * inverse


COLUMNS = tl.constexpr(32)
"""Of a tile of radial functions, whose products with weights are those of a tensor core."""


@triton.jit
def high_and_low(a):
    """The two numbers of 11 bits each whose sum is a to 2^-22, where both are normal numbers of float16."""
    high = a.to(tl.float16)
    return high, (a - high.to(tl.float32)).to(tl.float16)


@triton.jit
def power_of_two(exponent):
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def filter_weights(
    p_weight, f, C: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DOT: tl.constexpr
):
    """Of the three gates, for features f [1, BLOCK]: high and low [COLUMNS, BLOCK], or K + 1 rows.

    The fourth is what filters are to be multiplied by: with DOT a power of two of each feature, as its largest weight
    is between 2^14 and 2^15 there.
    """
    if DOT:
        k = tl.arange(0, COLUMNS)[:, None]
        p = p_weight + k * (3 * F) + f
        known = k <= C.count
        a, b = tl.load(p, mask=known, other=0.0), tl.load(p + F, mask=known, other=0.0)
        c = tl.load(p + 2 * F, mask=known, other=0.0)
        largest = tl.max(tl.maximum(tl.maximum(tl.abs(a), tl.abs(b)), tl.abs(c)), axis=0)[None, :]
        exponent = tl.maximum((largest.to(tl.int32, bitcast=True) >> 23) - 127, -80)
        scale, unit = power_of_two(14 - exponent), power_of_two(exponent - 14) * (1.0 / C.scale)
        return high_and_low(a * scale), high_and_low(b * scale), high_and_low(c * scale), unit
    else:
        a, b, c = weight_rows(p_weight, f + tl.zeros((ROWS, 1), tl.int32), C.count + 1, F, BLOCK)
        return a, b, c, 1.0


@triton.jit
def stacked(upper, lower):
    """[2 ROWS, BLOCK]."""
    first = (tl.arange(0, 2) == 0)[:, None, None]  # a join would double the width of a tensor core's loads
    both = tl.where(first, upper[None, :, :], lower[None, :, :])
    return tl.reshape(both, (2 * upper.shape[0], upper.shape[1]))


@triton.jit
def halves(tile):
    """The upper and the lower rows of [2 ROWS, BLOCK]."""
    return tl.split(tl.permute(tl.reshape(tile, (2, tile.shape[0] // 2, tile.shape[1])), (1, 2, 0)))


@triton.jit
def split_product(high, low, weight):
    """A product of float32 as three of float16."""
    return tl.dot(high, weight[0], tl.dot(high, weight[1], tl.dot(low, weight[0])))


@triton.jit
def filters_of_two(one, two, turns, wa, wb, wc, C: tl.constexpr, ORDER: tl.constexpr):
    """(w, w') of the three gates for a tile of edges, and for another, from (d, 1 / d) of both; w' with ORDER 1."""
    value, slope = basis_tile(one[0], one[1], one[2], turns, C, COLUMNS, ORDER)
    value_2, slope_2 = basis_tile(two[0], two[1], two[2], turns, C, COLUMNS, ORDER)
    basis = stacked(value, value_2)
    if ORDER == 1:
        basis = stacked(basis, stacked(slope, slope_2))
    elif basis.shape[0] == 8:  # a tensor core takes 16 rows
        basis = stacked(basis, tl.zeros_like(basis))
    high, low = high_and_low(basis * C.scale)
    a, b, c = split_product(high, low, wa), split_product(high, low, wb), split_product(high, low, wc)
    if ORDER == 1:
        a, da = halves(a)
        b, db = halves(b)
        c, dc = halves(c)
        da, da_2 = halves(da)
        db, db_2 = halves(db)
        dc, dc_2 = halves(dc)
    elif a.shape[0] > 2 * value.shape[0]:
        a, b, c = halves(a)[0], halves(b)[0], halves(c)[0]
    a, a_2 = halves(a)
    b, b_2 = halves(b)
    c, c_2 = halves(c)
    if ORDER == 1:
        return ((a, da), (b, db), (c, dc)), ((a_2, da_2), (b_2, db_2), (c_2, dc_2))
    else:
        return ((a,), (b,), (c,)), ((a_2,), (b_2,), (c_2,))


@triton.jit
def filters_of_one(
    one, wa, wb, wc, p_first, p_widths, p_weight, f, C: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr, HELD: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """(w, w') of the three gates; w' with ORDER 1."""
    if not HELD:
        wa, wb, wc, _ = filter_weights(p_weight, f, C, F, ROWS, BLOCK, False)
    psi, g, fc = radial_values(one[0], one[1], p_first, p_widths, C, ORDER)
    K: tl.constexpr = C.count
    return (
        filter_values(wa, psi, g, fc, K, ORDER),
        filter_values(wb, psi, g, fc, K, ORDER),
        filter_values(wc, psi, g, fc, K, ORDER),
    )


@triton.jit
def total_over_features(a):
    """Sums [ROWS] of up to 128 features, neighbours first, which no division among threads changes."""
    for _ in tl.static_range(7):
        if a.shape[1] > 1:
            a = tl.sum(tl.reshape(a, (a.shape[0], a.shape[1] // 2, 2)), axis=2)
    return tl.reshape(a, (a.shape[0],))


@triton.jit
def edge(
    p_positions, p_shift, p_r, p_sender, i, first, count, k, UNIT: tl.constexpr, DTYPE: tl.constexpr,
    C: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Of edge k of each row: (d, 1 / d), u, the sender, and whether it is within the cut-off.

    With DOT the filters of an edge that is not are zero: then the sender is the row's own atom, any finite numbers will
    do, and loads need no mask.
    """
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
    near, d, inverse, u0, u1, u2 = geometry(x, y, z, inside, C.cutoff, DOT)
    if DOT:
        return (d, inverse, near), (u0, u1, u2), tl.where(near, j, i), near
    else:
        return (d, inverse), (u0, u1, u2), j, near


@triton.jit
def gathered(p, j, f, near, WIDTH: tl.constexpr, DOT: tl.constexpr):
    """Features f of rows j of [N, WIDTH]; those that are not near are zero, or with DOT any."""
    if DOT:
        return tl.load(p + j * WIDTH + f)
    else:
        return tl.load(p + j * WIDTH + f, mask=near, other=0.0)


@triton.jit
def three_gathered(p, j, f, near, F: tl.constexpr, DOT: tl.constexpr):
    """x, y and z of [N, 3, F]."""
    return (
        gathered(p, j, f, near, 3 * F, DOT),
        gathered(p + F, j, f, near, 3 * F, DOT),
        gathered(p + 2 * F, j, f, near, 3 * F, DOT),
    )


@triton.jit
def add_message(p_x, p_v, f, u, j, near, w, sums, F: tl.constexpr, VECTORS: tl.constexpr, DOT: tl.constexpr):
    """ds and the three components of dv with the messages of one edge of each row."""
    ds, dv0, dv1, dv2 = sums
    xa, xb, xc = three_gathered(p_x, j, f, near, F, DOT)
    b = xb * w[1][0]
    ds += xa * w[0][0]
    dv0 += b * u[0]
    dv1 += b * u[1]
    dv2 += b * u[2]
    if VECTORS:
        c = xc * w[2][0]
        v0, v1, v2 = three_gathered(p_v, j, f, near, F, DOT)
        dv0 += c * v0
        dv1 += c * v1
        dv2 += c * v2
    return ds, dv0, dv1, dv2


@triton.jit
def gather(
    p_x, p_v, p_s, p_positions, p_shift, p_r, p_weight, p_first, p_widths, p_row_ptr, p_sender, p_s_out, p_v_out,
    i, mask, C: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, VECTORS: tl.constexpr,
    HELD: tl.constexpr, UNIT: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """s + ds, v + dv of atoms i; where there are positions r comes from them, and is written."""
    DTYPE: tl.constexpr = p_s.dtype.element_ty
    first, count, most = row(p_row_ptr, i, mask)
    known = tl.where(mask, i, 0)
    turns = half_turns(p_first, C, COLUMNS) if DOT else 0
    for start in range(0, F, BLOCK):
        f = start + tl.arange(0, BLOCK)[None, :]
        wa, wb, wc, unit = 0, 0, 0, 1.0
        if HELD or DOT:
            wa, wb, wc, unit = filter_weights(p_weight, f, C, F, ROWS, BLOCK, DOT)
        zero = tl.zeros((ROWS, BLOCK), DTYPE)
        ds, dv0, dv1, dv2 = zero, zero, zero, zero
        for k in tl.range(0, most, 2 if DOT else 1, num_stages=1):
            d, u, j, near = edge(p_positions, p_shift, p_r, p_sender, known, first, count, k, UNIT, DTYPE, C, DOT)
            if DOT:
                d2, u2, j2, near2 = edge(
                    p_positions, p_shift, p_r, p_sender, known, first, count, k + 1, UNIT, DTYPE, C, DOT
                )
                w, w2 = filters_of_two(d, d2, turns, wa, wb, wc, C, 0)
                ds, dv0, dv1, dv2 = add_message(p_x, p_v, f, u, j, near, w, (ds, dv0, dv1, dv2), F, VECTORS, DOT)
                ds, dv0, dv1, dv2 = add_message(p_x, p_v, f, u2, j2, near2, w2, (ds, dv0, dv1, dv2), F, VECTORS, DOT)
            else:
                w = filters_of_one(d, wa, wb, wc, p_first, p_widths, p_weight, f, C, F, ROWS, BLOCK, HELD, 0)
                ds, dv0, dv1, dv2 = add_message(p_x, p_v, f, u, j, near, w, (ds, dv0, dv1, dv2), F, VECTORS, DOT)
        tl.store(p_s_out + i * F + f, tl.load(p_s + i * F + f, mask=mask, other=0.0) + ds * unit, mask=mask)
        dv0, dv1, dv2 = dv0 * unit, dv1 * unit, dv2 * unit
        if VECTORS:
            v0, v1, v2 = three(p_v, i, f, mask, F)
            dv0, dv1, dv2 = v0 + dv0, v1 + dv1, v2 + dv2
        put_three(p_v_out, i, f, mask, dv0, dv1, dv2, F)


@triton.jit
def two_products(a, b, c, d):
    """a b + c d, of which the compiler would round one or the other, in each kernel another."""
    return tl.fma(a, b, c * d)


@triton.jit
def add_force(
    p_gs, p_gv, p_x, p_v, f, d, u, j, near, filters, own, x, v, sums, F: tl.constexpr, VECTORS: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Forces and, with VECTORS, gx and the sums of gv, with one edge of each row and its mirror."""
    u0, u1, u2 = u
    h = gathered(p_gs, j, f, near, F, DOT)
    h0, h1, h2 = three_gathered(p_gv, j, f, near, F, DOT)
    ya, yb, yc = three_gathered(p_x, j, f, near, F, DOT)
    f0, f1, f2, pull, gxa, gxb, gxc, gv0, gv1, gv2 = sums
    w, dw = filters[0]
    radial = dw * two_products(own[0], ya, h, x[0])
    if VECTORS:
        gxa += h * w
    w, dw = filters[1]
    mirror = -tl.fma(h2, u2, two_products(h1, u1, h0, u0))
    both = two_products(tl.fma(own[3], u2, two_products(own[2], u1, own[1], u0)), yb, mirror, x[1])
    across = w * d[1]
    radial = tl.fma(dw, both, radial)
    radial -= across * both
    pull += across * yb  # times own: what i receives across the bond, taken out of the sum over edges
    across *= x[1]
    f0 -= across * h0
    f1 -= across * h1
    f2 -= across * h2
    if VECTORS:
        gxb += mirror * w
        w, dw = filters[2]
        y0, y1, y2 = three_gathered(p_v, j, f, near, F, DOT)
        gate = tl.fma(own[3], y2, two_products(own[2], y1, own[1], y0))
        mirror = tl.fma(h2, v[2], two_products(h1, v[1], h0, v[0]))
        radial = tl.fma(dw, two_products(gate, yc, mirror, x[2]), radial)
        gxc += mirror * w
        gv0 += w * h0
        gv1 += w * h1
        gv2 += w * h2
    f0 += radial * u0
    f1 += radial * u1
    f2 += radial * u2
    return f0, f1, f2, pull, gxa, gxb, gxc, gv0, gv1, gv2


@triton.jit
def scatter(
    p_gs, p_gv, p_x, p_v, p_r, p_weight, p_first, p_widths, p_row_ptr, p_sender, p_gx, p_gv_out, i, mask,
    C: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, VECTORS: tl.constexpr,
    HELD: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """gx, gv + gv_in of atoms i, and the three components of the force on them, where r[mirror] = -r."""
    DTYPE: tl.constexpr = p_gs.dtype.element_ty
    first, count, most = row(p_row_ptr, i, mask)
    known = tl.where(mask, i, 0)
    turns = half_turns(p_first, C, COLUMNS) if DOT else 0
    none = tl.zeros((ROWS,), DTYPE)
    force0, force1, force2 = none, none, none
    for start in range(0, F, BLOCK):
        f = start + tl.arange(0, BLOCK)[None, :]
        wa, wb, wc, unit = 0, 0, 0, 1.0
        if HELD or DOT:
            wa, wb, wc, unit = filter_weights(p_weight, f, C, F, ROWS, BLOCK, DOT)
        x = three(p_x, i, f, mask, F)
        own0, own1, own2 = three(p_gv, i, f, mask, F)
        own = tl.load(p_gs + i * F + f, mask=mask, other=0.0), own0, own1, own2
        zero = tl.zeros((ROWS, BLOCK), DTYPE)
        v = zero, zero, zero
        if VECTORS:
            v = three(p_v, i, f, mask, F)
        f0, f1, f2, pull, gxa, gxb, gxc, gv0, gv1, gv2 = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
        for k in tl.range(0, most, 2 if DOT else 1, num_stages=1):
            d, u, j, near = edge(None, None, p_r, p_sender, known, first, count, k, 1.0, DTYPE, C, DOT)
            if DOT:
                d2, u2, j2, near2 = edge(None, None, p_r, p_sender, known, first, count, k + 1, 1.0, DTYPE, C, DOT)
                w, w2 = filters_of_two(d, d2, turns, wa, wb, wc, C, 1)
            else:
                w = filters_of_one(d, wa, wb, wc, p_first, p_widths, p_weight, f, C, F, ROWS, BLOCK, HELD, 1)
            sums = f0, f1, f2, pull, gxa, gxb, gxc, gv0, gv1, gv2
            sums = add_force(p_gs, p_gv, p_x, p_v, f, d, u, j, near, w, own, x, v, sums, F, VECTORS, DOT)
            if DOT:
                sums = add_force(p_gs, p_gv, p_x, p_v, f, d2, u2, j2, near2, w2, own, x, v, sums, F, VECTORS, DOT)
            f0, f1, f2, pull, gxa, gxb, gxc, gv0, gv1, gv2 = sums
        force0 += total_over_features(tl.fma(pull, own0, f0) * unit)
        force1 += total_over_features(tl.fma(pull, own1, f1) * unit)
        force2 += total_over_features(tl.fma(pull, own2, f2) * unit)
        if VECTORS:
            put_three(p_gx, i, f, mask, gxa * unit, gxb * unit, gxc * unit, F)
            xc = x[2] * unit
            put_three(p_gv_out, i, f, mask, own0 + xc * gv0, own1 + xc * gv1, own2 + xc * gv2, F)
    return force0, force1, force2
