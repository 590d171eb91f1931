"""Rows of float32 or bfloat16 for the compiled loops of `kernels`: entries, bits, and bits that order like numbers.

    row (float32, or bfloat16 as uint16)  -entry->  float32  -ordered->  uint32, compares like the number
    row (the same dtype)                 <-stored-  float32  <-value_of-  uint32

NumPy has no bfloat16, so a row of it comes as uint16: the upper half of the bits of a float32. Numba checks only the
file of a cached kernel for changes: after a change here, remove the *.nbi files in __pycache__.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

SPAN = 1024  # entries whose single-precision sums keep six digits, and whose scratch stays in the nearest cache
LINE = 64  # bytes of a cache line
AHEAD = 2048  # entries between the one that is computed with and the one that is fetched from memory
ZERO = np.uint32(0x80000000)  # `ordered` of 0


def _can_keep() -> bool:
    """Whether Numba finds a folder for compiled code: beside this file, in the home folder, or where NUMBA_CACHE_DIR
    says."""
    try:
        numba.njit(cache=True)(_can_keep)
    except RuntimeError:  # a read-only installation and no home folder: each process compiles for itself
        return False
    return True


# error_model: division as in NumPy. nogil: the threads of a merge run at the same time. cache: compiled once.
STRICT = {"error_model": "numpy", "nogil": True, "cache": _can_keep()}

# Sums may be taken in vector lanes, and inputs are finite (`all_finite`); no other rule of arithmetic is relaxed.
ANY_ORDER = {"fastmath": {"reassoc", "contract", "nsz", "nnan"}, **STRICT}


def entry(row, j):  # Numba compiles the overload below in its place; Python itself never runs it.
    raise NotImplementedError("compiled code only")


@overload(entry, inline="always")
def _entry_compiled(row, j):
    """Entry j of a row as float32."""
    if row.dtype == numba.types.uint16:
        return lambda row, j: from_bits(np.uint32(row[j]) << np.uint32(16))
    return lambda row, j: row[j]


def stored(row, value):  # Numba compiles the overload below in its place; Python itself never runs it.
    raise NotImplementedError("compiled code only")


@overload(stored)
def _stored_compiled(row, value):
    """A float32 in the dtype of a row, rounded to the nearest."""
    if row.dtype == numba.types.uint16:
        return lambda row, value: np.uint16(bf16_bits(value) >> np.uint32(16))
    return lambda row, value: value


@intrinsic
def bits(typingctx, value):
    """The bits of a float32 as uint32."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(numba.types.uint32))

    return numba.types.uint32(numba.types.float32), code


@intrinsic
def from_bits(typingctx, value):
    """A float32 from its bits (uint32)."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(numba.types.float32))

    return numba.types.float32(numba.types.uint32), code


@intrinsic
def _prefetch(typingctx, row, j):
    """Tell the processor that entry j of a row will be read soon; j may be behind the end of the row."""

    def code(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(row, types.intp), code


@numba.njit(**STRICT)
def fetch(row, first):
    """Let the memory bring the span of a row that is AHEAD entries behind `first`, or of the rows after it."""
    # The processor's own guess falls behind where two files are read in turns.
    for j in range(first + AHEAD, first + AHEAD + min(SPAN, row.size), LINE // row.itemsize):
        _prefetch(row, j)


@intrinsic
def trailing_zeros(typingctx, value):
    """How many of the lowest bits of a uint64 are 0; the number itself is not 0."""

    def code(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(numba.types.boolean, True))

    return numba.types.int64(numba.types.uint64), code


@numba.njit(**STRICT)
def ordered(value):
    """Bits of a float32 that compare, as unsigned integers, like the number itself."""
    # Floats store a sign and a magnitude: negative numbers have all bits flipped, positive ones get the upper half.
    raw = bits(value)
    return raw ^ (np.uint32(0xFFFFFFFF) if raw >> np.uint32(31) else ZERO)


@numba.njit(**STRICT)
def value_of(code):
    """The float32 behind `ordered`."""
    return from_bits(code ^ (ZERO if code >> np.uint32(31) else np.uint32(0xFFFFFFFF)))


@numba.njit(**STRICT)
def to_bf16(value):
    """A float32 rounded to the nearest bfloat16, ties to even, as float32."""
    return from_bits(bf16_bits(value))


@numba.njit(**STRICT)
def bf16_bits(value):
    """Bits (uint32) of `to_bf16`; the lower half is 0."""
    # Adding just below half a unit, plus the last bit that stays, rounds ties to the even neighbour.
    raw = bits(np.float32(value))
    rounding = np.uint32(0x7FFF) + ((raw >> np.uint32(16)) & np.uint32(1))
    return np.uint32((raw + rounding) & np.uint32(0xFFFF0000))


@numba.njit(**STRICT)
def all_finite(raw):
    """Whether bfloat16 bits (uint16, one dimension) hold neither an infinity nor a NaN."""
    # Numba computes with integers in 64 bits; cut back to 16, four times as many fit into a vector.
    worst = np.uint16(0)
    for j in range(raw.size):
        worst = max(worst, np.uint16(raw[j] & np.uint16(0x7FFF)))
    return worst < 0x7F80
