"""Message and its adjoint on a CPU, pair by pair: nothing of size edges x features is stored.

Both directed edges of a pair have the same distance and opposite directions, so that one visit reads the filter once
and serves both atoms. The filter comes from a table of splines (`radial/table.py`).
"""

from __future__ import annotations

import math

import numpy as np

from painn_fast.kernels.jit import compiled
from painn_fast.kernels.simd import LANES, load, opaque, splat, store, total


@compiled(nogil=True)
def _weights(t, spline):  # type: ignore[no-untyped-def]
    """B-splines of fifth degree at position t in their interval, and their derivatives."""
    for side, x in ((0, t), (1, 1.0 - t)):  # rows from the first on, and from the last
        first, second, third = (0, 1, 2) if side == 0 else (5, 4, 3)
        sign = 1.0 - 2.0 * side
        r = 1.0 - x
        spline[first] = r**5 / 120
        spline[second] = (26 + x * (-50 + x * (20 + x * (20 + x * (-20 + x * 5))))) / 120
        spline[third] = (66 + x * x * (-60 + x * x * (30 - 10 * x))) / 120
        spline[first + 6] = -sign * r**4 / 24
        spline[second + 6] = sign * (-50 + x * (40 + x * (60 + x * (-80 + x * 25)))) / 120
        spline[third + 6] = sign * x * (-120 + x * x * (120 - 50 * x)) / 120


@compiled(nogil=True, error_model="numpy")
def pair_geometry(
    positions: np.ndarray, receiver: np.ndarray, sender: np.ndarray, shift: np.ndarray, unit: float, start: float,
    spacing: float, cutoff: float, direction: np.ndarray, distance: np.ndarray, knot: np.ndarray, spline: np.ndarray,
) -> None:  # fmt: skip
    """Direction [P, 3], distance [P], first row in the table [P] (-1 beyond the cut-off) and weights of six rows in the
    filter and its slope, `spline` [P, 12]; positions [N, 3] Å.

    Two atoms that coincide have no direction, NaN; a distance that is not finite is not beyond the cut-off, and its
    weights are NaN.
    """
    for q in range(receiver.shape[0]):
        i, j = receiver[q], sender[q]
        x = (positions[j, 0] - positions[i, 0] + shift[q, 0]) * unit
        y = (positions[j, 1] - positions[i, 1] + shift[q, 1]) * unit
        z = (positions[j, 2] - positions[i, 2] + shift[q, 2]) * unit
        d = math.sqrt(x * x + y * y + z * z)
        distance[q] = d
        direction[q, 0], direction[q, 1], direction[q, 2] = x / d, y / d, z / d
        at = (d - start) / spacing
        if d < cutoff:
            k = max(int(at), 0)
        elif d < math.inf:
            k = -1
        else:
            k, at = 0, math.nan
        knot[q] = k
        _weights(at - k, spline[q])


@compiled(inline="always")
def _six(spline, first, like):  # type: ignore[no-untyped-def]
    return (
        splat(spline[first], like),
        splat(spline[first + 1], like),
        splat(spline[first + 2], like),
        splat(spline[first + 3], like),
        splat(spline[first + 4], like),
        splat(spline[first + 5], like),
    )


@compiled(inline="always")
def _sum(h, p0, p1, p2, p3, p4, p5):  # type: ignore[no-untyped-def]
    return h[0] * p0 + h[1] * p1 + h[2] * p2 + h[3] * p3 + h[4] * p4 + h[5] * p5


