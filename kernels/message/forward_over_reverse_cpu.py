"""The adjoint of the message and of its tangent together, on a CPU, for training; notation as in `edges_cpu.py`.

With g the adjoint of a message, p that of its tangent, t a tangent, every edge gives to the gates of its sender

    p_x += p w        g_x += g w + p tw + (the part of p that moves) w

and to the filter and its tangent g x + p tx + ... and p x, which reach the weight through basis and t_basis.
"""

from __future__ import annotations

import numpy as np

from painn_fast.kernels.dense.cpu import add_outer, matmul
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.message.edges_cpu import block_end, filter_slots, gather, most_edges, of_mirrors
from painn_fast.kernels.simd import LANES, load, splat, store


@compiled(nogil=True, allocates=True)
def dual_adjoint(  # noqa: PLR0915 - one visit of an edge shares everything it reads
    gs: np.ndarray, gv: np.ndarray, ps: np.ndarray, pv: np.ndarray, x: np.ndarray, v: np.ndarray, tx: np.ndarray,
    tv: np.ndarray, basis: np.ndarray, t_basis: np.ndarray, panels: np.ndarray,
    zero: np.ndarray, u: np.ndarray, tu: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray, mirror: np.ndarray,
    ends: np.ndarray, first: int, last: int, gx: np.ndarray, gv_out: np.ndarray, px: np.ndarray, pv_out: np.ndarray,
    g_weight: np.ndarray,
) -> None:  # fmt: skip
    """Adjoints of x and v (g) and of their tangents (p); that of weight, which stands still, grows."""
    f, longest, columns = gs.shape[1], most_edges(row_ptr), basis.shape[1]
    filters, t_filters = np.empty((longest, 3 * f), gs.dtype), np.empty((longest, 3 * f), gs.dtype)
    gates, p_gates = np.empty((longest, 3 * f), gs.dtype), np.empty((longest, 3 * f), gs.dtype)
    b_row, t_row = np.empty((longest, columns), gs.dtype), np.empty((longest, columns), gs.dtype)
    edge, slot = np.empty(longest, np.int64), np.empty(longest, np.int64)
    start = first
    while start < last:
        stop = block_end(row_ptr, ends, start, last)
        low, high = row_ptr[start], row_ptr[stop]
        count = filter_slots(mirror, sender, ends, low, high, edge, slot)
        of_mirrors(mirror, edge, count)
        gather(basis, edge, count, b_row)
        gather(t_basis, edge, count, t_row)
        matmul(b_row[:count], panels, zero, filters[:count])
        matmul(t_row[:count], panels, zero, t_filters[:count])
        gates[:count], p_gates[:count] = 0, 0
        for i in range(start, stop):
            x_i, v_i, y_i, z_i = x[i], v[i], tx[i], tv[i]
            to_gx, to_gv, to_px, to_pv = gx[i], gv_out[i], px[i], pv_out[i]
            to_gx[:], to_gv[:], to_px[:], to_pv[:] = 0, 0, 0, 0
            for row in range(row_ptr[i], row_ptr[i + 1]):
                j, e, k = sender[row], mirror[row], slot[row - low]
                w, tw, gate, p_gate = filters[k], t_filters[k], gates[k], p_gates[k]
                s_j, v_j, q_j, r_j = gs[j], gv[j], ps[j], pv[j]
                u0, u1, u2 = splat(u[e, 0], x), splat(u[e, 1], x), splat(u[e, 2], x)
                t0, t1, t2 = splat(tu[e, 0], x), splat(tu[e, 1], x), splat(tu[e, 2], x)
                for a in range(0, f, LANES):
                    b, c = a + f, a + 2 * f
                    g0, g1, g2, p0, p1, p2 = (
                        load(v_j, a), load(v_j, b), load(v_j, c), load(r_j, a), load(r_j, b), load(r_j, c),
                    )  # fmt: skip
                    # scalar messages
                    g, p = load(s_j, a), load(q_j, a)
                    w_, t_, x_, y_ = load(w, a), load(tw, a), load(x_i, a), load(y_i, a)
                    store(to_gx, a, load(to_gx, a) + g * w_ + p * t_)
                    store(to_px, a, load(to_px, a) + p * w_)
                    store(gate, a, load(gate, a) + g * x_ + p * y_)
                    store(p_gate, a, load(p_gate, a) + p * x_)
                    # along the direction
                    w_, t_, x_, y_ = load(w, b), load(tw, b), load(x_i, b), load(y_i, b)
                    g = g0 * u0 + g1 * u1 + g2 * u2 + p0 * t0 + p1 * t1 + p2 * t2
                    p = p0 * u0 + p1 * u1 + p2 * u2
                    store(to_gx, b, load(to_gx, b) + g * w_ + p * t_)
                    store(to_px, b, load(to_px, b) + p * w_)
                    store(gate, b, load(gate, b) + g * x_ + p * y_)
                    store(p_gate, b, load(p_gate, b) + p * x_)
                    # vectors that propagate
                    w_, t_, x_, y_ = load(w, c), load(tw, c), load(x_i, c), load(y_i, c)
                    v0, v1, v2 = load(v_i, a), load(v_i, b), load(v_i, c)
                    g = g0 * v0 + g1 * v1 + g2 * v2 + p0 * load(z_i, a) + p1 * load(z_i, b) + p2 * load(z_i, c)
                    p = p0 * v0 + p1 * v1 + p2 * v2
                    store(to_gx, c, load(to_gx, c) + g * w_ + p * t_)
                    store(to_px, c, load(to_px, c) + p * w_)
                    store(gate, c, load(gate, c) + g * x_ + p * y_)
                    store(p_gate, c, load(p_gate, c) + p * x_)
                    along, across = w_ * x_, t_ * x_ + w_ * y_
                    store(to_gv, a, load(to_gv, a) + along * g0 + across * p0)
                    store(to_gv, b, load(to_gv, b) + along * g1 + across * p1)
                    store(to_gv, c, load(to_gv, c) + along * g2 + across * p2)
                    store(to_pv, a, load(to_pv, a) + along * p0)
                    store(to_pv, b, load(to_pv, b) + along * p1)
                    store(to_pv, c, load(to_pv, c) + along * p2)
        add_outer(b_row, gates, 0, count, g_weight)
        add_outer(t_row, p_gates, 0, count, g_weight)
        start = stop
