"""The update block on a CPU, between its matrix products. vw [N, 3, 2 F] holds V and W side by side.

v and its adjoints are [N, 3 F] here: x, y and z one after another. F a multiple of LANES.
"""

from __future__ import annotations

import numpy as np

from painn_fast.kernels.jit import compiled
from painn_fast.kernels.simd import LANES, load, splat, sqrt, store


@compiled(nogil=True)
def norm_fwd(s: np.ndarray, vw: np.ndarray, epsilon: float, context: np.ndarray, dot: np.ndarray) -> None:
    """context [N, 2 F] = (s, sqrt(|V|^2 + epsilon)); dot [N, F] = <V, W>."""
    n, f = s.shape
    for i in range(n):
        x, y, z, row, to, to_dot = vw[i, 0], vw[i, 1], vw[i, 2], s[i], context[i], dot[i]
        for c in range(0, f, LANES):
            a, b, d = load(x, c), load(y, c), load(z, c)
            store(to, c, load(row, c))
            store(to, f + c, sqrt(splat(epsilon, a) + a * a + b * b + d * d))
            store(to_dot, c, a * load(x, f + c) + b * load(y, f + c) + d * load(z, f + c))


@compiled(nogil=True)
def gate_fwd(y: np.ndarray, vw: np.ndarray, dot: np.ndarray, s: np.ndarray, v: np.ndarray, v_out: np.ndarray) -> None:
    """s += A + G <V, W>; v_out = v + B W, which may be v. y [N, 3 F] = (A, B, G)."""
    n, f = s.shape
    for i in range(n):
        gates, d, to_s, old, new, w0, w1, w2 = y[i], dot[i], s[i], v[i], v_out[i], vw[i, 0], vw[i, 1], vw[i, 2]
        for c in range(0, f, LANES):
            b = load(gates, f + c)
            store(to_s, c, load(to_s, c) + load(gates, c) + load(gates, 2 * f + c) * load(d, c))
            store(new, c, load(old, c) + b * load(w0, f + c))
            store(new, f + c, load(old, f + c) + b * load(w1, f + c))
            store(new, 2 * f + c, load(old, 2 * f + c) + b * load(w2, f + c))


@compiled(nogil=True)
def gate_bwd(gs: np.ndarray, gv: np.ndarray, vw: np.ndarray, dot: np.ndarray, vectors: bool, gy: np.ndarray) -> None:
    """gy [N, 3 F] = (gs, <gv, W>, gs <V, W>); `vectors` False: gv is zero (the last layer)."""
    n, f = gs.shape
    for i in range(n):
        g, r, d, to, w0, w1, w2 = gs[i], gv[i], dot[i], gy[i], vw[i, 0], vw[i, 1], vw[i, 2]
        for c in range(0, f, LANES):
            a = load(g, c)
            store(to, c, a)
            store(to, 2 * f + c, a * load(d, c))
            b = splat(0.0, a)
            if vectors:
                b = (
                    load(r, c) * load(w0, f + c)
                    + load(r, f + c) * load(w1, f + c)
                    + load(r, 2 * f + c) * load(w2, f + c)
                )
            store(to, f + c, b)


@compiled(nogil=True)
def norm_bwd(
    gs: np.ndarray, gv: np.ndarray, y: np.ndarray, vw: np.ndarray, context: np.ndarray, g_context: np.ndarray,
    vectors: bool, g_vw: np.ndarray,
) -> None:  # fmt: skip
    """Adjoint of V and W [N, 3, 2 F]; gs then takes in the adjoint of s in `context`."""
    n, f = gs.shape
    for i in range(n):
        g, r, gates, at, g_at = gs[i], gv[i], y[i], context[i], g_context[i]
        for c in range(0, f, LANES):
            a = load(g, c)
            g_dot = a * load(gates, 2 * f + c)
            b = load(gates, f + c)
            stretch = load(g_at, f + c) / load(at, f + c)
            for k in range(3):
                row, to = vw[i, k], g_vw[i, k]
                p, w = load(row, c), load(row, f + c)
                store(to, c, g_dot * w + stretch * p)
                g_w = g_dot * p
                if vectors:
                    g_w = g_w + b * load(r, k * f + c)
                store(to, f + c, g_w)
            store(g, c, a + load(g_at, c))
