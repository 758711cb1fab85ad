"""Rows of panels: where they are, packing into them and out of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from ._jit import inner, shared
from .memory import (
    CACHE_LINE,
    FAR,
    PAST,
    copy,
    copy_lines,
    itemsize_of,
    move,
    move_bytes,
    pointer_into,
    pointer_to,
    prefetch_to_read,
    prefetch_to_write,
    view,
)
from .parts import clear_row, fill_row, store_row
from .tile import PANEL, TILE, VECTORS

#: Bytes in one row of a tile.
WIDTH_BYTES = VECTORS * TILE.vector_bytes
#: Rows, give or take a half, whose products are summed on their own before they join a weight
#: gradient, those summed before they join a bias gradient, and such sums that are summed before:
#: one chain over all rows would lose more digits than NumPy's sum over the steps does.
PRODUCTS_SUMMED, ROWS_SUMMED, SUMS_SUMMED = 96, 64, 16
#: Columns of the rows of a chunk that stay in the second cache level for all that needs them.
NEAR_COLUMNS = 512

#: Rows ahead of the one being copied whose cache lines are asked for: samples lie in any order, so
#: the processor cannot guess them.
AHEAD = 8


@inner
def lanes_at(holder: Any) -> int:
    """Elements of one register, of the dtype of an array or at a pointer."""
    return TILE.vector_bytes // itemsize_of(holder)


@inner
def width_at(holder: Any) -> int:
    """Columns of a tile in the dtype of an array or at a pointer."""
    return WIDTH_BYTES // itemsize_of(holder)


@inner
def rows_at_once(columns: int, pointer: Any) -> int:
    """Rows of a tile of which so many columns are computed, at least one, in the dtype there."""
    return TILE.rows[(columns - 1) // lanes_at(pointer)]


@inner
def panels_of(columns: int) -> int:
    """Panels that hold so many columns."""
    return (columns + PANEL - 1) // PANEL


@inner
def tiles_of(columns: int, width: int) -> int:
    """Tiles that hold so many columns."""
    return (columns + width - 1) // width


@inner
def sums_of(rows: int, summed: int) -> int:
    """Sums, each of some `summed` rows, that so many are shared out to."""
    return max((rows + summed // 2) // summed, 1)


@inner
def share_of(total: int, part: int, parts: int) -> tuple[int, int]:
    """First and last of the part's share of `total` things."""
    return total * part // parts, total * (part + 1) // parts


@inner
def tile_at(panels: Any, stride: int, row: int, column: int) -> Any:
    """Pointer to `row` of the tile that starts at `column`, in panels `stride` apart."""
    return move(panels, column // PANEL * stride + row * PANEL + column % PANEL)


class Rows(NamedTuple):
    """Rows of an array (n, m, T): of a step those of some samples, or of a sample some steps.

    Few words: for a single sample it takes longer to hand arrays on than to copy a row.
    """

    data: Any  #: pointer to the first column of the row that has number 0
    across: int  #: bytes between columns
    apart: int  #: bytes between rows of numbers that follow each other
    order: Any  #: pointer to the number of the first row; those of the others follow


def rows_type(dtype: types.Type) -> types.Type:
    """Type of `Rows` of a dtype."""
    index = types.int64
    fields = types.CPointer(dtype), index, index, types.CPointer(index)
    return types.NamedTuple(fields, Rows)


@inner
def rows_in(array: Any, t: int, order: Any, lo: int) -> Rows:
    """Rows of step `t` of `array` (n, m, T) from sample `order[lo]` on."""
    across, apart, _ = array.strides
    return Rows(pointer_into(array, 0, 0, t), across, apart, pointer_to(order, lo))


@inner
def entry_of(rows: Rows, i: int, column: int) -> Any:
    """Pointer to one column of row `i`."""
    number = view(rows.order, i + 1)[i]
    return move_bytes(rows.data, number * rows.apart + column * rows.across)


@inner
def columns_from(rows: Rows, column: int) -> Rows:
    """The same rows from a column on, of columns that follow each other."""
    return Rows(move(rows.data, column), rows.across, rows.apart, rows.order)


@inner
def _prefetch_row(prefetch: Any, rows: Rows, i: int, columns: int) -> None:
    """Ask for the first columns of row `i`, which follow each other."""
    begin = entry_of(rows, i, 0)
    for k in range(0, columns, CACHE_LINE // itemsize_of(begin)):
        prefetch(move(begin, k))


@inner
def prefetch_first(prefetch: Any, rows: Rows, number: int, columns: int) -> None:
    """Ask for the first columns of the first of so many rows; `prefetch_next` for the others."""
    for i in range(min(AHEAD, number)):
        _prefetch_row(prefetch, rows, i, columns)


@inner
def prefetch_next(prefetch: Any, rows: Rows, i: int, number: int, columns: int) -> None:
    """Ask for the first columns of the row `AHEAD` of row `i`, if it is one of so many."""
    if i + AHEAD < number:
        _prefetch_row(prefetch, rows, i + AHEAD, columns)


@inner
def in_one_piece(columns: int, across: int, holder: Any) -> bool:
    """Whether columns `across` bytes apart follow each other; a single one does."""
    return columns == 1 or across == itemsize_of(holder)


@inner
def _gather_rows(rows: Rows, columns: int, number: int, panels: Any, stride: int) -> None:
    """`pack_rows` from another memory order: each number from a cache line of its own."""
    for i in range(number):
        for first in range(0, columns, PANEL):
            out, used = tile_at(panels, stride, i, first), min(PANEL, columns - first)
            clear_row(out, PANEL)
            for c in range(used):
                copy(move(out, c), entry_of(rows, i, first + c), 1)


def _pack_rows_type(dtype: types.Type) -> types.Type:
    index = types.int64
    return types.void(rows_type(dtype), index, index, index, types.CPointer(dtype), index)


@shared(_pack_rows_type)
def pack_rows(rows: Rows, columns: int, number: int, reach: int, panels: Any, stride: int) -> None:
    """So many rows within a `reach` into panels, whose first row is at `panels`."""
    if not in_one_piece(columns, rows.across, panels):
        _gather_rows(rows, columns, number, panels, stride)
        return
    if reach == FAR:
        prefetch_first(prefetch_to_read, rows, number, columns)
    for i in range(number):
        if reach == FAR:
            prefetch_next(prefetch_to_read, rows, i, number, columns)
        source = entry_of(rows, i, 0)
        for first in range(0, columns, PANEL):
            out = tile_at(panels, stride, i, first)
            if first + PANEL <= columns:
                copy(out, move(source, first), PANEL)
            else:
                fill_row(out, move(source, first), columns - first)


def _unpack_rows_type(dtype: types.Type) -> types.Type:
    index = types.int64
    return types.void(types.CPointer(dtype), index, rows_type(dtype), index, index, index)


@shared(_unpack_rows_type)
def unpack_rows(
    panels: Any, stride: int, rows: Rows, columns: int, number: int, reach: int
) -> None:
    """The way back, to rows whose columns follow each other."""
    if reach == FAR:
        prefetch_first(prefetch_to_write, rows, number, columns)
    for i in range(number):
        if reach == FAR:
            prefetch_next(prefetch_to_write, rows, i, number, columns)
        target = entry_of(rows, i, 0)
        for first in range(0, columns, PANEL):
            values, out = tile_at(panels, stride, i, first), move(target, first)
            if first + PANEL > columns:
                store_row(out, values, columns - first)
            elif reach == PAST:
                copy_lines(out, values, PANEL)
            else:
                copy(out, values, PANEL)
