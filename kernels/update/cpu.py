"""The update block on a CPU, between its matrix products. vw [N, 3, 2 F] holds V and W side by side."""

from __future__ import annotations

import math

import numpy as np

from painn_fast.kernels.compiled import compiled
from painn_fast.kernels.message.cpu import FAST


@compiled(nogil=True, fastmath=FAST)
def norm_fwd(s: np.ndarray, vw: np.ndarray, epsilon: float, context: np.ndarray, dot: np.ndarray) -> None:
    """context [N, 2 F] = (s, sqrt(|V|^2 + epsilon)); dot [N, F] = <V, W>."""
    n, f = s.shape
    for i in range(n):
        for c in range(f):
            a, b, d = vw[i, 0, c], vw[i, 1, c], vw[i, 2, c]
            context[i, c] = s[i, c]
            context[i, f + c] = math.sqrt(a * a + b * b + d * d + epsilon)
            dot[i, c] = a * vw[i, 0, f + c] + b * vw[i, 1, f + c] + d * vw[i, 2, f + c]


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
        for c in range(f):
            gy[i, c] = gs[i, c]
            gy[i, 2 * f + c] = gs[i, c] * dot[i, c]
            gy[i, f + c] = 0
        if vectors:
            for k in range(3):
                for c in range(f):
                    gy[i, f + c] += gv[i, k, c] * vw[i, k, f + c]


@compiled(nogil=True, fastmath=FAST)
def norm_bwd(
    gs: np.ndarray, gv: np.ndarray, y: np.ndarray, vw: np.ndarray, context: np.ndarray, g_context: np.ndarray,
    vectors: bool, g_vw: np.ndarray,
) -> None:  # fmt: skip
    """Adjoint of V and W [N, 3, 2 F]; gs then takes in the adjoint of s in `context`."""
    n, f = gs.shape
    for i in range(n):
        for k in range(3):
            for c in range(f):
                g_dot = gs[i, c] * y[i, 2 * f + c]
                stretch = g_context[i, f + c] / context[i, f + c]
                g_vw[i, k, c] = g_dot * vw[i, k, f + c] + stretch * vw[i, k, c]
                g_vw[i, k, f + c] = g_dot * vw[i, k, c]
            if vectors:
                for c in range(f):
                    g_vw[i, k, f + c] += y[i, f + c] * gv[i, k, c]
        for c in range(f):
            gs[i, c] += g_context[i, c]
