"""Message and its adjoint over CSR rows on a CPU: nothing of size edges x features is stored, nothing is scattered.

The filter comes from a table of cubic Hermite splines (`radial/table.py`). Edges of receiver i are
`row_ptr[i]:row_ptr[i + 1]`; the list is symmetric, so that the row of an atom also names every atom it sends to, with
the same distance and the opposite direction.
"""

from __future__ import annotations

import math

import numba
import numpy as np

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums over features may be reordered into vectors, the same way at every run; NaN and infinity keep their meaning."""


@numba.njit(cache=True, nogil=True, fastmath=FAST)
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


@numba.njit(cache=True, nogil=True, fastmath=FAST, inline="always")
def _hermite(t):  # type: ignore[no-untyped-def]
    """Weights of value, slope, next value, next slope."""
    return (1 + 2 * t) * (1 - t) * (1 - t), t * (1 - t) * (1 - t), t * t * (3 - 2 * t), t * t * (t - 1)


@numba.njit(cache=True, nogil=True, fastmath=FAST, inline="always")
def _hermite_slope(t):  # type: ignore[no-untyped-def]
    """Derivatives of `_hermite` in t."""
    return 6 * t * (t - 1), (1 - t) * (1 - 3 * t), 6 * t * (1 - t), t * (3 * t - 2)


@numba.njit(cache=True, nogil=True, fastmath=FAST, inline="always")
def _spline(h0, h1, h2, h3, y0, m0, y1, m1, c):  # type: ignore[no-untyped-def]
    """Channel c between two knots, from values y and slopes m."""
    return h0 * y0[c] + h1 * m0[c] + h2 * y1[c] + h3 * m1[c]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def message_fwd(
    x: np.ndarray, v: np.ndarray, table: np.ndarray, row_ptr: np.ndarray, sender: np.ndarray, direction: np.ndarray,
    knot: np.ndarray, fraction: np.ndarray, vectors: bool, s_out: np.ndarray, v_out: np.ndarray,
) -> None:  # fmt: skip
    """s_out [N, F] and v_out [N, 3, F] grow by the messages; `vectors` False: v is zero (the first layer)."""
    n, f = s_out.shape
    real = table.dtype.type
    for i in range(n):
        s_i, v0, v1, v2 = s_out[i], v_out[i, 0], v_out[i, 1], v_out[i, 2]
        for e in range(row_ptr[i], row_ptr[i + 1]):
            k = knot[e]
            if k < 0:
                continue
            j = sender[e]
            w0, w1, w2, w3 = _hermite(fraction[e])
            h0, h1, h2, h3 = real(w0), real(w1), real(w2), real(w3)
            y0, m0, y1, m1 = table[k, 0], table[k, 1], table[k + 1, 0], table[k + 1, 1]
            u0, u1, u2 = direction[e, 0], direction[e, 1], direction[e, 2]
            x_j = x[j]
            if vectors:
                p0, p1, p2 = v[j, 0], v[j, 1], v[j, 2]
                for c in range(f):
                    a = x_j[c] * _spline(h0, h1, h2, h3, y0, m0, y1, m1, c)
                    b = x_j[f + c] * _spline(h0, h1, h2, h3, y0, m0, y1, m1, f + c)
                    g = x_j[2 * f + c] * _spline(h0, h1, h2, h3, y0, m0, y1, m1, 2 * f + c)
                    s_i[c] += a
                    v0[c] += b * u0 + g * p0[c]
                    v1[c] += b * u1 + g * p1[c]
                    v2[c] += b * u2 + g * p2[c]
            else:
                for c in range(f):
                    a = x_j[c] * _spline(h0, h1, h2, h3, y0, m0, y1, m1, c)
                    b = x_j[f + c] * _spline(h0, h1, h2, h3, y0, m0, y1, m1, f + c)
                    s_i[c] += a
                    v0[c] += b * u0
                    v1[c] += b * u1
                    v2[c] += b * u2


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def message_bwd(  # noqa: PLR0915 - one loop over edges that shares everything it reads
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
    real = table.dtype.type
    zero = real(0)
    for i in range(n):
        x_i, gs_i, gx_i = x[i], gs[i], gx[i]
        g0, g1, g2 = gv[i, 0], gv[i, 1], gv[i, 2]
        q0, q1, q2 = v[i, 0], v[i, 1], v[i, 2]
        o0, o1, o2 = gv_out[i, 0], gv_out[i, 1], gv_out[i, 2]
        for c in range(3 * f):
            gx_i[c] = zero
        fx, fy, fz = 0.0, 0.0, 0.0
        for e in range(row_ptr[i], row_ptr[i + 1]):
            k = knot[e]
            if k < 0:
                continue
            j = sender[e]
            w0, w1, w2, w3 = _hermite(fraction[e])
            h0, h1, h2, h3 = real(w0), real(w1), real(w2), real(w3)
            w0, w1, w2, w3 = _hermite_slope(fraction[e])
            l0, l1, l2, l3 = real(w0), real(w1), real(w2), real(w3)
            y0, m0, y1, m1 = table[k, 0], table[k, 1], table[k + 1, 0], table[k + 1, 1]
            u0, u1, u2 = direction[e, 0], direction[e, 1], direction[e, 2]
            x_j, gs_j = x[j], gs[j]
            r0, r1, r2 = gv[j, 0], gv[j, 1], gv[j, 2]
            p0, p1, p2 = v[j, 0], v[j, 1], v[j, 2]
            gd, gu0, gu1, gu2 = zero, zero, zero, zero
            if vectors:
                for c in range(f):
                    wa = _spline(h0, h1, h2, h3, y0, m0, y1, m1, c)
                    wb = _spline(h0, h1, h2, h3, y0, m0, y1, m1, f + c)
                    wc = _spline(h0, h1, h2, h3, y0, m0, y1, m1, 2 * f + c)
                    da = _spline(l0, l1, l2, l3, y0, m0, y1, m1, c)
                    db = _spline(l0, l1, l2, l3, y0, m0, y1, m1, f + c)
                    dc = _spline(l0, l1, l2, l3, y0, m0, y1, m1, 2 * f + c)
                    # mirror edge: i sends to j along -u
                    gb = -(r0[c] * u0 + r1[c] * u1 + r2[c] * u2)
                    gc = r0[c] * q0[c] + r1[c] * q1[c] + r2[c] * q2[c]
                    gx_i[c] += gs_j[c] * wa
                    gx_i[f + c] += gb * wb
                    gx_i[2 * f + c] += gc * wc
                    cc = x_i[2 * f + c] * wc
                    o0[c] += cc * r0[c]
                    o1[c] += cc * r1[c]
                    o2[c] += cc * r2[c]
                    # own edge: j sends to i along u
                    hb = g0[c] * u0 + g1[c] * u1 + g2[c] * u2
                    hc = g0[c] * p0[c] + g1[c] * p1[c] + g2[c] * p2[c]
                    gd += (gs_j[c] * x_i[c] + gs_i[c] * x_j[c]) * da
                    gd += (gb * x_i[f + c] + hb * x_j[f + c]) * db
                    gd += (gc * x_i[2 * f + c] + hc * x_j[2 * f + c]) * dc
                    bi, bj = x_i[f + c] * wb, x_j[f + c] * wb
                    gu0 += bj * g0[c] - bi * r0[c]
                    gu1 += bj * g1[c] - bi * r1[c]
                    gu2 += bj * g2[c] - bi * r2[c]
            else:
                for c in range(f):
                    wb = _spline(h0, h1, h2, h3, y0, m0, y1, m1, f + c)
                    da = _spline(l0, l1, l2, l3, y0, m0, y1, m1, c)
                    db = _spline(l0, l1, l2, l3, y0, m0, y1, m1, f + c)
                    gb = -(r0[c] * u0 + r1[c] * u1 + r2[c] * u2)
                    hb = g0[c] * u0 + g1[c] * u1 + g2[c] * u2
                    gd += (gs_j[c] * x_i[c] + gs_i[c] * x_j[c]) * da
                    gd += (gb * x_i[f + c] + hb * x_j[f + c]) * db
                    bi, bj = x_i[f + c] * wb, x_j[f + c] * wb
                    gu0 += bj * g0[c] - bi * r0[c]
                    gu1 += bj * g1[c] - bi * r1[c]
                    gu2 += bj * g2[c] - bi * r2[c]
            slope = gd / spacing
            along = gu0 * u0 + gu1 * u1 + gu2 * u2
            per = 1.0 / distance[e]
            fx += slope * u0 + (gu0 - along * u0) * per
            fy += slope * u1 + (gu1 - along * u1) * per
            fz += slope * u2 + (gu2 - along * u2) * per
        force[i, 0] += fx
        force[i, 1] += fy
        force[i, 2] += fz
