"""The adjoint of the message and of its tangent together, on a CPU, for training; notation as in `edges_cpu.py`.

With g the adjoint of a message, p that of its tangent, t a tangent, every edge gives to the gates of its sender

    g_x += g w + p tw + (the part of p that moves) w

and to the filter and its tangent g x + p tx + ... and p x, which reach the weight through basis and t_basis.
"""

from __future__ import annotations

import numpy as np

from painn_fast.kernels.dense.cpu import add_outer, matmul
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.message.edges_cpu import block_end, filter_slots, gather, most_edges, of_mirrors, used_panels
from painn_fast.kernels.simd import LANES, load, opaque, splat, store


def _of_senders(vectors):  # type: ignore[no-untyped-def]
    """Adjoints of some senders: for each vector of features one visit of their edges, sums in registers."""

    @compiled(nogil=True)
    def rows(  # type: ignore[no-untyped-def]
        gs, gv, ps, pv, x, v, tx, tv, filters, t_filters, gates, p_gates, slot, low, u, tu, row_ptr, sender, mirror,
        start, stop, gx, gv_out,
    ):  # fmt: skip
        f = gs.shape[1]
        for i in range(start, stop):
            x_i, v_i, y_i, z_i, begin, end = x[i], v[i], tx[i], tv[i], row_ptr[i], row_ptr[i + 1]
            to_gx, to_gv = gx[i], gv_out[i]
            for a in range(0, f, LANES):
                b, c = opaque(a + f), opaque(a + 2 * f)
                gx_a, gx_b, gx_c = splat(0.0, x), splat(0.0, x), splat(0.0, x)
                gv_a, gv_b, gv_c = splat(0.0, x), splat(0.0, x), splat(0.0, x)
                x_a, x_b, x_c, y_a, y_b, y_c = (
                    load(x_i, a), load(x_i, b), load(x_i, c), load(y_i, a), load(y_i, b), load(y_i, c),
                )  # fmt: skip
                for row in range(begin, end):
                    j, e, k = np.uintp(sender[row]), np.uintp(mirror[row]), np.uintp(slot[row - low])
                    w, tw, gate, p_gate = filters[k], t_filters[k], gates[k], p_gates[k]
                    v_j, r_j, u_e, t_e = gv[j], pv[j], u[e], tu[e]
                    # scalar messages
                    g, p, w_, t_ = load(gs[j], a), load(ps[j], a), load(w, a), load(tw, a)
                    gx_a = gx_a + g * w_ + p * t_
                    store(gate, a, load(gate, a) + g * x_a + p * y_a)
                    store(p_gate, a, load(p_gate, a) + p * x_a)
                    # along the direction
                    g0, g1, g2, p0, p1, p2 = (
                        load(v_j, a), load(v_j, b), load(v_j, c), load(r_j, a), load(r_j, b), load(r_j, c),
                    )  # fmt: skip
                    u0, u1, u2 = splat(u_e[0], x), splat(u_e[1], x), splat(u_e[2], x)
                    t0, t1, t2 = splat(t_e[0], x), splat(t_e[1], x), splat(t_e[2], x)
                    w_, t_ = load(w, b), load(tw, b)
                    g = g0 * u0 + g1 * u1 + g2 * u2 + p0 * t0 + p1 * t1 + p2 * t2
                    p = p0 * u0 + p1 * u1 + p2 * u2
                    gx_b = gx_b + g * w_ + p * t_
                    store(gate, b, load(gate, b) + g * x_b + p * y_b)
                    store(p_gate, b, load(p_gate, b) + p * x_b)
                    # vectors that propagate
                    if vectors:
                        w_, t_ = load(w, c), load(tw, c)
                        v0, v1, v2 = load(v_i, a), load(v_i, b), load(v_i, c)
                        g = g0 * v0 + g1 * v1 + g2 * v2 + p0 * load(z_i, a) + p1 * load(z_i, b) + p2 * load(z_i, c)
                        p = p0 * v0 + p1 * v1 + p2 * v2
                        gx_c = gx_c + g * w_ + p * t_
                        store(gate, c, load(gate, c) + g * x_c + p * y_c)
                        store(p_gate, c, load(p_gate, c) + p * x_c)
                        along, across = w_ * x_c, t_ * x_c + w_ * y_c
                        gv_a = gv_a + along * g0 + across * p0
                        gv_b = gv_b + along * g1 + across * p1
                        gv_c = gv_c + along * g2 + across * p2
                store(to_gx, a, gx_a)
                store(to_gx, b, gx_b)
                store(to_gx, c, gx_c)
                if vectors:
                    store(to_gv, a, gv_a)
                    store(to_gv, b, gv_b)
                    store(to_gv, c, gv_c)

    return rows


_rows, _rows_first = _of_senders(True), _of_senders(False)


@compiled(nogil=True, allocates=True)
def dual_adjoint(
    gs: np.ndarray, gv: np.ndarray, ps: np.ndarray, pv: np.ndarray, x: np.ndarray, v: np.ndarray, tx: np.ndarray,
    tv: np.ndarray, basis: np.ndarray, t_basis: np.ndarray, panels: np.ndarray,
    zero: np.ndarray, u: np.ndarray, tu: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray, mirror: np.ndarray,
    ends: np.ndarray, vectors: bool, first: int, last: int, gx: np.ndarray, gv_out: np.ndarray, g_weight: np.ndarray,
) -> None:  # fmt: skip
    """Adjoints of x and v; that of weight, which stands still, grows. Those of the tangents of x and v are `adjoint`'s.

    `vectors` False: v and tv are zero, and the adjoint of v is not made.
    """
    f, longest, columns, used = gs.shape[1], most_edges(row_ptr), basis.shape[1], panels[: used_panels(panels, vectors)]
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
        matmul(b_row[:count], used, zero, filters[:count])
        matmul(t_row[:count], used, zero, t_filters[:count])
        gates[:count], p_gates[:count] = 0, 0
        if vectors:
            _rows(
                gs, gv, ps, pv, x, v, tx, tv, filters, t_filters, gates, p_gates, slot, low, u, tu, row_ptr, sender,
                mirror, start, stop, gx, gv_out,
            )  # fmt: skip
        else:
            _rows_first(
                gs, gv, ps, pv, x, v, tx, tv, filters, t_filters, gates, p_gates, slot, low, u, tu, row_ptr, sender,
                mirror, start, stop, gx, gv_out,
            )  # fmt: skip
        add_outer(b_row, gates, 0, count, g_weight)
        add_outer(t_row, p_gates, 0, count, g_weight)
        start = stop
