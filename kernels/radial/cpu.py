"""Directions of edges, and the filter's functions with their slopes, on a CPU."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from painn_fast.kernels.jit import compiled
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.radial.slopes import filter_basis_and_slope
from painn_fast.kernels.simd import LANES
from painn_fast.kernels.threads import run

MOST = 2048
"""Edges that a thread takes at a time."""


def edge_functions(r: Tensor, mirror: Tensor, radial: Radial) -> tuple[np.ndarray, ...]:
    """`filter_basis` and its slope at the distance of pairs, the mean of their edges' lengths; r / |r| and 1 / |r|.

    Args:
        r: [E, 3], without gradient.
        mirror: [E].
        radial: functions.

    Returns:
        [E, K'] twice, zeros behind the K + 1 functions up to a multiple of LANES, [E, 3] and [E].
    """
    first, k = radial.first.numpy(), len(radial.first)
    columns = k + 1 + -(k + 1) % LANES
    harmonic = np.abs(first - first[-1] / k * np.arange(1, k + 1)).max() <= np.finfo(first.dtype).eps * first[-1]
    if radial.basis == "sinc" and radial.cutoff_function == "cosine" and harmonic:
        shapes = (columns,), (columns,), (3,), ()
        basis, slope, u, inverse = (r.new_empty((len(r), *shape)).numpy() for shape in shapes)
        given = r.contiguous().numpy(), mirror.numpy(), float(first[-1]) / k, k, radial.cutoff
        to = basis, slope, u, inverse
        cuts = range(0, len(r) + MOST - 1, MOST)
        run(lambda edges, _: _sinc_and_cosine(*given, *edges, *to), [(e, min(e + MOST, len(r))) for e in cuts])
        return to
    d = torch.linalg.vector_norm(r, dim=1)
    functions = [pad(t, (0, columns - k - 1)) for t in filter_basis_and_slope((d + d[mirror]) / 2, radial)]
    per = 1.0 / d
    return tuple(t.contiguous().numpy() for t in (*functions, r * per[:, None], per))


@compiled(nogil=True, error_model="numpy")
def _length(r, e):  # type: ignore[no-untyped-def]
    x, y, z = np.float64(r[e, 0]), np.float64(r[e, 1]), np.float64(r[e, 2])
    return math.sqrt(x * x + y * y + z * z)


@compiled(nogil=True, error_model="numpy")
def _sinc_and_cosine(  # type: ignore[no-untyped-def]
    r, mirror, frequency, k, cutoff, low, high, basis, slope, u, inverse
):  # fmt: skip
    """Frequencies are multiples of the first: sines and cosines of all follow from those of one."""
    for e in range(low, high):
        length, other = _length(r, e), mirror[e]
        inverse[e] = 1.0 / length
        for c in range(3):
            u[e, c] = r[e, c] / length
        if low <= other < e:
            for c in range(basis.shape[1]):
                basis[e, c], slope[e, c] = basis[other, c], slope[other, c]
            continue
        d = 0.5 * (length + _length(r, other))
        at = math.pi / cutoff * d
        value, fall = 0.5 * (math.cos(at) + 1.0), -0.5 * math.pi / cutoff * math.sin(at)
        if d >= cutoff:
            value, fall = 0.0, 0.0
        per, sine, cosine, before, last = 1.0 / d, math.sin(frequency * d), math.cos(frequency * d), 0.0, 1.0
        twice = 2.0 * cosine
        for c in range(k):
            function = sine * per
            basis[e, c] = function * value
            slope[e, c] = (cosine * (frequency * (c + 1)) - function) * per * value + function * fall
            sine, before = twice * sine - before, sine
            cosine, last = twice * cosine - last, cosine
        basis[e, k], slope[e, k] = value, fall
        for c in range(k + 1, basis.shape[1]):
            basis[e, c], slope[e, c] = 0.0, 0.0
