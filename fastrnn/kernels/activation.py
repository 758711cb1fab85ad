"""tanh and exp as plain arithmetic, a vector register at a time.

Numba's own `tanh` and `exp` call the C library for each element. The two below are short chains of
multiply-adds without a branch, a call or a table. Each is written once, for a `Number` that is a
scalar or a vector in the code being made, and gives the same bits for both, in whatever lane an
element falls.

tanh
    `|x| = n ln(2)/2 + h` with a whole `n` and `|h| <= ln(2)/4`. With `s = 2**n` the addition
    theorem gives one quotient of sums that hardly cancel:

        tanh |x| = ((s - 1) + (s + 1) tanh h) / ((s + 1) + (s - 1) tanh h)

    The upper sum is never larger than the lower one and rounding keeps their order, so the result
    never exceeds 1; from `n = 25` (float32) or `n = 54` (float64) on it is 1. For `n = 0` it is
    `tanh h` itself: subnormal numbers come back as they are. The sign of `x` is put back at the
    end, which makes the function odd to the bit.
exp
    `x = n ln(2) + r` with a whole `n` and `|r| <= ln(2)/2`. `ln 2` is the sum of two numbers, the
    first of so few bits that its product with `n` is exact (Cody and Waite, Software Manual for
    the Elementary Functions, 1980, chapter 6). `exp r` is then multiplied by `2**(n // 2)` and by
    the rest of `2**n`: the result overflows to inf, and underflows gradually with one rounding.

`n` is found by adding a number so large that its last bit counts ones. The low bits of the sum are
`n` plus the bias of the exponent; shifted into the place of the exponent they are `2**n`.

`tanh h = h + h u q(u)` with `u = h**2`, and `exp r = 1 + r + r**2 q(r)`. Each `q` is the polynomial
of least maximal relative error in the result, found by Remez's exchange algorithm in 60 digits; the
degree is the smallest that keeps the error below one rounding: 5.5e-8 and 4.1e-18 for tanh in
float32 and float64, 3.1e-9 and 3.6e-18 for exp.

Largest error measured, in units in the last place of the exact result, subnormal results included.
Float32: every number for which the result is neither the argument itself nor constant. Float64: 96
million arguments for tanh and 48 million for exp, against 80-bit arithmetic.

    =================  =======  =======  =======  =======
    a multiply-add is  tanh 32  tanh 64   exp 32   exp 64
    =================  =======  =======  =======  =======
    rounded once          2.54     2.60     1.01     1.04
    rounded twice         2.54     2.60     0.99     1.02
    =================  =======  =======  =======  =======

From one number to the next, tanh was seen to step down by 2 such units at most (rounded twice: 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import tile
from .memory import store_past_caches


class Format(NamedTuple):
    """A floating-point format, and what the two functions need to know in it."""

    bits: int
    fraction: int  #: bits of the fraction
    bias: int  #: of the exponent
    tanh_limit: float  #: tanh is 1 from here on
    tanh_terms: tuple[float, ...]  #: `q` of tanh, constant term first
    exp_limits: tuple[float, float]  #: exp is 0 up to the first and inf from the second on
    exp_terms: tuple[float, ...]  #: `q` of exp, constant term first
    ln2: tuple[float, float]  #: two numbers whose sum is ln 2, the first of 9 or 33 bits

    @property
    def shifter(self) -> float:
        """A number whose last bit counts ones and stays where it is when others are added."""
        return 1.5 * 2.0**self.fraction


FLOAT32 = Format(
    bits=32,
    fraction=23,
    bias=127,
    tanh_limit=10.0,
    tanh_terms=(-0.33331272143871567, 0.13110629135321539),
    exp_limits=(-104.0, 90.0),
    exp_terms=(
        0.49999993448564073,
        0.16666520630117533,
        0.04166838787997284,
        0.008368717031295272,
        0.001381460727433588,
    ),
    ln2=(float.fromhex("0x1.63p-1"), float.fromhex("-0x1.bd0106p-13")),
)
FLOAT64 = Format(
    bits=64,
    fraction=52,
    bias=1023,
    tanh_limit=20.0,
    tanh_terms=(
        -0.33333333333332485,
        0.1333333333278375,
        -0.053968252782014565,
        0.021869370714688663,
        -0.008857308770616276,
        0.0034448378113774372,
    ),
    exp_limits=(-746.0, 710.0),
    exp_terms=(
        0.50000000000000106,
        0.16666666666666413,
        0.04166666666653016,
        0.008333333333494465,
        0.0013888888943630187,
        0.00019841269506571628,
        2.4801493098816434e-05,
        2.755758638051043e-06,
        2.763024841405389e-07,
        2.5000059390790346e-08,
    ),
    ln2=(float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")),
)


class Number:
    """A scalar or a vector in code that is being written: operators emit instructions."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder = builder
        self.value = value
        self.lanes = value.type.count if isinstance(value.type, ir.VectorType) else 0
        element = value.type.element if self.lanes else value.type
        self.format = FLOAT32 if isinstance(element, ir.FloatType) else FLOAT64
        self.integer = self._lanes_of(ir.IntType(self.format.bits))

    def _lanes_of(self, element: ir.Type) -> ir.Type:
        return ir.VectorType(element, self.lanes) if self.lanes else element

    def _constant(self, kind: ir.Type, number: float) -> ir.Constant:
        return ir.Constant(kind, [number] * self.lanes if self.lanes else number)

    def constant(self, number: float) -> ir.Constant:
        """A number of the same kind."""
        return self._constant(self.value.type, number)

    def _operand(self, other: Number | float) -> ir.Value:
        return other.value if isinstance(other, Number) else self.constant(other)

    def __add__(self, other: Number | float) -> Number:
        """Sum."""
        return Number(self.builder, self.builder.fadd(self.value, self._operand(other)))

    def __sub__(self, other: Number | float) -> Number:
        """Difference."""
        return Number(self.builder, self.builder.fsub(self.value, self._operand(other)))

    def __mul__(self, other: Number | float) -> Number:
        """Product."""
        return Number(self.builder, self.builder.fmul(self.value, self._operand(other)))

    def __truediv__(self, other: Number | float) -> Number:
        """Quotient."""
        return Number(self.builder, self.builder.fdiv(self.value, self._operand(other)))

    def times_plus(self, factor: Number | float, summand: Number | float) -> Number:
        """`self * factor + summand`, rounded once where the target has such an instruction."""
        kind = self.value.type
        function = cgutils.insert_pure_function(
            self.builder.module,
            ir.FunctionType(kind, [kind] * 3),
            f"llvm.fmuladd.{f'v{self.lanes}' if self.lanes else ''}f{self.format.bits}",
        )
        operands = [self.value, self._operand(factor), self._operand(summand)]
        return Number(self.builder, self.builder.call(function, operands))

    def polynomial(self, terms: tuple[float, ...]) -> Number:
        """The polynomial with two or more coefficients, constant term first, by Horner's rule."""
        *rest, slope, highest = terms
        last = Number(self.builder, self._operand(highest))
        result = last.times_plus(self, slope)
        for term in reversed(rest):
            result = result.times_plus(self, term)
        return result

    def limited(self, order: str, limit: float) -> Number:
        """`limit` where `limit order self` holds (`"<"` or `">"`), else itself, NaN included."""
        bound = self._operand(limit)
        beyond = self.builder.fcmp_ordered(order, bound, self.value)
        return Number(self.builder, self.builder.select(beyond, bound, self.value))

    def bits(self) -> ir.Value:
        """The bits of the number, as an integer."""
        return self.builder.bitcast(self.value, self.integer)

    def of_bits(self, bits: ir.Value) -> Number:
        """A number of the same kind, given its bits."""
        return Number(self.builder, self.builder.bitcast(bits, self.value.type))

    def bit_pattern(self, number: int) -> ir.Constant:
        """An integer of the width of the number."""
        return self._constant(self.integer, number)

    def power_of_two(self, bits: ir.Value) -> Number:
        """The number whose exponent field is the low end of the integer `bits`."""
        fraction = self.bit_pattern(self.format.fraction)
        return self.of_bits(self.builder.shl(bits, fraction))


