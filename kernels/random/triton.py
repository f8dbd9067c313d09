"""Gaussian noise from a counter on a GPU: the operations of reference.py one by one, hence the same bits.

Products and sums must not be fused: every launch says `enable_fp_fusion=False`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.launch import require_contiguous
from painn_fast.kernels.random import reference

SQRT_HALF, TWO_PI, SMALLEST = tl.constexpr(math.sqrt(0.5)), tl.constexpr(2.0 * math.pi), tl.constexpr(2.0**-53)
LN2_HIGH, LN2_LOW = tl.constexpr(reference.LN2_HIGH), tl.constexpr(reference.LN2_LOW)
LOG, SIN, COS = tl.constexpr(reference.LOG), tl.constexpr(reference.SIN), tl.constexpr(reference.COS)
FRACTION, ONE_HALF = tl.constexpr((1 << 52) - 1), tl.constexpr(1022 << 52)
"""Bits of a double's mantissa; those of 0.5."""
PAIRS, WARPS = 256, 4
"""Pairs of numbers a program, at most, and its warps."""


@triton.jit
def _uniform(high, low):
    """Odd multiples of 2^-53 inside (0, 1) from two words."""
    n = ((high >> 6).to(tl.int64) << 26) | (low >> 6).to(tl.int64)
    return (2 * n + 1).to(tl.float64) * SMALLEST


@triton.jit
def _frexp(x):
    """Mantissa in [1/2, 1) and exponent of positive normal numbers."""
    bits = x.to(tl.int64, bitcast=True)
    return ((bits & FRACTION) | ONE_HALF).to(tl.float64, bitcast=True), (bits >> 52) - 1022


@triton.jit
def _sqrt(x):
    m, exponent = _frexp(x)
    odd = exponent & 1
    m = tl.where(odd == 1, m * 0.5, m)
    y = 0.41731 + 0.59016 * m
    for _ in tl.static_range(4):
        y = 0.5 * (y + m / y)
    half = (exponent + odd) >> 1
    return y * ((half + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _horner(z, COEFFICIENTS: tl.constexpr, LAST: tl.constexpr):
    total = tl.full(z.shape, COEFFICIENTS[LAST], tl.float64)
    for k in tl.static_range(LAST):
        total = total * z + COEFFICIENTS[LAST - 1 - k]
    return total


@triton.jit
def _log(u):
    m, exponent = _frexp(u)
    small = m < tl.full(m.shape, SQRT_HALF, tl.float64)  # a bare number would be compared in single precision
    m = tl.where(small, m * 2.0, m)
    k = (exponent - small.to(tl.int64)).to(tl.float64)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    r = z * _horner(z, LOG, 6)
    h = 0.5 * f * f
    return k * LN2_HIGH - ((h - (s * (h + r) + k * LN2_LOW)) - f)


@triton.jit
def _cos_sin_turns(v):
    quarter = tl.floor(4.0 * v + 0.5)
    x = (v - 0.25 * quarter) * TWO_PI
    z = x * x
    sine = x + x * z * _horner(z, SIN, 5)
    cosine = 1.0 - (0.5 * z - z * z * _horner(z, COS, 5))
    q = quarter.to(tl.int32) & 3
    odd = (q & 1) == 1
    c, s = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    return tl.where((q == 1) | (q == 2), -c, c), tl.where(q >= 2, -s, s)


@triton.jit
def gauss(seed, pair, trajectory, step, STREAM):
    """Numbers 2 pair and 2 pair + 1 of a trajectory at a step; the arguments have one shape."""
    a, b, c, d = tl.philox(
        seed.to(tl.uint64),
        pair.to(tl.uint32),
        trajectory.to(tl.uint32),
        step.to(tl.uint32),
        ((step >> 32) | (STREAM << 16)).to(tl.uint32),
    )
    radius = _sqrt(-2.0 * _log(_uniform(a, b)))
    cosine, sine = _cos_sin_turns(_uniform(c, d))
    return radius * cosine, radius * sine


@triton.jit(do_not_specialize=["seed", "step", "stream", "trajectories", "count"])
def normal_kernel(
    p_trajectory, p_seed, p_step, p_out, seed: tl.uint64, step: tl.int64, stream: tl.int64, trajectories: tl.int64,
    count: tl.int64, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out [S, count]; a program makes ROWS trajectories x COLUMNS pairs. With p_step the step is read from there.

    With p_seed [S] each trajectory has a seed of its own.
    """
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    pair = (tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    if p_step is not None:
        step = tl.load(p_step)
    trajectory = tl.load(p_trajectory + row, mask=row < trajectories, other=0)
    zero = tl.zeros((ROWS, COLUMNS), tl.int64)
    if p_seed is not None:
        seed = (tl.load(p_seed + row, mask=row < trajectories, other=0) + zero).to(tl.uint64)
    else:
        seed = seed + zero.to(tl.uint64)
    even, odd = gauss(seed, pair + zero, trajectory + zero, step + zero, stream)
    p_out += row * count + 2 * pair
    inside = (row < trajectories) & (2 * pair < count)
    tl.store(p_out, even, mask=inside)
    tl.store(p_out + 1, odd, mask=inside & (2 * pair + 1 < count))


def normal(
    seed: int | Tensor, trajectory: Tensor, step: int | Tensor, count: int, stream: int = 0, out: Tensor | None = None
) -> Tensor:
    """As `reference.normal`, into `out` [S, count] if there is one.

    `step` may also be an int64 tensor [1] on the device, for use in a CUDA graph.
    """
    trajectories = len(trajectory)
    if out is None:
        out = torch.empty(trajectories, count, dtype=torch.float64, device=trajectory.device)
    if out.numel() == 0:
        return out
    require_contiguous(out)
    rows, columns = blocks(count)
    pairs = (count + 1) // 2
    at, number = (step, 0) if isinstance(step, Tensor) else (None, step)
    seeds, key = (seed.contiguous(), 0) if isinstance(seed, Tensor) else (None, seed)
    with torch.cuda.device_of(out):
        normal_kernel[triton.cdiv(trajectories, rows), triton.cdiv(pairs, columns)](
            trajectory.contiguous(), seeds, at, out, key, number, stream, trajectories, count, rows, columns,
            num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def blocks(count: int) -> tuple[int, int]:
    """Trajectories and pairs of a program."""
    columns = min(PAIRS, triton.next_power_of_2((count + 1) // 2))
    return PAIRS // columns, columns


def cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """Cases of the static report: many small molecules, one large system; seeds and step from the device."""
    made = []
    for count in (27, 3000):
        rows, columns = blocks(count)
        fixed = {"ROWS": rows, "COLUMNS": columns}
        types = {"p_trajectory": "*i64", "p_seed": "*i64", "p_step": "*i64", "p_out": "*fp64", "seed": "u64"}
        signature = {a: "constexpr" if a in fixed else types.get(a, "i64") for a in normal_kernel.arg_names}
        made.append((f"random normal, {count} numbers", normal_kernel, signature, fixed, WARPS))
    return made
