"""Dense layers inside compiled code: as fast as a library's for many rows, without its call for a few.

The right factor is packed once, when a model is loaded, into panels [P, K, W] of W columns: a panel streams through
the innermost cache while a tile of the result stays in registers. Each entry is one sum over k in order, whatever
other rows there are: the result of an atom does not depend on its batch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from painn_fast.kernels.jit import compiled
from painn_fast.kernels.simd import (
    LANES,
    REGISTERS,
    exp,
    llvm_vector,
    load,
    log1p,
    maximum,
    prefetch,
    repeat,
    splat,
    store,
    transpose,
)

LOG_2 = math.log(2.0)
LINE = 64
"""Bytes of a line of the cache."""
ROWS = 6
"""Rows of a tile."""
WIDEST = {32: 4, 16: 2}[REGISTERS]
"""Vectors of float32 in a row of a tile: 24 sums in 32 registers, 12 in 16."""

BLOCK = 96
"""Rows, or terms of sums, that are taken at a time, so that what is read again and again stays in the second cache."""
NARROW = WIDEST * LANES < 64
"""Whether a row of a panel is less than 256 bytes: a line or two of the cache."""
PACKED_FROM = 64 if NARROW else 2**62
"""Rows from which a copy of the panels of the right factor of `add_product` and `add_outer` pays: where panels are
narrow, and rows a power of two apart meet in a few sets of the first cache."""


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory that begins with a line of the cache: a vector across two lines takes two loads."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def pack(matrix: np.ndarray) -> np.ndarray:
    """Panels [P, K, W] of a matrix [K, C], C a multiple of LANES; W is the widest that divides C."""
    (k, c), width = matrix.shape, panel_width(matrix.shape[1], matrix.itemsize)
    panels = aligned((c // width, k, width), matrix.dtype)
    panels[:] = matrix.reshape(k, c // width, width).transpose(1, 0, 2)
    return panels


def panel_width(columns: int, itemsize: int) -> int:
    """W of the panels of a matrix."""
    most = 4 * WIDEST // itemsize  # a vector of float64 takes two registers
    return next(n * LANES for n in (4, 2, 1) if n <= most and columns % (n * LANES) == 0)


@compiled(nogil=True)
def pack_transposed(matrix: np.ndarray, panels: np.ndarray) -> None:
    """`pack` of the transpose of a matrix [C, K], into `panels`; K a multiple of LANES."""
    depth, width = panels.shape[1], panels.shape[2]
    for p in range(panels.shape[0]):
        for k in range(0, depth, LANES):
            for c in range(0, width, LANES):
                transpose(matrix, (p * width + c) * depth + k, depth, panels[p], k * width + c, width)


@intrinsic(prefer_literal=True)
def _tile(_, rows, vectors, depth, a, b, start, out):  # type: ignore[no-untyped-def]
    """out[r, c] = start[r, c] + sum_k a[r, k] b[k, c] for `rows` (literal) rows of `vectors` (literal) vectors.

    a, b, start and out are (array, index of the first entry, stride of r or k, ...): a has a stride for r and one for
    k, b one for k, start and out one for r; columns are contiguous.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        def unpacked(index):  # type: ignore[no-untyped-def]
            array, *numbers = cgutils.unpack_tuple(builder, args[index])
            return context.make_array(signature.args[index][0])(context, builder, array).data, *numbers

        (left, left_0, left_r, left_k), (right, right_0, right_k) = unpacked(3), unpacked(4)
        (begin, begin_0, begin_r), (result, result_0, result_r) = unpacked(5), unpacked(6)
        tile = range(rows.literal_value), range(vectors.literal_value)
        vector, align = llvm_vector(a[0].dtype), a[0].dtype.bitwidth // 8

        def index(value):  # type: ignore[no-untyped-def]
            return context.get_constant(types.intp, value)

        def offset(first, stride, r):  # type: ignore[no-untyped-def]
            return builder.add(first, builder.mul(stride, index(r)))

        def address(base, first, c):  # type: ignore[no-untyped-def]
            pointer = builder.gep(base, [builder.add(first, index(c * LANES))])
            return builder.bitcast(pointer, vector.as_pointer())

        sums = [[cgutils.alloca_once(builder, vector) for _ in tile[1]] for _ in tile[0]]
        for r in tile[0]:
            for c in tile[1]:
                builder.store(builder.load(address(begin, offset(begin_0, begin_r, r), c), align=align), sums[r][c])
        row = [offset(left_0, left_r, r) for r in tile[0]]
        with cgutils.for_range(builder, args[2]) as loop:
            first = builder.add(right_0, builder.mul(loop.index, right_k))
            values = [builder.load(address(right, first, c), align=align) for c in tile[1]]
            if NARROW:  # too little work on a panel to hide that the next one comes from the third cache
                prefetch(builder, address(right, builder.add(first, builder.mul(args[2], right_k)), 0))
            for r in tile[0]:
                number = builder.load(builder.gep(left, [builder.add(row[r], builder.mul(loop.index, left_k))]))
                wide = repeat(builder, number, vector)
                for c in tile[1]:
                    product = builder.fmul(wide, values[c], flags=("contract",))
                    builder.store(builder.fadd(builder.load(sums[r][c]), product, flags=("contract",)), sums[r][c])
        for r in tile[0]:
            for c in tile[1]:
                builder.store(builder.load(sums[r][c]), address(result, offset(result_0, result_r, r), c), align=align)
        return context.get_dummy_value()

    return types.void(rows, vectors, types.intp, a, b, start, out), codegen


