"""A whole network with a readout on a CPU: forward, along a tangent, and the reverse of both, without autograd.

`Activations` keep what a pass computes, m for the values and t for their tangents (names with t_). In the reverse pass
g_ is the adjoint of a value and p_ that of a tangent:

    y = f(h), t_y = f'(h) t_h      p_h = f' p_y,   g_h = f' g_y + f'' t_h p_y          (activation)
    y = x W,  t_y = t_x W          g_W = x^T g_y + t_x^T p_y                           (products)

Rows `first` to `last` - 1 are whole molecules: threads share nothing but what they read. Vectors are [N, 3 F], F a
multiple of LANES; formulas of message and update are in the READMEs of these.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from painn_fast.kernels.dense.cpu import activation, activation_adjoint, add_matmul, add_outer, matmul, outer
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.message.edges_cpu import adjoint, message, message_tangent
from painn_fast.kernels.message.forward_over_reverse_cpu import dual_adjoint
from painn_fast.kernels.network.layout import Activations, Adjoints, Layers, NetworkWeights
from painn_fast.kernels.network.pointwise_cpu import (
    activation_dual,
    activation_tangent,
    add,
    add_read_out,
    add_rows,
    clear,
    dual_read_out,
    edges_adjoint,
    edges_tangent,
    gate_dual,
    gate_tangent,
    keep,
    norm_dual,
    norm_tangent,
    product_bwd,
    read_out,
    spread_out,
)
from painn_fast.kernels.network.reference import Weights
from painn_fast.kernels.update.cpu import gate_bwd, gate_fwd, norm_bwd, norm_fwd


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


@compiled(nogil=True)
def message_network(w: Layers, m: Activations, k: int, first: int, last: int) -> None:
    """x of layer k from s."""
    hidden, active = m.hidden[k % m.hidden.shape[0], first:last], m.active[k % m.active.shape[0], first:last]
    matmul(m.s[k % m.s.shape[0], first:last], w.message_1[k], w.message_1_bias[k], hidden)
    activation(w.softplus, hidden, active)
    matmul(active, w.message_2[k], w.message_2_bias[k], m.x[k % m.x.shape[0], first:last])


@compiled(nogil=True)
def update(w: Layers, m: Activations, k: int, first: int, last: int) -> None:
    """The update of layer k: s [k + 1] after the message, in place, and v [k + 1] from v_mid."""
    s, v = m.s[(k + 1) % m.s.shape[0], first:last], m.v_mid[k % m.v_mid.shape[0], first:last]
    kept = k % m.y.shape[0]
    vw, context, dot, y = m.vw[kept, first:last], m.context[kept, first:last], m.dot[kept, first:last], m.y[kept]
    hidden, active = m.update_hidden[kept, first:last], m.update_active[k % m.update_active.shape[0], first:last]
    rows, f = 3 * (last - first), s.shape[1]
    matmul(v.reshape(rows, f), w.mix[k], w.zero, vw.reshape(rows, 2 * f))
    norm_fwd(s, vw, w.epsilon, context, dot)
    matmul(context, w.update_1[k], w.update_1_bias[k], hidden)
    activation(w.softplus, hidden, active)
    matmul(active, w.update_2[k], w.update_2_bias[k], y[first:last])
    gate_fwd(y[first:last], vw, dot, s, v, m.v[(k + 1) % m.v.shape[0], first:last])


@compiled(nogil=True, notice=("the network, 1 of 4 parts that training takes", 4))
def forward(w: NetworkWeights, g: Graph, m: Activations, first: int, last: int) -> None:
    """From the first of `m.s` to the last of `m.s` and `m.v`, and `m.read`."""
    layers = w.layers.message_1.shape[0]
    m.v[0, first:last] = 0
    for k in range(layers):
        message_network(w.layers, m, k, first, last)
        kept, middle, before = k % m.x.shape[0], k % m.v_mid.shape[0], k % m.v.shape[0]
        ds, v_mid = m.dot[kept], m.v_mid[middle]
        message(
            m.x[kept], m.v[before], g.basis, w.filter[k], w.layers.zero, g.u, g.row_ptr, g.sender, g.mirror, g.ends,
            k > 0, first, last, ds, v_mid,
        )  # fmt: skip
        s, s_mid = m.s[k % m.s.shape[0], first:last], m.s[(k + 1) % m.s.shape[0], first:last]
        add(s, ds[first:last], s_mid)
        add(m.v[before, first:last], v_mid[first:last], v_mid[first:last])
        update(w.layers, m, k, first, last)
    if m.read_hidden.shape[1] > 0:
        matmul(m.s[-1, first:last], w.readout_1, w.readout_1_bias, m.read_hidden[first:last])
        activation(w.layers.softplus, m.read_hidden[first:last], m.read_active[first:last])
        read_out(m.read_active, w.readout_2, w.readout_2_bias[0], first, last, m.read)


@compiled(nogil=True, notice=("the network along a tangent, 3 of 4", 5))
def tangent(
    w: NetworkWeights, g: Graph, m: Activations, t: Activations, t_edge: np.ndarray, still: bool, first: int,
    last: int, t_basis: np.ndarray, tu: np.ndarray,
) -> None:  # fmt: skip
    """The derivative of `forward`, whose values are in m, along `t.s[0]` and t_edge [E, 3]; makes t_basis and tu.

    `still`: t.s[0] is zero, and so is the tangent of the first message network.
    """
    d, n, f = w.layers, last - first, m.s.shape[2]
    edges_tangent(g, t_edge, first, last, t_basis, tu)
    t.v[0, first:last] = 0
    for k in range(m.x.shape[0]):
        s, v, v_mid = t.s[k, first:last], t.v[k, first:last], t.v_mid[k, first:last]
        if k == 0 and still:
            t.x[k, first:last] = 0
        else:
            matmul(s, d.message_1[k], d.zero, t.hidden[k, first:last])
            activation_tangent(d.softplus, m.hidden[k, first:last], t.hidden[k, first:last], t.active[k, first:last])
            matmul(t.active[k, first:last], d.message_2[k], d.zero, t.x[k, first:last])
        message_tangent(
            m.x[k], m.v[k], g.basis, w.filter[k], d.zero, g.u, t.x[k], t.v[k], t_basis, tu, g.row_ptr,
            g.sender, g.mirror, g.ends, k > 0, first, last, t.dot[k], t.v_mid[k],
        )  # fmt: skip
        s_mid = t.s[k + 1, first:last]
        add(s, t.dot[k, first:last], s_mid)
        add(v, v_mid, v_mid)
        vw = t.vw[k, first:last]
        matmul(v_mid.reshape(3 * n, f), d.mix[k], d.zero, vw.reshape(3 * n, 2 * f))
        norm_tangent(m.vw[k], m.context[k], s_mid, vw, t.context[k], t.dot[k], first)
        matmul(t.context[k, first:last], d.update_1[k], d.zero, t.update_hidden[k, first:last])
        activation_tangent(
            d.softplus, m.update_hidden[k, first:last], t.update_hidden[k, first:last], t.update_active[k, first:last]
        )
        matmul(t.update_active[k, first:last], d.update_2[k], d.zero, t.y[k, first:last])
        gate_tangent(m.y[k], m.vw[k], m.dot[k], t.y[k], vw, t.dot[k], s_mid, v_mid, t.v[k + 1], first)
    if m.read_hidden.shape[1] > 0:
        matmul(t.s[-1, first:last], w.readout_1, d.zero, t.read_hidden[first:last])
        activation_tangent(d.softplus, m.read_hidden[first:last], t.read_hidden[first:last], t.read_active[first:last])
        read_out(t.read_active, w.readout_2, d.zero[0], first, last, t.read)


@compiled(nogil=True, allocates=True, notice=("gradients, 2 of 4", 6))
def reverse(  # noqa: PLR0915 - in the order of the passes
    w: NetworkWeights, g: Graph, m: Activations, gs: np.ndarray, gv: np.ndarray, g_read: np.ndarray, edges: bool,
    weights: bool, scalars: bool, first: int, last: int, g_basis: np.ndarray, g_edge: np.ndarray, kept: Adjoints,
    to: Weights,
) -> None:  # fmt: skip
    """Adjoint of `forward`: gs [N, F] becomes that of s (if `scalars`), g_edge [E, 3] that of r (if `edges`), and `to`
    (if `weights`, which needs `scalars`) that of the weights.

    gv [N, 3 F] is used up; g_basis [E, K] is room for a sum; `kept`, if it has layers, is for `dual_reverse`.
    """
    if edges:
        g_basis[g.row_ptr[first] : g.row_ptr[last]], g_edge[g.row_ptr[first] : g.row_ptr[last]] = 0, 0
    if weights:
        clear(to)
    d, n, f = w.layers, last - first, m.s.shape[2]
    gs_, gv_ = gs[first:last], gv[first:last]
    gy, g_hidden, g_context = np.empty((n, 3 * f), gs.dtype), np.empty((n, f), gs.dtype), np.empty((n, 2 * f), gs.dtype)
    g_vw = np.empty((n, 3, 2 * f), gs.dtype)
    gx, gv_in = np.empty_like(m.x[0]), np.empty_like(m.x[0])
    if kept.s.shape[0] > 0:
        kept.read[first:last] = g_read[first:last]
    if m.read_hidden.shape[1] > 0:
        g_read_hidden = np.empty((n, m.read_hidden.shape[1]), gs.dtype)
        spread_out(g_read, w.readout_2, first, last, g_read_hidden)
        activation_adjoint(d.softplus, m.read_hidden[first:last], g_read_hidden)
        add_matmul(g_read_hidden, w.readout_1_t, gs_)
        if weights:
            add_read_out(g_read, m.read_active, first, last, to.readout_2[0])
            to.readout_2_bias[0] += g_read[first:last].sum()
            add_rows(g_read_hidden, to.readout_1_bias)
            outer(g_read_hidden, m.s[-1, first:last], to.readout_1)
    for k in range(m.x.shape[0] - 1, -1, -1):
        vw = m.vw[k, first:last]
        keep(gs_, kept.s, k, first)
        keep(gv_, kept.v, k, first)
        gate_bwd(gs_, gv_, vw, m.dot[k, first:last], True, gy)
        product_bwd(d.update_2_t[k], m.update_active[k, first:last], gy, weights, d.zero, g_hidden, to.update_2[k])
        keep(g_hidden, kept.update_active, k, first)
        activation_adjoint(d.softplus, m.update_hidden[k, first:last], g_hidden)
        product_bwd(d.update_1_t[k], m.context[k, first:last], g_hidden, weights, d.zero, g_context, to.update_1[k])
        if weights:
            add_rows(gy, to.update_2_bias[k])
            add_rows(g_hidden, to.update_1_bias[k])
        norm_bwd(gs_, gv_, m.y[k, first:last], vw, m.context[k, first:last], g_context, True, g_vw)
        flat = g_vw.reshape(3 * n, 2 * f)
        add_matmul(flat, d.mix_t[k], gv_.reshape(3 * n, f))
        keep(g_context, kept.context, k, first)
        keep(gs_, kept.s_mid, k, first)
        keep(gv_, kept.v_mid, k, first)
        if weights:
            outer(flat, m.v_mid[k, first:last].reshape(3 * n, f), to.mix[k])
        adjoint(
            gs, gv, m.x[k], m.v[k], g.basis, w.filter[k], w.filter_t[k], d.zero, g.u, g.row_ptr, g.sender, g.mirror,
            g.ends, k > 0, edges, weights, first, last, gx, gv_in, g_basis, to.filter[k], g_edge,
        )  # fmt: skip
        if k == 0 and edges:
            edges_adjoint(g, g_basis, first, last, g_edge)
        if k == 0 and not scalars:
            return
        if k > 0:
            add(gv_, gv_in[first:last], gv_)
        product_bwd(
            d.message_2_t[k], m.active[k, first:last], gx[first:last], weights, d.zero, g_hidden, to.message_2[k]
        )
        keep(gx[first:last], kept.x, k, first)
        keep(g_hidden, kept.active, k, first)
        activation_adjoint(d.softplus, m.hidden[k, first:last], g_hidden)
        add_matmul(g_hidden, d.message_1_t[k], gs_)
        if weights:
            add_rows(gx[first:last], to.message_2_bias[k])
            add_rows(g_hidden, to.message_1_bias[k])
            outer(g_hidden, m.s[k, first:last], to.message_1[k])


@compiled(nogil=True, allocates=True, notice=("gradients of forces, 4 of 4", 6))
def dual_reverse(
    w: NetworkWeights, g: Graph, m: Activations, t: Activations, t_basis: np.ndarray, tu: np.ndarray, gs: np.ndarray,
    gv: np.ndarray, g_read: np.ndarray, p: Adjoints, still: bool, first: int, last: int, to: Weights,
) -> None:  # fmt: skip
    """Adjoint of `forward` and `tangent` together: from gs, gv, g_read of values and p of tangents.

    A tangent is linear in the tangents before it, as a small change is, so that its adjoints are those of a change:
    what `reverse` has kept. gs becomes the adjoint of s, `to` those of the weights; those of the edges and of the
    tangents of s and edges are not made. `still` as in `tangent`.
    """
    clear(to)
    d, n, f = w.layers, last - first, m.s.shape[2]
    rows = slice(first, last)
    gs_, gv_ = gs[rows], gv[rows]
    gy, py = np.empty((n, 3 * f), gs.dtype), np.empty((n, 3 * f), gs.dtype)
    g_hidden, p_hidden = np.empty((n, f), gs.dtype), np.empty((n, f), gs.dtype)
    g_context = np.empty((n, 2 * f), gs.dtype)
    g_vw, p_vw = np.empty((n, 3, 2 * f), gs.dtype), np.empty((n, 3, 2 * f), gs.dtype)
    gx, gv_in = np.empty_like(m.x[0]), np.empty_like(m.x[0])
    if m.read_hidden.shape[1] > 0:
        dual_read_out(w, m, t, gs_, g_read, p.read, first, last, to)
    for k in range(m.x.shape[0] - 1, -1, -1):
        ps, pv = p.s[k, rows], p.v[k, rows]
        gate_dual(m.vw[k], m.dot[k], t.vw[k], t.dot[k], gs_, gv_, ps, pv, first, gy, py)
        product_bwd(d.update_2_t[k], m.update_active[k, rows], gy, True, d.zero, g_hidden, to.update_2[k])
        add_outer(py, t.update_active[k, rows], 0, n, to.update_2[k])
        hidden, t_hidden = m.update_hidden[k, rows], t.update_hidden[k, rows]
        activation_dual(d.softplus, hidden, t_hidden, p.update_active[k, rows], g_hidden, p_hidden)
        product_bwd(d.update_1_t[k], m.context[k, rows], g_hidden, True, d.zero, g_context, to.update_1[k])
        add_outer(p_hidden, t.context[k, rows], 0, n, to.update_1[k])
        add_rows(gy, to.update_2_bias[k])
        add_rows(g_hidden, to.update_1_bias[k])
        norm_dual(
            m.y[k], m.vw[k], m.context[k], t.y[k], t.vw[k], t.context[k], gs_, gv_, ps, pv, g_context,
            p.context[k, rows], first, g_vw, p_vw,
        )  # fmt: skip
        g_flat, p_flat = g_vw.reshape(3 * n, 2 * f), p_vw.reshape(3 * n, 2 * f)
        add_matmul(g_flat, d.mix_t[k], gv_.reshape(3 * n, f))
        outer(g_flat, m.v_mid[k, rows].reshape(3 * n, f), to.mix[k])
        add_outer(p_flat, t.v_mid[k, rows].reshape(3 * n, f), 0, 3 * n, to.mix[k])
        dual_adjoint(
            gs, gv, p.s_mid[k], p.v_mid[k], m.x[k], m.v[k], t.x[k], t.v[k], g.basis, t_basis, w.filter[k], d.zero, g.u,
            tu, g.row_ptr, g.sender, g.mirror, g.ends, k > 0, first, last, gx, gv_in, to.filter[k],
        )  # fmt: skip
        if k > 0:
            add(gv_, gv_in[rows], gv_)
        product_bwd(d.message_2_t[k], m.active[k, rows], gx[rows], True, d.zero, g_hidden, to.message_2[k])
        if k == 0 and still:
            activation_adjoint(d.softplus, m.hidden[k, rows], g_hidden)
        else:
            add_outer(p.x[k, rows], t.active[k, rows], 0, n, to.message_2[k])
            activation_dual(d.softplus, m.hidden[k, rows], t.hidden[k, rows], p.active[k, rows], g_hidden, p_hidden)
        add_matmul(g_hidden, d.message_1_t[k], gs_)
        add_rows(gx[rows], to.message_2_bias[k])
        add_rows(g_hidden, to.message_1_bias[k])
        outer(g_hidden, m.s[k, rows], to.message_1[k])
        if k > 0 or not still:
            add_outer(p_hidden, t.s[k, rows], 0, n, to.message_1[k])
