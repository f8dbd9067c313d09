"""Message with the filter made inside from a basis, its adjoint, and its derivative along a tangent, on a CPU.

    w_e = B_e W          B [E, K] basis times cut-off (its last column carries the bias), W [K, 3 F]
    L   = sum_e sum_F  gs_i x^a_j w^a + <gv_i, u> x^b_j w^b + <gv_i, v_j> x^c_j w^c

The message is dL/d(gs, gv), its adjoint dL/d(x, v, B, W, u). L is linear in each argument; `message_tangent` is the
derivative of the message along a tangent of x, v, B and u. Receivers are visited by
their own rows, senders by the mirrors of theirs (`mirror[e]` is the edge from receiver to sender of e): each edge is
seen once in each pass and nothing is scattered. The edges of some rows go through the matrix products together, in
memory of [BLOCK or the longest row, 3 F] that each call has for itself. K and F are multiples of LANES, vectors are
[N, 3 F].

`ends` [N] groups rows by molecule: those of one molecule have the same, the first row behind it. Inside a
molecule an edge and its mirror have one basis, and share a filter where both are in a block. In the first layer v is
zero (`vectors` False): a third of the filter and half of the rest are not needed.
"""

from __future__ import annotations

import numpy as np

from painn_fast.kernels.dense.cpu import add_outer, add_product, matmul
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.simd import LANES, load, opaque, splat, store, total

BLOCK, WHOLE = 160, 420
"""Edges whose filters are made together, and the most of one molecule whose edges stay together to share them."""


@compiled(nogil=True)
def most_edges(row_ptr):  # type: ignore[no-untyped-def]
    """Edges in the largest block: WHOLE, or the longest row."""
    longest = WHOLE
    for i in range(row_ptr.shape[0] - 1):
        longest = max(longest, row_ptr[i + 1] - row_ptr[i])
    return longest


@compiled(nogil=True)
def block_end(row_ptr, ends, i, last):  # type: ignore[no-untyped-def]
    """Where a block that begins with row i ends: with a molecule, or inside of one that is too large.

    So what is added up for a molecule does not depend on its batch.
    """
    end = i
    while end < last and row_ptr[ends[end]] - row_ptr[i] <= BLOCK:
        end = ends[end]
    if end > i:
        return end
    if row_ptr[ends[i]] - row_ptr[i] <= WHOLE:
        return ends[i]
    end = i + 1
    while end < ends[i] and row_ptr[end + 1] - row_ptr[i] <= BLOCK:
        end += 1
    return end


@compiled(nogil=True)
def filter_slots(mirror, sender, ends, low, high, edge, slot):  # type: ignore[no-untyped-def]
    """The filter of each of the edges low to high - 1, `slot` [high - low]; the `edge` of each filter; how many."""
    count = 0
    for e in range(low, high):
        m = mirror[e]
        if low <= m < e and sender[e] != sender[m] and ends[sender[e]] == ends[sender[m]]:
            slot[e - low] = slot[m - low]
        else:
            slot[e - low], edge[count] = count, e
            count += 1
    return count


@compiled(nogil=True)
def of_mirrors(mirror, edge, count):  # type: ignore[no-untyped-def]
    """What `filter_slots` gave, for the mirrors of these edges: a sender's."""
    for k in range(count):
        edge[k] = mirror[edge[k]]


@compiled(nogil=True)
def gather(rows, index, count, out):  # type: ignore[no-untyped-def]
    for k in range(count):
        row, to = rows[index[k]], out[k]
        for c in range(0, rows.shape[1], LANES):
            store(to, c, load(row, c))


@compiled(nogil=True)
def add_rows(rows, index, count, out):  # type: ignore[no-untyped-def]
    """out[index] += rows."""
    for k in range(count):
        row, to = rows[k], out[index[k]]
        for c in range(0, row.shape[0], LANES):
            store(to, c, load(to, c) + load(row, c))


@compiled(nogil=True)
def used_panels(panels, vectors):  # type: ignore[no-untyped-def]
    """How many panels of a filter are used: without vectors those of the first two thirds of its columns."""
    return panels.shape[0] if vectors else panels.shape[0] * 2 // 3


