"""The update block on a CPU for training: out of place, with adjoints and the derivatives of these along a tangent.

Names: g_x is the adjoint of x; t_x the tangent that a second derivative gives to the adjoint of x; h_x what x
receives from it. vw [N, 3, 2 F] holds V and W side by side. An inner loop
writes to one array, or the compiler does not make vectors of it;
where they divide, Python's check for zero (`error_model`) would keep them from becoming vectors.
"""

from __future__ import annotations

import math

import numpy as np

from painn_fast.kernels.jit import FAST, compiled


@compiled(nogil=True, fastmath=FAST, error_model="numpy", inline="always")
def _inverse_norm(vw, epsilon, out):  # type: ignore[no-untyped-def]
    """out [F] = 1 / sqrt(|V|^2 + epsilon) from vw [3, 2 F]."""
    f = out.shape[0]
    one, eps = out.dtype.type(1), out.dtype.type(epsilon)
    x, y, z = vw[0, :f], vw[1, :f], vw[2, :f]
    for c in range(f):
        out[c] = one / math.sqrt(x[c] * x[c] + y[c] * y[c] + z[c] * z[c] + eps)


@compiled(nogil=True, fastmath=FAST, inline="always")
def _dot(a, p, b, q, out):  # type: ignore[no-untyped-def]
    """out [F] = <a, b> of a and b [3, F], which begin at columns p and q of theirs."""
    f = out.shape[0]
    # rows of an array are contiguous for the compiler, rows of its columns are not
    a0, a1, a2, b0, b1, b2 = a[0, p:], a[1, p:], a[2, p:], b[0, q:], b[1, q:], b[2, q:]
    for c in range(f):
        out[c] = a0[c] * b0[c] + a1[c] * b1[c] + a2[c] * b2[c]


@compiled(nogil=True, fastmath=FAST)
def norm(s: np.ndarray, vw: np.ndarray, epsilon: float, context: np.ndarray, dot: np.ndarray) -> None:
    """context [N, 2 F] = (s, sqrt(|V|^2 + epsilon)); dot [N, F] = <V, W>."""
    n, f = s.shape
    eps = s.dtype.type(epsilon)
    for i in range(n):
        a, b, d = vw[i, 0, :f], vw[i, 1, :f], vw[i, 2, :f]
        length = context[i, f:]
        for c in range(f):
            context[i, c] = s[i, c]
        for c in range(f):
            length[c] = math.sqrt(a[c] * a[c] + b[c] * b[c] + d[c] * d[c] + eps)
        _dot(vw[i], 0, vw[i], f, dot[i])


@compiled(nogil=True, fastmath=FAST, error_model="numpy")
def norm_adjoint(
    g_context: np.ndarray, g_dot: np.ndarray, vw: np.ndarray, epsilon: float, gs: np.ndarray, g_vw: np.ndarray
) -> None:
    """gs [N, F] and g_vw [N, 3, 2 F] from g_context [N, 2 F] and g_dot [N, F]."""
    n, f = gs.shape
    q = np.empty(f, gs.dtype)
    for i in range(n):
        gn, gd, own = g_context[i, f:], g_dot[i], gs[i]
        for c in range(f):
            own[c] = g_context[i, c]
        _inverse_norm(vw[i], epsilon, q)
        for c in range(f):
            q[c] *= gn[c]
        for k in range(3):
            a, b, ga, gb = vw[i, k, :f], vw[i, k, f:], g_vw[i, k, :f], g_vw[i, k, f:]
            for c in range(f):
                ga[c] = gd[c] * b[c] + q[c] * a[c]
            for c in range(f):
                gb[c] = gd[c] * a[c]


@compiled(nogil=True, fastmath=FAST, error_model="numpy")
def norm_second(
    g_context: np.ndarray, g_dot: np.ndarray, vw: np.ndarray, epsilon: float, ts: np.ndarray, t_vw: np.ndarray,
    h_context: np.ndarray, h_dot: np.ndarray, h_vw: np.ndarray,
) -> None:  # fmt: skip
    """Adjoint of `norm_adjoint`: from tangents ts [N, F] and t_vw [N, 3, 2 F] those of its first three arguments."""
    n, f = ts.shape
    q, z, other = np.empty(f, ts.dtype), np.empty(f, ts.dtype), np.empty(f, ts.dtype)
    for i in range(n):
        gn, gd, hn, hd = g_context[i, f:], g_dot[i], h_context[i, f:], h_dot[i]
        for c in range(f):
            h_context[i, c] = ts[i, c]
        _inverse_norm(vw[i], epsilon, q)
        _dot(t_vw[i], 0, vw[i], 0, hn)
        for c in range(f):
            hn[c] *= q[c]
        for c in range(f):
            z[c] = gn[c] * hn[c] * q[c] * q[c]
        for c in range(f):
            q[c] *= gn[c]
        _dot(t_vw[i], 0, vw[i], f, hd)
        _dot(t_vw[i], f, vw[i], 0, other)
        for c in range(f):
            hd[c] += other[c]
        for k in range(3):
            a, ta, tb, ha, hb = vw[i, k, :f], t_vw[i, k, :f], t_vw[i, k, f:], h_vw[i, k, :f], h_vw[i, k, f:]
            for c in range(f):
                ha[c] = q[c] * ta[c] - z[c] * a[c] + gd[c] * tb[c]
            for c in range(f):
                hb[c] = gd[c] * ta[c]


