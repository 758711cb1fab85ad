"""Softmax: of the rows of a chunk, a few at a time, and of the columns of any matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ._jit import array_in, array_out, entry, shared
from .activation import Number, exp_of, on_registers
from .emitter import Emitter, folded
from .memory import copy, itemsize_of, move, pointer_into, pointer_to
from .panels import lanes_at, tiles_of, width_at
from .tile import PANEL, VECTORS

#: Rows of a panel whose softmax is taken side by side: each waits long for its largest, and again
#: for its sum, and lanes of several rows are added up in the instructions that one row takes.
IN_TURN = 4


def _larger(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Emit the larger of two, y where one is NaN."""
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


class _Rows:
    """Code for the softmax of rows side by side, as many as `IN_TURN` or a register has lanes."""

    def __init__(self, emitter: Emitter, first: ir.Value, stride: ir.Value, last: ir.Value) -> None:
        self.emitter = emitter
        self.stride = stride
        self.starts = []
        for r in range(min(IN_TURN, emitter.lanes)):
            row = emitter.constant(r)
            exists = emitter.builder.icmp_signed("<", row, last)
            existing = emitter.builder.select(exists, row, last)
            self.starts.append(emitter.at(first, emitter.times(PANEL, existing)))

    def addresses(self, number: ir.Value) -> list[ir.Value]:
        """Where the register of this number is in each row."""
        emitter, builder = self.emitter, self.emitter.builder
        in_panel = emitter.constant(PANEL // emitter.lanes)
        panel, place = builder.udiv(number, in_panel), builder.urem(number, in_panel)
        offset = builder.add(builder.mul(panel, self.stride), emitter.times(emitter.lanes, place))
        return [emitter.at(start, offset) for start in self.starts]

    def load(self, number: ir.Value) -> list[Number]:
        """The register of this number in each row."""
        addresses = self.addresses(number)
        return [Number(self.emitter.builder, self.emitter.load(each)) for each in addresses]

    def store(self, number: ir.Value, values: list[Number]) -> None:
        """Put it back; of a row that stands for others as well, each time the same."""
        for value, address in zip(values, self.addresses(number), strict=True):
            self.emitter.store(value.value, address)

    def filled(self, number: float) -> list[ir.Value]:
        """A register with the number in every lane, for each row."""
        lanes = self.emitter.lanes
        return [ir.Constant(self.emitter.vector, [number] * lanes) for _ in self.starts]

    def folded(self, registers: list[ir.Value], combine: Any) -> Number:
        """The lanes of each row's register combined: a short vector, one lane for each row."""
        return Number(self.emitter.builder, folded(self.emitter.builder, registers, combine))

    def spread(self, values: Number) -> list[Number]:
        """Registers, one for each row, with its lane of the short vector in every lane."""
        builder, value, count = self.emitter.builder, values.value, self.emitter.lanes
        masks = (
            ir.Constant(ir.VectorType(ir.IntType(32), count), [r] * count)
            for r in range(len(self.starts))
        )
        return [Number(builder, builder.shuffle_vector(value, value, mask)) for mask in masks]

    def larger(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The larger of two, y where one is NaN."""
        return _larger(self.emitter.builder, x, y)

    def exponentials(self, values: list[Number], largest: list[Number]) -> list[Number]:
        """`exp(value - largest)`."""
        return [exp_of(value - most) for value, most in zip(values, largest, strict=True)]

    def quotients(self, total: Number) -> Callable[[list[Number]], list[Number]]:
        """Division of a register of each row by its lane of `total`.

        The product with the reciprocal is put right by the rest of the division. A division of all
        lanes takes several times as long, and gives the same bits where a multiply-add rounds once
        and no number is subnormal.
        """
        inverses = self.spread(Number(total.builder, total.constant(1.0)) / total)
        opposites = self.spread(total * -1.0)

        def divide(values: list[Number]) -> list[Number]:
            results = []
            for value, inverse, opposite in zip(values, inverses, opposites, strict=True):
                quotient = value * inverse
                rest = quotient.times_plus(opposite, value)
                results.append(rest.times_plus(inverse, quotient))
            return results

        return divide


def _emit_one_register(rows: _Rows) -> None:
    """Emit softmax of rows of a single register."""
    add, zero = rows.emitter.builder.fadd, rows.emitter.constant(0)
    values = rows.load(zero)
    largest = rows.spread(rows.folded([x.value for x in values], rows.larger))
    exps = rows.exponentials(values, largest)
    total = rows.folded([x.value for x in exps], add)
    rows.store(zero, rows.quotients(total)(exps))


def _emit_registers(rows: _Rows, registers: ir.Value) -> None:
    """Emit softmax of rows of so many registers."""
    emitter, builder = rows.emitter, rows.emitter.builder

    def compare(number: ir.Value, before: list[ir.Value]) -> list[ir.Value]:
        pairs = zip(rows.load(number), before, strict=True)
        return [rows.larger(value.value, most) for value, most in pairs]

    def exponentiate(number: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        exps = rows.exponentials(rows.load(number), largest)
        rows.store(number, exps)
        return [builder.fadd(value.value, total) for value, total in zip(exps, sums, strict=True)]

    def divide(number: ir.Value, nothing: list[ir.Value]) -> list[ir.Value]:
        rows.store(number, quotients(rows.load(number)))
        return nothing

    found = emitter.loop(registers, rows.filled(-np.inf), compare)
    largest = rows.spread(rows.folded(found, rows.larger))
    sums = emitter.loop(registers, rows.filled(0.0), exponentiate)
    quotients = rows.quotients(rows.folded(sums, builder.fadd))
    emitter.loop(registers, [], divide)


@intrinsic
def softmax_in_turn(
    typingctx: Any, pointer: Any, stride: Any, registers: Any, last: Any
) -> tuple[Any, Callable[..., Any]]:
    """Softmax of up to `IN_TURN` rows of a panel, in place; the last that exists is number `last`.

    A row has so many `registers`, those of a panel side by side, and panels are `stride` apart.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emitter = Emitter(context, builder, pointer.dtype)
        first, stride, registers, last = arguments
        rows = _Rows(emitter, first, stride, last)
        single = builder.icmp_signed("==", registers, emitter.constant(1))
        with builder.if_else(single) as (one, several):
            with one:
                _emit_one_register(rows)
            with several:
                _emit_registers(rows, registers)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, types.intp), codegen


def _softmax_rows_type(dtype: types.Type) -> types.Type:
    return types.void(types.CPointer(dtype), types.int64, types.int64, types.int64)


@shared(_softmax_rows_type)
def softmax_rows(panels: Any, stride: int, rows: int, n_y: int) -> None:
    """Softmax of each row of logits in panels `stride` elements apart, in place.

    Beyond `n_y` the last register holds -inf. A row with a NaN, or whose largest is infinite, is
    NaN.
    """
    lanes = lanes_at(panels)
    registers = tiles_of(n_y, lanes)
    for i in range(0, rows, min(IN_TURN, lanes)):
        softmax_in_turn(move(panels, i * PANEL), stride, registers, rows - 1 - i)


def _on_two(combine: Callable[[Number, Number], Number]) -> Any:
    """Make an intrinsic that combines elements in place with those at a second pointer."""

    @intrinsic
    def on_two(typingctx: Any, pointer: Any, other: Any) -> Any:
        def emit(x: Number, address: ir.Value) -> Number:
            cast = x.builder.bitcast(address, x.value.type.as_pointer())
            y = Number(x.builder, x.builder.load(cast, align=x.format.bits // 8))
            return combine(x, y)

        return types.void(pointer, other), on_registers(pointer, emit)

    return on_two


#: `exp(x - y)`; sum; quotient; and the larger, y where one is NaN, of x in place and y.
exp_of_difference = _on_two(lambda x, y: exp_of(x - y))
sum_of = _on_two(lambda x, y: x + y)
quotient_of = _on_two(lambda x, y: x / y)
larger_of = _on_two(lambda x, y: Number(x.builder, _larger(x.builder, x.value, y.value)))


@entry(lambda dtype: types.void(array_in(dtype, 3), array_out(dtype, 3, "A")))
def softmax(x, out):  # type: ignore[no-untyped-def]
    """Softmax of each column of `x` (n, m, 1), one column in each lane."""
    n, m, _ = x.shape
    width = width_at(x) // VECTORS
    work = np.empty((n + 2) * width, x.dtype)
    rows, largest = pointer_to(work, 0), pointer_to(work, n * width)
    total = move(largest, width)
    for first in range(0, m, width):
        used = min(width, m - first)
        for k in range(n):
            row = move(rows, k * width)
            if used == width and x.strides[1] == itemsize_of(x):
                copy(row, pointer_into(x, k, first, 0), width)
            else:
                for i in range(used):
                    work[k * width + i] = x[k, first + i, 0]
                work[k * width + used : (k + 1) * width] = 0
        copy(largest, rows, width)
        work[(n + 1) * width :] = 0
        for k in range(n):
            larger_of(largest, move(rows, k * width))
        for k in range(n):
            exp_of_difference(move(rows, k * width), largest)
            sum_of(total, move(rows, k * width))
        for k in range(n):
            quotient_of(move(rows, k * width), total)
            if used == width and out.strides[1] == itemsize_of(out):
                copy(pointer_into(out, k, first, 0), move(rows, k * width), width)
            else:
                for i in range(used):
                    out[k, first + i, 0] = work[k * width + i]