def _of_receivers(vectors):  # type: ignore[no-untyped-def]
    """Messages to some rows: for each vector of features one visit of the row's edges, with the sums in registers."""

    @compiled(nogil=True)
    def rows(x, v, filters, slot, low, u, row_ptr, sender, start, stop, ds, dv):  # type: ignore[no-untyped-def]
        f = ds.shape[1]
        for i in range(start, stop):
            s_i, d_i, begin, end = ds[i], dv[i], row_ptr[i], row_ptr[i + 1]
            for a in range(0, f, LANES):
                b, c = opaque(a + f), opaque(a + 2 * f)
                s_a, d_a, d_b, d_c = splat(0.0, x), splat(0.0, x), splat(0.0, x), splat(0.0, x)
                for e in range(begin, end):
                    w, j, u_e = filters[np.uintp(slot[e - low])], np.uintp(sender[e]), u[e]
                    x_j = x[j]
                    s_a = s_a + load(w, a) * load(x_j, a)
                    along = load(w, b) * load(x_j, b)
                    d_a = d_a + along * splat(u_e[0], x)
                    d_b = d_b + along * splat(u_e[1], x)
                    d_c = d_c + along * splat(u_e[2], x)
                    if vectors:
                        gate, v_j = load(w, c) * load(x_j, c), v[j]
                        d_a = d_a + gate * load(v_j, a)
                        d_b = d_b + gate * load(v_j, b)
                        d_c = d_c + gate * load(v_j, c)
                store(s_i, a, s_a)
                store(d_i, a, d_a)
                store(d_i, b, d_b)
                store(d_i, c, d_c)

    return rows


_message_rows, _message_rows_first = _of_receivers(True), _of_receivers(False)


