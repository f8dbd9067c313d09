"""Instructions that are more than an operator of NumPy; float values are arrays of their type, others of bits."""

import numpy as np

ERRORS = {"ex2": 2.0**-22, "rsqrt": 2.0**-22.9, "sqrt": 2.0**-23, "rcp": 2.0**-23, "lg2": 2.0**-22, "div": 2.0**-22}
"""Relative errors that the PTX manual allows for approximate instructions in single precision."""
ERROR_OF_DOUBLE = 2.0**-52
"""For those in double precision, which are emulated in software; with `ftz` they are others, and not known here."""


def _approximate(name, x, exact):
    """`exact` off by up to the allowed error, by how much is a matter of the last bits of x."""
    part = (np.asarray(x).view(f"u{x.dtype.itemsize}") % 256) / 127.5 - 1.0
    error = ERROR_OF_DOUBLE if x.dtype == np.float64 else ERRORS[name]
    return (exact * (1.0 + part * error)).astype(x.dtype)


def ex2_approx(x):
    return _approximate("ex2", x, np.exp2(x.astype(np.float64)))


def lg2_approx(x):
    return _approximate("lg2", x, np.log2(x.astype(np.float64)))


def rsqrt_approx(x):
    return _approximate("rsqrt", x, 1.0 / np.sqrt(x.astype(np.float64)))


def sqrt_approx(x):
    return _approximate("sqrt", x, np.sqrt(x.astype(np.float64)))


def rcp_approx(x):
    return _approximate("rcp", x, 1.0 / x.astype(np.float64))


def div_full(x, y):
    return _approximate("div", x, x.astype(np.float64) / y)


div_approx = div_full


def sqrt(x):
    return np.sqrt(x)


def rcp(x):
    return x.dtype.type(1) / x


def div(x, y):
    """Of integers towards zero."""
    if x.dtype.kind == "f":
        return x / y
    quotient = x // np.where(y == 0, 1, y).astype(y.dtype)
    return quotient + ((quotient < 0) & (quotient * y != x)).astype(x.dtype)


def rem(x, y):
    return np.fmod(x, y)


def neg(x):
    return -x


abs = np.abs


def min(x, y):
    """A NaN is not the least."""
    return np.fmin(x, y)


def max(x, y):
    return np.fmax(x, y)


min_NaN, max_NaN = np.minimum, np.maximum


def fma(x, y, z):
    """x y + z, rounded once: by way of float64, or by its error terms."""
    if x.dtype == np.float32:
        return (np.multiply(x, y, dtype=np.float64) + z).astype(np.float32)
    product = x * y
    (a, b), (c, d) = _split(x), _split(y)
    low = ((a * c - product) + a * d + b * c) + b * d
    total = product + z
    part = total - product
    exact = total + ((product - (total - part)) + (z - part) + low)
    return np.where(np.isfinite(exact), exact, x * y + z)


def _split(x):
    """High and low half of a float64, which multiply without error."""
    big = x * 134217729.0
    high = big - (big - x)
    return high, x - high


def shl(x, n):
    """Zero beyond the width."""
    bits = x.dtype.itemsize * 8
    return np.where(n < bits, x << np.minimum(n, bits - 1).astype(x.dtype), x.dtype.type(0))


def shr(x, n):
    """Zero, or the sign, beyond the width."""
    bits = x.dtype.itemsize * 8
    moved = x >> np.minimum(n, bits - 1).astype(x.dtype)
    return moved if x.dtype.kind == "i" else np.where(n < bits, moved, x.dtype.type(0))


def bfe(x, start, length):
    """Bits from `start` on, those of a signed number with the sign that the last of them is."""
    bits = x.dtype.itemsize * 8
    unused = (bits - length.view(np.uint32)).astype(np.uint32)
    return shr(shl(shr(x, start.view(np.uint32)), unused), unused)


def tf32(x):
    """Round to nearest, ties away, to 10 bits of mantissa."""
    return (x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)


def bf16x2(high, low):
    """Two floats in one word."""
    return _bf16(high) << np.uint32(16) | _bf16(low)


def _bf16(x):
    bits = np.asarray(x).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), rounded)


def f16x2(high, low):
    high, low = (np.asarray(x).astype(np.float16).view(np.uint16).astype(np.uint32) for x in (high, low))
    return high << np.uint32(16) | low


def rni(x, kind):
    return _clipped(np.rint(x), kind)


def rzi(x, kind):
    return _clipped(np.trunc(x), kind)


def rmi(x, kind):
    return _clipped(np.floor(x), kind)


def rpi(x, kind):
    return _clipped(np.ceil(x), kind)


def _clipped(x, kind):
    """What an integer type holds; 0 of NaN."""
    if kind[0] == "f":
        return x
    limits = np.iinfo(kind)
    return np.clip(np.where(np.isnan(x), 0.0, x), limits.min, limits.max)


def shuffle(mode, values, lanes):
    """Values [warps, 32] of other lanes; where there is none, the lane's own."""
    own = np.arange(32, dtype=np.int64)
    other = lanes.astype(np.int64)
    source = {"idx": other % 32, "bfly": own ^ other, "up": own - other, "down": own + other}[mode]
    source = np.where((source < 0) | (source > 31), own, source)
    return np.take_along_axis(values, source, axis=1).ravel()


def reduce(operation, values):
    """One number of a warp for all of its lanes."""
    function = {"add": np.add, "min": np.minimum, "max": np.maximum}[operation]
    return np.repeat(function.reduce(values, axis=1, dtype=values.dtype), 32)


PRODUCTS = {
    "m16n8k8 tf32": ("u4", "u4", "f4"), "m16n8k16 bf16": ("u4", "u4", "f4"), "m16n8k16 f16": ("u4", "u4", "f4"),
    "m16n8k16 f64": ("f8", "f8", "f8"),
}  # fmt: skip
"""Products of a tensor core, with the kinds of A, B and C."""


def product(shape, a, b, c):
    """A B + C of fragments [warps, 32], as the PTX manual lays them out."""
    if shape == "m16n8k8 tf32":
        a, b = ([(x & np.uint32(0xFFFFE000)).view(np.float32) for x in part] for part in (a, b))
    elif shape == "m16n8k16 bf16":
        a, b = ([_pairs(x) for x in part] for part in (a, b))
    elif shape == "m16n8k16 f16":
        a, b = ([x.view(np.float16).reshape(*x.shape, 2) for x in part] for part in (a, b))
    a, b = ([x.reshape(len(c[0]), 8, -1) for x in part] for part in (a, b))  # lane = 4 x row + column
    A = np.concatenate([np.concatenate(a[k::2], axis=2) for k in (0, 1)], axis=1)
    B = np.concatenate([x.transpose(0, 2, 1) for x in b], axis=1)
    C = np.concatenate([np.stack(c[k : k + 2], axis=-1).reshape(-1, 8, 8) for k in (0, 2)], axis=1)
    D = (A.astype(np.float64) @ B.astype(np.float64) + C).astype(C.dtype).reshape(-1, 2, 8, 4, 2)
    return [np.ascontiguousarray(D[:, k, :, :, m]).ravel() for k in (0, 1) for m in (0, 1)]


def _pairs(x):
    """Two bfloat16 of each word, one beside the other."""
    low, high = (x << np.uint32(16)).view(np.float32), (x & np.uint32(0xFFFF0000)).view(np.float32)
    return np.stack([low, high], axis=-1)
