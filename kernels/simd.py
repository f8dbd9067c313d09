"""Vectors of LANES numbers for numba: what a compiler cannot prove about a loop over many arrays, these say.

    load(row, c)             row[c : c + LANES]
    store(row, c, value)     the other way
    splat(number, like)      LANES times the same, in the type of `like`
    a + b, a - b, a * b      as for numbers; a product that is added becomes one instruction
    sqrt(a), exp(a), total(a)

Wider than the processor's registers they become several of those. Sums over LANES have one order, always.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from painn_fast.kernels.jit import FEATURES

SETS = {"+avx512f": (16, 32), "+avx": (8, 16), "+neon": (4, 32)}
"""Numbers of float32 in a register, and registers, by the feature of the processor that has these."""
LANES, REGISTERS = next((sizes for feature, sizes in SETS.items() if feature in FEATURES.split(",")), (4, 16))
"""Of the processor that numba compiles for, by the features that its cache is kept by."""
_FLAGS = ("contract", "nsz", "arcp")
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 0.693145751953125, 1.428606820309417e-06


class Vector(types.Type):
    """The type of `LANES` numbers of one kind."""

    def __init__(self, scalar: Any) -> None:
        self.scalar = scalar
        super().__init__(name=f"Vector({scalar} x {LANES})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, llvm_vector(fe_type.scalar))


def llvm_vector(scalar: Any) -> Any:
    """LLVM's type."""
    return ir.VectorType(ir.FloatType() if scalar == types.float32 else ir.DoubleType(), LANES)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to the vector that begins at `index` of a contiguous array of one dimension."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), llvm_vector(array_type.dtype).as_pointer())


@intrinsic
def load(_, array, index):  # type: ignore[no-untyped-def]
    """row[index : index + LANES]; nothing checks that it is inside."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(context, builder, signature.args[0], *args)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return Vector(array.dtype)(array, types.intp), codegen


@intrinsic
def store(_, array, index, value):  # type: ignore[no-untyped-def]
    """row[index : index + LANES] = value; nothing checks that it is inside."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def transpose(_, source, start, stride, to, to_start, to_stride):  # type: ignore[no-untyped-def]
    """A square of LANES rows, `stride` numbers apart from `start` on, into as many columns of another array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = llvm_vector(source.dtype)
        align = source.dtype.bitwidth // 8

        def address(k, row):  # type: ignore[no-untyped-def]
            data = context.make_array(signature.args[k])(context, builder, args[k]).data
            place = builder.add(args[k + 1], builder.mul(args[k + 2], context.get_constant(types.intp, row)))
            return builder.bitcast(builder.gep(data, [place]), vector.as_pointer())

        def mixed(one, other, lanes):  # type: ignore[no-untyped-def]
            return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes))

        rows, lanes, half = [builder.load(address(0, row), align=align) for row in range(LANES)], range(LANES), LANES
        while half := half // 2:  # exchange the two squares beside the diagonal, of all squares of twice this size
            for k in (k for k in lanes if not k & half):
                one, other = rows[k], rows[k + half]
                rows[k] = mixed(one, other, [lane if not lane & half else LANES + lane - half for lane in lanes])
                rows[k + half] = mixed(one, other, [lane + half if not lane & half else LANES + lane for lane in lanes])
        for row in range(LANES):
            builder.store(rows[row], address(3, row), align=align)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, to, types.intp, types.intp), codegen


@intrinsic
def opaque(_, index):  # type: ignore[no-untyped-def]
    """The same index, which the compiler cannot derive from others.

    row + opaque(a + f) is an address of two registers. From what it knows the compiler makes a pointer of its own for
    each row and multiple of f, more than there are registers, and reads most of them from memory at each step.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        integer = args[0].type
        return builder.asm(ir.FunctionType(integer, [integer]), "", "=r,0", args, False)

    return types.intp(types.intp), codegen


def prefetch(builder: Any, pointer: Any) -> None:
    """LLVM's code for bringing the cache line at an address, any address, into the second cache."""
    integer, address = ir.IntType(32), builder.bitcast(pointer, ir.IntType(8).as_pointer())
    function = ir.FunctionType(ir.VoidType(), [address.type, integer, integer, integer])
    args = [address, *(ir.Constant(integer, value) for value in (0, 2, 1))]  # to read, where to, data
    builder.call(cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0i8"), args)


def repeat(builder: Any, number: Any, vector: Any) -> Any:
    """LLVM's code for LANES times a number."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


@intrinsic
def splat(_, number, like):  # type: ignore[no-untyped-def]
    """LANES times the same number, in the type of an array or a vector."""
    scalar = like.dtype if isinstance(like, types.Array) else like.scalar

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return repeat(builder, args[0], llvm_vector(scalar))

    return Vector(scalar)(scalar, like), codegen


def _operator(python: Any, method: str) -> None:
    """An operator of two vectors. As an `overload` it would be compiled anew at each use, half of a kernel's time."""

    @infer_global(python)
    class Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            vectors = isinstance(args[0], Vector) and args[0] == args[-1]
            return signature(args[0], *args) if vectors else None

    @lower_builtin(python, Vector, Vector)
    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return getattr(builder, method)(*args, flags=_FLAGS)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


def _call(builder: Any, name: str, result: Any, args: list[Any], **options: Any) -> Any:
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args, **options)


