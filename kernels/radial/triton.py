"""The filter of one edge on a GPU, in registers: geometry, cut-off, basis and their products with the weights.

    w = fc (sum_k phi_k W_k + W_K)        phi_k = psi_k h        g = fc h        w = g sum_k psi_k W_k + fc W_K

psi is the part that differs from k to k, h the factor that all share: 1/d for sinc functions, 1 for Gaussians. The
factor and the cut-off are applied once a filter, not once a k, and derivatives follow by the product rule. Scalars of
an edge are computed by every thread: cheaper than moving them between threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import triton
import triton.language as tl

from painn_fast.kernels.radial.reference import Radial


@dataclass(frozen=True)
class Constants:
    """What a kernel is compiled for.

    Args:
        basis: what is regular is compiled in and cheap: "sinc" (multiples of a frequency, by recurrence), "gaussian"
            (evenly spaced, of one width). "sines" and "gaussians" are read from memory and may be anything.
        count: K.
        base: the first frequency of "sinc", the first centre of "gaussian".
        step, width: of "gaussian".
        cutoff_function, cutoff, switch_on: as in `Radial`.
    """

    basis: str
    count: int
    base: float
    step: float
    width: float
    cutoff_function: str
    cutoff: float
    switch_on: float

    @property
    def over_d(self) -> bool:
        """Whether the functions are divided by d."""
        return self.basis in ("sinc", "sines")

    @property
    def scale(self) -> float:
        """A power of two; times it no function or slope is larger than 2^15, which float16 holds, and few are small."""
        edge = 4.0 / (self.cutoff - self.switch_on)  # no slope of a cut-off is larger
        if self.over_d:
            return 2.0 ** math.floor(14.0 - 2.0 * math.log2(max(1.0, self.count * self.base, edge)))
        return 2.0 ** math.floor(14.0 - math.log2(max(1.0, 1.0 / self.width + edge)))


def constants(radial: Radial, dtype: torch.dtype) -> Constants:
    """Read the functions back from their device once for each `Radial`; later calls cost nothing and never wait."""
    if radial.basis == "sinc":
        radial = replace(radial, widths=radial.first)  # made anew by some callers, and not read
    versions = [0 if t.is_inference() else t._version for t in (radial.first, radial.widths)]
    return _constants(radial, dtype, *versions)


@lru_cache(maxsize=64)
def _constants(radial: Radial, dtype: torch.dtype, *_versions: int) -> Constants:
    if radial.cutoff_function not in ("cosine", "mollifier", "switch"):
        raise ValueError(f"cut-off function {radial.cutoff_function!r}: expected cosine | mollifier | switch")
    if radial.basis not in ("sinc", "gaussian"):
        raise ValueError(f"radial basis {radial.basis!r}: expected sinc | gaussian")
    regular = (_sinc if radial.basis == "sinc" else _gaussian)(radial, 1e-6 if dtype == torch.float32 else 1e-14)
    basis = radial.basis if regular else {"sinc": "sines", "gaussian": "gaussians"}[radial.basis]
    on = radial.switch_on if radial.cutoff_function == "switch" else 0.0
    numbers = regular or (0.0, 0.0, 0.0)
    return Constants(basis, radial.first.numel(), *numbers, radial.cutoff_function, float(radial.cutoff), float(on))


def _sinc(radial: Radial, allowed: float) -> tuple[float, float, float] | None:
    """The frequency that all are multiples of, if there is one and its angle ends at pi."""
    frequencies = radial.first.double().cpu()
    multiples = torch.arange(1, len(frequencies) + 1, dtype=torch.float64)
    base = float((frequencies * multiples).sum() / multiples.square().sum())
    if abs(base * radial.cutoff / math.pi - 1) < allowed:
        base = math.pi / radial.cutoff  # the same angle as in the cosine cut-off: computed once
    even = bool(((frequencies - base * multiples).abs() <= allowed * frequencies).all())
    return (base, 0.0, 0.0) if even and 0 < base * radial.cutoff <= math.pi * (1 + 1e-6) else None


def _gaussian(radial: Radial, allowed: float) -> tuple[float, float, float] | None:
    """First centre, spacing and width, if all are the same."""
    centres, widths = radial.first.double().cpu(), radial.widths.double().cpu()
    base, width = float(centres[0]), float(widths.mean())
    step = float(centres[-1] - centres[0]) / max(len(centres) - 1, 1)
    off = (centres - base - step * torch.arange(len(centres), dtype=torch.float64)).abs().max()
    even = off <= allowed * radial.cutoff and (widths - width).abs().max() <= allowed * width
    return (base, step, width) if even else None


HALF_PI_HIGH = tl.constexpr(1.5707963705062866)  # float32(pi / 2)
HALF_PI_LOW = tl.constexpr(1.5707963267948966 - 1.5707963705062866)


@triton.jit
def edge_geometry(p_r, e):
    """d, 1 / d and u = r / d of edge e, from r [E, 3]."""
    x, y, z = tl.load(p_r + 3 * e), tl.load(p_r + 3 * e + 1), tl.load(p_r + 3 * e + 2)
    square = x * x + y * y + z * z
    inverse = tl.rsqrt(square)
    d = square * inverse
    d += 0.5 * inverse * (square - d * d)  # one Newton step: sin(20 pi d / rc) multiplies the error of d by 60
    inverse = tl.fma(tl.fma(-d, inverse, 1.0), inverse, inverse)  # and one for `rsqrt`, which is off by up to 2^-22
    return d, inverse, x * inverse, y * inverse, z * inverse


@triton.jit
def sine_cosine(d, FREQUENCY: tl.constexpr):
    """sin and cos of FREQUENCY d, an angle in [0, pi]; `tl.sin` of a float32 takes a slow path with a stack frame."""
    if d.dtype == tl.float64:
        return tl.sin(FREQUENCY * d), tl.cos(FREQUENCY * d)
    else:
        y = d * FREQUENCY - HALF_PI_HIGH - HALF_PI_LOW
        z = y * y
        sine = ((2.60005473e-06 * z - 1.98066152e-04) * z + 8.33301729e-03) * z - 1.66666571e-01
        cosine = ((-2.61938155e-07 * z + 2.47693043e-05) * z - 1.38885692e-03) * z + 4.16666558e-02
        return (cosine * z - 0.5) * z + 1.0, -(sine * z * y + y)


@triton.jit
def cutoff_values(d, C: tl.constexpr):
    """fc, fc', fc'' of d < cutoff; NaN of NaN."""
    if C.cutoff_function == "cosine":
        rate: tl.constexpr = 3.141592653589793 / C.cutoff
        sine, cosine = sine_cosine(d, rate)
        return 0.5 * cosine + 0.5, -0.5 * rate * sine, -0.5 * rate * rate * cosine
    elif C.cutoff_function == "mollifier":
        per: tl.constexpr = 1.0 / C.cutoff
        x = d * per
        outside = (d + 1e-7 >= C.cutoff) | (x >= 1)  # rounding may take x to 1, where the slope is 0 times infinity
        x = tl.where(outside, 0.0, x)
        inverse = 1.0 / (1.0 - x * x)
        value = tl.where(outside, 0.0, tl.exp(1.0 - inverse))
        slope = -2.0 * per * x * inverse * inverse  # of the exponent
        bend = -(2.0 + 6.0 * x * x) * inverse * inverse * inverse * per * per
        return value, value * slope, value * (bend + slope * slope)
    else:
        scale: tl.constexpr = 1.0 / (C.cutoff - C.switch_on)
        x = (d - C.switch_on) * scale
        outside = (x <= 0) | (x >= 1)
        end = tl.where(x > 0, 0.0, 1.0).to(d.dtype)
        x = tl.where(outside, 0.5, x)
        up, down = 1.0 / x, 1.0 / (1.0 - x)
        growth = tl.exp(tl.minimum(down - up, 80.0))
        value = 1.0 / (1.0 + growth)
        fallen = growth * value  # 1 - value, without its rounding where value is almost 1 and the slope steep
        slope = (down * down + up * up) * scale  # of the exponent
        bend = 2.0 * (down * down * down - up * up * up) * scale * scale
        rest = value * fallen
        first = tl.where(outside, 0.0, -rest * slope)
        second = tl.where(outside, 0.0, rest * ((fallen - value) * slope * slope - bend))
        return tl.where(outside, end, value), first, second


