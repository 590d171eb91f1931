"""Eight float32 numbers at once, for compiled loops whose sums must have the same bits on every processor.

    row (float32, or bfloat16 as uint16) --load--> Lanes --+, -, *, fma--> Lanes --total, largest--> float32

A compiler that may reorder a sum does so as the processor suits it: other lanes, other bits. Here the order is written
down. Entry j goes to lane j mod 8, and `total` adds the lanes up in pairs. Nothing is rounded but as it is written;
processors with wider or narrower vectors compute the same numbers. What takes Lanes takes float32 numbers, too, so that
one function serves for the whole eights of a row and for what is left of it.
"""

import operator

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload, register_model

from tinyr1.merge.float_bits import STRICT

WIDTH = 8
_VECTOR, _INDEX = ir.VectorType(ir.FloatType(), WIDTH), ir.IntType(32)
_HALVES, _WORDS = ir.VectorType(ir.IntType(16), WIDTH), ir.VectorType(_INDEX, WIDTH)


class LanesType(types.Type):
    """Numba's type of WIDTH float32 numbers."""

    def __init__(self):
        super().__init__(name=f"Lanes({WIDTH} x float32)")


LANES = LanesType()


@register_model(LanesType)
class _InOneRegister(models.PrimitiveModel):
    def __init__(self, manager, type_):
        super().__init__(manager, type_, _VECTOR)


def _widened(builder, value, type_):
    """A value as LLVM's vector: a float32 stands in every lane."""
    if type_ == LANES:
        return value
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, _INDEX(0))
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_WORDS, [0] * WIDTH))


def _called(builder, name, arguments):
    """The result of one of LLVM's own functions on numbers of the type of the arguments."""
    type_ = arguments[0].type
    suffix = f"v{WIDTH}f32" if type_ == _VECTOR else "f32"
    kind = ir.FunctionType(type_, [type_] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.{suffix}"), arguments)


@intrinsic
def load(typingctx, row, j):
    """Entries j to j + WIDTH - 1 of a row, as Lanes; they have to be there."""

    if getattr(row, "layout", None) != "C":
        raise TypingError(f"lanes.load takes contiguous rows, not {row}")

    def code(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        if signature.args[0].dtype == types.float32:
            return builder.load(builder.bitcast(place, _VECTOR.as_pointer()), align=4)
        halves = builder.load(builder.bitcast(place, _HALVES.as_pointer()), align=2)
        words = builder.shl(builder.zext(halves, _WORDS), ir.Constant(_WORDS, [16] * WIDTH))
        return builder.bitcast(words, _VECTOR)

    return LANES(row, types.intp), code


@intrinsic
def splat(typingctx, value):
    """A float32 in every lane."""

    def code(context, builder, signature, arguments):
        return _widened(builder, arguments[0], types.float32)

    return LANES(types.float32), code


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c, rounded once; Lanes and float32."""

    def code(context, builder, signature, arguments):
        if signature.return_type == LANES:
            arguments = [_widened(builder, *pair) for pair in zip(arguments, signature.args, strict=True)]
        return _called(builder, "fma", arguments)

    return (LANES if LANES in (a, b, c) else types.float32)(a, b, c), code


@intrinsic
def larger(typingctx, a, b):
    """The larger one of a and of the magnitude of b, lane by lane; neither is a NaN."""

    def code(context, builder, signature, arguments):
        magnitude = _called(builder, "fabs", [arguments[1]])
        return builder.select(builder.fcmp_ordered(">", arguments[0], magnitude), arguments[0], magnitude)

    return a(a, a), code


@intrinsic
def _lane(typingctx, lanes, i):
    def code(context, builder, signature, arguments):
        return builder.extract_element(arguments[0], builder.trunc(arguments[1], _INDEX))

    return types.float32(lanes, types.intp), code


def _operator(function, instruction):
    """Teach a function of `operator` to Numba for two Lanes, and for Lanes and a float32."""

    @intrinsic
    def compute(typingctx, a, b):
        def code(context, builder, signature, arguments):
            vectors = [_widened(builder, *pair) for pair in zip(arguments, signature.args, strict=True)]
            return getattr(builder, instruction)(*vectors)

        return LANES(a, b), code

    @overload(function, inline="always")
    def _compiled(a, b):
        if LANES in (a, b):
            return lambda a, b: compute(a, b)
        return None


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")


@numba.njit(**STRICT)
def total(v):
    """The sum of all lanes: of the two halves, of the halves of that, and of the last two."""
    even = (_lane(v, 0) + _lane(v, 4)) + (_lane(v, 2) + _lane(v, 6))
    odd = (_lane(v, 1) + _lane(v, 5)) + (_lane(v, 3) + _lane(v, 7))
    return even + odd


@numba.njit(**STRICT)
def largest(v):
    """The largest lane."""
    top = _lane(v, 0)
    for i in range(1, WIDTH):
        top = max(top, _lane(v, i))
    return top
