"""Gaussian noise from a counter, in plain torch: the specification that every other backend equals bit for bit.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011, doi:10.1145/2063384.2063405), two 52-bit uniforms from its four
words, Box-Muller. Square root, logarithm, sine and cosine are written out in additions, multiplications and divisions,
which IEEE 754 rounds the same everywhere; those of libraries (torch.sqrt on a CPU included) differ in the last bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LOG = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
)  # fmt: skip
SIN = (
    -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
    2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10,
)  # fmt: skip
COS = (
    4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
    -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11,
)  # fmt: skip
"""Minimax coefficients of fdlibm (Sun, 1993): log on [sqrt(1/2), sqrt(2)], sin and cos on [-pi/4, pi/4]."""


def normal(seed: int | Tensor, trajectory: Tensor, step: int | Tensor, count: int, stream: int = 0) -> Tensor:
    """Independent standard normal numbers, a pure function of the arguments.

    Args:
        seed: 0 to 2^64 - 1, or one for each trajectory [S] int64, 0 to 2^63 - 1.
        trajectory: numbers of the trajectories [S] int64, each 0 to 2^32 - 1.
        step: 0 to 2^48 - 1, or a tensor [1] of it.
        count: numbers for each trajectory, one for each degree of freedom.
        stream: 0 to 2^16 - 1, one for each purpose.

    Returns:
        [S, count] float64. Row s depends on (seed, trajectory[s], step, stream) alone, entry d of it on d besides.
    """
    step, key = int(step), seed[:, None] if isinstance(seed, Tensor) else seed
    pair = torch.arange((count + 1) // 2, device=trajectory.device).expand(len(trajectory), -1)
    counter = [
        pair,
        trajectory[:, None].expand_as(pair),
        torch.full_like(pair, step & WORD),
        torch.full_like(pair, (step >> 32) | (stream << 16)),
    ]
    w = philox(counter, (key & WORD, key >> 32))
    u, v = _uniform(w[0], w[1]), _uniform(w[2], w[3])
    radius = sqrt(-2.0 * log(u))
    cosine, sine = cos_sin_turns(v)
    return torch.stack([radius * cosine, radius * sine], dim=-1).flatten(1)[:, :count]


def philox(counter: list[Tensor], key: tuple[int | Tensor, int | Tensor]) -> list[Tensor]:
    """Philox4x32-10 of four counter words (int64, 0 to 2^32 - 1, any shape) and two key words; four words again."""
    a, b, c, d = counter
    k, l = key
    for _ in range(ROUNDS):
        high_a, low_a = _multiply(MULTIPLIER[0], a)
        high_c, low_c = _multiply(MULTIPLIER[1], c)
        a, b, c, d = high_c ^ b ^ k, low_c, high_a ^ d ^ l, low_a
        k, l = (k + WEYL[0]) & WORD, (l + WEYL[1]) & WORD
    return [a, b, c, d]


def _multiply(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of a product; int64 wraps, but its bits are those of the unsigned product."""
    product = word * factor
    return (product >> 32) & WORD, product & WORD


def _uniform(high: Tensor, low: Tensor) -> Tensor:
    """Odd multiples of 2^-53 from 52 bits: evenly spaced inside (0, 1), neither end included."""
    n = ((high >> 6) << 26) | (low >> 6)
    return (2 * n + 1).double() * 2.0**-53


def sqrt(x: Tensor) -> Tensor:
    """Square root of positive normal numbers, to 1 ulp: Heron's iteration on the mantissa in [1/4, 1)."""
    m, exponent = torch.frexp(x)
    odd = (exponent & 1) == 1
    m = torch.where(odd, m * 0.5, m)
    half = (exponent.long() + odd.long()) >> 1
    y = 0.41731 + 0.59016 * m
    for _ in range(4):
        y = 0.5 * (y + m / y)
    return y * ((half + 1023) << 52).view(torch.float64)  # times 2^half, by its bits


def log(u: Tensor) -> Tensor:
    """Natural logarithm of positive normal numbers, to 1 ulp (fdlibm e_log.c)."""
    m, exponent = torch.frexp(u)
    small = m < math.sqrt(0.5)
    m = torch.where(small, m * 2.0, m)
    k = (exponent - small.int()).double()
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    r = z * _horner(z, LOG)
    h = 0.5 * f * f
    return k * LN2_HIGH - ((h - (s * (h + r) + k * LN2_LOW)) - f)


def cos_sin_turns(v: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2 pi v for v in [0, 1) (fdlibm k_sin.c, k_cos.c on the exact remainder of a quarter turn)."""
    quarter = torch.floor(4.0 * v + 0.5)
    x = (v - 0.25 * quarter) * (2.0 * math.pi)
    z = x * x
    sine = x + x * z * _horner(z, SIN)
    cosine = 1.0 - (0.5 * z - z * z * _horner(z, COS))
    q = quarter.long() & 3
    odd = (q & 1) == 1
    c, s = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    return torch.where((q == 1) | (q == 2), -c, c), torch.where(q >= 2, -s, s)


def _horner(z: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    total = torch.full_like(z, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * z + coefficient
    return total
