"""Message with the filter made inside from a basis, its adjoint, and the derivatives of both, on a CPU.

    w_e = B_e W          B [E, K] basis times cut-off (the last column carries the bias), W [K, 3 F]
    L   = sum_e sum_F  gs_i x^a_j w^a + <gv_i, u> x^b_j w^b + <gv_i, v_j> x^c_j w^c

The message is dL/d(gs, gv), its adjoint dL/d(x, v, B, W, u). L is linear in each argument, so that the adjoint of the
adjoint is a derivative of these along a tangent: `message_tangent` and `adjoint_tangent`. Receivers are visited by
their own rows, senders by the mirrors of theirs (`mirror[e]` is the edge from receiver to sender of e): each edge is
seen once in each pass and nothing is scattered. K is a multiple of 4. As in `cpu.py`, inner loops write to one array.
"""

from __future__ import annotations

import numpy as np

from painn_fast.kernels.compiled import FAST, compiled


@compiled(nogil=True, fastmath=FAST, inline="always")
def _add_product(b, weight, out):  # type: ignore[no-untyped-def]
    """out [C] += b [K] weight [K, C], four rows at a time."""
    for k in range(0, b.shape[0], 4):
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        for c in range(out.shape[0]):
            out[c] += b0 * w0[c] + b1 * w1[c] + b2 * w2[c] + b3 * w3[c]


@compiled(nogil=True, fastmath=FAST, inline="always")
def _add_transposed(g, weight, out):  # type: ignore[no-untyped-def]
    """out [K] += weight [K, C] g [C], four rows at a time."""
    zero = g.dtype.type(0)
    for k in range(0, out.shape[0], 4):
        w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for c in range(g.shape[0]):
            s0 += w0[c] * g[c]
            s1 += w1[c] * g[c]
            s2 += w2[c] * g[c]
            s3 += w3[c] * g[c]
        out[k] += s0
        out[k + 1] += s1
        out[k + 2] += s2
        out[k + 3] += s3


@compiled(nogil=True, fastmath=FAST, inline="always")
def _add_outer(b, g, out):  # type: ignore[no-untyped-def]
    """out [K, C] += b [K] g [C]."""
    for k in range(b.shape[0]):
        row, factor = out[k], b[k]
        for c in range(g.shape[0]):
            row[c] += factor * g[c]


@compiled(nogil=True, fastmath=FAST, inline="always")
def _add_messages(b, u, g, p, out):  # type: ignore[no-untyped-def]
    """out [3, F] += b [F] u [3] + g [F] p [3, F]."""
    for m in range(3):
        row, factor, q = out[m], u[m], p[m]
        for c in range(row.shape[0]):
            row[c] += b[c] * factor + g[c] * q[c]


@compiled(nogil=True, fastmath=FAST, inline="always")
def _adjoint_gates(gs, gv, u, v, out):  # type: ignore[no-untyped-def]
    """out [3 F] = (gs, <gv, u>, <gv, v>)."""
    f = gs.shape[0]
    g0, g1, g2, p0, p1, p2, u0, u1, u2 = gv[0], gv[1], gv[2], v[0], v[1], v[2], u[0], u[1], u[2]
    b, a = out[f : 2 * f], out[2 * f :]
    for c in range(f):
        out[c] = gs[c]
    for c in range(f):
        b[c] = g0[c] * u0 + g1[c] * u1 + g2[c] * u2
    for c in range(f):
        a[c] = g0[c] * p0[c] + g1[c] * p1[c] + g2[c] * p2[c]