def tanh_of(x: Number) -> Number:
    """Emit tanh."""
    form, builder = x.format, x.builder
    sign = builder.and_(x.bits(), x.bit_pattern(1 << (form.bits - 1)))
    size = x.of_bits(builder.xor(x.bits(), sign)).limited("<", form.tanh_limit)
    shifter = form.shifter + form.bias
    shifted = size.times_plus(2 / math.log(2), shifter)
    h = (shifted - shifter).times_plus(-math.log(2) / 2, size)
    u = h * h
    tanh_h = (h * u).times_plus(u.polynomial(form.tanh_terms), h)
    s = x.power_of_two(shifted.bits())
    less, more = s - 1.0, s + 1.0
    result = more.times_plus(tanh_h, less) / less.times_plus(tanh_h, more)
    return x.of_bits(builder.or_(result.bits(), sign))


def exp_of(x: Number) -> Number:
    """Emit exp."""
    form, builder = x.format, x.builder
    lowest, highest = form.exp_limits
    # A product that underflows costs some processors a hundred cycles, so none is made for zeros.
    zero = builder.fcmp_ordered("<", x.value, x.constant(lowest))
    x = Number(builder, builder.select(zero, x.constant(0.0), x.value)).limited("<", highest)
    shifter = form.shifter + 2 * form.bias
    shifted = x.times_plus(1 / math.log(2), shifter)
    n = shifted - shifter
    r = n.times_plus(-form.ln2[1], n.times_plus(-form.ln2[0], x))
    exp_r = (r * r).times_plus(r.polynomial(form.exp_terms), r) + 1.0
    half = builder.lshr(shifted.bits(), x.bit_pattern(1))
    other_half = builder.sub(shifted.bits(), half)
    result = exp_r * x.power_of_two(half) * x.power_of_two(other_half)
    return Number(builder, builder.select(zero, x.constant(0.0), result.value))