@compiled(nogil=True)
def message_fwd(
    x: np.ndarray, v: np.ndarray, table: np.ndarray, receiver: np.ndarray, sender: np.ndarray, direction: np.ndarray,
    knot: np.ndarray, spline: np.ndarray, vectors: bool, s_out: np.ndarray, v_out: np.ndarray,
) -> None:  # fmt: skip
    """s_out [N, F] and v_out [N, 3 F] grow by the messages; `vectors` False: v is zero (the first layer).

    Pairs are `receiver`, `sender` [P]; table [knots + 6, 3 F]; F a multiple of LANES.
    """
    f = s_out.shape[1]
    for q in range(receiver.shape[0]):
        if knot[q] < 0:
            continue
        k = np.uintp(knot[q])
        i, j = np.uintp(receiver[q]), np.uintp(sender[q])
        h = _six(spline[q], 0, x)
        y0, y1, y2 = table[k], table[k + np.uintp(1)], table[k + np.uintp(2)]
        y3, y4, y5 = table[k + np.uintp(3)], table[k + np.uintp(4)], table[k + np.uintp(5)]
        x_i, x_j, s_i, s_j, d_i, d_j, v_i, v_j = x[i], x[j], s_out[i], s_out[j], v_out[i], v_out[j], v[i], v[j]
        u0, u1, u2 = splat(direction[q, 0], x), splat(direction[q, 1], x), splat(direction[q, 2], x)
        for a in range(0, f, LANES):
            b, c = opaque(a + f), opaque(a + 2 * f)
            w = _sum(h, load(y0, a), load(y1, a), load(y2, a), load(y3, a), load(y4, a), load(y5, a))
            store(s_i, a, load(s_i, a) + w * load(x_j, a))
            store(s_j, a, load(s_j, a) + w * load(x_i, a))
            w = _sum(h, load(y0, b), load(y1, b), load(y2, b), load(y3, b), load(y4, b), load(y5, b))
            b_i, b_j = w * load(x_j, b), w * load(x_i, b)
            if vectors:
                w = _sum(h, load(y0, c), load(y1, c), load(y2, c), load(y3, c), load(y4, c), load(y5, c))
                c_i, c_j = w * load(x_j, c), w * load(x_i, c)
                store(d_i, a, load(d_i, a) + b_i * u0 + c_i * load(v_j, a))
                store(d_i, b, load(d_i, b) + b_i * u1 + c_i * load(v_j, b))
                store(d_i, c, load(d_i, c) + b_i * u2 + c_i * load(v_j, c))
                store(d_j, a, load(d_j, a) - b_j * u0 + c_j * load(v_i, a))
                store(d_j, b, load(d_j, b) - b_j * u1 + c_j * load(v_i, b))
                store(d_j, c, load(d_j, c) - b_j * u2 + c_j * load(v_i, c))
            else:
                store(d_i, a, load(d_i, a) + b_i * u0)
                store(d_i, b, load(d_i, b) + b_i * u1)
                store(d_i, c, load(d_i, c) + b_i * u2)
                store(d_j, a, load(d_j, a) - b_j * u0)
                store(d_j, b, load(d_j, b) - b_j * u1)
                store(d_j, c, load(d_j, c) - b_j * u2)


@compiled(nogil=True)
def _filter_and_slope(table, k, spline, columns, filters):  # type: ignore[no-untyped-def]
    """Filter and slope of a pair, `filters` [2, 3 F]: beside the message there are too few registers for weights."""
    h, g = _six(spline, 0, table), _six(spline, 6, table)
    y0, y1, y2 = table[k], table[k + np.uintp(1)], table[k + np.uintp(2)]
    y3, y4, y5 = table[k + np.uintp(3)], table[k + np.uintp(4)], table[k + np.uintp(5)]
    to_w, to_slope = filters[0], filters[1]
    for a in range(0, columns, LANES):
        p0, p1, p2, p3, p4, p5 = load(y0, a), load(y1, a), load(y2, a), load(y3, a), load(y4, a), load(y5, a)
        store(to_w, a, _sum(h, p0, p1, p2, p3, p4, p5))
        store(to_slope, a, _sum(g, p0, p1, p2, p3, p4, p5))