@triton.jit
def waves(d, p_first, C: tl.constexpr, ORDER: tl.constexpr):
    """sin(a_k d) with `ORDER` derivatives, each a tuple over k."""
    K: tl.constexpr = C.count
    psi, slope, bend = (), (), ()
    if C.basis == "sinc":
        sine, cosine = sine_cosine(d, C.base)
        twice = 2.0 * cosine
        s, s_before, c, c_before = sine, tl.zeros_like(sine), cosine, tl.full((), 1.0, d.dtype)
        for k in tl.static_range(1, K + 1):
            psi += (s,)
            if ORDER >= 1:
                slope += (c * (k * C.base),)
            if ORDER >= 2:
                bend += (s * (-(k * C.base) * (k * C.base)),)
            s, s_before = twice * s - s_before, s
            c, c_before = twice * c - c_before, c
    else:
        for k in tl.static_range(K):
            a = tl.load(p_first + k)
            s, c = tl.sin(a * d), tl.cos(a * d)
            psi += (s,)
            slope += (c * a,)
            bend += (-s * a * a,)
    return psi, slope, bend


@triton.jit
def bells(d, p_first, p_widths, C: tl.constexpr, ORDER: tl.constexpr):
    """exp(-(d - a_k)^2 / 2 b_k^2) with `ORDER` derivatives, each a tuple over k."""
    K: tl.constexpr = C.count
    psi, slope, bend = (), (), ()
    if C.basis == "gaussian":
        scale: tl.constexpr = 0.8493218002880191 / C.width  # sqrt(log2(e) / 2): the exponential is a power of two
        rate: tl.constexpr = -1.3862943611198906 * scale  # -2 log(2)
        start = (d - C.base) * scale
        for k in tl.static_range(K):
            away = start - k * C.step * scale
            value = tl.exp2(-away * away)
            psi += (value,)
            if ORDER >= 1:
                slope += (rate * away * value,)
            if ORDER >= 2:
                bend += ((rate * rate * away * away + rate * scale) * value,)
    else:
        for k in tl.static_range(K):
            per = 1.0 / tl.load(p_widths + k)
            away = (d - tl.load(p_first + k)) * per
            value = tl.exp(-0.5 * away * away)
            psi += (value,)
            slope += (-away * per * value,)
            bend += ((away * away - 1.0) * per * per * value,)
    return psi, slope, bend