def on_registers(pointer: Any, emit: Callable[..., Number]) -> Callable[..., Any]:
    """Code of an intrinsic on the `lanes_of` elements at `pointer`, its first argument.

    `emit(values, *rest)` gives what the elements become.
    """
    itemsize = pointer.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = context.get_value_type(pointer.dtype)
        vector = ir.VectorType(element, tile.lanes_of(itemsize))
        address = builder.bitcast(arguments[0], vector.as_pointer())
        values = Number(builder, builder.load(address, align=itemsize))
        builder.store(emit(values, *arguments[1:]).value, address, align=itemsize)
        return context.get_dummy_value()

    return codegen


@intrinsic
def tanh_register(typingctx: Any, pointer: Any) -> Any:
    """`tanh` of the `lanes_of` elements at `pointer`, in place."""
    return types.void(pointer), on_registers(pointer, tanh_of)


def _tanh_to(stream: bool) -> Any:
    """Make an intrinsic that takes tanh of `lanes_of` elements in place and to a second pointer.

    A stream goes past the caches, to an aligned address.
    """

    @intrinsic
    def tanh_to(typingctx: Any, pointer: Any, target: Any) -> Any:
        def emit(x: Number, address: ir.Value) -> Number:
            result, builder = tanh_of(x), x.builder
            cast = builder.bitcast(address, x.value.type.as_pointer())
            if stream:
                store_past_caches(builder, result.value, cast)
            else:
                builder.store(result.value, cast, align=x.format.bits // 8)
            return result

        return types.void(pointer, target), on_registers(pointer, emit)

    return tanh_to


tanh_copied = _tanh_to(stream=False)
tanh_streamed = _tanh_to(stream=True)
