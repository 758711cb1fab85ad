"""The micro-kernels: register tiles of matrix products.

Everything that costs time in a recurrent network is a matrix product, and every product here is
made of one register tile of the table in `tile`. Two operand layouts serve all:

panels
    A matrix of `n` rows and `d` columns is kept as column blocks of `PANEL` columns. Block `p`
    holds columns `p * PANEL` onward, its rows one behind the other, `PANEL` values each.
    Hidden states, inputs and gradients have this form. As the left operand of a product its
    elements are broadcast (row stride `PANEL`, column stride 1); in a weight gradient the same
    memory is read with the strides swapped, as the transpose. Neither needs another copy.
weights
    The right operand of a product with `d` rows: blocks of a tile's width of columns, each of them
    `d` rows of so many values, so that the tile streams through memory in order. For a few rows on
    the left, packing would take longer than the product. Then weights are multiplied as they lie:
    by the same tile where their rows are contiguous, and where their columns are, by sums that run
    along the lanes of registers until the end.

Every accumulator starts from zero and is one chain of fused multiply-adds in the order of the
summed index; what was there before is added at the end. Begun from a larger number, the chain would
round each of its terms to that number's last digit. Splitting rows or columns otherwise changes
nothing, down to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic

from ._jit import Kernel
from .memory import CACHE_LINE
from .parts import MaskedRow
from .tile import FEW_ROWS, PANEL, TILE, dot_columns, lanes_of, tile_width


class _Emitter:
    """Emits one tile: accumulators in registers, a loop of multiply-adds over the depth."""

    UNROLL = 2

    def __init__(self, context: Any, builder: ir.IRBuilder, dtype: types.Float) -> None:
        self.builder = builder
        self.element = context.get_value_type(dtype)
        self.itemsize = dtype.bitwidth // 8
        self.lanes = lanes_of(self.itemsize)
        self.vector = ir.VectorType(self.element, self.lanes)
        self.index = ir.IntType(64)
        self.width = tile_width(self.itemsize)
        self.vectors = TILE.vectors  #: registers in use of each row
        self.fma = cgutils.insert_pure_function(
            builder.module,
            ir.FunctionType(self.vector, [self.vector] * 3),
            f"llvm.fmuladd.v{self.lanes}f{dtype.bitwidth}",
        )

    def constant(self, value: int) -> ir.Constant:
        return ir.Constant(self.index, value)

    def times(self, factor: int, value: Any) -> Any:
        """`factor * value`, a number known now or later."""
        if isinstance(value, int):
            return factor * value
        return self.builder.mul(self.constant(factor), value)

    def at(self, pointer: Any, offset: Any) -> Any:
        if isinstance(offset, int):
            offset = self.constant(offset)
        return self.builder.gep(pointer, [offset])

    def load(self, pointer: Any) -> Any:
        cast = self.builder.bitcast(pointer, self.vector.as_pointer())
        return self.builder.load(cast, align=self.itemsize)

    def store(self, value: Any, pointer: Any) -> None:
        cast = self.builder.bitcast(pointer, self.vector.as_pointer())
        self.builder.store(value, cast, align=self.itemsize)

    def broadcast(self, pointer: Any) -> Any:
        scalar = self.builder.load(pointer)
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, mask)

    def loop(self, count: Any, values: list[Any], body: Any) -> list[Any]:
        """Carry `values` through `count` turns of `body(turn, values) -> values`."""
        builder = self.builder
        entry = builder.block
        head = builder.append_basic_block("head")
        inside = builder.append_basic_block("inside")
        after = builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        turn = builder.phi(self.index)
        turn.add_incoming(self.constant(0), entry)
        carried = [builder.phi(value.type) for value in values]
        for phi, value in zip(carried, values, strict=True):
            phi.add_incoming(value, entry)
        builder.cbranch(builder.icmp_signed("<", turn, count), inside, after)
        builder.position_at_end(inside)
        results = body(turn, carried)
        turn.add_incoming(builder.add(turn, self.constant(1)), builder.block)
        for phi, value in zip(carried, results, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return list(carried)

    def step(self, sums: list[Any], left: list[Any], right: Any) -> list[Any]:
        """One index of the depth: every accumulator gets one multiply-add."""
        vectors = [self.load(self.at(right, v * self.lanes)) for v in range(self.vectors)]
        result = []
        for row, pointer in enumerate(left):
            value = self.broadcast(pointer)
            for v, vector in enumerate(vectors):
                total = sums[row * self.vectors + v]
                result.append(self.builder.call(self.fma, [value, vector, total]))
        return result

    def zeros(self, rows: int) -> list[Any]:
        return [ir.Constant(self.vector, [0.0] * self.lanes)] * (rows * self.vectors)

    def add(self, before: list[Any], sums: list[Any]) -> list[Any]:
        return [self.builder.fadd(x, y) for x, y in zip(before, sums, strict=True)]

    def tile_registers(self, rows: int, pointer: Any, stride: Any) -> list[Any]:
        """Addresses of the registers of a tile in memory, its rows `stride` apart."""
        starts = [self.at(pointer, self.builder.mul(stride, self.constant(r))) for r in range(rows)]
        return [self.at(start, v * self.lanes) for start in starts for v in range(self.vectors)]

    def load_tile(self, rows: int, pointer: Any, stride: Any) -> list[Any]:
        return [self.load(address) for address in self.tile_registers(rows, pointer, stride)]

    def store_tile(self, sums: list[Any], pointer: Any, stride: Any) -> None:
        addresses = self.tile_registers(len(sums) // self.vectors, pointer, stride)
        for value, address in zip(sums, addresses, strict=True):
            self.store(value, address)

    def prefetch(self, pointer: Any, write: int, level: int) -> None:
        """Ask for a cache line, into cache level 1 or 2."""
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch")
        options = [ir.Constant(i32, value) for value in (write, 4 - level, 1)]
        self.builder.call(function, [self.builder.bitcast(pointer, byte), *options])

    def products(
        self, sums: list[Any], rows: int, count: Any, pointers: list[Any], strides: tuple[Any, ...]
    ) -> list[Any]:
        """`count` steps, unrolled where `count` is a number known now, divisible by `UNROLL`.

        `pointers`: to `left`, to `right`, and optionally to what to ask for meanwhile, a cache line
        and the next, which comes with it, in every unrolled turn. `strides`: of a row and of a
        step in `left`, of a step in `right`. Returned are the sums and the pointers after the last
        step.
        """
        row_stride, left_step, right_step = strides
        pair = 2 * CACHE_LINE // self.itemsize

        def body(values: list[Any], unroll: int) -> list[Any]:
            sums, (left, right, *ahead) = values[: -len(pointers)], values[-len(pointers) :]
            if unroll > 1:
                for pointer in ahead:
                    self.prefetch(pointer, write=0, level=2)
            for k in range(unroll):
                rows_left = [self.at(left, r * row_stride + k * left_step) for r in range(rows)]
                sums = self.step(sums, rows_left, self.at(right, self.times(k, right_step)))
            moved = [
                self.at(left, unroll * left_step),
                self.at(right, self.times(unroll, right_step)),
            ]
            return [*sums, *moved, *(self.at(pointer, pair) for pointer in ahead)]

        if isinstance(count, int):
            turns = self.constant(count // self.UNROLL)
            return self.loop(turns, [*sums, *pointers], lambda i, v: body(v, self.UNROLL))
        return self.loop(count, [*sums, *pointers], lambda i, v: body(v, 1))

    def switch_rows(self, rows: Any, emit: Any) -> None:
        """`emit(rows)` for their number, of `FEW_ROWS` at most, which is known when it runs."""
        builder = self.builder
        done = builder.append_basic_block("done")
        switch = builder.switch(rows, done)
        for number in range(1, FEW_ROWS + 1):
            block = builder.append_basic_block(f"rows_{number}")
            switch.add_case(self.constant(number), block)
            builder.position_at_end(block)
            emit(number)
            builder.branch(done)
        builder.position_at_end(done)

    def switch_shape(self, rows: Any, columns: Any, emit: Any) -> None:
        """`emit(rows)` for their number, and `vectors` for the columns in use, known when it runs.

        Columns beyond those in use, in the same register, are computed as well.
        """
        builder = self.builder
        done = builder.append_basic_block("done")
        lanes = self.constant(self.lanes)
        vectors = builder.udiv(builder.add(columns, self.constant(self.lanes - 1)), lanes)
        # One more than there are rows: no rows are no case.
        before = builder.mul(vectors, self.constant(TILE.rows + 1))
        switch = builder.switch(builder.add(before, rows), done)
        for self.vectors in range(1, TILE.vectors + 1):
            for number in range(1, TILE.rows + 1):
                block = builder.append_basic_block(f"rows_{number}")
                switch.add_case(self.constant(self.vectors * (TILE.rows + 1) + number), block)
                builder.position_at_end(block)
                emit(number)
                builder.branch(done)
        builder.position_at_end(done)


def _emit_multiply_rows(emitter: _Emitter, arguments: Any) -> None:
    (
        rows, columns, depth, left, panel_stride, right, right_stride, ahead, start, start_stride,
        out,
    ) = arguments  # fmt: skip
    builder = emitter.builder
    panels = builder.udiv(depth, emitter.constant(PANEL))
    rest = builder.urem(depth, emitter.constant(PANEL))
    strides = (PANEL, 1, right_stride)

    def emit_rows(number: int) -> None:
        sums = emitter.zeros(number)

        def panel(turn: Any, values: list[Any]) -> list[Any]:
            *sums, left, right, ahead = values
            values = emitter.products(sums, number, PANEL, [left, right, ahead], strides)
            values[-3] = emitter.at(left, panel_stride)
            return values

        values = emitter.loop(panels, [*sums, left, right, ahead], panel)
        *sums, left_rest, right_rest, _ = values
        sums = emitter.products(sums, number, rest, [left_rest, right_rest], strides)[:-2]
        before = emitter.load_tile(number, start, start_stride)
        emitter.store_tile(emitter.add(before, sums), out, emitter.constant(PANEL))

    emitter.switch_shape(rows, columns, emit_rows)


def _emit_add_transposed(emitter: _Emitter, arguments: Any) -> None:
    rows, columns, depth, left, right, start, start_stride, out, out_stride = arguments
    builder = emitter.builder
    unroll = emitter.constant(emitter.UNROLL)
    turns, rest = builder.udiv(depth, unroll), builder.urem(depth, unroll)
    strides = (1, PANEL, PANEL)

    def emit_rows(number: int) -> None:
        for address in emitter.tile_registers(number, out, out_stride):
            emitter.prefetch(address, write=1, level=1)
        sums = emitter.zeros(number)

        def block(turn: Any, values: list[Any]) -> list[Any]:
            *sums, left, right = values
            return emitter.products(sums, number, emitter.UNROLL, [left, right], strides)

        *sums, left_rest, right_rest = emitter.loop(turns, [*sums, left, right], block)
        sums = emitter.products(sums, number, rest, [left_rest, right_rest], strides)[:-2]
        before = emitter.load_tile(number, start, start_stride)
        emitter.store_tile(emitter.add(before, sums), out, out_stride)

    emitter.switch_shape(rows, columns, emit_rows)


def _summed(builder: ir.IRBuilder, columns: list[Any]) -> Any:
    """Emit the sums of the lanes of some registers, 1, 2 or 4 of them, in a vector of as many."""
    lanes, index = columns[0].type.count, ir.IntType(32)

    def shuffle(x: Any, y: Any, places: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(index, len(places)), places)
        return builder.shuffle_vector(x, y, mask)

    span, wanted = 1, len(columns)
    while span < wanted:
        lower = [k if not k & span else lanes + k - span for k in range(lanes)]
        upper = [k + span if not k & span else lanes + k for k in range(lanes)]
        pairs = zip(columns[::2], columns[1::2], strict=True)
        columns = [builder.fadd(shuffle(*p, lower), shuffle(*p, upper)) for p in pairs]
        span *= 2
    (total,) = columns
    while lanes > wanted:
        lanes //= 2
        halves = (shuffle(total, total, list(range(i, i + lanes))) for i in (0, lanes))
        total = builder.fadd(*halves)
    return total


def _emit_multiply_columns(emitter: _Emitter, arguments: Any) -> None:
    rows, last, depth, left, panel_stride, right, right_stride, start, start_stride, out = arguments
    builder, lanes = emitter.builder, emitter.lanes
    wanted = dot_columns(emitter.itemsize)
    zero = emitter.constant(0)
    rights = []
    for c in range(wanted):
        column = emitter.constant(c)
        existing = builder.select(builder.icmp_signed("<", column, last), column, last)
        rights.append(emitter.at(right, builder.mul(existing, right_stride)))
    panels = builder.udiv(depth, emitter.constant(PANEL))
    rest = builder.urem(depth, emitter.constant(PANEL))
    registers, tail = (
        operation(rest, emitter.constant(lanes)) for operation in (builder.udiv, builder.urem)
    )
    part = ir.VectorType(emitter.element, wanted).as_pointer()

    def emit_rows(number: int) -> None:
        def step(sums: list[Any], left: Any, rights: list[Any], load: Any) -> list[Any]:
            weights = [load(pointer) for pointer in rights]
            states = [load(emitter.at(left, r * PANEL)) for r in range(number)]
            operands = [(state, weight) for state in states for weight in weights]
            return [
                builder.call(emitter.fma, [*operand, total])
                for operand, total in zip(operands, sums, strict=True)
            ]

        def full(count: int, left_step: Any, values: list[Any]) -> list[Any]:
            sums, (left, *rights) = values[: -1 - wanted], values[-1 - wanted :]
            for v in range(count):
                at = [emitter.at(pointer, v * lanes) for pointer in (left, *rights)]
                sums = step(sums, at[0], at[1:], emitter.load)
            moved = [emitter.at(pointer, count * lanes) for pointer in rights]
            return [*sums, emitter.at(left, left_step), *moved]

        def masked(turn: Any, values: list[Any]) -> list[Any]:
            sums, (left, *rights) = values[: -1 - wanted], values[-1 - wanted :]
            row = MaskedRow(builder, emitter.element, lanes, tail)
            return [*step(sums, left, rights, row.load), left, *rights]

        values = [emitter.zeros(1)[0]] * (number * wanted) + [left, *rights]
        values = emitter.loop(panels, values, lambda i, v: full(PANEL // lanes, panel_stride, v))
        values = emitter.loop(registers, values, lambda i, v: full(1, lanes, v))
        some = builder.zext(builder.icmp_signed(">", tail, zero), emitter.index)
        sums = emitter.loop(some, values, masked)
        for r in range(number):
            total = _summed(builder, sums[r * wanted : (r + 1) * wanted])
            offset = builder.mul(start_stride, emitter.constant(r))
            before, target = (
                builder.bitcast(pointer, part)
                for pointer in (emitter.at(start, offset), emitter.at(out, r * PANEL))
            )
            before = builder.load(before, align=emitter.itemsize)
            builder.store(builder.fadd(before, total), target, align=emitter.itemsize)

    emitter.switch_rows(rows, emit_rows)


class _TileFunction(NamedTuple):
    """A function that every kernel calls by its symbol and that is compiled once, by `tiles`."""

    name: str
    arguments: str  #: one letter each: an integer or a pointer
    emit: Callable[[_Emitter, Any], None]

    def symbol(self, dtype: types.Float) -> str:
        return f"fastrnn.{self.name}.f{dtype.bitwidth}"

    def declare(self, context: Any, module: ir.Module, dtype: types.Float) -> ir.Function:
        kinds = {"i": ir.IntType(64), "p": context.get_value_type(types.CPointer(dtype))}
        kind = ir.FunctionType(ir.VoidType(), [kinds[letter] for letter in self.arguments])
        return cgutils.get_or_insert_function(module, kind, self.symbol(dtype))

    def define(self, context: Any, module: ir.Module, dtype: types.Float) -> None:
        function = self.declare(context, module, dtype)
        function.attributes.add("nounwind")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.emit(_Emitter(context, builder, dtype), function.args)
        builder.ret_void()

    def call(self, dtype: types.Float) -> tuple[Any, Callable[..., Any]]:
        """Signature and code of an intrinsic that calls the function."""
        kinds = {"i": types.intp, "p": types.CPointer(dtype)}

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            builder.call(self.declare(context, builder.module, dtype), arguments)
            return context.get_dummy_value()

        return types.void(*(kinds[letter] for letter in self.arguments)), codegen


_MULTIPLY_ROWS = _TileFunction("multiply_rows", "iiipipippip", _emit_multiply_rows)
_MULTIPLY_COLUMNS = _TileFunction("multiply_columns", "iiipipipip", _emit_multiply_columns)
_ADD_TRANSPOSED = _TileFunction("add_transposed", "iiipppipi", _emit_add_transposed)
_FUNCTIONS = _MULTIPLY_ROWS, _MULTIPLY_COLUMNS, _ADD_TRANSPOSED


@intrinsic
def _define(typingctx: Any, number: Any) -> Any:
    """Define the functions of tiles in the dtype of `number` in the module that is being made."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for function in _FUNCTIONS:
            function.define(context, builder.module, number)
        return context.get_dummy_value()

    return types.void(number), codegen