def _columns(vectors: int) -> Any:
    """All rows of a product in columns `column` to `column` + `vectors` vectors; arguments as those of `_tile`."""

    @compiled(nogil=True)
    def columns(total, depth, a, b, start, out):  # type: ignore[no-untyped-def]
        m = 0
        while m < total:
            at = (a[0], a[1] + m * a[2], a[2], a[3])
            begin, to = (start[0], start[1] + m * start[2], start[2]), (out[0], out[1] + m * out[2], out[2])
            left = total - m
            if left >= ROWS:
                _tile(ROWS, vectors, depth, at, b, begin, to)
                m += ROWS
            elif left == 3 or left == 5:  # noqa: PLR1714 - numba
                _tile(3, vectors, depth, at, b, begin, to)
                m += 3
            elif left >= 2:
                _tile(2, vectors, depth, at, b, begin, to)
                m += 2
            else:
                _tile(1, vectors, depth, at, b, begin, to)
                m += 1

    return columns


_columns_4, _columns_2, _columns_1 = _columns(4), _columns(2), _columns(1)


@compiled(nogil=True)
def _panel(width, total, depth, a, b, start, out):  # type: ignore[no-untyped-def]
    """`_columns` for a panel of `width` numbers."""
    if width == 4 * LANES:
        _columns_4(total, depth, a, b, start, out)
    elif width == 2 * LANES:
        _columns_2(total, depth, a, b, start, out)
    else:
        _columns_1(total, depth, a, b, start, out)


@compiled(nogil=True)
def _product(a, panels, start, stride, out):  # type: ignore[no-untyped-def]
    """out = a B + start, whose rows are `stride` numbers apart."""
    depth, width = panels.shape[1], panels.shape[2]
    for first in range(0, out.shape[0], BLOCK):
        rows = min(BLOCK, out.shape[0] - first)
        left = (a, first * a.shape[1], a.shape[1], 1)
        for p in range(panels.shape[0]):
            right, begin = (panels[p], 0, width), (start, first * stride + p * width, stride)
            to = (out, first * out.shape[1] + p * width, out.shape[1])
            _panel(width, rows, depth, left, right, begin, to)


