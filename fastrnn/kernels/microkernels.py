"""The micro-kernels: what each tile function of `products` computes, in instructions.

Each takes an emitter and the arguments of the function of its name there, and emits its body.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .emitter import Emitter, folded
from .memory import CACHE_LINE
from .parts import MaskedRow
from .tile import FEW_ROWS, PANEL, ROWS, TILE, dot_columns

#: Bytes apart at which columns take the same places of the first cache level, and bytes of each
#: that are asked for before they are needed if they do: four whole columns would not stay there.
SAME_PLACES, COLUMN_AHEAD = 4096, 1536
#: Rows with which the columns behind those at work are asked for. Few rows ask each time: all that
#: is asked for at once is waited for. With many rows the first ones have asked for everything.
ASKING_ROWS = 3 * FEW_ROWS


def _products_in_panels(
    emitter: Emitter, sums: list[Any], rows: int, depth: Any, pointers: list[Any],
    panel_stride: Any, right_stride: Any,
) -> list[Any]:  # fmt: skip
    """Sums after `depth` steps of rows in panels; `pointers` as `Emitter.products` takes them."""
    builder, carried, size = emitter.builder, len(pointers), emitter.constant(PANEL)
    strides = (PANEL, 1, right_stride)

    def panel(turn: Any, values: list[Any]) -> list[Any]:
        sums, pointers = values[:-carried], values[-carried:]
        values = emitter.products(sums, rows, PANEL, pointers, strides)
        values[-carried] = emitter.at(pointers[0], panel_stride)
        return values

    values = emitter.loop(builder.udiv(depth, size), [*sums, *pointers], panel)
    sums, (left, right, *_) = values[:-carried], values[-carried:]
    return emitter.products(sums, rows, builder.urem(depth, size), [left, right], strides)[:-2]


def multiply_rows(emitter: Emitter, arguments: Any) -> None:
    """Tiles of a product with packed weights, or with contiguous rows."""
    (
        rows, columns, depth, left, panel_stride, right, right_stride, ahead, ahead_stride, start,
        start_stride, out,
    ) = arguments  # fmt: skip
    panel = emitter.constant(PANEL)

    def emit_tile(number: int, left: Any, ahead: Any, start: Any, out: Any) -> None:
        sums = _products_in_panels(
            emitter, emitter.zeros(number), number, depth, [left, right, ahead], panel_stride,
            right_stride,
        )  # fmt: skip
        before = emitter.load_tile(number, start, start_stride)
        emitter.store_tile(emitter.add(before, sums), out, panel)

    pointers, strides = [left, ahead, start, out], [panel, ahead_stride, start_stride, panel]
    emitter.over_tiles(rows, columns, pointers, strides, emit_tile)


def multiply_few(emitter: Emitter, arguments: Any) -> None:
    """Several tiles of a product with packed weights, for few rows."""
    rows, tiles, depth, left, panel_stride, right, tile_stride, out = arguments

    def emit_shape(shape: tuple[int, int]) -> None:
        number, many = shape
        emitter.apart = [emitter.times(tile, tile_stride) for tile in range(many)]
        sums = _products_in_panels(
            emitter, emitter.zeros(number) * many, number, depth, [left, right], panel_stride,
            emitter.width,
        )  # fmt: skip
        for tile in range(many):
            column, registers = tile * emitter.width, emitter.vectors
            target = emitter.at(
                emitter.at(out, emitter.times(column // PANEL, panel_stride)), column % PANEL
            )
            own = [
                total
                for row in range(number)
                for total in sums[(row * many + tile) * registers :][:registers]
            ]
            before = emitter.load_tile(number, target, emitter.constant(PANEL))
            emitter.store_tile(emitter.add(before, own), target, emitter.constant(PANEL))

    cases = {
        many * (ROWS + 1) + number: (number, many)
        for many in (2, 4)
        for number in range(1, ROWS // many + 1)
    }
    value = emitter.builder.add(emitter.times(ROWS + 1, tiles), rows)
    emitter.switch(value, cases, emit_shape)


def add_transposed(emitter: Emitter, arguments: Any) -> None:
    """Tiles of a weight gradient."""
    rows, columns, depth, left, right, start, start_stride, out, out_stride, past = arguments
    builder = emitter.builder
    past = builder.icmp_signed("!=", past, emitter.constant(0))
    unroll = emitter.constant(emitter.UNROLL)
    turns, rest = builder.udiv(depth, unroll), builder.urem(depth, unroll)

    def emit_tile(number: int, left: Any, start: Any, out: Any) -> None:
        strides = (1, PANEL, PANEL)
        with builder.if_then(builder.not_(past)):
            for address in emitter.tile_registers(number, out, out_stride):
                emitter.prefetch(address, write=1, level=1)
        sums = emitter.zeros(number)

        def block(turn: Any, values: list[Any]) -> list[Any]:
            *sums, left, right = values
            return emitter.products(sums, number, emitter.UNROLL, [left, right], strides)

        *sums, left_rest, right_rest = emitter.loop(turns, [*sums, left, right], block)
        sums = emitter.products(sums, number, rest, [left_rest, right_rest], strides)[:-2]
        before = emitter.load_tile(number, start, start_stride)
        sums = emitter.add(before, sums)
        with builder.if_else(past) as (streamed, kept):
            with streamed:
                emitter.store_tile(sums, out, out_stride, emitter.store_past_caches)
            with kept:
                emitter.store_tile(sums, out, out_stride)

    pointers, strides = [left, start, out], [emitter.constant(1), start_stride, out_stride]
    emitter.over_tiles(rows, columns, pointers, strides, emit_tile)


def multiply_columns(emitter: Emitter, arguments: Any) -> None:
    """A tile's width of a product with contiguous columns, by sums along lanes."""
    (
        rows, columns, depth, left, panel_stride, right, right_stride, start, start_stride, out,
    ) = arguments  # fmt: skip
    builder, lanes = emitter.builder, emitter.lanes
    wanted = dot_columns(emitter.itemsize)
    zero = emitter.constant(0)

    def less(x: Any, y: Any) -> Any:
        """The smaller of two numbers."""
        return builder.select(builder.icmp_signed("<", x, y), x, y)

    panels = builder.udiv(depth, emitter.constant(PANEL))
    rest = builder.urem(depth, emitter.constant(PANEL))
    registers, tail = (
        operation(rest, emitter.constant(lanes)) for operation in (builder.udiv, builder.urem)
    )
    panels_ahead = COLUMN_AHEAD // (PANEL * emitter.itemsize)
    near = emitter.constant(panels_ahead * PANEL)
    apart = builder.urem(right_stride, emitter.constant(SAME_PLACES // emitter.itemsize))
    crowded = builder.icmp_signed("==", apart, zero)
    inside = builder.select(crowded, builder.sub(panels, emitter.constant(panels_ahead)), zero)
    to_next = builder.sub(near, builder.sub(depth, rest))  # columns, at the end of these
    part = ir.VectorType(emitter.element, wanted).as_pointer()

    def emit_rows(
        number: int, left: Any, rights: list[Any], beyond: Any, start: Any, out: Any
    ) -> None:
        def step(sums: list[Any], left: Any, rights: list[Any], load: Any) -> list[Any]:
            places, result = [emitter.at(left, r * PANEL) for r in range(number)], list(sums)
            few, many = (places, rights) if number < wanted else (rights, places)
            held = [load(pointer) for pointer in few]  # the other operand passes one by one
            for k, pointer in enumerate(many):
                value = load(pointer)
                for h, other in enumerate(held):
                    i = h * wanted + k if few is places else k * wanted + h
                    result[i] = builder.call(emitter.fma, [other, value, result[i]])
            return result

        def full(count: int, left_step: Any, values: list[Any]) -> list[Any]:
            sums, (left, *rights) = values[: -1 - wanted], values[-1 - wanted :]
            for v in range(count):
                at = [emitter.at(pointer, v * lanes) for pointer in (left, *rights)]
                sums = step(sums, at[0], at[1:], emitter.load)
            moved = [emitter.at(pointer, count * lanes) for pointer in rights]
            return [*sums, emitter.at(left, left_step), *moved]

        def panel(turn: Any, values: list[Any]) -> list[Any]:
            if not TILE.prefetches:
                distance = builder.select(builder.icmp_signed("<", turn, inside), near, beyond)
                for pointer in values[-wanted:]:
                    for k in range(0, PANEL, CACHE_LINE // emitter.itemsize):
                        address = emitter.at(emitter.at(pointer, distance), k)
                        emitter.prefetch(address, write=0, level=1)
            return full(PANEL // lanes, panel_stride, values)

        def masked(turn: Any, values: list[Any]) -> list[Any]:
            sums, (left, *rights) = values[: -1 - wanted], values[-1 - wanted :]
            row = MaskedRow(builder, emitter.element, lanes, tail)
            return [*step(sums, left, rights, row.load), left, *rights]

        values = [emitter.zeros(1)[0]] * (number * wanted) + [left, *rights]
        values = emitter.loop(panels, values, panel)
        values = emitter.loop(registers, values, lambda i, v: full(1, lanes, v))
        some = builder.zext(builder.icmp_signed(">", tail, zero), emitter.index)
        sums = emitter.loop(some, values, masked)
        for r in range(number):
            total = folded(builder, sums[r * wanted : (r + 1) * wanted], builder.fadd)
            offset = builder.mul(start_stride, emitter.constant(r))
            before, target = (
                builder.bitcast(pointer, part)
                for pointer in (emitter.at(start, offset), emitter.at(out, r * PANEL))
            )
            before = builder.load(before, align=emitter.itemsize)
            builder.store(builder.fadd(before, total), target, align=emitter.itemsize)

    def some_columns(turn: Any, nothing: list[Any]) -> list[Any]:
        first = emitter.times(wanted, turn)
        last = builder.sub(columns, emitter.constant(1))
        numbers = [builder.add(first, emitter.constant(c)) for c in range(wanted)]
        rights = [emitter.at(right, builder.mul(less(c, last), right_stride)) for c in numbers]
        after = builder.icmp_signed("<=", builder.add(first, emitter.constant(2 * wanted)), columns)

        def some_rows(turn: Any, places: list[Any]) -> list[Any]:
            done = emitter.times(FEW_ROWS, turn)
            number = less(builder.sub(rows, done), emitter.constant(FEW_ROWS))
            asking = builder.icmp_signed("<", done, emitter.constant(ASKING_ROWS))
            asking = builder.and_(asking, after)
            ahead = builder.select(asking, emitter.times(wanted, right_stride), zero)
            beyond = builder.select(crowded, builder.add(ahead, to_next), ahead)

            def emit(number: int) -> None:
                left, start, out = places
                emit_rows(number, left, rights, beyond, start, out)

            emitter.switch(number, {count: count for count in range(1, FEW_ROWS + 1)}, emit)
            moves = PANEL, start_stride, PANEL
            return [
                emitter.at(place, emitter.times(FEW_ROWS, move))
                for place, move in zip(places, moves, strict=True)
            ]

        rounded = builder.add(rows, emitter.constant(FEW_ROWS - 1))
        groups = builder.udiv(rounded, emitter.constant(FEW_ROWS))
        places = [left, emitter.at(start, first), emitter.at(out, first)]
        emitter.loop(groups, places, some_rows)
        return nothing

    used = less(columns, emitter.constant(emitter.width))
    filled = builder.udiv(builder.add(used, emitter.constant(lanes - 1)), emitter.constant(lanes))
    emitter.loop(emitter.times(lanes // wanted, filled), [], some_columns)


def add_rows(emitter: Emitter, arguments: Any) -> None:
    """A tile's width of a sum over rows."""
    rows, source, out = arguments

    def row(turn: Any, values: list[Any]) -> list[Any]:
        *sums, source = values
        sums = emitter.add(sums, emitter.load_tile(1, source, emitter.constant(0)))
        return [*sums, emitter.at(source, PANEL)]

    *sums, _ = emitter.loop(rows, [*emitter.zeros(1), source], row)
    before = emitter.load_tile(1, out, emitter.constant(0))
    emitter.store_tile(emitter.add(before, sums), out, emitter.constant(0))
