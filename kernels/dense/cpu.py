"""Dense layers inside compiled code: as fast as a library's for many rows, without its call for a few.

The right factor is packed once, when a model is loaded, into panels [P, K, W] of W columns: a panel streams through
the innermost cache while a tile of the result stays in registers. Each entry is one sum over k in order, whatever
other rows there are: the result of an atom does not depend on its batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from painn_fast.kernels.compiled import compiled
from painn_fast.kernels.vector import LANES, exp, llvm_vector, load, repeat, splat, store

ROWS = 6 if LANES == 16 else 3
"""Rows of a tile: with 4 vectors a row, its sums fill three quarters of the registers."""


def pack(matrix: np.ndarray) -> np.ndarray:
    """Panels [P, K, W] of a matrix [K, C], C a multiple of LANES; W is the widest that divides C."""
    k, c = matrix.shape
    most = 16 // matrix.itemsize  # 4 vectors of float32, 2 of float64: what fits the registers
    width = next(n * LANES for n in (4, 2, 1) if n <= most and c % (n * LANES) == 0)
    return np.ascontiguousarray(matrix.reshape(k, c // width, width).transpose(1, 0, 2))


@intrinsic(prefer_literal=True)
def _tile(_, rows, vectors, a, m, panel, bias, out, column):  # type: ignore[no-untyped-def]
    """out[m : m + rows, column : column + W] = bias[column : column + W] + a[m : m + rows] panel; literal sizes."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        def array(index):  # type: ignore[no-untyped-def]
            made = context.make_array(signature.args[index])(context, builder, args[index])
            return made.data, cgutils.unpack_tuple(builder, made.shape)

        (left, (_, depth)), (right, _), (start, _), (result, (_, width)) = array(2), array(4), array(5), array(6)
        tile = range(rows.literal_value), range(vectors.literal_value)
        vector, align = llvm_vector(a.dtype), a.dtype.bitwidth // 8

        def index(value):  # type: ignore[no-untyped-def]
            return context.get_constant(types.intp, value)

        def address(base, offset, c):  # type: ignore[no-untyped-def]
            pointer = builder.gep(base, [builder.add(offset, index(c * LANES))])
            return builder.bitcast(pointer, vector.as_pointer())

        row = [builder.add(args[3], index(r)) for r in tile[0]]
        sums = [[cgutils.alloca_once(builder, vector) for _ in tile[1]] for _ in tile[0]]
        for c in tile[1]:
            value = builder.load(address(start, args[7], c), align=align)
            for r in tile[0]:
                builder.store(value, sums[r][c])
        with cgutils.for_range(builder, depth) as loop:
            place = builder.mul(loop.index, index(len(tile[1]) * LANES))
            b = [builder.load(address(right, place, c), align=align) for c in tile[1]]
            for r in tile[0]:
                number = builder.load(builder.gep(left, [builder.add(builder.mul(row[r], depth), loop.index)]))
                wide = repeat(builder, number, vector)
                for c in tile[1]:
                    product = builder.fmul(wide, b[c], flags=("contract",))
                    builder.store(builder.fadd(builder.load(sums[r][c]), product, flags=("contract",)), sums[r][c])
        for r in tile[0]:
            offset = builder.add(builder.mul(row[r], width), args[7])
            for c in tile[1]:
                builder.store(builder.load(sums[r][c]), address(result, offset, c), align=align)
        return context.get_dummy_value()

    return types.void(rows, vectors, a, types.intp, panel, bias, out, types.intp), codegen


def _product(vectors: int) -> Any:
    """The product for panels of this many vectors."""
    width = vectors * LANES

    @compiled(nogil=True)
    def product(a, panels, bias, out):  # type: ignore[no-untyped-def]
        total = out.shape[0]
        for p in range(panels.shape[0]):
            m = 0
            while m + ROWS <= total:
                _tile(ROWS, vectors, a, m, panels[p], bias, out, p * width)
                m += ROWS
            while m + 3 <= total:
                _tile(3, vectors, a, m, panels[p], bias, out, p * width)
                m += 3
            while m < total:
                _tile(1, vectors, a, m, panels[p], bias, out, p * width)
                m += 1

    return product


_product_4, _product_2, _product_1 = _product(4), _product(2), _product(1)


@compiled(nogil=True)
def matmul(a: np.ndarray, panels: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out [M, C] = a [M, K] B + bias [C], with B packed."""
    width = panels.shape[2]
    if width == 4 * LANES:
        _product_4(a, panels, bias, out)
    elif width == 2 * LANES:
        _product_2(a, panels, bias, out)
    else:
        _product_1(a, panels, bias, out)


@compiled(nogil=True, inline="always")
def _sigmoid(h):  # type: ignore[no-untyped-def]
    one = splat(1.0, h)
    return one / (one + exp(splat(0.0, h) - h))


@compiled(nogil=True)
def silu(h: np.ndarray, out: np.ndarray) -> None:
    """out = h sigmoid(h), both [M, C]."""
    for m in range(h.shape[0]):
        row, to = h[m], out[m]
        for c in range(0, h.shape[1], LANES):
            x = load(row, c)
            store(to, c, x * _sigmoid(x))


@compiled(nogil=True)
def silu_adjoint(h: np.ndarray, g: np.ndarray) -> None:
    """g *= silu'(h), both [M, C]."""
    for m in range(h.shape[0]):
        row, to = h[m], g[m]
        for c in range(0, h.shape[1], LANES):
            x = load(row, c)
            p = _sigmoid(x)
            store(to, c, load(to, c) * p * (splat(1.0, x) + x * (splat(1.0, x) - p)))
