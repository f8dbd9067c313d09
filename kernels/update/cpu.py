"""The update block on a CPU, between its matrix products. vw [N, 3, 2 F] holds V and W side by side.

As in `message/cpu.py`, inner loops write to one array; where they divide, Python's check for zero (`error_model`) would
keep them from becoming vectors.
"""

from __future__ import annotations

import math

import numpy as np

from painn_fast.kernels.compiled import compiled
from painn_fast.kernels.message.cpu import FAST


@compiled(nogil=True, fastmath=FAST)
def norm_fwd(s: np.ndarray, vw: np.ndarray, epsilon: float, context: np.ndarray, dot: np.ndarray) -> None:
    """context [N, 2 F] = (s, sqrt(|V|^2 + epsilon)); dot [N, F] = <V, W>."""
    n, f = s.shape
    eps = s.dtype.type(epsilon)
    for i in range(n):
        a, b, d = vw[i, 0, :f], vw[i, 1, :f], vw[i, 2, :f]
        p, q, r = vw[i, 0, f:], vw[i, 1, f:], vw[i, 2, f:]
        length, product = context[i, f:], dot[i]
        for c in range(f):
            context[i, c] = s[i, c]
        for c in range(f):
            length[c] = math.sqrt(a[c] * a[c] + b[c] * b[c] + d[c] * d[c] + eps)
        for c in range(f):
            product[c] = a[c] * p[c] + b[c] * q[c] + d[c] * r[c]


@compiled(nogil=True, fastmath=FAST)
def gate_fwd(y: np.ndarray, vw: np.ndarray, dot: np.ndarray, vectors: bool, s: np.ndarray, v: np.ndarray) -> None:
    """s += A + G <V, W>; v += B W (not needed after the last layer: `vectors` False). y [N, 3 F] = (A, B, G)."""
    n, f = s.shape
    for i in range(n):
        for c in range(f):
            s[i, c] += y[i, c] + y[i, 2 * f + c] * dot[i, c]
        if vectors:
            for k in range(3):
                for c in range(f):
                    v[i, k, c] += y[i, f + c] * vw[i, k, f + c]


@compiled(nogil=True, fastmath=FAST)
def gate_bwd(gs: np.ndarray, gv: np.ndarray, vw: np.ndarray, dot: np.ndarray, vectors: bool, gy: np.ndarray) -> None:
    """gy [N, 3 F] = (gs, <gv, W>, gs <V, W>)."""
    n, f = gs.shape
    for i in range(n):
        gB, gG = gy[i, f : 2 * f], gy[i, 2 * f :]
        for c in range(f):
            gy[i, c] = gs[i, c]
        for c in range(f):
            gG[c] = gs[i, c] * dot[i, c]
        if vectors:
            a, b, d = gv[i, 0], gv[i, 1], gv[i, 2]
            p, q, r = vw[i, 0, f:], vw[i, 1, f:], vw[i, 2, f:]
            for c in range(f):
                gB[c] = a[c] * p[c] + b[c] * q[c] + d[c] * r[c]
        else:
            gB[:] = 0


@compiled(nogil=True, fastmath=FAST, error_model="numpy")
def norm_bwd(
    gs: np.ndarray, gv: np.ndarray, y: np.ndarray, vw: np.ndarray, context: np.ndarray, g_context: np.ndarray,
    vectors: bool, g_vw: np.ndarray,
) -> None:  # fmt: skip
    """Adjoint of V and W [N, 3, 2 F]; gs then takes in the adjoint of s in `context`."""
    n, f = gs.shape
    g_dot, stretch = np.empty(f, gs.dtype), np.empty(f, gs.dtype)
    for i in range(n):
        gate, norm, g_norm = y[i, 2 * f :], context[i, f:], g_context[i, f:]
        for c in range(f):
            g_dot[c] = gs[i, c] * gate[c]
        for c in range(f):
            stretch[c] = g_norm[c] / norm[c]
        for k in range(3):
            V, W, gV, gW = vw[i, k, :f], vw[i, k, f:], g_vw[i, k, :f], g_vw[i, k, f:]
            for c in range(f):
                gV[c] = g_dot[c] * W[c] + stretch[c] * V[c]
            if vectors:
                B, g = y[i, f : 2 * f], gv[i, k]
                for c in range(f):
                    gW[c] = g_dot[c] * V[c] + B[c] * g[c]
            else:
                for c in range(f):
                    gW[c] = g_dot[c] * V[c]
        for c in range(f):
            gs[i, c] += g_context[i, c]
