"""All blocks of PaiNN and a readout on a CPU: forward, along a tangent, and the reverse of both, without autograd.

A `Track` keeps what a pass computes, one for the values and one for their tangent (names with t_). In the reverse pass
g_ is the adjoint of a value and p_ that of a tangent:

    y = f(h), t_y = f'(h) t_h      p_h = f' p_y,   g_h = f' g_y + f'' t_h p_y          (silu)
    y = x W,  t_y = t_x W          g_W = x^T g_y + t_x^T p_y                           (products)

Rows `first` to `last` - 1 are whole molecules: threads share nothing but what they read. Vectors are [N, 3 F], F a
multiple of LANES; formulas of message and update are in the READMEs of these.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from painn_fast.kernels.dense.cpu import add_outer, add_product, matmul, silu, silu_adjoint
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.message.edges_cpu import adjoint, message, message_tangent
from painn_fast.kernels.message.forward_over_reverse_cpu import dual_adjoint
from painn_fast.kernels.network.pointwise_cpu import (
    add,
    add_read_out,
    add_rows,
    dual_read_out,
    edges_adjoint,
    edges_tangent,
    gate,
    gate_dual,
    gate_tangent,
    norm_dual,
    norm_tangent,
    product_bwd,
    read_out,
    silu_dual,
    silu_tangent,
    spread_out,
)
from painn_fast.kernels.update.cpu import gate_bwd, norm_bwd, norm_fwd


class Graph(NamedTuple):
    """What the messages of all layers share."""

    basis: np.ndarray  # [E, K], of a pair's distance, and so the same for an edge and its mirror
    slope: np.ndarray  # [E, K], its derivative
    u: np.ndarray  # [E, 3]
    inverse: np.ndarray  # [E], 1 / |r|
    row_ptr: np.ndarray  # [N + 1]
    sender: np.ndarray  # [E]
    mirror: np.ndarray  # [E]
    ends: np.ndarray  # [N], end of the molecule of each row


class Panels(NamedTuple):
    """Weights packed for the way forward, by layer."""

    filter: tuple[np.ndarray, ...]
    message_1: tuple[np.ndarray, ...]
    message_1_bias: tuple[np.ndarray, ...]
    message_2: tuple[np.ndarray, ...]
    message_2_bias: tuple[np.ndarray, ...]
    mix: tuple[np.ndarray, ...]
    update_1: tuple[np.ndarray, ...]
    update_1_bias: tuple[np.ndarray, ...]
    update_2: tuple[np.ndarray, ...]
    update_2_bias: tuple[np.ndarray, ...]
    readout_1: np.ndarray
    readout_1_bias: np.ndarray
    zero: np.ndarray  # [3 F]


class Linear(NamedTuple):
    """Weights [out, in] for the way back, or their gradients; the filter is [3 F, K] there, [K, 3 F] here.

    Where nothing is read out, the readout's weights are empty.
    """

    filter: tuple[np.ndarray, ...]
    message_1: tuple[np.ndarray, ...]
    message_2: tuple[np.ndarray, ...]
    mix: tuple[np.ndarray, ...]
    update_1: tuple[np.ndarray, ...]
    update_2: tuple[np.ndarray, ...]
    message_1_bias: tuple[np.ndarray, ...]
    message_2_bias: tuple[np.ndarray, ...]
    update_1_bias: tuple[np.ndarray, ...]
    update_2_bias: tuple[np.ndarray, ...]
    readout_1: np.ndarray  # [H, F]
    readout_1_bias: np.ndarray  # [H]
    readout_2: np.ndarray  # [1, H]
    readout_2_bias: np.ndarray  # [1]


class Track(NamedTuple):
    """Values of a pass, or their tangents; the leading axis is the layer."""

    s: np.ndarray  # [L + 1, N, F], what a layer begins with
    v: np.ndarray  # [L + 1, N, 3 F]
    hidden: np.ndarray  # [L, N, F], of the message network
    active: np.ndarray  # [L, N, F], its silu
    x: np.ndarray  # [L, N, 3 F]
    v_mid: np.ndarray  # [L, N, 3 F], after the message
    vw: np.ndarray  # [L, N, 3, 2 F]
    context: np.ndarray  # [L, N, 2 F], s after the message and |V|
    dot: np.ndarray  # [L, N, F]
    update_hidden: np.ndarray  # [L, N, F]
    update_active: np.ndarray  # [L, N, F]
    y: np.ndarray  # [L, N, 3 F]
    read_hidden: np.ndarray  # [N, H]
    read_active: np.ndarray  # [N, H]
    read: np.ndarray  # [N], what is read out


def track(layers: int, s: np.ndarray, hidden: int) -> Track:
    """Memory for the `Track` of a pass that begins with s [N, F] and reads out through `hidden` numbers."""
    n, f = s.shape

    def space(*shape: int) -> np.ndarray:
        return np.empty(shape, s.dtype)

    ends, one, three = (layers + 1, n), (layers, n, f), (layers, n, 3 * f)
    return Track(
        s=space(*ends, f), v=space(*ends, 3 * f), hidden=space(*one), active=space(*one), x=space(*three),
        v_mid=space(*three), vw=space(layers, n, 3, 2 * f), context=space(layers, n, 2 * f), dot=space(*one),
        update_hidden=space(*one), update_active=space(*one), y=space(*three), read_hidden=space(n, hidden),
        read_active=space(n, hidden), read=np.zeros(n, s.dtype),
    )  # fmt: skip


@compiled(nogil=True)
def forward(w: Panels, back: Linear, g: Graph, epsilon: float, m: Track, first: int, last: int) -> None:
    """From `m.s[0]` to `m.s[L]`, `m.v[L]` and `m.read`."""
    n, f = last - first, m.s.shape[2]
    m.v[0, first:last] = 0
    for k in range(m.x.shape[0]):
        s, v, v_mid = m.s[k, first:last], m.v[k, first:last], m.v_mid[k, first:last]
        matmul(s, w.message_1[k], w.message_1_bias[k], m.hidden[k, first:last])
        silu(m.hidden[k, first:last], m.active[k, first:last])
        matmul(m.active[k, first:last], w.message_2[k], w.message_2_bias[k], m.x[k, first:last])
        message(
            m.x[k], m.v[k], g.basis, w.filter[k], w.zero, g.u, g.row_ptr, g.sender, g.mirror, g.ends, first, last,
            m.dot[k], m.v_mid[k],
        )  # fmt: skip
        s_mid = m.s[k + 1, first:last]
        add(s, m.dot[k, first:last], s_mid)
        add(v, v_mid, v_mid)
        vw = m.vw[k, first:last]
        matmul(v_mid.reshape(3 * n, f), w.mix[k], w.zero, vw.reshape(3 * n, 2 * f))
        norm_fwd(s_mid, vw, epsilon, m.context[k, first:last], m.dot[k, first:last])
        matmul(m.context[k, first:last], w.update_1[k], w.update_1_bias[k], m.update_hidden[k, first:last])
        silu(m.update_hidden[k, first:last], m.update_active[k, first:last])
        matmul(m.update_active[k, first:last], w.update_2[k], w.update_2_bias[k], m.y[k, first:last])
        gate(m.y[k], vw, m.dot[k], s_mid, v_mid, m.v[k + 1], first)
    if m.read_hidden.shape[1] > 0:
        matmul(m.s[-1, first:last], w.readout_1, w.readout_1_bias, m.read_hidden[first:last])
        silu(m.read_hidden[first:last], m.read_active[first:last])
        read_out(m.read_active, back.readout_2[0], back.readout_2_bias[0], first, last, m.read)


@compiled(nogil=True)
def tangent(
    w: Panels, back: Linear, g: Graph, m: Track, t: Track, t_edge: np.ndarray, still: bool, first: int, last: int,
    t_basis: np.ndarray, tu: np.ndarray,
) -> None:  # fmt: skip
    """The derivative of `forward`, whose values are in m, along `t.s[0]` and t_edge [E, 3]; makes t_basis and tu.

    `still`: t.s[0] is zero, and so is all that the first message network makes of it.
    """
    n, f = last - first, m.s.shape[2]
    edges_tangent(g, t_edge, first, last, t_basis, tu)
    t.v[0, first:last] = 0
    for k in range(m.x.shape[0]):
        s, v, v_mid = t.s[k, first:last], t.v[k, first:last], t.v_mid[k, first:last]
        if k == 0 and still:
            t.x[k, first:last] = 0
        else:
            matmul(s, w.message_1[k], w.zero, t.hidden[k, first:last])
            silu_tangent(m.hidden[k, first:last], t.hidden[k, first:last], t.active[k, first:last])
            matmul(t.active[k, first:last], w.message_2[k], w.zero, t.x[k, first:last])
        message_tangent(
            m.x[k], m.v[k], g.basis, w.filter[k], w.zero, g.u, t.x[k], t.v[k], t_basis, w.filter[k], tu, g.row_ptr,
            g.sender, g.mirror, g.ends, first, last, t.dot[k], t.v_mid[k],
        )  # fmt: skip
        s_mid = t.s[k + 1, first:last]
        add(s, t.dot[k, first:last], s_mid)
        add(v, v_mid, v_mid)
        vw = t.vw[k, first:last]
        matmul(v_mid.reshape(3 * n, f), w.mix[k], w.zero, vw.reshape(3 * n, 2 * f))
        norm_tangent(m.vw[k], m.context[k], s_mid, vw, t.context[k], t.dot[k], first)
        matmul(t.context[k, first:last], w.update_1[k], w.zero, t.update_hidden[k, first:last])
        silu_tangent(m.update_hidden[k, first:last], t.update_hidden[k, first:last], t.update_active[k, first:last])
        matmul(t.update_active[k, first:last], w.update_2[k], w.zero, t.y[k, first:last])
        gate_tangent(m.y[k], m.vw[k], m.dot[k], t.y[k], vw, t.dot[k], s_mid, v_mid, t.v[k + 1], first)
    if m.read_hidden.shape[1] > 0:
        matmul(t.s[-1, first:last], w.readout_1, w.zero, t.read_hidden[first:last])
        silu_tangent(m.read_hidden[first:last], t.read_hidden[first:last], t.read_active[first:last])
        read_out(t.read_active, back.readout_2[0], w.zero[0], first, last, t.read)


@compiled(nogil=True)
def reverse(
    w: Panels, back: Linear, g: Graph, m: Track, gs: np.ndarray, gv: np.ndarray, g_read: np.ndarray, edges: bool,
    weights: bool, scalars: bool, first: int, last: int, g_basis: np.ndarray, g_edge: np.ndarray, to: Linear,
) -> None:  # fmt: skip
    """Adjoint of `forward`: gs [N, F] becomes that of s (if `scalars`), g_edge [E, 3] that of r (if `edges`), and `to`
    (if `weights`, which needs `scalars`) grows.

    gv [N, 3 F] is used up; g_basis [E, K] is room for a sum.
    """
    if edges:
        g_basis[g.row_ptr[first] : g.row_ptr[last]], g_edge[g.row_ptr[first] : g.row_ptr[last]] = 0, 0
    n, f = last - first, m.s.shape[2]
    gs_, gv_ = gs[first:last], gv[first:last]
    gy, g_hidden, g_context = np.empty((n, 3 * f), gs.dtype), np.empty((n, f), gs.dtype), np.empty((n, 2 * f), gs.dtype)
    g_vw = np.empty((n, 3, 2 * f), gs.dtype)
    gx, gv_in = np.empty_like(m.x[0]), np.empty_like(m.x[0])
    if m.read_hidden.shape[1] > 0:
        g_read_hidden = np.empty((n, m.read_hidden.shape[1]), gs.dtype)
        spread_out(g_read, back.readout_2[0], first, last, g_read_hidden)
        silu_adjoint(m.read_hidden[first:last], g_read_hidden)
        add_product(g_read_hidden, back.readout_1, gs_)
        if weights:
            add_read_out(g_read, m.read_active, first, last, to.readout_2[0])
            to.readout_2_bias[0] += g_read[first:last].sum()
            add_rows(g_read_hidden, to.readout_1_bias)
            add_outer(g_read_hidden, m.s[-1, first:last], 0, n, to.readout_1)
    for k in range(m.x.shape[0] - 1, -1, -1):
        vw = m.vw[k, first:last]
        gate_bwd(gs_, gv_, vw, m.dot[k, first:last], True, gy)
        product_bwd(back.update_2[k], m.update_active[k, first:last], gy, weights, g_hidden, to.update_2[k])
        silu_adjoint(m.update_hidden[k, first:last], g_hidden)
        product_bwd(back.update_1[k], m.context[k, first:last], g_hidden, weights, g_context, to.update_1[k])
        if weights:
            add_rows(gy, to.update_2_bias[k])
            add_rows(g_hidden, to.update_1_bias[k])
        norm_bwd(gs_, gv_, m.y[k, first:last], vw, m.context[k, first:last], g_context, True, g_vw)
        flat = g_vw.reshape(3 * n, 2 * f)
        add_product(flat, back.mix[k], gv_.reshape(3 * n, f))
        if weights:
            add_outer(flat, m.v_mid[k, first:last].reshape(3 * n, f), 0, 3 * n, to.mix[k])
        adjoint(
            gs, gv, m.x[k], m.v[k], g.basis, w.filter[k], back.filter[k], w.zero, g.u, g.row_ptr, g.sender, g.mirror,
            g.ends, edges, weights, first, last, gx, gv_in, g_basis, to.filter[k], g_edge,
        )  # fmt: skip
        if k == 0 and edges:
            edges_adjoint(g, g_basis, first, last, g_edge)
        if k == 0 and not scalars:
            return
        add(gv_, gv_in[first:last], gv_)
        product_bwd(back.message_2[k], m.active[k, first:last], gx[first:last], weights, g_hidden, to.message_2[k])
        silu_adjoint(m.hidden[k, first:last], g_hidden)
        add_product(g_hidden, back.message_1[k], gs_)
        if weights:
            add_rows(gx[first:last], to.message_2_bias[k])
            add_rows(g_hidden, to.message_1_bias[k])
            add_outer(g_hidden, m.s[k, first:last], 0, n, to.message_1[k])


@compiled(nogil=True)
def dual_reverse(
    w: Panels, back: Linear, g: Graph, m: Track, t: Track, t_basis: np.ndarray, tu: np.ndarray, gs: np.ndarray,
    gv: np.ndarray, g_read: np.ndarray, ps: np.ndarray, pv: np.ndarray, p_read: np.ndarray, still: bool, first: int,
    last: int, to: Linear,
) -> None:  # fmt: skip
    """Adjoint of `forward` and `tangent` together: from gs, gv, g_read of values and ps, pv, p_read of tangents.

    gs becomes the adjoint of s and ps, unless `still` as in `tangent`, that of its tangent; `to` grows. Those of the
    edges and of their tangents are not made.
    """
    n, f = last - first, m.s.shape[2]
    rows = slice(first, last)
    gs_, gv_, ps_, pv_ = gs[rows], gv[rows], ps[rows], pv[rows]
    gy, py = np.empty((n, 3 * f), gs.dtype), np.empty((n, 3 * f), gs.dtype)
    g_hidden, p_hidden = np.empty((n, f), gs.dtype), np.empty((n, f), gs.dtype)
    g_context, p_context = np.empty((n, 2 * f), gs.dtype), np.empty((n, 2 * f), gs.dtype)
    g_vw, p_vw = np.empty((n, 3, 2 * f), gs.dtype), np.empty((n, 3, 2 * f), gs.dtype)
    gx, gv_in, px, pv_in = (
        np.empty_like(m.x[0]), np.empty_like(m.x[0]), np.empty_like(m.x[0]), np.empty_like(m.x[0]),
    )  # fmt: skip
    if m.read_hidden.shape[1] > 0:
        dual_read_out(back, m, t, gs_, g_read, ps_, p_read, first, last, to)
    for k in range(m.x.shape[0] - 1, -1, -1):
        gate_dual(m.vw[k], m.dot[k], t.vw[k], t.dot[k], gs_, gv_, ps_, pv_, first, gy, py)
        product_bwd(back.update_2[k], m.update_active[k, rows], gy, True, g_hidden, to.update_2[k])
        product_bwd(back.update_2[k], t.update_active[k, rows], py, True, p_hidden, to.update_2[k])
        silu_dual(m.update_hidden[k, rows], t.update_hidden[k, rows], g_hidden, p_hidden)
        product_bwd(back.update_1[k], m.context[k, rows], g_hidden, True, g_context, to.update_1[k])
        product_bwd(back.update_1[k], t.context[k, rows], p_hidden, True, p_context, to.update_1[k])
        add_rows(gy, to.update_2_bias[k])
        add_rows(g_hidden, to.update_1_bias[k])
        norm_dual(
            m.y[k], m.vw[k], m.context[k], t.y[k], t.vw[k], t.context[k], gs_, gv_, ps_, pv_, g_context, p_context,
            first, g_vw, p_vw,
        )  # fmt: skip
        g_flat, p_flat = g_vw.reshape(3 * n, 2 * f), p_vw.reshape(3 * n, 2 * f)
        add_product(g_flat, back.mix[k], gv_.reshape(3 * n, f))
        add_product(p_flat, back.mix[k], pv_.reshape(3 * n, f))
        add_outer(g_flat, m.v_mid[k, rows].reshape(3 * n, f), 0, 3 * n, to.mix[k])
        add_outer(p_flat, t.v_mid[k, rows].reshape(3 * n, f), 0, 3 * n, to.mix[k])
        dual_adjoint(
            gs, gv, ps, pv, m.x[k], m.v[k], t.x[k], t.v[k], g.basis, t_basis, w.filter[k], w.zero, g.u,
            tu, g.row_ptr, g.sender, g.mirror, g.ends, first, last, gx, gv_in, px, pv_in, to.filter[k],
        )  # fmt: skip
        add(gv_, gv_in[rows], gv_)
        add(pv_, pv_in[rows], pv_)
        product_bwd(back.message_2[k], m.active[k, rows], gx[rows], True, g_hidden, to.message_2[k])
        if k == 0 and still:
            silu_adjoint(m.hidden[k, rows], g_hidden)
        else:
            product_bwd(back.message_2[k], t.active[k, rows], px[rows], True, p_hidden, to.message_2[k])
            silu_dual(m.hidden[k, rows], t.hidden[k, rows], g_hidden, p_hidden)
            add_product(p_hidden, back.message_1[k], ps_)
            add_outer(p_hidden, t.s[k, rows], 0, n, to.message_1[k])
        add_product(g_hidden, back.message_1[k], gs_)
        add_rows(gx[rows], to.message_2_bias[k])
        add_rows(g_hidden, to.message_1_bias[k])
        add_outer(g_hidden, m.s[k, rows], 0, n, to.message_1[k])
