"""What `passes_cpu.py` does between products and messages: on edges, on atoms, and in the readout.

Names and letters are those of the passes: t_ a tangent, g_ the adjoint of a value and p_ that of a tangent.
"""

from __future__ import annotations

import numpy as np

from painn_fast.kernels.dense.cpu import add_matmul, add_outer, matmul, outer, sigmoid
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.simd import LANES, load, splat, store, total


@compiled(nogil=True, allocates=True)
def dual_read_out(w, m, t, gs, g_read, p_read, first, last, to):  # type: ignore[no-untyped-def]
    """gs grows by the adjoint of s, biases and readout_2 of `to` by those of the weights."""
    n, rows = last - first, slice(first, last)
    g_hidden, p_hidden = np.empty_like(m.read_hidden[rows]), np.empty_like(m.read_hidden[rows])
    spread_out(g_read, w.readout_2, first, last, g_hidden)
    spread_out(p_read, w.readout_2, first, last, p_hidden)
    activation_dual(w.layers.softplus, m.read_hidden[rows], t.read_hidden[rows], p_hidden, g_hidden, p_hidden)
    add_matmul(g_hidden, w.readout_1_t, gs)
    add_read_out(g_read, m.read_active, first, last, to.readout_2[0])
    add_read_out(p_read, t.read_active, first, last, to.readout_2[0])
    to.readout_2_bias[0] += g_read[rows].sum()
    add_rows(g_hidden, to.readout_1_bias)
    outer(g_hidden, m.s[-1, rows], to.readout_1)
    add_outer(p_hidden, t.s[-1, rows], 0, n, to.readout_1)


@compiled(nogil=True)
def edges_tangent(g, t_edge, first, last, t_basis, tu):  # type: ignore[no-untyped-def]
    """Tangents of the basis and of u = r / |r| along t_edge; a pair's distance is the mean of its edges' lengths."""
    low, high = g.row_ptr[first], g.row_ptr[last]
    half = g.u.dtype.type(0.5)
    for e in range(low, high):
        m = g.mirror[e]
        along = g.u[e, 0] * t_edge[e, 0] + g.u[e, 1] * t_edge[e, 1] + g.u[e, 2] * t_edge[e, 2]
        other = g.u[m, 0] * t_edge[m, 0] + g.u[m, 1] * t_edge[m, 1] + g.u[m, 2] * t_edge[m, 2]
        moved = half * (along + other)
        for k in range(t_basis.shape[1]):
            t_basis[e, k] = moved * g.slope[e, k]
        for k in range(3):
            tu[e, k] = (t_edge[e, k] - along * g.u[e, k]) * g.inverse[e]


@compiled(nogil=True, allocates=True)
def edges_adjoint(g, g_basis, first, last, g_edge):  # type: ignore[no-untyped-def]
    """g_edge, that of u, becomes that of r with g_basis, of either edge of a pair."""
    low, high = g.row_ptr[first], g.row_ptr[last]
    along = np.empty(high - low, g.u.dtype)
    half = g.u.dtype.type(0.5)
    for e in range(low, high):
        value = splat(0.0, g.u)
        for c in range(0, g_basis.shape[1], LANES):
            value = value + load(g_basis[e], c) * load(g.slope[e], c)
        along[e - low] = total(value)
    for e in range(low, high):
        g0, g1, g2 = g_edge[e, 0], g_edge[e, 1], g_edge[e, 2]
        radial = half * (along[e - low] + along[g.mirror[e] - low])
        radial -= (g0 * g.u[e, 0] + g1 * g.u[e, 1] + g2 * g.u[e, 2]) * g.inverse[e]
        for k in range(3):
            g_edge[e, k] = g_edge[e, k] * g.inverse[e] + radial * g.u[e, k]


@compiled(nogil=True)
def read_out(active, weight, bias, first, last, out):  # type: ignore[no-untyped-def]
    """out = active weight + bias."""
    for i in range(first, last):
        row, value = active[i], splat(0.0, active)
        for c in range(0, row.shape[0], LANES):
            value = value + load(row, c) * load(weight, c)
        out[i] = total(value) + bias


@compiled(nogil=True)
def spread_out(g, weight, first, last, out):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        to, value = out[i - first], splat(g[i], out)
        for c in range(0, to.shape[0], LANES):
            store(to, c, value * load(weight, c))


@compiled(nogil=True)
def add_read_out(g, active, first, last, out):  # type: ignore[no-untyped-def]
    """out += g^T active."""
    for i in range(first, last):
        row, value = active[i], splat(g[i], active)
        for c in range(0, row.shape[0], LANES):
            store(out, c, load(out, c) + value * load(row, c))


