"""Writes the instructions of a register tile of the table in `tile`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .memory import CACHE_LINE, emit_prefetch, store_past_caches
from .tile import TILE, VECTORS, lanes_of, tile_width


def folded(
    builder: ir.IRBuilder,
    registers: list[ir.Value],
    combine: Callable[[ir.Value, ir.Value], ir.Value],
) -> ir.Value:
    """Emit the lanes of each register combined, for 1, 2 or 4 registers: a vector of as many."""
    lanes, index = registers[0].type.count, ir.IntType(32)

    def shuffle(x: ir.Value, y: ir.Value, places: list[int]) -> ir.Value:
        mask = ir.Constant(ir.VectorType(index, len(places)), places)
        return builder.shuffle_vector(x, y, mask)

    span, wanted = 1, len(registers)
    while span < wanted:
        lower = [k if not k & span else lanes + k - span for k in range(lanes)]
        upper = [k + span if not k & span else lanes + k for k in range(lanes)]
        pairs = zip(registers[::2], registers[1::2], strict=True)
        registers = [combine(shuffle(*p, lower), shuffle(*p, upper)) for p in pairs]
        span *= 2
    (total,) = registers
    while lanes > wanted:
        lanes //= 2
        halves = (shuffle(total, total, list(range(i, i + lanes))) for i in (0, lanes))
        total = combine(*halves)
    return total


class Emitter:
    """Emits tiles: accumulators in registers, a loop of multiply-adds over the depth."""

    UNROLL = 2
    #: Bytes of weights that each unrolled turn asks for: no more than it multiplies by, and at most
    #: a cache line, and the next if that comes with it.
    AHEAD = min((1 + TILE.prefetches) * CACHE_LINE, UNROLL * VECTORS * TILE.vector_bytes)

    def __init__(self, context: Any, builder: ir.IRBuilder, dtype: types.Float) -> None:
        self.builder = builder
        self.element = context.get_value_type(dtype)
        self.itemsize = dtype.bitwidth // 8
        self.lanes = lanes_of(self.itemsize)
        self.vector = ir.VectorType(self.element, self.lanes)
        self.index = ir.IntType(64)
        self.width = tile_width(self.itemsize)
        self.vectors = VECTORS  #: registers in use of each row
        self.apart: list[Any] = [0]  #: where the weights are of each tile at once
        self.fma = cgutils.insert_pure_function(
            builder.module,
            ir.FunctionType(self.vector, [self.vector] * 3),
            f"llvm.fmuladd.v{self.lanes}f{dtype.bitwidth}",
        )

    def constant(self, value: int) -> ir.Constant:
        """An index."""
        return ir.Constant(self.index, value)

    def times(self, factor: int, value: Any) -> Any:
        """`factor * value`, a number known now or later."""
        if isinstance(value, int):
            return factor * value
        return self.builder.mul(self.constant(factor), value)

    def parts_of(self, count: Any, size: int) -> Any:
        """Parts of up to `size` that make up `count`."""
        rounded = self.builder.add(count, self.constant(size - 1))
        return self.builder.udiv(rounded, self.constant(size))

    def at(self, pointer: Any, offset: Any) -> Any:
        """The pointer `offset` elements further on."""
        if isinstance(offset, int):
            offset = self.constant(offset)
        return self.builder.gep(pointer, [offset])

    def load(self, pointer: Any) -> Any:
        """A register from anywhere in memory."""
        cast = self.builder.bitcast(pointer, self.vector.as_pointer())
        return self.builder.load(cast, align=self.itemsize)

    def store(self, value: Any, pointer: Any) -> None:
        """A register to anywhere in memory."""
        cast = self.builder.bitcast(pointer, self.vector.as_pointer())
        self.builder.store(value, cast, align=self.itemsize)

    def store_past_caches(self, value: Any, pointer: Any) -> None:
        """A register to an address aligned to it, which no cache keeps."""
        cast = self.builder.bitcast(pointer, self.vector.as_pointer())
        store_past_caches(self.builder, value, cast)

    def broadcast(self, pointer: Any) -> Any:
        """A register with the element at the pointer in every lane."""
        scalar = self.builder.load(pointer)
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, mask)

    def hidden(self, pointer: Any) -> Any:
        """The pointer, through no instruction at all, so that LLVM cannot tell where it points."""
        if not TILE.embedded:
            return pointer
        kind = ir.FunctionType(pointer.type, [pointer.type])
        return self.builder.call(ir.InlineAsm(kind, "", "=r,0"), [pointer])

    def loop(self, count: Any, values: list[Any], body: Any) -> list[Any]:
        """Carry `values` through `count` turns of `body(turn, values) -> values`.

        The end is looked for behind a turn, as LLVM would have it: tiles are not optimised.
        """
        builder = self.builder
        entry, values = builder.block, [self.constant(0), *values]
        inside, after = (builder.append_basic_block(name) for name in ("inside", "after"))
        builder.cbranch(builder.icmp_signed("<", values[0], count), inside, after)
        builder.position_at_end(inside)
        carried = [builder.phi(value.type) for value in values]
        results = body(carried[0], carried[1:])
        results = [builder.add(carried[0], self.constant(1)), *results]
        last = builder.block
        builder.cbranch(builder.icmp_signed("<", results[0], count), inside, after)
        builder.position_at_end(after)
        ends = [builder.phi(value.type) for value in values]
        for phis in (carried, ends):
            for phi, value, result in zip(phis, values, results, strict=True):
                phi.add_incoming(value, entry)
                phi.add_incoming(result, last)
        return ends[1:]

    def step(self, sums: list[Any], left: Any, twin: Any, places: list[int], right: Any) -> Any:
        """One index of the depth: every accumulator gets one multiply-add.

        `places` are those of the rows, from `left` on. Registers hold the vectors of `right`, and
        the number of one row at a time in all lanes; or the numbers of all rows, if they are fewer.

        AVX-512 multiplies by a number in memory without an instruction to load it, which pays in
        every other row: there each register reads the number anew, by `twin`, the same address for
        all that LLVM knows. That is six loads more and six instructions less of 38, for which the
        core has room while it runs one thread; with another beside it, a tenth faster.
        """
        places_right = [
            self.at(self.at(right, tile), v * self.lanes)
            for tile in self.apart
            for v in range(self.vectors)
        ]
        count, result = len(places_right), list(sums)

        def add(row: int, v: int, value: Any, vector: Any) -> None:
            total = result[row * count + v]
            result[row * count + v] = self.builder.call(self.fma, [value, vector, total])

        if len(places) < count and not TILE.embedded:
            values = [self.broadcast(self.at(left, place)) for place in places]
            for v, place in enumerate(places_right):
                vector = self.load(place)
                for row, value in enumerate(values):
                    add(row, v, value, vector)
        else:
            vectors = [self.load(place) for place in places_right]
            for row, place in enumerate(places):
                value = self.broadcast(self.at(left, place))
                for v, vector in enumerate(vectors):
                    if v and TILE.embedded and row % 2:
                        value = self.broadcast(self.at(twin, place))
                    add(row, v, value, vector)
        return result

    def zeros(self, rows: int) -> list[Any]:
        """Sums of a tile before its first product."""
        return [ir.Constant(self.vector, [0.0] * self.lanes)] * (rows * self.vectors)

    def add(self, before: list[Any], sums: list[Any]) -> list[Any]:
        """Sums of two tiles."""
        return [self.builder.fadd(x, y) for x, y in zip(before, sums, strict=True)]

    def tile_registers(self, rows: int, pointer: Any, stride: Any) -> list[Any]:
        """Addresses of the registers of a tile in memory, its rows `stride` apart."""
        starts = [self.at(pointer, self.builder.mul(stride, self.constant(r))) for r in range(rows)]
        return [self.at(start, v * self.lanes) for start in starts for v in range(self.vectors)]

    def load_tile(self, rows: int, pointer: Any, stride: Any) -> list[Any]:
        """The registers of a tile in memory."""
        return [self.load(address) for address in self.tile_registers(rows, pointer, stride)]

    def store_tile(self, sums: list[Any], pointer: Any, stride: Any, store: Any = None) -> None:
        """The registers of a tile, to memory; by `store_past_caches` to rows of cache lines."""
        addresses = self.tile_registers(len(sums) // self.vectors, pointer, stride)
        for value, address in zip(sums, addresses, strict=True):
            (store or self.store)(value, address)

    def prefetch(self, pointer: Any, write: int, level: int) -> None:
        """Ask for a cache line, into cache level 1 or 2."""
        emit_prefetch(self.builder, pointer, write, level)

    def products(
        self, sums: list[Any], rows: int, count: Any, pointers: list[Any], strides: tuple[Any, ...]
    ) -> list[Any]:
        """`count` steps, unrolled where `count` is a number known now, divisible by `UNROLL`.

        `pointers`: to `left`, to `right`, and optionally to what to ask for meanwhile, `AHEAD`
        bytes in every unrolled turn. `strides`: of a row and of a step in `left`, of a step in
        `right`. Returned are the sums and the pointers after the last
        step.
        """
        row_stride, left_step, right_step = strides
        pair = self.AHEAD // self.itemsize
        carried = 1 + len(pointers)  # behind the sums: the twin of `left`, and the pointers

        def body(values: list[Any], unroll: int) -> list[Any]:
            sums, (twin, left, right, *ahead) = values[:-carried], values[-carried:]
            if unroll > 1:
                for pointer in ahead:
                    self.prefetch(pointer, write=0, level=2)
            for k in range(unroll):
                places = [r * row_stride + k * left_step for r in range(rows)]
                row = self.at(right, self.times(k, right_step))
                sums = self.step(sums, left, twin, places, row)
            moved = [
                self.hidden(self.at(twin, unroll * left_step)),
                self.hidden(self.at(left, unroll * left_step)),
                self.at(right, self.times(unroll, right_step)),
            ]
            return [*sums, *moved, *(self.at(pointer, pair) for pointer in ahead)]

        unroll = self.UNROLL if isinstance(count, int) else 1
        turns = self.constant(count // unroll) if isinstance(count, int) else count
        values = [*sums, self.hidden(pointers[0]), *pointers]
        values = self.loop(turns, values, lambda i, v: body(v, unroll))
        return [*values[:-carried], *values[1 - carried :]]  # without the twin

    def switch(self, value: Any, cases: dict[int, Any], emit: Any) -> None:
        """`emit(case)` for the case of `cases` that a number stands for, known when it runs."""
        done = self.builder.append_basic_block("done")
        switch = self.builder.switch(value, done)
        for number, case in cases.items():
            block = self.builder.append_basic_block(f"case_{number}")
            switch.add_case(self.constant(number), block)
            self.builder.position_at_end(block)
            emit(case)
            self.builder.branch(done)
        self.builder.position_at_end(done)

    def over_tiles(
        self, rows: Any, columns: Any, pointers: list[Any], strides: list[Any], emit: Any
    ) -> None:
        """`emit(number, *pointers)` for one tile after the other, of so many of the `rows`.

        The last two share theirs out evenly. Each of `pointers` moves on by its stride for every
        row. Before, `vectors` is set to the registers that `columns` fill, no more than a tile's:
        there is code for each number of them.
        """
        builder = self.builder

        def emit_width(used: int) -> None:
            self.vectors, most = used, TILE.rows[used - 1]
            whole, two = self.constant(most), self.constant(2 * most)
            one = self.constant(1)
            cases = {count: count for count in range(1, most + 1)}

            def tile(turn: Any, values: list[Any]) -> list[Any]:
                left, *places = values
                half = builder.lshr(builder.add(left, one), one)
                several = builder.select(builder.icmp_signed("<", left, two), half, whole)
                number = builder.select(builder.icmp_signed("<=", left, whole), left, several)
                self.switch(number, cases, lambda count: emit(count, *places))
                moves = [builder.mul(number, stride) for stride in strides]
                places = [self.at(place, move) for place, move in zip(places, moves, strict=True)]
                return [builder.sub(left, number), *places]

            self.loop(self.parts_of(rows, most), [rows, *pointers], tile)

        vectors = self.parts_of(columns, self.lanes)
        self.switch(vectors, {used: used for used in range(1, VECTORS + 1)}, emit_width)
