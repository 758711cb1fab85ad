"""The micro-kernels: what each tile function of `products` computes, in instructions.

Each takes an emitter and the arguments of the function of its name there, and emits its body. That
of sums along lanes is in `dots`.
"""

from __future__ import annotations

from typing import Any

from .emitter import Emitter
from .tile import PANEL, ROWS


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
