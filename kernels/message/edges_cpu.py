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
molecule an edge and its mirror have one basis, and share a filter where both are in a block.
"""

from __future__ import annotations

import numpy as np

from painn_fast.kernels.dense.cpu import add_outer, add_product, matmul
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.simd import LANES, load, splat, store, total

BLOCK = 160
"""Edges whose filters are made together."""


@compiled(nogil=True)
def most_edges(row_ptr):  # type: ignore[no-untyped-def]
    """Edges in the largest block: BLOCK, or the longest row."""
    longest = BLOCK
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
        for c in range(rows.shape[1]):
            out[k, c] = rows[index[k], c]


@compiled(nogil=True)
def add_rows(rows, index, count, out):  # type: ignore[no-untyped-def]
    """out[index] += rows."""
    for k in range(count):
        row, to = rows[k], out[index[k]]
        for c in range(0, row.shape[0], LANES):
            store(to, c, load(to, c) + load(row, c))


@compiled(nogil=True, allocates=True)
def message(
    x: np.ndarray, v: np.ndarray, basis: np.ndarray, panels: np.ndarray, zero: np.ndarray, u: np.ndarray,
    row_ptr: np.ndarray, sender: np.ndarray, mirror: np.ndarray, ends: np.ndarray, first: int, last: int,
    ds: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """ds [N, F] and dv [N, 3 F] of receivers first to last - 1; `panels` are the packed weight, `zero` [3 F]."""
    f, longest = ds.shape[1], most_edges(row_ptr)
    filters, b_row = np.empty((longest, 3 * f), ds.dtype), np.empty((longest, basis.shape[1]), ds.dtype)
    edge, slot = np.empty(longest, np.int64), np.empty(longest, np.int64)
    start = first
    while start < last:
        stop = block_end(row_ptr, ends, start, last)
        low, high = row_ptr[start], row_ptr[stop]
        count = filter_slots(mirror, sender, ends, low, high, edge, slot)
        gather(basis, edge, count, b_row)
        matmul(b_row[:count], panels, zero, filters[:count])
        for i in range(start, stop):
            s_i, d_i = ds[i], dv[i]
            s_i[:], d_i[:] = 0, 0
            for e in range(row_ptr[i], row_ptr[i + 1]):
                w, x_j, v_j = filters[slot[e - low]], x[sender[e]], v[sender[e]]
                u0, u1, u2 = splat(u[e, 0], x), splat(u[e, 1], x), splat(u[e, 2], x)
                for a in range(0, f, LANES):
                    b, c = a + f, a + 2 * f
                    store(s_i, a, load(s_i, a) + load(w, a) * load(x_j, a))
                    along, gate = load(w, b) * load(x_j, b), load(w, c) * load(x_j, c)
                    store(d_i, a, load(d_i, a) + along * u0 + gate * load(v_j, a))
                    store(d_i, b, load(d_i, b) + along * u1 + gate * load(v_j, b))
                    store(d_i, c, load(d_i, c) + along * u2 + gate * load(v_j, c))
        start = stop


@compiled(nogil=True, allocates=True)
def message_tangent(
    x: np.ndarray, v: np.ndarray, basis: np.ndarray, panels: np.ndarray, zero: np.ndarray, u: np.ndarray,
    tx: np.ndarray, tv: np.ndarray, t_basis: np.ndarray, tu: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray,
    mirror: np.ndarray, ends: np.ndarray, first: int, last: int, ds: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """Derivative of `message` along a tangent of x, v, basis and u."""
    f = ds.shape[1]
    longest = most_edges(row_ptr)
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
        matmul(b_row[:count], panels, zero, filters[:count])
        matmul(t_row[:count], panels, zero, t_filters[:count])
        for i in range(start, stop):
            s_i, d_i = ds[i], dv[i]
            s_i[:], d_i[:] = 0, 0
            for e in range(row_ptr[i], row_ptr[i + 1]):
                k, j = slot[e - low], sender[e]
                w, tw = filters[k], t_filters[k]
                x_j, v_j, y_j, z_j = x[j], v[j], tx[j], tv[j]
                u0, u1, u2 = splat(u[e, 0], x), splat(u[e, 1], x), splat(u[e, 2], x)
                t0, t1, t2 = splat(tu[e, 0], x), splat(tu[e, 1], x), splat(tu[e, 2], x)
                for a in range(0, f, LANES):
                    b, c = a + f, a + 2 * f
                    store(s_i, a, load(s_i, a) + load(tw, a) * load(x_j, a) + load(w, a) * load(y_j, a))
                    along, gate = load(w, b) * load(x_j, b), load(w, c) * load(x_j, c)
                    t_along = load(tw, b) * load(x_j, b) + load(w, b) * load(y_j, b)
                    t_gate = load(tw, c) * load(x_j, c) + load(w, c) * load(y_j, c)
                    store(
                        d_i, a, load(d_i, a) + t_along * u0 + along * t0 + t_gate * load(v_j, a) + gate * load(z_j, a)
                    )
                    store(
                        d_i, b, load(d_i, b) + t_along * u1 + along * t1 + t_gate * load(v_j, b) + gate * load(z_j, b)
                    )
                    store(
                        d_i, c, load(d_i, c) + t_along * u2 + along * t2 + t_gate * load(v_j, c) + gate * load(z_j, c)
                    )
        start = stop


@compiled(nogil=True, allocates=True)
def adjoint(
    gs: np.ndarray, gv: np.ndarray, x: np.ndarray, v: np.ndarray, basis: np.ndarray, panels: np.ndarray,
    transposed: np.ndarray, zero: np.ndarray, u: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray,
    mirror: np.ndarray, ends: np.ndarray, edges: bool, weights: bool, first: int, last: int, gx: np.ndarray,
    gv_out: np.ndarray, g_basis: np.ndarray, g_weight: np.ndarray, gu: np.ndarray,
) -> None:  # fmt: skip
    """Adjoints of x and v of senders first to last - 1; those of basis and u (if `edges`) and of weight grow.

    `transposed` [3 F, K] is the weight's. What is to be g_basis of an edge may be at its mirror, if
    they share a filter.
    """
    f, longest, columns = gs.shape[1], most_edges(row_ptr), basis.shape[1]
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
        matmul(b_row[:count], panels, zero, filters[:count])
        gates[:count] = 0
        for i in range(start, stop):
            x_i, v_i, to_x, to_v = x[i], v[i], gx[i], gv_out[i]
            to_x[:], to_v[:] = 0, 0
            for row in range(row_ptr[i], row_ptr[i + 1]):
                j, e, k = sender[row], mirror[row], slot[row - low]
                w, gate, s_j, g_j = filters[k], gates[k], gs[j], gv[j]
                u0, u1, u2 = splat(u[e, 0], x), splat(u[e, 1], x), splat(u[e, 2], x)
                gu0, gu1, gu2 = splat(0.0, x), splat(0.0, x), splat(0.0, x)
                for a in range(0, f, LANES):
                    b, c = a + f, a + 2 * f
                    g0, g1, g2 = load(g_j, a), load(g_j, b), load(g_j, c)
                    ga, gb = load(s_j, a), g0 * u0 + g1 * u1 + g2 * u2
                    gc = g0 * load(v_i, a) + g1 * load(v_i, b) + g2 * load(v_i, c)
                    store(to_x, a, load(to_x, a) + ga * load(w, a))
                    store(to_x, b, load(to_x, b) + gb * load(w, b))
                    store(to_x, c, load(to_x, c) + gc * load(w, c))
                    along, through = load(w, b) * load(x_i, b), load(w, c) * load(x_i, c)
                    store(to_v, a, load(to_v, a) + through * g0)
                    store(to_v, b, load(to_v, b) + through * g1)
                    store(to_v, c, load(to_v, c) + through * g2)
                    gu0, gu1, gu2 = gu0 + along * g0, gu1 + along * g1, gu2 + along * g2
                    store(gate, a, load(gate, a) + ga * load(x_i, a))
                    store(gate, b, load(gate, b) + gb * load(x_i, b))
                    store(gate, c, load(gate, c) + gc * load(x_i, c))
                if edges:
                    gu[e, 0] += total(gu0)
                    gu[e, 1] += total(gu1)
                    gu[e, 2] += total(gu2)
        if edges:
            g_row[:count] = 0
            add_product(gates[:count], transposed, g_row[:count])
            add_rows(g_row, edge, count, g_basis)
        if weights:
            add_outer(b_row, gates, 0, count, g_weight)
        start = stop
