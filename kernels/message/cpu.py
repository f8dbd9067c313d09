"""Message and its adjoint over CSR rows on a CPU: nothing of size edges x features is stored, nothing is scattered.

The filter comes from a table of cubic Hermite splines (`radial/table.py`). Edges of receiver i are
`row_ptr[i]:row_ptr[i + 1]`; the list is symmetric, so that the row of an atom also names every atom it sends to, with
the same distance and the opposite direction.

Inner loops write to one array each: the compiler vectorises a loop only if it can check that nothing overlaps, and it
gives up on loops that write to many.
"""

from __future__ import annotations

import math

import numpy as np

from painn_fast.kernels.compiled import compiled

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums over features may be reordered into vectors, the same way at every run; NaN and infinity keep their meaning."""


@compiled(nogil=True, fastmath=FAST)
def edge_geometry(
    positions: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray, shift: np.ndarray, unit: float, start: float,
    spacing: float, cutoff: float, direction: np.ndarray, distance: np.ndarray, knot: np.ndarray, fraction: np.ndarray,
) -> None:  # fmt: skip
    """Direction [E, 3], distance [E], table row [E] (-1 beyond the cut-off) and place in it [E]; positions [N, 3] Å."""
    for i in range(row_ptr.shape[0] - 1):
        for e in range(row_ptr[i], row_ptr[i + 1]):
            j = sender[e]
            x = (positions[j, 0] - positions[i, 0] + shift[e, 0]) * unit
            y = (positions[j, 1] - positions[i, 1] + shift[e, 1]) * unit
            z = (positions[j, 2] - positions[i, 2] + shift[e, 2]) * unit
            d = math.sqrt(x * x + y * y + z * z)
            distance[e] = d
            direction[e, 0], direction[e, 1], direction[e, 2] = x / d, y / d, z / d
            place = (d - start) / spacing
            k = max(int(place), 0)
            knot[e] = k if d < cutoff else -1
            fraction[e] = place - k


@compiled(nogil=True, fastmath=FAST, inline="always")
def _hermite(t):  # type: ignore[no-untyped-def]
    """Weights of value, slope, next value, next slope."""
    return (1 + 2 * t) * (1 - t) * (1 - t), t * (1 - t) * (1 - t), t * t * (3 - 2 * t), t * t * (t - 1)


@compiled(nogil=True, fastmath=FAST, inline="always")
def _hermite_slope(t):  # type: ignore[no-untyped-def]
    """Derivatives of `_hermite` in t."""
    return 6 * t * (t - 1), (1 - t) * (1 - 3 * t), 6 * t * (1 - t), t * (3 * t - 2)


@compiled(nogil=True, fastmath=FAST, inline="always")
def _spline(weights, knots, out):  # type: ignore[no-untyped-def]
    """out [C] from the rows [2, 2, C] of two knots."""
    real = out.dtype.type
    h0, h1, h2, h3 = real(weights[0]), real(weights[1]), real(weights[2]), real(weights[3])
    y0, m0, y1, m1 = knots[0, 0], knots[0, 1], knots[1, 0], knots[1, 1]
    for c in range(out.shape[0]):
        out[c] = h0 * y0[c] + h1 * m0[c] + h2 * y1[c] + h3 * m1[c]


@compiled(nogil=True, fastmath=FAST)
def message_fwd(
    x: np.ndarray, v: np.ndarray, table: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray, direction: np.ndarray,
    knot: np.ndarray, fraction: np.ndarray, vectors: bool, s_out: np.ndarray, v_out: np.ndarray,
) -> None:  # fmt: skip
    """s_out [N, F] and v_out [N, 3, F] grow by the messages; `vectors` False: v is zero (the first layer)."""
    n, f = s_out.shape
    w = np.empty(3 * f, s_out.dtype)
    a, b, g = w[:f], w[f : 2 * f], w[2 * f :]
    for i in range(n):
        s_i = s_out[i]
        for e in range(row_ptr[i], row_ptr[i + 1]):
            k = knot[e]
            if k < 0:
                continue
            j = sender[e]
            _spline(_hermite(fraction[e]), table[k : k + 2], w)
            x_j = x[j]
            for c in range(3 * f):
                w[c] *= x_j[c]
            for c in range(f):
                s_i[c] += a[c]
            for m in range(3):
                d, u, p = v_out[i, m], direction[e, m], v[j, m]
                if vectors:
                    for c in range(f):
                        d[c] += b[c] * u + g[c] * p[c]
                else:
                    for c in range(f):
                        d[c] += b[c] * u


@compiled(nogil=True, fastmath=FAST)
def message_bwd(  # noqa: PLR0912 - one visit of an edge shares everything it reads
    x: np.ndarray, v: np.ndarray, gs: np.ndarray, gv: np.ndarray, table: np.ndarray, spacing: float,
    row_ptr: np.ndarray, sender: np.ndarray, direction: np.ndarray, distance: np.ndarray, knot: np.ndarray,
    fraction: np.ndarray, vectors: bool, gx: np.ndarray, gv_out: np.ndarray, force: np.ndarray,
) -> None:  # fmt: skip
    """Adjoint of `message_fwd`: gx [N, 3 F] is written, gv_out [N, 3, F] and the force [N, 3] grow.

    The row of atom i holds its own edges (i <- j) and, by symmetry, their mirrors (j <- i): the mirrors give gx and gv
    of i, both give its force. With `vectors` False (the first layer) only the force is made: features there depend on
    no position.
    """
    n, f = gs.shape
    zero = gs.dtype.type(0)
    channels = 3 * f if vectors else 2 * f
    w, dw = np.empty(3 * f, gs.dtype), np.empty(3 * f, gs.dtype)
    g_own, g_mirror = np.zeros(3 * f, gs.dtype), np.zeros(3 * f, gs.dtype)
    own_b, own_c, mirror_b, mirror_c = g_own[f : 2 * f], g_own[2 * f :], g_mirror[f : 2 * f], g_mirror[2 * f :]
    w_b, w_c = w[f : 2 * f], w[2 * f :]
    for i in range(n):
        x_i, gs_i, gx_i = x[i], gs[i], gx[i]
        g0, g1, g2, q0, q1, q2 = gv[i, 0], gv[i, 1], gv[i, 2], v[i, 0], v[i, 1], v[i, 2]
        b_i, c_i = x_i[f : 2 * f], x_i[2 * f :]
        for c in range(3 * f):
            gx_i[c] = zero
        for c in range(f):
            g_own[c] = gs_i[c]
        fx, fy, fz = 0.0, 0.0, 0.0
        for e in range(row_ptr[i], row_ptr[i + 1]):
            k = knot[e]
            if k < 0:
                continue
            j = sender[e]
            _spline(_hermite(fraction[e]), table[k : k + 2], w)
            _spline(_hermite_slope(fraction[e]), table[k : k + 2], dw)
            u0, u1, u2 = direction[e, 0], direction[e, 1], direction[e, 2]
            x_j, b_j, gs_j = x[j], x[j, f : 2 * f], gs[j]
            r0, r1, r2, p0, p1, p2 = gv[j, 0], gv[j, 1], gv[j, 2], v[j, 0], v[j, 1], v[j, 2]
            for c in range(f):
                own_b[c] = g0[c] * u0 + g1[c] * u1 + g2[c] * u2
            for c in range(f):
                g_mirror[c] = gs_j[c]
            for c in range(f):
                mirror_b[c] = -(r0[c] * u0 + r1[c] * u1 + r2[c] * u2)
            if vectors:
                for c in range(f):
                    own_c[c] = g0[c] * p0[c] + g1[c] * p1[c] + g2[c] * p2[c]
                for c in range(f):
                    mirror_c[c] = r0[c] * q0[c] + r1[c] * q1[c] + r2[c] * q2[c]
                for c in range(3 * f):
                    gx_i[c] += g_mirror[c] * w[c]
                for m in range(3):
                    o, r = gv_out[i, m], gv[j, m]
                    for c in range(f):
                        o[c] += c_i[c] * w_c[c] * r[c]
            gd, gu0, gu1, gu2 = zero, zero, zero, zero
            for c in range(channels):
                gd += (g_mirror[c] * x_i[c] + g_own[c] * x_j[c]) * dw[c]
            for c in range(f):
                gu0 += w_b[c] * (b_j[c] * g0[c] - b_i[c] * r0[c])
                gu1 += w_b[c] * (b_j[c] * g1[c] - b_i[c] * r1[c])
                gu2 += w_b[c] * (b_j[c] * g2[c] - b_i[c] * r2[c])
            slope = gd / spacing
            along = gu0 * u0 + gu1 * u1 + gu2 * u2
            per = 1.0 / distance[e]
            fx += slope * u0 + (gu0 - along * u0) * per
            fy += slope * u1 + (gu1 - along * u1) * per
            fz += slope * u2 + (gu2 - along * u2) * per
        force[i, 0] += fx
        force[i, 1] += fy
        force[i, 2] += fz