@compiled(nogil=True, allocates=True)
def message(
    x: np.ndarray, v: np.ndarray, basis: np.ndarray, panels: np.ndarray, zero: np.ndarray, u: np.ndarray,
    row_ptr: np.ndarray, sender: np.ndarray, mirror: np.ndarray, ends: np.ndarray, vectors: bool, first: int,
    last: int, ds: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """ds [N, F] and dv [N, 3 F] of receivers first to last - 1; `panels` are the packed weight, `zero` [3 F].

    `vectors` False: v is zero, as in the first layer, and the filter of vectors that propagate is not made.
    """
    f, longest, used = ds.shape[1], most_edges(row_ptr), panels[: used_panels(panels, vectors)]
    filters, b_row = np.empty((longest, 3 * f), ds.dtype), np.empty((longest, basis.shape[1]), ds.dtype)
    edge, slot = np.empty(longest, np.int64), np.empty(longest, np.int64)
    start = first
    while start < last:
        stop = block_end(row_ptr, ends, start, last)
        low, high = row_ptr[start], row_ptr[stop]
        count = filter_slots(mirror, sender, ends, low, high, edge, slot)
        gather(basis, edge, count, b_row)
        matmul(b_row[:count], used, zero, filters[:count])
        if vectors:
            _message_rows(x, v, filters, slot, low, u, row_ptr, sender, start, stop, ds, dv)
        else:
            _message_rows_first(x, v, filters, slot, low, u, row_ptr, sender, start, stop, ds, dv)
        start = stop


def _of_receivers_tangent(vectors):  # type: ignore[no-untyped-def]
    """Tangents of the messages to some rows."""

    @compiled(nogil=True)
    def rows(  # type: ignore[no-untyped-def]
        x, v, tx, tv, filters, t_filters, slot, low, u, tu, row_ptr, sender, start, stop, ds, dv
    ):  # fmt: skip
        f = ds.shape[1]
        for i in range(start, stop):
            s_i, d_i, begin, end = ds[i], dv[i], row_ptr[i], row_ptr[i + 1]
            for a in range(0, f, LANES):
                b, c = opaque(a + f), opaque(a + 2 * f)
                s_a, d_a, d_b, d_c = splat(0.0, x), splat(0.0, x), splat(0.0, x), splat(0.0, x)
                for e in range(begin, end):
                    k, j, u_e, t_e = np.uintp(slot[e - low]), np.uintp(sender[e]), u[e], tu[e]
                    w, tw, x_j, y_j = filters[k], t_filters[k], x[j], tx[j]
                    s_a = s_a + load(tw, a) * load(x_j, a) + load(w, a) * load(y_j, a)
                    w_, x_ = load(w, b), load(x_j, b)
                    along, t_along = w_ * x_, load(tw, b) * x_ + w_ * load(y_j, b)
                    d_a = d_a + t_along * splat(u_e[0], x) + along * splat(t_e[0], x)
                    d_b = d_b + t_along * splat(u_e[1], x) + along * splat(t_e[1], x)
                    d_c = d_c + t_along * splat(u_e[2], x) + along * splat(t_e[2], x)
                    if vectors:
                        w_, x_, v_j, z_j = load(w, c), load(x_j, c), v[j], tv[j]
                        gate, t_gate = w_ * x_, load(tw, c) * x_ + w_ * load(y_j, c)
                        d_a = d_a + t_gate * load(v_j, a) + gate * load(z_j, a)
                        d_b = d_b + t_gate * load(v_j, b) + gate * load(z_j, b)
                        d_c = d_c + t_gate * load(v_j, c) + gate * load(z_j, c)
                store(s_i, a, s_a)
                store(d_i, a, d_a)
                store(d_i, b, d_b)
                store(d_i, c, d_c)

    return rows


_tangent_rows, _tangent_rows_first = _of_receivers_tangent(True), _of_receivers_tangent(False)


@compiled(nogil=True, allocates=True)
def message_tangent(
    x: np.ndarray, v: np.ndarray, basis: np.ndarray, panels: np.ndarray, zero: np.ndarray, u: np.ndarray,
    tx: np.ndarray, tv: np.ndarray, t_basis: np.ndarray, tu: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray,
    mirror: np.ndarray, ends: np.ndarray, vectors: bool, first: int, last: int, ds: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """Derivative of `message` along a tangent of x, v, basis and u; `vectors` False: v and tv are zero."""
    f, longest, used = ds.shape[1], most_edges(row_ptr), panels[: used_panels(panels, vectors)]
    filters, t_filters = np.empty((longest, 3 * f), ds.dtype), np.empty((longest, 3 * f), ds.dtype)
    b_row, t_row = np.empty((longest, basis.shape[1]), ds.dtype), np.empty((longest, t_basis.shape[1]), ds.dtype)
    edge, slot = np.empty(longest, np.int64), np.empty(longest, np.int64)
    start = first
    while start < last:
        stop = block_end(row_ptr, ends, start, last)
        low, high = row_ptr[start], row_ptr[stop]
        count = filter_slots(mirror, sender, ends, low, high, edge, slot)
        gather(basis, edge, count, b_row)
        gather(t_basis, edge, count, t_row)
        matmul(b_row[:count], used, zero, filters[:count])
        matmul(t_row[:count], used, zero, t_filters[:count])
        if vectors:
            _tangent_rows(x, v, tx, tv, filters, t_filters, slot, low, u, tu, row_ptr, sender, start, stop, ds, dv)
        else:
            _tangent_rows_first(
                x, v, tx, tv, filters, t_filters, slot, low, u, tu, row_ptr, sender, start, stop, ds, dv
            )
        start = stop


@compiled(nogil=True)
def add_pull(pull, mirror, low, high, gu):  # type: ignore[no-untyped-def]
    """gu of the mirrors of edges low to high - 1 grows by the totals of pull [., 3 LANES]."""
    for row in range(low, high):
        of_row, to = pull[row - low], gu[mirror[row]]
        for k in range(3):
            to[k] += total(load(of_row, k * LANES))


def _of_senders(vectors):  # type: ignore[no-untyped-def]
    """Adjoints of some senders; `gates` of their edges grow, and `pull`, if `edges`, is that of their directions."""

    @compiled(nogil=True)
    def rows(  # type: ignore[no-untyped-def]
        gs, gv, x, v, filters, gates, slot, low, u, row_ptr, sender, mirror, edges, start, stop, gx, gv_out, pull
    ):  # fmt: skip
        f = gs.shape[1]
        if edges:
            pull[: row_ptr[stop] - low] = 0
        for i in range(start, stop):
            x_i, v_i, to_x, to_v, begin, end = x[i], v[i], gx[i], gv_out[i], row_ptr[i], row_ptr[i + 1]
            for a in range(0, f, LANES):
                b, c = opaque(a + f), opaque(a + 2 * f)
                x_a, x_b, x_c = load(x_i, a), load(x_i, b), load(x_i, c)
                v_a, v_b, v_c = load(v_i, a), load(v_i, b), load(v_i, c)
                to_xa, to_xb, to_xc = splat(0.0, x), splat(0.0, x), splat(0.0, x)
                to_va, to_vb, to_vc = splat(0.0, x), splat(0.0, x), splat(0.0, x)
                for row in range(begin, end):
                    at = np.uintp(row - low)
                    j, k, u_e = np.uintp(sender[row]), np.uintp(slot[at]), u[np.uintp(mirror[row])]
                    w, gate, s_j, g_j = filters[k], gates[k], gs[j], gv[j]
                    u0, u1, u2 = splat(u_e[0], x), splat(u_e[1], x), splat(u_e[2], x)
                    g0, g1, g2, ga = load(g_j, a), load(g_j, b), load(g_j, c), load(s_j, a)
                    gb, w_b = g0 * u0 + g1 * u1 + g2 * u2, load(w, b)
                    to_xa = to_xa + ga * load(w, a)
                    to_xb = to_xb + gb * w_b
                    store(gate, a, load(gate, a) + ga * x_a)
                    store(gate, b, load(gate, b) + gb * x_b)
                    if edges:
                        along, to = w_b * x_b, pull[at]
                        store(to, 0, load(to, 0) + along * g0)
                        store(to, LANES, load(to, LANES) + along * g1)
                        store(to, 2 * LANES, load(to, 2 * LANES) + along * g2)
                    if vectors:
                        gc, w_c = g0 * v_a + g1 * v_b + g2 * v_c, load(w, c)
                        to_xc = to_xc + gc * w_c
                        through = w_c * x_c
                        to_va = to_va + through * g0
                        to_vb = to_vb + through * g1
                        to_vc = to_vc + through * g2
                        store(gate, c, load(gate, c) + gc * x_c)
                store(to_x, a, to_xa)
                store(to_x, b, to_xb)
                store(to_x, c, to_xc)
                if vectors:
                    store(to_v, a, to_va)
                    store(to_v, b, to_vb)
                    store(to_v, c, to_vc)

    return rows


_adjoint_rows, _adjoint_rows_first = _of_senders(True), _of_senders(False)


@compiled(nogil=True, allocates=True)
def adjoint(
    gs: np.ndarray, gv: np.ndarray, x: np.ndarray, v: np.ndarray, basis: np.ndarray, panels: np.ndarray,
    transposed: np.ndarray, zero: np.ndarray, u: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray,
    mirror: np.ndarray, ends: np.ndarray, vectors: bool, edges: bool, weights: bool, first: int, last: int,
    gx: np.ndarray, gv_out: np.ndarray, g_basis: np.ndarray, g_weight: np.ndarray, gu: np.ndarray,
) -> None:  # fmt: skip
    """Adjoints of x and v of senders first to last - 1; those of basis and u (if `edges`) and of weight grow.

    `transposed` [3 F, K] is the weight's. What is to be g_basis of an edge may be at its mirror, if
    they share a filter. `vectors` False: v is zero, and gv_out is not made.
    """
    f, longest, columns, used = gs.shape[1], most_edges(row_ptr), basis.shape[1], panels[: used_panels(panels, vectors)]
    pull = np.empty((longest if edges else 0, 3 * LANES), gs.dtype)
    filters, gates = np.empty((longest, 3 * f), gs.dtype), np.empty((longest, 3 * f), gs.dtype)
    b_row, g_row = np.empty((longest, columns), gs.dtype), np.empty((longest, columns), gs.dtype)
    edge, slot = np.empty(longest, np.int64), np.empty(longest, np.int64)
    start = first
    while start < last:
        stop = block_end(row_ptr, ends, start, last)
        low, high = row_ptr[start], row_ptr[stop]
        count = filter_slots(mirror, sender, ends, low, high, edge, slot)
        of_mirrors(mirror, edge, count)
        gather(basis, edge, count, b_row)
        matmul(b_row[:count], used, zero, filters[:count])
        gates[:count] = 0
        if vectors:
            _adjoint_rows(
                gs, gv, x, v, filters, gates, slot, low, u, row_ptr, sender, mirror, edges, start, stop, gx, gv_out,
                pull,
            )  # fmt: skip
        else:
            _adjoint_rows_first(
                gs, gv, x, v, filters, gates, slot, low, u, row_ptr, sender, mirror, edges, start, stop, gx, gv_out,
                pull,
            )  # fmt: skip
        if edges:
            add_pull(pull, mirror, low, high, gu)
            g_row[:count] = 0
            add_product(gates[:count], transposed[: 3 * f if vectors else 2 * f], g_row[:count])
            add_rows(g_row, edge, count, g_basis)
        if weights:
            add_outer(b_row, gates, 0, count, g_weight)
        start = stop