@triton.jit
def radial_values(d, inverse, p_first, p_widths, C: tl.constexpr, ORDER: tl.constexpr):
    """psi_k with `ORDER` derivatives ((K,), (K,), (K,)), and (g, g', g''), (fc, fc', fc'')."""
    psi = waves(d, p_first, C, ORDER) if C.over_d else bells(d, p_first, p_widths, C, ORDER)
    fc, dfc, ddfc = cutoff_values(d, C)
    g, dg, ddg = fc, dfc, ddfc
    if C.over_d:
        g = fc * inverse
        dg = (dfc - g) * inverse
        ddg = (ddfc - 2.0 * dg) * inverse
    return psi, (g, dg, ddg), (fc, dfc, ddfc)


@triton.jit
def half_turns(p_first, C: tl.constexpr, COLUMNS: tl.constexpr):
    """Frequencies [1, COLUMNS] over pi, as sums of two numbers: an angle is many half turns, and not to be rounded."""
    high: tl.constexpr = 0.31830987334251404  # float32(1 / pi)
    low: tl.constexpr = 0.3183098861837907 - high
    if C.basis == "sinc":
        k = tl.arange(0, COLUMNS)[None, :]
        a = tl.load(p_first + k, mask=k < C.count, other=0.0)
        per = a * high
        return per, tl.fma(a, high, -per) + a * low
    else:
        return 0.0, 0.0