@compiled(nogil=True, fastmath=FAST)
def gate(
    s: np.ndarray, v: np.ndarray, y: np.ndarray, vw: np.ndarray, dot: np.ndarray, s_out: np.ndarray, v_out: np.ndarray
) -> None:
    """s_out [N, F] = s + A + G dot; v_out [N, 3, F] = v + B W."""
    n, f = s.shape
    for i in range(n):
        A, B, G, d, old, new = y[i, :f], y[i, f : 2 * f], y[i, 2 * f :], dot[i], s[i], s_out[i]
        for c in range(f):
            new[c] = old[c] + A[c] + G[c] * d[c]
        for k in range(3):
            b, old, new = vw[i, k, f:], v[i, k], v_out[i, k]
            for c in range(f):
                new[c] = old[c] + B[c] * b[c]


@compiled(nogil=True, fastmath=FAST)
def gate_adjoint(
    gs: np.ndarray, gv: np.ndarray, y: np.ndarray, vw: np.ndarray, dot: np.ndarray, gy: np.ndarray, g_vw: np.ndarray,
    g_dot: np.ndarray,
) -> None:  # fmt: skip
    """gy [N, 3 F], g_vw [N, 3, 2 F], g_dot [N, F] from gs [N, F] and gv [N, 3, F], which are those of s and v too."""
    n, f = gs.shape
    zero = gs.dtype.type(0)
    for i in range(n):
        B, G, g, d, gG, gd = y[i, f : 2 * f], y[i, 2 * f :], gs[i], dot[i], gy[i, 2 * f :], g_dot[i]
        for c in range(f):
            gy[i, c] = g[c]
        _dot(gv[i], 0, vw[i], f, gy[i, f : 2 * f])
        for c in range(f):
            gG[c] = g[c] * d[c]
        for c in range(f):
            gd[c] = g[c] * G[c]
        for k in range(3):
            p, ga, gb = gv[i, k], g_vw[i, k, :f], g_vw[i, k, f:]
            for c in range(f):
                ga[c] = zero
            for c in range(f):
                gb[c] = B[c] * p[c]


@compiled(nogil=True, fastmath=FAST)
def gate_second(
    gs: np.ndarray, gv: np.ndarray, y: np.ndarray, vw: np.ndarray, dot: np.ndarray, ty: np.ndarray, t_vw: np.ndarray,
    t_dot: np.ndarray, h_gs: np.ndarray, h_gv: np.ndarray, hy: np.ndarray, h_vw: np.ndarray, h_dot: np.ndarray,
) -> None:  # fmt: skip
    """Adjoint of `gate_adjoint`: from tangents ty [N, 3 F], t_vw [N, 3, 2 F], t_dot [N, F] those of its arguments."""
    n, f = gs.shape
    zero = gs.dtype.type(0)
    for i in range(n):
        B, G, g, d, td = y[i, f : 2 * f], y[i, 2 * f :], gs[i], dot[i], t_dot[i]
        tA, tB, tG, hG, hg, hd = ty[i, :f], ty[i, f : 2 * f], ty[i, 2 * f :], hy[i, 2 * f :], h_gs[i], h_dot[i]
        for c in range(f):
            hg[c] = tA[c] + tG[c] * d[c] + td[c] * G[c]
        for c in range(f):
            hy[i, c] = zero
        _dot(gv[i], 0, t_vw[i], f, hy[i, f : 2 * f])
        for c in range(f):
            hG[c] = td[c] * g[c]
        for c in range(f):
            hd[c] = tG[c] * g[c]
        for k in range(3):
            b, tb, p, hp, ha, hb = vw[i, k, f:], t_vw[i, k, f:], gv[i, k], h_gv[i, k], h_vw[i, k, :f], h_vw[i, k, f:]
            for c in range(f):
                hp[c] = tB[c] * b[c] + tb[c] * B[c]
            for c in range(f):
                ha[c] = zero
            for c in range(f):
                hb[c] = tB[c] * p[c]