@compiled(nogil=True)
def product_bwd(transposed, x, gy, weights, zero, gx, g_weight):  # type: ignore[no-untyped-def]
    """gx = gy W^T, and g_weight [out, in] = gy^T x with `weights`."""
    matmul(gy, transposed, zero, gx)
    if weights:
        outer(gy, x, g_weight)


@compiled(nogil=True)
def clear(to):  # type: ignore[no-untyped-def]
    """Gradients of weights that are added up; the others, of matrices of atoms, are set."""
    to.filter[:] = 0
    to.message_1_bias[:] = 0
    to.message_2_bias[:] = 0
    to.update_1_bias[:] = 0
    to.update_2_bias[:] = 0
    to.readout_1_bias[:] = 0
    to.readout_2[:] = 0
    to.readout_2_bias[:] = 0


@compiled(nogil=True)
def add(a, b, out):  # type: ignore[no-untyped-def]
    for i in range(a.shape[0]):
        p, q, to = a[i], b[i], out[i]
        for c in range(0, a.shape[1], LANES):
            store(to, c, load(p, c) + load(q, c))


@compiled(nogil=True)
def keep(a, layers, k, first):  # type: ignore[no-untyped-def]
    """layers [k, first ...] = a, if there are layers [L, N, C]."""
    if layers.shape[0] == 0:
        return
    for i in range(a.shape[0]):
        row, to = a[i], layers[k, first + i]
        for c in range(0, a.shape[1], LANES):
            store(to, c, load(row, c))


@compiled(nogil=True)
def add_rows(a, out):  # type: ignore[no-untyped-def]
    """out [C] += sum of the rows of a [M, C]."""
    for i in range(a.shape[0]):
        row = a[i]
        for c in range(0, a.shape[1], LANES):
            store(out, c, load(out, c) + load(row, c))


@compiled(nogil=True)
def activation_tangent(softplus, h, th, out):  # type: ignore[no-untyped-def]
    """out = f'(h) th."""
    if softplus:
        _softplus_tangent(h, th, out)
        return
    for i in range(h.shape[0]):
        row, t, to = h[i], th[i], out[i]
        for c in range(0, h.shape[1], LANES):
            x = load(row, c)
            p = sigmoid(x)
            one = splat(1.0, x)
            store(to, c, load(t, c) * p * (one + x * (one - p)))


@compiled(nogil=True)
def _softplus_tangent(h, th, out):  # type: ignore[no-untyped-def]
    for i in range(h.shape[0]):
        row, t, to = h[i], th[i], out[i]
        for c in range(0, h.shape[1], LANES):
            store(to, c, load(t, c) * sigmoid(load(row, c)))


@compiled(nogil=True)
def activation_dual(softplus, h, th, p, g, p_out):  # type: ignore[no-untyped-def]
    """g = f'(h) g + f''(h) th p; p_out = f'(h) p, which may be p."""
    if softplus:
        _softplus_dual(h, th, p, g, p_out)
        return
    for i in range(h.shape[0]):
        row, t, from_p, to_g, to_p = h[i], th[i], p[i], g[i], p_out[i]
        for c in range(0, h.shape[1], LANES):
            x = load(row, c)
            q = sigmoid(x)
            one = splat(1.0, x)
            rest = one - q
            slope = q * (one + x * rest)
            bend = q * rest * (one + one + x * (rest - q))
            a, b = load(to_g, c), load(from_p, c)
            store(to_g, c, slope * a + bend * load(t, c) * b)
            store(to_p, c, slope * b)


@compiled(nogil=True)
def _softplus_dual(h, th, p, g, p_out):  # type: ignore[no-untyped-def]
    for i in range(h.shape[0]):
        row, t, from_p, to_g, to_p = h[i], th[i], p[i], g[i], p_out[i]
        for c in range(0, h.shape[1], LANES):
            q = sigmoid(load(row, c))
            a, b = load(to_g, c), load(from_p, c)
            store(to_g, c, q * (a + (splat(1.0, q) - q) * load(t, c) * b))
            store(to_p, c, q * b)


@compiled(nogil=True)
def gate_tangent(y, vw, dot, ty, t_vw, t_dot, s, v, v_out, first):  # type: ignore[no-untyped-def]
    f = s.shape[1]
    for i in range(s.shape[0]):
        r = first + i
        gates, t_gates, d, td, to_s = y[r], ty[r], dot[r], t_dot[r], s[i]
        for c in range(0, f, LANES):
            change = load(t_gates, c) + load(t_gates, 2 * f + c) * load(d, c) + load(gates, 2 * f + c) * load(td, c)
            store(to_s, c, load(to_s, c) + change)
        for a in range(3):
            old, new, w, tw = v[i], v_out[r], vw[r, a], t_vw[i, a]
            for c in range(0, f, LANES):
                change = load(t_gates, f + c) * load(w, f + c) + load(gates, f + c) * load(tw, f + c)
                store(new, a * f + c, load(old, a * f + c) + change)