def _kind(vector: Any) -> str:
    return f"v{LANES}f{32 if isinstance(vector.element, ir.FloatType) else 64}"


@intrinsic
def sqrt(_, a):  # type: ignore[no-untyped-def]
    """Square roots."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = args[0].type
        return _call(builder, f"llvm.sqrt.{_kind(vector)}", vector, list(args))

    return a(a), codegen


@intrinsic
def maximum(_, a, b):  # type: ignore[no-untyped-def]
    """The larger numbers; the other one where one is NaN."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = args[0].type
        return _call(builder, f"llvm.maxnum.{_kind(vector)}", vector, list(args))

    return a(a, b), codegen


@intrinsic
def log1p(_, a):  # type: ignore[no-untyped-def]
    """log(1 + a) for a from 0 to 1: 2 artanh(w) with w = a / (2 + a), at most 1/3, by its series."""
    order = 16 if a.scalar == types.float64 else 7

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = args[0].type

        def constant(value):  # type: ignore[no-untyped-def]
            return ir.Constant(vector, [value] * LANES)

        w = builder.fdiv(args[0], builder.fadd(args[0], constant(2.0)))
        square, sum_ = builder.fmul(w, w), constant(0.0)
        for k in range(order, -1, -1):
            sum_ = builder.fadd(builder.fmul(sum_, square, flags=_FLAGS), constant(1.0 / (2 * k + 1)), flags=_FLAGS)
        return builder.fmul(builder.fmul(w, constant(2.0)), sum_)

    return a(a), codegen


@intrinsic
def total(_, a):  # type: ignore[no-untyped-def]
    """Sum of the LANES numbers, by halves."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector, width = args[0], LANES
        while width > 1:
            width //= 2
            low, high = (
                ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width)))
                for start in (0, width)
            )
            vector = builder.fadd(
                builder.shuffle_vector(vector, vector, low), builder.shuffle_vector(vector, vector, high)
            )
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return a.scalar(a), codegen


@intrinsic
def exp(_, a):  # type: ignore[no-untyped-def]
    """Exponentials to the last bit or two: 2^n by the exponent bits, the rest by a polynomial."""
    double = a.scalar == types.float64
    bits, shift, bias, low, high = (64, 52, 1023, -708.0, 709.0) if double else (32, 23, 127, -87.0, 88.0)
    order = 13 if double else 7

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = args[0].type
        integer = ir.VectorType(ir.IntType(bits), LANES)

        def constant(value):  # type: ignore[no-untyped-def]
            return ir.Constant(vector, [value] * LANES)

        def whole(value):  # type: ignore[no-untyped-def]
            return ir.Constant(integer, [value] * LANES)

        name = _kind(vector)
        x = _call(builder, f"llvm.maxnum.{name}", vector, [args[0], constant(low)])
        x = _call(builder, f"llvm.minnum.{name}", vector, [x, constant(high)])
        n = _call(builder, f"llvm.rint.{name}", vector, [builder.fmul(x, constant(_LOG2_E))])
        r = builder.fsub(x, builder.fmul(n, constant(_LN2_HIGH)), flags=_FLAGS)
        r = builder.fsub(r, builder.fmul(n, constant(_LN2_LOW)), flags=_FLAGS)
        sum_, factorial = constant(0.0), 1.0
        coefficients = []
        for k in range(order + 1):
            factorial *= max(k, 1)
            coefficients.append(1.0 / factorial)
        for coefficient in reversed(coefficients):
            sum_ = builder.fadd(builder.fmul(sum_, r, flags=_FLAGS), constant(coefficient), flags=_FLAGS)
        exponent = builder.shl(builder.add(builder.fptosi(n, integer), whole(bias)), whole(shift))
        value = builder.fmul(sum_, builder.bitcast(exponent, vector))
        same = builder.fcmp_unordered("uno", args[0], args[0])  # NaN stays NaN
        return builder.select(same, args[0], value)

    return a(a), codegen
