"""Products by sums along lanes: what `multiply_columns` of `products` computes, in instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .emitter import Emitter, folded
from .memory import CACHE_LINE
from .parts import MaskedRow
from .tile import FEW_ROWS, PANEL, TILE, dot_columns

#: Bytes apart at which columns take the same places of the first cache level, and bytes of each
#: that are asked for before they are needed if they do: four whole columns would not stay there.
SAME_PLACES, COLUMN_AHEAD = 4096, 1536
#: Rows with which the columns behind those at work are asked for. Few rows ask each time: all that
#: is asked for at once is waited for. With many rows the first ones have asked for everything.
ASKING_ROWS = 3 * FEW_ROWS
#: Columns at a time for one row, where registers have as many lanes, of columns of more bytes that
#: take different places: one row leaves accumulators free, and the processor brings so many faster
#: of its own accord than four that are asked for.
COLUMNS_OF_ONE, LONG_COLUMN = 8, 2048


class _Dots:
    """Emits sums along lanes, of a few rows in panels by `wanted` contiguous columns."""

    def __init__(
        self, emitter: Emitter, wanted: int, depth: Any, panel_stride: Any, right_stride: Any
    ) -> None:
        builder, self.emitter, self.panel_stride = emitter.builder, emitter, panel_stride
        self.wanted = wanted
        self.asks = not TILE.prefetches and wanted == dot_columns(emitter.itemsize)
        zero, panel, lanes = map(emitter.constant, (0, PANEL, emitter.lanes))
        self.panels, rest = builder.udiv(depth, panel), builder.urem(depth, panel)
        self.registers, self.tail = builder.udiv(rest, lanes), builder.urem(rest, lanes)
        ahead = COLUMN_AHEAD // (PANEL * emitter.itemsize)
        self.crowded = _crowded(emitter, right_stride)
        before_end = builder.sub(self.panels, emitter.constant(ahead))
        #: The first turns, so many, ask for what lies `near` elements ahead in their own columns,
        self.inside = builder.select(self.crowded, before_end, zero)
        self.near = emitter.constant(ahead * PANEL)
        #: those after them for the start of the columns behind: so much ahead, less a column.
        self.to_end = builder.sub(self.near, builder.sub(depth, rest))

    def _step(
        self, number: int, sums: list[Any], left: Any, rights: list[Any], load: Callable[[Any], Any]
    ) -> list[Any]:
        """Each of the sums after a register of every row and column."""
        emitter, wanted, result = self.emitter, self.wanted, list(sums)
        places = [emitter.at(left, r * PANEL) for r in range(number)]
        few, many = (places, rights) if number < wanted else (rights, places)
        held = [load(pointer) for pointer in few]  # the other operand passes one by one
        for k, pointer in enumerate(many):
            value = load(pointer)
            for h, other in enumerate(held):
                i = h * wanted + k if few is places else k * wanted + h
                result[i] = emitter.builder.call(emitter.fma, [other, value, result[i]])
        return result

    def _full(self, number: int, count: int, left_step: Any, values: list[Any]) -> list[Any]:
        """Sums and pointers after `count` whole registers."""
        emitter, own = self.emitter, 1 + self.wanted
        sums, (left, *rights) = values[:-own], values[-own:]
        for v in range(count):
            at = [emitter.at(pointer, v * emitter.lanes) for pointer in (left, *rights)]
            sums = self._step(number, sums, at[0], at[1:], emitter.load)
        moved = [emitter.at(pointer, count * emitter.lanes) for pointer in rights]
        return [*sums, emitter.at(left, left_step), *moved]

    def _ask(self, turn: Any, rights: list[Any], beyond: Any) -> None:
        """Ask for a panel's length of columns, near by or `beyond`."""
        emitter, builder = self.emitter, self.emitter.builder
        near = builder.icmp_signed("<", turn, self.inside)
        distance = builder.select(near, self.near, beyond)
        for pointer in rights:
            for k in range(0, PANEL, CACHE_LINE // emitter.itemsize):
                address = emitter.at(emitter.at(pointer, distance), k)
                emitter.prefetch(address, write=0, level=1)

    def sums(self, number: int, left: Any, rights: list[Any], beyond: Any) -> list[Any]:
        """Registers whose lanes add up to the sums, row by row."""
        emitter, builder, own = self.emitter, self.emitter.builder, 1 + self.wanted

        def panel(turn: Any, values: list[Any]) -> list[Any]:
            if self.asks:
                self._ask(turn, values[1 - own :], beyond)
            return self._full(number, PANEL // emitter.lanes, self.panel_stride, values)

        def register(turn: Any, values: list[Any]) -> list[Any]:
            return self._full(number, 1, emitter.lanes, values)

        def masked(turn: Any, values: list[Any]) -> list[Any]:
            sums, (left, *rights) = values[:-own], values[-own:]
            row = MaskedRow(builder, emitter.element, emitter.lanes, self.tail)
            return [*self._step(number, sums, left, rights, row.load), left, *rights]

        values = [*emitter.zeros(1)[:1] * (number * self.wanted), left, *rights]
        values = emitter.loop(self.panels, values, panel)
        values = emitter.loop(self.registers, values, register)
        some = builder.icmp_signed(">", self.tail, emitter.constant(0))
        return emitter.loop(builder.zext(some, emitter.index), values, masked)[:-own]

    def add(self, sums: list[Any], start: Any, start_stride: Any, out: Any) -> None:
        """Write what the lanes add up to, and what was at `start`, to rows of a panel."""
        emitter, builder, wanted = self.emitter, self.emitter.builder, self.wanted
        part = ir.VectorType(emitter.element, wanted).as_pointer()
        for r in range(len(sums) // wanted):
            total = folded(builder, sums[r * wanted : (r + 1) * wanted], builder.fadd)
            source = emitter.at(start, emitter.times(r, start_stride))
            source, target = (
                builder.bitcast(p, part) for p in (source, emitter.at(out, r * PANEL))
            )
            before = builder.load(source, align=emitter.itemsize)
            builder.store(builder.fadd(before, total), target, align=emitter.itemsize)


def _crowded(emitter: Emitter, right_stride: Any) -> Any:
    """Whether columns take the same places of the first cache level."""
    places = emitter.constant(SAME_PLACES // emitter.itemsize)
    apart = emitter.builder.urem(right_stride, places)
    return emitter.builder.icmp_signed("==", apart, emitter.constant(0))


def multiply_columns(emitter: Emitter, arguments: Any) -> None:
    """A tile's width of a product with contiguous columns: a few of them, then the next."""
    (rows, _, depth), right_stride = arguments[:3], arguments[6]
    wanted = dot_columns(emitter.itemsize)
    if TILE.prefetches or emitter.lanes < COLUMNS_OF_ONE:
        _multiply(emitter, wanted, FEW_ROWS, arguments)
        return
    builder = emitter.builder
    alone = builder.icmp_signed("==", rows, emitter.constant(1))
    long = builder.icmp_signed(">", depth, emitter.constant(LONG_COLUMN // emitter.itemsize))
    free = builder.not_(_crowded(emitter, right_stride))
    with builder.if_else(builder.and_(alone, builder.and_(long, free))) as (eight, few):
        with eight:
            _multiply(emitter, COLUMNS_OF_ONE, 1, arguments)
        with few:
            _multiply(emitter, wanted, FEW_ROWS, arguments)


def _multiply(emitter: Emitter, wanted: int, most: int, arguments: Any) -> None:
    """The same by `wanted` columns and up to `most` rows at a time."""
    (
        rows, columns, depth, left, panel_stride, right, right_stride, start, start_stride, out,
    ) = arguments  # fmt: skip
    builder, zero = emitter.builder, emitter.constant(0)
    dots = _Dots(emitter, wanted, depth, panel_stride, right_stride)

    def smaller(x: Any, y: Any) -> Any:
        return builder.select(builder.icmp_signed("<", x, y), x, y)

    def some_columns(turn: Any, nothing: list[Any]) -> list[Any]:
        first, last = emitter.times(wanted, turn), builder.sub(columns, emitter.constant(1))
        numbers = [builder.add(first, emitter.constant(c)) for c in range(wanted)]
        rights = [emitter.at(right, builder.mul(smaller(c, last), right_stride)) for c in numbers]
        whole = builder.icmp_signed("<=", builder.add(first, emitter.constant(2 * wanted)), columns)

        def some_rows(turn: Any, places: list[Any]) -> list[Any]:
            left, start, out = places
            done = emitter.times(most, turn)
            asking = builder.icmp_signed("<", done, emitter.constant(ASKING_ROWS))
            asking = builder.and_(asking, whole)  # for columns that are all there
            ahead = builder.select(asking, emitter.times(wanted, right_stride), zero)
            beyond = builder.select(dots.crowded, builder.add(ahead, dots.to_end), ahead)

            def emit(number: int) -> None:
                dots.add(dots.sums(number, left, rights, beyond), start, start_stride, out)

            number = smaller(builder.sub(rows, done), emitter.constant(most))
            emitter.switch(number, {count: count for count in range(1, most + 1)}, emit)
            moves = (emitter.times(most, move) for move in (PANEL, start_stride, PANEL))
            return [emitter.at(place, move) for place, move in zip(places, moves, strict=True)]

        places = [left, emitter.at(start, first), emitter.at(out, first)]
        emitter.loop(emitter.parts_of(rows, most), places, some_rows)
        return nothing

    filled = emitter.parts_of(smaller(columns, emitter.constant(emitter.width)), emitter.lanes)
    emitter.loop(emitter.times(emitter.lanes // wanted, filled), [], some_columns)