def _tiles(number):  # type: ignore[no-untyped-def]
    _define(number)


class Tiles(Kernel):
    """The functions of tiles, which kernels find by their symbols once `compile` has run.

    Were they part of every kernel, LLVM would work on all variants of a tile for each, and for each
    piece that a kernel is made of.
    """

    def compile(self, dtype: np.dtype[Any]) -> Any:
        """Compile the functions for a dtype, or load them."""
        dispatcher = super().compile(dtype)
        (result,) = dispatcher.overloads.values()
        for function in _FUNCTIONS:
            symbol = function.symbol(from_dtype(dtype))
            llvm.add_symbol(symbol, result.library.get_pointer_to_function(symbol))
        return dispatcher


tiles = Tiles(_tiles, lambda dtype: types.void(dtype))


@intrinsic
def multiply_rows(
    typingctx: Any,
    rows: Any,
    columns: Any,
    depth: Any,
    left: Any,
    panel_stride: Any,
    right: Any,
    right_stride: Any,
    ahead: Any,
    start: Any,
    start_stride: Any,
    out: Any,
) -> Any:
    """`out = start + left @ right` for one tile.

    `left` points at the tile's first row in panels `panel_stride` elements apart, `right` at rows
    `right_stride` apart, `out` into a panel. `start` has rows `start_stride` apart (0: a bias).
    `ahead` points at weights that are needed soon, to be brought into the second cache level.
    Of the tile's columns the first `columns` are computed, up to whole registers.
    """
    return _MULTIPLY_ROWS.call(left.dtype)


@intrinsic
def multiply_columns(
    typingctx: Any,
    rows: Any,
    last: Any,
    depth: Any,
    left: Any,
    panel_stride: Any,
    right: Any,
    right_stride: Any,
    start: Any,
    start_stride: Any,
    out: Any,
) -> Any:
    """`out = start + left @ right` for `dot_columns` columns, each contiguous, and few rows.

    `left`, `start` and `out` are those of `multiply_rows`. `right` points at a column, and the
    others follow `right_stride` elements apart. `last` is the number of the last one that exists,
    negative if it is before the first: it takes the place of those beyond it.
    """
    return _MULTIPLY_COLUMNS.call(left.dtype)


@intrinsic
def add_transposed_product(
    typingctx: Any,
    rows: Any,
    columns: Any,
    depth: Any,
    left: Any,
    right: Any,
    start: Any,
    start_stride: Any,
    out: Any,
    out_stride: Any,
) -> Any:
    """`out = start + left.T @ right` for one tile: `left` and `right` are panels of `depth` rows.

    A row of the tile is a column of `left`; `start` and `out` have rows `start_stride` and
    `out_stride` apart.
    """
    return _ADD_TRANSPOSED.call(left.dtype)
