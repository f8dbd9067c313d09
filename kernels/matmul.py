"""Matrix products inside compiled code: as fast as a library's for many rows, without its call for a few.

The right factor is packed once, at load, into panels of 64 columns [panels, K, 64]: a panel streams through the
innermost cache while a tile of the result stays in registers.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from painn_fast.kernels.compiled import compiled
from painn_fast.kernels.vector import LANES, _llvm, _splat

PANEL = 4 * LANES


def pack(matrix: np.ndarray) -> np.ndarray:
    """Panels [P, K, 64] of a matrix [K, C]; columns beyond C are zero."""
    k, c = matrix.shape
    panels = -(-c // PANEL)
    padded = np.zeros((k, panels * PANEL), matrix.dtype)
    padded[:, :c] = matrix
    return np.ascontiguousarray(padded.reshape(k, panels, PANEL).transpose(1, 0, 2))


@intrinsic(prefer_literal=True)
def _tile(_, rows, vectors, a, m, panel, first, out, column, start):  # type: ignore[no-untyped-def]
    """out[m : m + rows, column : ...] = start + a[m : m + rows] panel[:, first : first + vectors * LANES].

    `rows` and `vectors` are literal; `start` [C] is a bias, or 1 to add to what is there, or 0.
    """
    scalar = a.dtype

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        _, _, a_type, _, p_type, _, o_type, _, start_type = signature.args
        _, _, a_value, m_value, p_value, first_value, o_value, column_value, start_value = args
        mr, nv = rows.literal_value, vectors.literal_value
        vector = _llvm(scalar)
        align = scalar.bitwidth // 8
        left = context.make_array(a_type)(context, builder, a_value)
        right = context.make_array(p_type)(context, builder, p_value)
        result = context.make_array(o_type)(context, builder, o_value)
        depth = cgutils.unpack_tuple(builder, left.shape)[1]
        width = cgutils.unpack_tuple(builder, result.shape)[1]
        k_width = cgutils.unpack_tuple(builder, right.shape)[1]

        def at(base, index, r, c):  # type: ignore[no-untyped-def]
            pointer = builder.gep(base, [builder.add(index, context.get_constant(types.intp, c * LANES))])
            return builder.bitcast(pointer, vector.as_pointer())

        rows_of_a = [builder.mul(builder.add(m_value, context.get_constant(types.intp, r)), depth) for r in range(mr)]
        rows_of_out = [
            builder.add(builder.mul(builder.add(m_value, context.get_constant(types.intp, r)), width), column_value)
            for r in range(mr)
        ]
        sums = [[cgutils.alloca_once(builder, vector) for _ in range(nv)] for _ in range(mr)]
        for r in range(mr):
            for c in range(nv):
                if isinstance(start_type, types.Array):
                    bias = context.make_array(start_type)(context, builder, start_value).data
                    value = builder.load(at(bias, column_value, r, c), align=align)
                elif start_type.literal_value:
                    value = builder.load(at(result.data, rows_of_out[r], r, c), align=align)
                else:
                    value = ir.Constant(vector, [0.0] * LANES)
                builder.store(value, sums[r][c])
        with cgutils.for_range(builder, depth) as loop:
            place = builder.add(builder.mul(loop.index, k_width), first_value)
            b = [builder.load(at(right.data, place, 0, c), align=align) for c in range(nv)]
            for r in range(mr):
                number = builder.load(builder.gep(left.data, [builder.add(rows_of_a[r], loop.index)]))
                wide = _splat(builder, number, vector)
                for c in range(nv):
                    product = builder.fmul(wide, b[c], flags=("contract",))
                    builder.store(builder.fadd(builder.load(sums[r][c]), product, flags=("contract",)), sums[r][c])
        for r in range(mr):
            for c in range(nv):
                builder.store(builder.load(sums[r][c]), at(result.data, rows_of_out[r], r, c), align=align)
        return context.get_dummy_value()

    return types.void(rows, vectors, a, types.intp, panel, types.intp, out, types.intp, start), codegen


@compiled(nogil=True)
def matmul(a: np.ndarray, panels: np.ndarray, out: np.ndarray, start: np.ndarray) -> None:
    """out [M, C] = start [C] + a [M, K] B; C a multiple of 16."""
    m_total, c_total = out.shape
    for p in range(panels.shape[0]):
        left = min(c_total - p * PANEL, PANEL)
        if left == PANEL:
            m = 0
            while m + 6 <= m_total:
                _tile(6, 4, a, m, panels[p], 0, out, p * PANEL, start)
                m += 6
            while m + 3 <= m_total:
                _tile(3, 4, a, m, panels[p], 0, out, p * PANEL, start)
                m += 3
            while m < m_total:
                _tile(1, 4, a, m, panels[p], 0, out, p * PANEL, start)
                m += 1