@compiled(nogil=True, fastmath=FAST)
def message(
    x: np.ndarray, v: np.ndarray, basis: np.ndarray, weight: np.ndarray, u: np.ndarray, row_ptr: np.ndarray,
    sender: np.ndarray, first: int, last: int, ds: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """ds [N, F] and dv [N, 3, F] of receivers first to last - 1."""
    f = ds.shape[1]
    w = np.empty(3 * f, ds.dtype)
    for i in range(first, last):
        s_i = ds[i]
        s_i[:], dv[i] = 0, 0
        for e in range(row_ptr[i], row_ptr[i + 1]):
            x_j = x[sender[e]]
            w[:] = 0
            _add_product(basis[e], weight, w)
            for c in range(3 * f):
                w[c] *= x_j[c]
            for c in range(f):
                s_i[c] += w[c]
            _add_messages(w[f : 2 * f], u[e], w[2 * f :], v[sender[e]], dv[i])


@compiled(nogil=True, fastmath=FAST)
def message_tangent(
    x: np.ndarray, v: np.ndarray, basis: np.ndarray, weight: np.ndarray, u: np.ndarray, tx: np.ndarray, tv: np.ndarray,
    t_basis: np.ndarray, t_weight: np.ndarray, tu: np.ndarray, weight_moves: bool, row_ptr: np.ndarray,
    sender: np.ndarray, first: int, last: int, ds: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """Derivative of `message` along a tangent of x, v, basis, weight (if `weight_moves`) and u."""
    f = ds.shape[1]
    w, tw = np.empty(3 * f, ds.dtype), np.empty(3 * f, ds.dtype)
    for i in range(first, last):
        s_i = ds[i]
        s_i[:], dv[i] = 0, 0
        for e in range(row_ptr[i], row_ptr[i + 1]):
            j = sender[e]
            x_j, y_j = x[j], tx[j]
            w[:], tw[:] = 0, 0
            _add_product(basis[e], weight, w)
            _add_product(t_basis[e], weight, tw)
            if weight_moves:
                _add_product(basis[e], t_weight, tw)
            for c in range(3 * f):
                tw[c] = y_j[c] * w[c] + x_j[c] * tw[c]
            for c in range(3 * f):
                w[c] *= x_j[c]
            for c in range(f):
                s_i[c] += tw[c]
            _add_messages(tw[f : 2 * f], u[e], tw[2 * f :], v[j], dv[i])
            _add_messages(w[f : 2 * f], tu[e], w[2 * f :], tv[j], dv[i])


@compiled(nogil=True, fastmath=FAST, inline="always")
def _add_sender(gv, b, a, gv_out, gu):  # type: ignore[no-untyped-def]
    """gv_out [3, F] += a gv; gu [3] = sum b gv."""
    zero = b.dtype.type(0)
    for m in range(3):
        row, g, total = gv_out[m], gv[m], zero
        for c in range(row.shape[0]):
            row[c] += a[c] * g[c]
        for c in range(row.shape[0]):
            total += b[c] * g[c]
        gu[m] = total


@compiled(nogil=True, fastmath=FAST)
def adjoint(
    gs: np.ndarray, gv: np.ndarray, x: np.ndarray, v: np.ndarray, basis: np.ndarray, weight: np.ndarray, u: np.ndarray,
    row_ptr: np.ndarray, sender: np.ndarray, mirror: np.ndarray, first: int, last: int, gx: np.ndarray,
    gv_out: np.ndarray, g_basis: np.ndarray, g_weight: np.ndarray, gu: np.ndarray,
) -> None:  # fmt: skip
    """Adjoints of x, v, basis, u of senders first to last - 1, and their part of that of weight, which grows."""
    f = gs.shape[1]
    w, gate = np.empty(3 * f, gs.dtype), np.empty(3 * f, gs.dtype)
    for i in range(first, last):
        x_i, gx_i = x[i], gx[i]
        gx_i[:], gv_out[i] = 0, 0
        for row in range(row_ptr[i], row_ptr[i + 1]):
            j, e = sender[row], mirror[row]
            w[:] = 0
            _add_product(basis[e], weight, w)
            _adjoint_gates(gs[j], gv[j], u[e], v[i], gate)
            for c in range(3 * f):
                gx_i[c] += gate[c] * w[c]
            for c in range(3 * f):
                w[c] *= x_i[c]
            _add_sender(gv[j], w[f : 2 * f], w[2 * f :], gv_out[i], gu[e])
            for c in range(3 * f):
                gate[c] *= x_i[c]
            g_basis[e] = 0
            _add_transposed(gate, weight, g_basis[e])
            _add_outer(basis[e], gate, g_weight)


@compiled(nogil=True, fastmath=FAST)
def adjoint_tangent(
    gs: np.ndarray, gv: np.ndarray, x: np.ndarray, v: np.ndarray, basis: np.ndarray, weight: np.ndarray, u: np.ndarray,
    tx: np.ndarray, tv: np.ndarray, t_basis: np.ndarray, t_weight: np.ndarray, tu: np.ndarray, weight_moves: bool,
    row_ptr: np.ndarray, sender: np.ndarray, mirror: np.ndarray, first: int, last: int, gx: np.ndarray,
    gv_out: np.ndarray, g_basis: np.ndarray, g_weight: np.ndarray, gu: np.ndarray,
) -> None:  # fmt: skip
    """Derivative of `adjoint` along a tangent of x, v, basis, weight (if `weight_moves`), u; gs and gv stand still."""
    f = gs.shape[1]
    w, tw = np.empty(3 * f, gs.dtype), np.empty(3 * f, gs.dtype)
    gate, t_gate = np.empty(3 * f, gs.dtype), np.empty(3 * f, gs.dtype)
    nothing = np.zeros(f, gs.dtype)
    for i in range(first, last):
        x_i, y_i, gx_i = x[i], tx[i], gx[i]
        gx_i[:], gv_out[i] = 0, 0
        for row in range(row_ptr[i], row_ptr[i + 1]):
            j, e = sender[row], mirror[row]
            w[:], tw[:] = 0, 0
            _add_product(basis[e], weight, w)
            _add_product(t_basis[e], weight, tw)
            if weight_moves:
                _add_product(basis[e], t_weight, tw)
            _adjoint_gates(gs[j], gv[j], u[e], v[i], gate)
            _adjoint_gates(nothing, gv[j], tu[e], tv[i], t_gate)
            for c in range(3 * f):
                gx_i[c] += gate[c] * tw[c] + t_gate[c] * w[c]
            for c in range(3 * f):
                tw[c] = y_i[c] * w[c] + x_i[c] * tw[c]
            _add_sender(gv[j], tw[f : 2 * f], tw[2 * f :], gv_out[i], gu[e])
            for c in range(3 * f):
                t_gate[c] = gate[c] * y_i[c] + t_gate[c] * x_i[c]
            for c in range(3 * f):
                gate[c] *= x_i[c]
            g_basis[e] = 0
            _add_transposed(t_gate, weight, g_basis[e])
            if weight_moves:
                _add_transposed(gate, t_weight, g_basis[e])
            _add_outer(t_basis[e], gate, g_weight)
            _add_outer(basis[e], t_gate, g_weight)
