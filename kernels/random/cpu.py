"""Gaussian noise from a counter, compiled by numba; equals reference.py bit for bit (no fast-math, nothing fused)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from painn_fast.kernels.jit import compiled
from painn_fast.kernels.random.reference import COS, LN2_HIGH, LN2_LOW, LOG, MULTIPLIER, ROUNDS, SIN, WEYL

M0, M1 = np.uint64(MULTIPLIER[0]), np.uint64(MULTIPLIER[1])
W0, W1 = np.uint64(WEYL[0]), np.uint64(WEYL[1])
WORD = np.uint64(0xFFFFFFFF)
HALF, SIX, ONE = np.uint64(32), np.uint64(6), np.uint64(1)
SQRT_HALF, TWO_PI = math.sqrt(0.5), 2.0 * math.pi


@compiled(inline="always")
def _uniform(high, low):  # type: ignore[no-untyped-def]
    n = ((high >> SIX) << np.uint64(26)) | (low >> SIX)
    return float((n << ONE) | ONE) * 2.0**-53


@compiled(inline="always")
def _sqrt(x):  # type: ignore[no-untyped-def]
    m, e = math.frexp(x)
    if e & 1:
        m *= 0.5
        e += 1
    y = 0.41731 + 0.59016 * m
    y = 0.5 * (y + m / y)
    y = 0.5 * (y + m / y)
    y = 0.5 * (y + m / y)
    y = 0.5 * (y + m / y)
    return math.ldexp(y, e >> 1)


@compiled(inline="always")
def _log(u):  # type: ignore[no-untyped-def]
    m, e = math.frexp(u)
    if m < SQRT_HALF:
        m *= 2.0
        e -= 1
    k = float(e)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    t = LOG[6]
    t = t * z + LOG[5]
    t = t * z + LOG[4]
    t = t * z + LOG[3]
    t = t * z + LOG[2]
    t = t * z + LOG[1]
    t = t * z + LOG[0]
    r = z * t
    h = 0.5 * f * f
    return k * LN2_HIGH - ((h - (s * (h + r) + k * LN2_LOW)) - f)


@compiled(inline="always")
def _cos_sin_turns(v):  # type: ignore[no-untyped-def]
    quarter = math.floor(4.0 * v + 0.5)
    x = (v - 0.25 * quarter) * TWO_PI
    z = x * x
    t, c = SIN[5], COS[5]
    t, c = t * z + SIN[4], c * z + COS[4]
    t, c = t * z + SIN[3], c * z + COS[3]
    t, c = t * z + SIN[2], c * z + COS[2]
    t, c = t * z + SIN[1], c * z + COS[1]
    t, c = t * z + SIN[0], c * z + COS[0]
    sine = x + x * z * t
    cosine = 1.0 - (0.5 * z - z * z * c)
    q = int(quarter) & 3
    if q == 1:
        return -sine, cosine
    if q == 2:
        return -cosine, -sine
    if q == 3:
        return sine, -cosine
    return cosine, sine


@compiled(inline="always")
def two_normal(seed, trajectory, step, stream, pair):  # type: ignore[no-untyped-def]
    """Numbers 2 pair and 2 pair + 1 of a row; all arguments uint64."""
    a, b = pair, trajectory
    c, d = step & WORD, (step >> HALF) | (stream << np.uint64(16))
    k, l = seed & WORD, seed >> HALF
    for _ in range(ROUNDS):
        x, y = M0 * a, M1 * c
        a, b, c, d = (y >> HALF) ^ b ^ k, y & WORD, (x >> HALF) ^ d ^ l, x & WORD
        k, l = (k + W0) & WORD, (l + W1) & WORD
    radius = _sqrt(-2.0 * _log(_uniform(a, b)))
    cosine, sine = _cos_sin_turns(_uniform(c, d))
    return radius * cosine, radius * sine


@compiled()
def fill_normal(seed, trajectory, step, stream, out):  # type: ignore[no-untyped-def]
    """A row [count] float64; all integers uint64."""
    count = out.shape[0]
    for pair in range((count + 1) // 2):
        first, second = two_normal(seed, trajectory, step, stream, np.uint64(pair))
        out[2 * pair] = first
        if 2 * pair + 1 < count:
            out[2 * pair + 1] = second


@compiled()
def normal_kernel(seed, trajectory, step, stream, out):  # type: ignore[no-untyped-def]
    """Fill out [S, count] float64; seed [S] and all other integers uint64."""
    for s in range(out.shape[0]):
        fill_normal(seed[s], trajectory[s], step, stream, out[s])


def normal(seed: int | Tensor, trajectory: Tensor, step: int | Tensor, count: int, stream: int = 0) -> Tensor:
    """As `reference.normal`, on the CPU."""
    out = np.empty((trajectory.shape[0], count))
    numbers = trajectory.numpy().astype(np.uint64)
    seeds = seed.numpy().astype(np.uint64) if isinstance(seed, Tensor) else np.full(len(numbers), seed, np.uint64)
    normal_kernel(seeds, numbers, np.uint64(int(step)), np.uint64(stream), out)
    return torch.from_numpy(out)
