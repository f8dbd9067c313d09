"""What atoms do between two messages, as functions of a GPU program that owns some of them.

Products run over blocks of output features and of the sum; what one product hands to the next goes through memory,
where most of it must be kept for the backward pass, and a barrier.
"""

from __future__ import annotations

import triton
import triton.language as tl

from painn_fast.kernels.readout.triton import sigmoid
from painn_fast.kernels.update.triton import put_three, three


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """total + a b."""
    if PRECISION == "bf16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total, out_dtype=total.dtype)
    else:
        return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def silu(h):
    return h * sigmoid(h)


@triton.jit
def silu_slope(h):
    p = sigmoid(h)
    return p * (1.0 + h * (1.0 - p))


@triton.jit
def bias(p_bias, c, mask):
    """bias [1, BLOCK] for every row of a tile."""
    return tl.where(mask, tl.load(p_bias + c), 0.0)


@triton.jit
def node_forward(
    p_s, p_v, p_mix, p_first, p_first_bias, p_second, p_second_bias,
    p_next, p_next_bias, p_x_weight, p_x_bias,
    p_vw, p_norm, p_hidden, p_y, p_s_out, p_v_out, p_next_hidden, p_x, i, mask,
    EPSILON: tl.constexpr, VECTORS: tl.constexpr, PRECISION: tl.constexpr, F: tl.constexpr, H: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_H: tl.constexpr, DEPTH: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """s_out, v_out, next_hidden [N, H], x [N, 3 F] (not where its weight is None); vw, hidden, y are kept."""
    DTYPE: tl.constexpr = p_s.dtype.element_ty
    depth = tl.arange(0, DEPTH)
    for start in range(0, F, BLOCK):  # [V, W] = v C, and |V|
        c = start + tl.arange(0, BLOCK)[None, :]
        zero = tl.zeros((ROWS, BLOCK), DTYPE)
        a0, a1, a2, b0, b1, b2 = zero, zero, zero, zero, zero, zero
        for first in tl.range(0, F, DEPTH, num_stages=STAGES):
            v0, v1, v2 = three(p_v, i, first + depth[None, :], mask, F)
            p_weight = p_mix + (first + depth)[:, None] * (2 * F) + c
            weight = tl.load(p_weight)
            a0 = product(v0, weight, a0, PRECISION)
            a1 = product(v1, weight, a1, PRECISION)
            a2 = product(v2, weight, a2, PRECISION)
            weight = tl.load(p_weight + F)
            b0 = product(v0, weight, b0, PRECISION)
            b1 = product(v1, weight, b1, PRECISION)
            b2 = product(v2, weight, b2, PRECISION)
        put_three(p_vw, i, c, mask, a0, a1, a2, 2 * F)
        put_three(p_vw + F, i, c, mask, b0, b1, b2, 2 * F)
        tl.store(p_norm + i * F + c, tl.sqrt(a0 * a0 + a1 * a1 + a2 * a2 + EPSILON), mask=mask)
    tl.debug_barrier()
    for start in range(0, F, BLOCK):  # hidden = [s, |V|] W1 + b1
        c = start + tl.arange(0, BLOCK)[None, :]
        of_s, of_norm = bias(p_first_bias, c, mask), tl.zeros((ROWS, BLOCK), DTYPE)  # shorter sums: less rounding
        for first in tl.range(0, F, DEPTH, num_stages=STAGES):
            p_row = i * F + first + depth[None, :]
            p_weight = p_first + (first + depth)[:, None] * F + c
            of_s = product(tl.load(p_s + p_row, mask=mask, other=0.0), tl.load(p_weight), of_s, PRECISION)
            norm = tl.load(p_norm + p_row, mask=mask, other=0.0)
            of_norm = product(norm, tl.load(p_weight + F * F), of_norm, PRECISION)
        tl.store(p_hidden + i * F + c, of_s + of_norm, mask=mask)
    tl.debug_barrier()
    for start in range(0, F, BLOCK):  # (A, B, G) = silu(hidden) W2 + b2, and the gate
        c = start + tl.arange(0, BLOCK)[None, :]
        A, G = bias(p_second_bias, c, mask), bias(p_second_bias + 2 * F, c, mask)
        if VECTORS:
            B = bias(p_second_bias + F, c, mask)
        for first in tl.range(0, F, DEPTH, num_stages=STAGES):
            h = silu(tl.load(p_hidden + i * F + first + depth[None, :], mask=mask, other=0.0))
            p_weight = p_second + (first + depth)[:, None] * (3 * F) + c
            A = product(h, tl.load(p_weight), A, PRECISION)
            if VECTORS:
                B = product(h, tl.load(p_weight + F), B, PRECISION)
            G = product(h, tl.load(p_weight + 2 * F), G, PRECISION)
        a0, a1, a2 = three(p_vw, i, c, mask, 2 * F)
        b0, b1, b2 = three(p_vw + F, i, c, mask, 2 * F)
        s = tl.load(p_s + i * F + c, mask=mask, other=0.0) + A + G * (a0 * b0 + a1 * b1 + a2 * b2)
        tl.store(p_s_out + i * F + c, s, mask=mask)
        tl.store(p_y + i * (3 * F) + 2 * F + c, G, mask=mask)
        if VECTORS:
            tl.store(p_y + i * (3 * F) + F + c, B, mask=mask)
            v0, v1, v2 = three(p_v, i, c, mask, F)
            put_three(p_v_out, i, c, mask, v0 + B * b0, v1 + B * b1, v2 + B * b2, F)
    tl.debug_barrier()
    for start in range(0, H, BLOCK_H):  # what follows: its first layer
        c = start + tl.arange(0, BLOCK_H)[None, :]
        total = bias(p_next_bias, c, mask)
        for first in tl.range(0, F, DEPTH, num_stages=STAGES):
            s = tl.load(p_s_out + i * F + first + depth[None, :], mask=mask, other=0.0)
            total = product(s, tl.load(p_next + (first + depth)[:, None] * H + c), total, PRECISION)
        tl.store(p_next_hidden + i * H + c, total, mask=mask)
    if p_x_weight is not None:
        tl.debug_barrier()
        for start in range(0, F, BLOCK):  # x
            c = start + tl.arange(0, BLOCK)[None, :]
            xa, xb = bias(p_x_bias, c, mask), bias(p_x_bias + F, c, mask)
            xc = bias(p_x_bias + 2 * F, c, mask)
            for first in tl.range(0, F, DEPTH, num_stages=STAGES):
                h = silu(tl.load(p_next_hidden + i * F + first + depth[None, :], mask=mask, other=0.0))
                p_weight = p_x_weight + (first + depth)[:, None] * (3 * F) + c
                xa = product(h, tl.load(p_weight), xa, PRECISION)
                xb = product(h, tl.load(p_weight + F), xb, PRECISION)
                xc = product(h, tl.load(p_weight + 2 * F), xc, PRECISION)
            put_three(p_x, i, c, mask, xa, xb, xc, F)


@triton.jit
def node_backward(
    p_gs, p_gv, p_g_next, p_mix, p_first, p_second, p_next, p_x_weight,
    p_vw, p_hidden, p_y, p_next_hidden,
    p_narrow, p_total, p_g_vw, p_gs_out, p_gv_out, i, mask,
    EPSILON: tl.constexpr, PRECISION: tl.constexpr, F: tl.constexpr, H: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, DEPTH_H: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """gs_out, gv_out of s and v before the update. Weights are [out, in]; narrow, total and g_vw are scratch.

    g_next is the adjoint of x, or where there is none (its weight is None) of the readout's hidden layer; then gs and
    gv are zero and not read.
    """
    DTYPE: tl.constexpr = p_gs_out.dtype.element_ty
    INNER: tl.constexpr = p_x_weight is not None
    depth = tl.arange(0, DEPTH)
    depth_h = tl.arange(0, DEPTH_H)
    p_g_hidden = p_g_next
    if INNER:
        for start in range(0, F, BLOCK):  # adjoint of the next hidden layer
            c = start + tl.arange(0, BLOCK)[None, :]
            total = tl.zeros((ROWS, BLOCK), DTYPE)
            for first in tl.range(0, 3 * F, DEPTH, num_stages=STAGES):
                gx = tl.load(p_g_next + i * (3 * F) + first + depth[None, :], mask=mask, other=0.0)
                total = product(gx, tl.load(p_x_weight + (first + depth)[:, None] * F + c), total, PRECISION)
            total *= silu_slope(tl.load(p_next_hidden + i * F + c, mask=mask, other=0.0))
            tl.store(p_narrow + i * F + c, total, mask=mask)
        tl.debug_barrier()
        p_g_hidden = p_narrow
    for start in range(0, F, BLOCK):  # of s after the update, in all
        c = start + tl.arange(0, BLOCK)[None, :]
        total = tl.zeros((ROWS, BLOCK), DTYPE)
        if INNER:
            total = tl.load(p_gs + i * F + c, mask=mask, other=0.0)
        for first in tl.range(0, H, DEPTH_H, num_stages=STAGES):
            g = tl.load(p_g_hidden + i * H + first + depth_h[None, :], mask=mask, other=0.0)
            total = product(g, tl.load(p_next + (first + depth_h)[:, None] * F + c), total, PRECISION)
        tl.store(p_total + i * F + c, total, mask=mask)
    tl.debug_barrier()
    for start in range(0, F, BLOCK):  # of the update's hidden layer, from gy = (gs, <gv, W>, gs <V, W>)
        c = start + tl.arange(0, BLOCK)[None, :]
        zero = tl.zeros((ROWS, BLOCK), DTYPE)
        of_A, of_B, of_G = zero, zero, zero
        for first in tl.range(0, F, DEPTH, num_stages=STAGES):
            k = first + depth[None, :]
            p_weight = p_second + (first + depth)[:, None] * F + c
            gs = tl.load(p_total + i * F + k, mask=mask, other=0.0)
            of_A = product(gs, tl.load(p_weight), of_A, PRECISION)
            b0, b1, b2 = three(p_vw + F, i, k, mask, 2 * F)
            if INNER:
                g0, g1, g2 = three(p_gv, i, k, mask, F)
                gB = g0 * b0 + g1 * b1 + g2 * b2
                of_B = product(gB, tl.load(p_weight + F * F), of_B, PRECISION)
            a0, a1, a2 = three(p_vw, i, k, mask, 2 * F)
            gG = gs * (a0 * b0 + a1 * b1 + a2 * b2)
            of_G = product(gG, tl.load(p_weight + 2 * F * F), of_G, PRECISION)
        total = (of_A + of_B + of_G) * silu_slope(tl.load(p_hidden + i * F + c, mask=mask, other=0.0))
        tl.store(p_narrow + i * F + c, total, mask=mask)
    tl.debug_barrier()
    for start in range(0, F, BLOCK):  # of [s, |V|], and of V and W
        c = start + tl.arange(0, BLOCK)[None, :]
        gs, stretch = tl.zeros((ROWS, BLOCK), DTYPE), tl.zeros((ROWS, BLOCK), DTYPE)
        for first in tl.range(0, F, DEPTH, num_stages=STAGES):
            g = tl.load(p_narrow + i * F + first + depth[None, :], mask=mask, other=0.0)
            p_weight = p_first + (first + depth)[:, None] * (2 * F) + c
            gs = product(g, tl.load(p_weight), gs, PRECISION)
            stretch = product(g, tl.load(p_weight + F), stretch, PRECISION)
        total = tl.load(p_total + i * F + c, mask=mask, other=0.0)
        tl.store(p_gs_out + i * F + c, total + gs, mask=mask)
        g_dot = total * tl.load(p_y + i * (3 * F) + 2 * F + c, mask=mask, other=0.0)
        a0, a1, a2 = three(p_vw, i, c, mask, 2 * F)
        b0, b1, b2 = three(p_vw + F, i, c, mask, 2 * F)
        square = a0 * a0 + a1 * a1 + a2 * a2 + EPSILON
        inverse = tl.rsqrt(square)
        stretch *= inverse + inverse * (0.5 - 0.5 * square * inverse * inverse)  # a Newton step
        x, y, z = g_dot * b0 + stretch * a0, g_dot * b1 + stretch * a1, g_dot * b2 + stretch * a2
        put_three(p_g_vw, i, c, mask, x, y, z, 2 * F)
        x, y, z = g_dot * a0, g_dot * a1, g_dot * a2
        if INNER:
            B = tl.load(p_y + i * (3 * F) + F + c, mask=mask, other=0.0)
            g0, g1, g2 = three(p_gv, i, c, mask, F)
            x, y, z = x + B * g0, y + B * g1, z + B * g2
        put_three(p_g_vw + F, i, c, mask, x, y, z, 2 * F)
    tl.debug_barrier()
    for start in range(0, F, BLOCK):  # of v
        c = start + tl.arange(0, BLOCK)[None, :]
        if INNER:
            x, y, z = three(p_gv, i, c, mask, F)
        else:
            zero = tl.zeros((ROWS, BLOCK), DTYPE)
            x, y, z = zero, zero, zero
        for first in tl.range(0, 2 * F, DEPTH, num_stages=STAGES):
            g0, g1, g2 = three(p_g_vw, i, first + depth[None, :], mask, 2 * F)
            weight = tl.load(p_mix + (first + depth)[:, None] * F + c)
            x = product(g0, weight, x, PRECISION)
            y = product(g1, weight, y, PRECISION)
            z = product(g2, weight, z, PRECISION)
        put_three(p_gv_out, i, c, mask, x, y, z, F)