@compiled(nogil=True)
def norm_tangent(vw, context, ts, t_vw, t_context, t_dot, first):  # type: ignore[no-untyped-def]
    """t_context = (ts, <V, tV> / n); t_dot = <tV, W> + <V, tW>."""
    f = ts.shape[1]
    for i in range(ts.shape[0]):
        r = first + i
        n, to, to_dot, row = context[r], t_context[r], t_dot[r], ts[i]
        x, y, z, tx, ty, tz = vw[r, 0], vw[r, 1], vw[r, 2], t_vw[i, 0], t_vw[i, 1], t_vw[i, 2]
        for c in range(0, f, LANES):
            d = f + c
            store(to, c, load(row, c))
            a = load(x, c) * load(tx, c) + load(y, c) * load(ty, c) + load(z, c) * load(tz, c)
            store(to, d, a / load(n, d))
            a = load(tx, c) * load(x, d) + load(ty, c) * load(y, d) + load(tz, c) * load(z, d)
            store(to_dot, c, a + load(x, c) * load(tx, d) + load(y, c) * load(ty, d) + load(z, c) * load(tz, d))


@compiled(nogil=True)
def gate_dual(vw, dot, t_vw, t_dot, gs, gv, ps, pv, first, gy, py):  # type: ignore[no-untyped-def]
    """Adjoints of the gates (A, B, G) and of their tangents."""
    f = gs.shape[1]
    for i in range(gs.shape[0]):
        r = first + i
        d, td, g, p, g_v, p_v, to_g, to_p = dot[r], t_dot[r], gs[i], ps[i], gv[i], pv[i], gy[i], py[i]
        w0, w1, w2, t0, t1, t2 = vw[r, 0], vw[r, 1], vw[r, 2], t_vw[r, 0], t_vw[r, 1], t_vw[r, 2]
        for c in range(0, f, LANES):
            a, b = load(g, c), load(p, c)
            store(to_g, c, a)
            store(to_p, c, b)
            store(to_g, 2 * f + c, a * load(d, c) + b * load(td, c))
            store(to_p, 2 * f + c, b * load(d, c))
            x, y, z = load(p_v, c), load(p_v, f + c), load(p_v, 2 * f + c)
            store(to_p, f + c, x * load(w0, f + c) + y * load(w1, f + c) + z * load(w2, f + c))
            a = x * load(t0, f + c) + y * load(t1, f + c) + z * load(t2, f + c)
            x, y, z = load(g_v, c), load(g_v, f + c), load(g_v, 2 * f + c)
            store(to_g, f + c, a + x * load(w0, f + c) + y * load(w1, f + c) + z * load(w2, f + c))


@compiled(nogil=True)
def norm_dual(  # type: ignore[no-untyped-def]
    y, vw, context, ty, t_vw, t_context, gs, gv, ps, pv, g_context, p_context, first, g_vw, p_vw
):  # fmt: skip
    """Adjoints of V and W and of their tangents; gs takes in that of s in the context."""
    f = gs.shape[1]
    for i in range(gs.shape[0]):
        r = first + i
        gates, t_gates, at, t_at, g, p = y[r], ty[r], context[r], t_context[r], gs[i], ps[i]
        g_at, p_at, g_v, p_v = g_context[i], p_context[i], gv[i], pv[i]
        for c in range(0, f, LANES):
            a, b = load(g, c), load(p, c)
            gate, t_gate = load(gates, 2 * f + c), load(t_gates, 2 * f + c)
            p_dot, g_dot = b * gate, a * gate + b * t_gate
            per = splat(1.0, a) / load(at, f + c)
            p_stretch = load(p_at, f + c) * per
            g_stretch = (load(g_at, f + c) - p_stretch * load(t_at, f + c)) * per
            B, tB = load(gates, f + c), load(t_gates, f + c)
            for k in range(3):
                row, t_row, to_g, to_p = vw[r, k], t_vw[r, k], g_vw[i, k], p_vw[i, k]
                V, W, tV, tW = load(row, c), load(row, f + c), load(t_row, c), load(t_row, f + c)
                u, q = load(g_v, k * f + c), load(p_v, k * f + c)
                store(to_p, c, p_stretch * V + p_dot * W)
                store(to_p, f + c, p_dot * V + B * q)
                store(to_g, c, g_stretch * V + p_stretch * tV + g_dot * W + p_dot * tW)
                store(to_g, f + c, g_dot * V + p_dot * tV + B * u + tB * q)
            store(g, c, a + load(g_at, c))