@compiled(nogil=True, error_model="numpy")
def message_bwd(  # noqa: PLR0915 - one visit of a pair shares everything it reads
    x: np.ndarray, v: np.ndarray, gs: np.ndarray, gv: np.ndarray, table: np.ndarray, spacing: float,
    receiver: np.ndarray, sender: np.ndarray, direction: np.ndarray, distance: np.ndarray, knot: np.ndarray,
    spline: np.ndarray, vectors: bool, filters: np.ndarray, gx: np.ndarray, gv_out: np.ndarray, pull: np.ndarray,
) -> None:  # fmt: skip
    """Adjoint of `message_fwd`: gx [N, 3 F] and gv_out [N, 3 F] grow, and so does pull [P, 3] = -dE/dr_ij of each pair.

    With `vectors` False (the first layer) only the pull is made: features there depend on no position.
    `filters` [2, 3 F] is scratch.
    """
    f, ws, slopes = gs.shape[1], filters[0], filters[1]
    for q in range(receiver.shape[0]):
        if knot[q] < 0:
            continue
        k = np.uintp(knot[q])
        i, j = np.uintp(receiver[q]), np.uintp(sender[q])
        _filter_and_slope(table, k, spline[q], 3 * f if vectors else 2 * f, filters)
        x_i, x_j, s_i, s_j, g_i, g_j, v_i, v_j = x[i], x[j], gs[i], gs[j], gv[i], gv[j], v[i], v[j]
        to_x_i, to_x_j, to_v_i, to_v_j = gx[i], gx[j], gv_out[i], gv_out[j]
        u0, u1, u2 = splat(direction[q, 0], x), splat(direction[q, 1], x), splat(direction[q, 2], x)
        gd, gu0, gu1, gu2 = splat(0.0, x), splat(0.0, x), splat(0.0, x), splat(0.0, x)
        for a in range(0, f, LANES):
            b, c = opaque(a + f), opaque(a + 2 * f)
            i0, i1, i2, j0, j1, j2 = load(g_i, a), load(g_i, b), load(g_i, c), load(g_j, a), load(g_j, b), load(g_j, c)
            # scalar messages: a of i <- j and of j <- i
            w, slope = load(ws, a), load(slopes, a)
            a_i, a_j = load(s_i, a), load(s_j, a)
            gd = gd + slope * (a_j * load(x_i, a) + a_i * load(x_j, a))
            if vectors:
                store(to_x_i, a, load(to_x_i, a) + w * a_j)
                store(to_x_j, a, load(to_x_j, a) + w * a_i)
            # along the direction: b
            w, slope = load(ws, b), load(slopes, b)
            b_i, b_j = i0 * u0 + i1 * u1 + i2 * u2, j0 * u0 + j1 * u1 + j2 * u2
            x_of_i, x_of_j = load(x_i, b), load(x_j, b)
            gd = gd + slope * (b_i * x_of_j - b_j * x_of_i)
            if vectors:
                store(to_x_i, b, load(to_x_i, b) - w * b_j)
                store(to_x_j, b, load(to_x_j, b) + w * b_i)
            x_of_i, x_of_j = w * x_of_i, w * x_of_j
            gu0 = gu0 + x_of_j * i0 - x_of_i * j0
            gu1 = gu1 + x_of_j * i1 - x_of_i * j1
            gu2 = gu2 + x_of_j * i2 - x_of_i * j2
            # vectors that propagate: c
            if vectors:
                w, slope = load(ws, c), load(slopes, c)
                x_of_i, x_of_j = load(x_i, c), load(x_j, c)
                c_i = i0 * load(v_j, a) + i1 * load(v_j, b) + i2 * load(v_j, c)
                c_j = j0 * load(v_i, a) + j1 * load(v_i, b) + j2 * load(v_i, c)
                gd = gd + slope * (c_j * x_of_i + c_i * x_of_j)
                store(to_x_i, c, load(to_x_i, c) + w * c_j)
                store(to_x_j, c, load(to_x_j, c) + w * c_i)
                x_of_i, x_of_j = w * x_of_i, w * x_of_j
                store(to_v_i, a, load(to_v_i, a) + x_of_i * j0)
                store(to_v_i, b, load(to_v_i, b) + x_of_i * j1)
                store(to_v_i, c, load(to_v_i, c) + x_of_i * j2)
                store(to_v_j, a, load(to_v_j, a) + x_of_j * i0)
                store(to_v_j, b, load(to_v_j, b) + x_of_j * i1)
                store(to_v_j, c, load(to_v_j, c) + x_of_j * i2)
        e0, e1, e2 = direction[q, 0], direction[q, 1], direction[q, 2]
        t0, t1, t2 = total(gu0), total(gu1), total(gu2)
        along, per, pushed = t0 * e0 + t1 * e1 + t2 * e2, 1.0 / distance[q], total(gd) / spacing
        pull[q, 0] -= pushed * e0 + (t0 - along * e0) * per
        pull[q, 1] -= pushed * e1 + (t1 - along * e1) * per
        pull[q, 2] -= pushed * e2 + (t2 - along * e2) * per


@compiled(nogil=True)
def forces_of_pairs(
    pull: np.ndarray, receiver: np.ndarray, sender: np.ndarray, unit: float, forces: np.ndarray
) -> None:
    """forces [N, 3] = unit times what all pairs pull: the sender along pull [P, 3], the receiver against it."""
    forces[:] = 0.0
    for q in range(receiver.shape[0]):
        for c in range(3):
            forces[receiver[q], c] -= unit * pull[q, c]
            forces[sender[q], c] += unit * pull[q, c]