@triton.jit
def basis_tile(d, inverse, near, turns, C: tl.constexpr, COLUMNS: tl.constexpr, ORDER: tl.constexpr):
    """fc phi_k and its derivative (0 of ORDER 0), [ROWS, COLUMNS] of d [ROWS, 1]; fc in column K, 0 behind it.

    Rows that are not near are zero; `turns` are those of `half_turns`.
    """
    k = tl.arange(0, COLUMNS)[None, :]
    if C.basis == "sinc":
        per, rest = turns
        turned = tl.floor(d * per)
        along, per = tl.broadcast(d, per)
        part = tl.fma(along, per, -turned) + d * rest
        sine, cosine = sine_cosine(part, 3.141592653589793)
        sign = 1.0 - 4.0 * (0.5 * turned - tl.floor(0.5 * turned))
        psi, slope = sign * sine, sign * cosine * per
    else:
        scale: tl.constexpr = 0.8493218002880191 / C.width  # as in `bells`
        away = (d - C.base - k * C.step) * scale
        psi = tl.exp2(-away * away)
        slope = (-1.3862943611198906 * scale) * away * psi
    fc, dfc, _ = cutoff_values(d, C)
    g, dg = fc, dfc
    if C.over_d:
        g = fc * inverse
        dg = (dfc - g) * inverse
    value = tl.where(near & (k <= C.count), tl.where(k < C.count, g * psi, fc), 0.0)
    if ORDER >= 1:
        rise = g * 3.141592653589793 if C.basis == "sinc" else g
        slope = tl.where(k < C.count, tl.fma(dg, psi, rise * slope), dfc)
        return value, tl.where(near & (k <= C.count), slope, 0.0)
    else:
        return value, tl.zeros_like(value)


@triton.jit
def read(p, f, F: tl.constexpr, BLOCK_F: tl.constexpr):
    """Features f of a row that begins at p; zero beyond F."""
    if F % BLOCK_F == 0:
        return tl.load(p + f)
    else:
        return tl.load(p + f, mask=f < F, other=0.0)


@triton.jit
def write(p, f, value, F: tl.constexpr, BLOCK_F: tl.constexpr):
    """Features f of a row that begins at p."""
    if F % BLOCK_F == 0:
        tl.store(p + f, value)
    else:
        tl.store(p + f, value, mask=f < F)


@triton.jit
def weight_rows(p_weight, f, ROWS: tl.constexpr, F: tl.constexpr, BLOCK_F: tl.constexpr):
    """The rows of weight [ROWS, 3 F] for features f: a tuple for each gate."""
    a, b, c = (), (), ()
    for k in tl.static_range(ROWS):
        row = p_weight + k * 3 * F
        a += (read(row, f, F, BLOCK_F),)
        b += (read(row + F, f, F, BLOCK_F),)
        c += (read(row + 2 * F, f, F, BLOCK_F),)
    return a, b, c


@triton.jit
def contract(psi, rows, K: tl.constexpr):
    """sum_k psi_k rows_k, in order."""
    total = psi[0] * rows[0]
    for k in tl.static_range(1, K):
        total += psi[k] * rows[k]
    return total


@triton.jit
def filter_values(rows, psi, g, fc, K: tl.constexpr, ORDER: tl.constexpr):
    """(w, w', w'')[: ORDER + 1] of the gate that `rows` belong to, for the features that this program holds."""
    s = contract(psi[0], rows, K)
    values = (g[0] * s + fc[0] * rows[K],)
    if ORDER >= 1:
        ds = contract(psi[1], rows, K)
        values += (g[1] * s + g[0] * ds + fc[1] * rows[K],)
    if ORDER >= 2:
        dds = contract(psi[2], rows, K)
        values += (g[2] * s + 2.0 * g[1] * ds + g[0] * dds + fc[2] * rows[K],)
    return values


@triton.jit
def no_rows(ROWS: tl.constexpr, BLOCK_F: tl.constexpr, DTYPE: tl.constexpr):
    """Zeros in the shape of `weight_rows`."""
    rows = ()
    for _ in tl.static_range(ROWS):
        rows += (tl.zeros((BLOCK_F,), DTYPE),)
    return rows, rows, rows


@triton.jit
def grown(rows, psi, z, z_bias, K: tl.constexpr):
    """rows_k + psi_k z, and z_bias on the last row: the transpose of `filter_values`."""
    new = ()
    for k in tl.static_range(K):
        new += (rows[k] + psi[k] * z,)
    new += (rows[K] + z_bias,)
    return new


@triton.jit
def write_rows(p_weight, f, a, b, c, ROWS: tl.constexpr, F: tl.constexpr, BLOCK_F: tl.constexpr):
    """Write what `weight_rows` reads."""
    for k in tl.static_range(ROWS):
        row = p_weight + k * 3 * F
        write(row, f, a[k], F, BLOCK_F)
        write(row + F, f, b[k], F, BLOCK_F)
        write(row + 2 * F, f, c[k], F, BLOCK_F)