@compiled(nogil=True)
def matmul(a: np.ndarray, panels: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out [M, C] = a [M, K] B + bias [C], with B packed; of rows of a that are longer the beginning counts."""
    _product(a, panels, bias, 0, out)


@compiled(nogil=True)
def add_matmul(a: np.ndarray, panels: np.ndarray, out: np.ndarray) -> None:
    """out [M, C] += a [M, K] B, with B packed."""
    _product(a, panels, out, out.shape[1], out)


@compiled(nogil=True, allocates=True)
def _add(left, depth, b, first, grow, out):  # type: ignore[no-untyped-def]
    """out [M, C] = or (`grow`) += the product of `left`, as `_tile` takes it, and `depth` rows of b from `first` on."""
    rows, columns, most = out.shape[0], out.shape[1], 4 * WIDEST // out.itemsize
    blank = np.zeros((1, most * LANES), out.dtype)
    if depth == 0 and not grow:
        out[:] = 0
    packed = np.empty((BLOCK if rows >= PACKED_FROM else 0, most * LANES), out.dtype)
    for begin in range(0, depth, BLOCK):  # an entry's sum goes on where the block before has left it
        deep = min(BLOCK, depth - begin)
        strip = (left[0], left[1] + begin * left[3], left[2], left[3])
        column = 0
        while column < columns:
            width = most * LANES
            while column + width > columns:
                width //= 2
            right, to = (b, begin * b.shape[1] + first + column, b.shape[1]), (out, column, columns)
            if rows >= PACKED_FROM:  # rows that are a power of two apart would meet in a few lines of the cache
                for k in range(deep):
                    for c in range(0, width, LANES):
                        store(packed[k], c, load(b[begin + k], first + column + c))
                right = (packed, 0, packed.shape[1])
            _panel(width, rows, deep, strip, right, to if grow or begin > 0 else (blank, 0, 0), to)
            column += width


@compiled(nogil=True)
def add_product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out [M, C] += a [M, K] b [K, C], with b as it is; C a multiple of LANES."""
    _add((a, 0, a.shape[1], 1), b.shape[0], b, 0, True, out)


@compiled(nogil=True)
def add_outer(a: np.ndarray, b: np.ndarray, first: int, rows: int, out: np.ndarray) -> None:
    """out [K, C] += a^T b over the first `rows` rows of a [., K] and of columns `first` and on of b [., C]."""
    _add((a, 0, 1, a.shape[1]), rows, b, first, True, out)


@compiled(nogil=True)
def outer(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out [K, C] = a^T b over the rows of a [M, K] and b [M, C]."""
    _add((a, 0, 1, a.shape[1]), a.shape[0], b, 0, False, out)


@compiled(nogil=True, inline="always")
def sigmoid(h):  # type: ignore[no-untyped-def]
    one = splat(1.0, h)
    return one / (one + exp(splat(0.0, h) - h))


@compiled(nogil=True)
def activation(softplus: bool, h: np.ndarray, out: np.ndarray) -> None:
    """out = f(h), both [M, C]: h sigmoid(h), or log(1 + exp(h)) - log 2 with `softplus`."""
    if softplus:
        _shifted_softplus(h, out)
        return
    for m in range(h.shape[0]):
        row, to = h[m], out[m]
        for c in range(0, h.shape[1], LANES):
            x = load(row, c)
            store(to, c, x * sigmoid(x))


@compiled(nogil=True)
def _shifted_softplus(h, out):  # type: ignore[no-untyped-def]
    for m in range(h.shape[0]):
        row, to = h[m], out[m]
        for c in range(0, h.shape[1], LANES):
            x = load(row, c)
            zero = splat(0.0, x)
            store(to, c, maximum(x, zero) + log1p(exp(zero - maximum(x, zero - x))) - splat(LOG_2, x))


@compiled(nogil=True)
def activation_adjoint(softplus: bool, h: np.ndarray, g: np.ndarray) -> None:
    """g *= f'(h), both [M, C]."""
    if softplus:
        _softplus_adjoint(h, g)
        return
    for m in range(h.shape[0]):
        row, to = h[m], g[m]
        for c in range(0, h.shape[1], LANES):
            x = load(row, c)
            p = sigmoid(x)
            store(to, c, load(to, c) * p * (splat(1.0, x) + x * (splat(1.0, x) - p)))


@compiled(nogil=True)
def _softplus_adjoint(h, g):  # type: ignore[no-untyped-def]
    for m in range(h.shape[0]):
        row, to = h[m], g[m]
        for c in range(0, h.shape[1], LANES):
            store(to, c, load(to, c) * sigmoid(load(row, c)))
