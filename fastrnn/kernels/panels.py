"""Rows of panels: where they are, packing into them and out of them, and their outer products."""

from __future__ import annotations

from typing import Any

from numba import types

from ._jit import array_in, array_out, inner, shared
from .memory import (
    CACHE_LINE,
    FAR,
    PAST,
    copy,
    copy_lines,
    itemsize_of,
    move,
    pointer_into,
    prefetch_to_read,
    prefetch_to_write,
    reach_to_read,
)
from .parts import clear_row, fill_row, store_row
from .tile import PANEL, TILE, VECTORS

#: Bytes in one row of a tile.
WIDTH_BYTES = VECTORS * TILE.vector_bytes
#: Rows, give or take a half, whose products are summed on their own before they join a weight
#: gradient, and those summed before they join a bias gradient: one chain over all rows would lose
#: more digits than NumPy's sum over the steps does.
PRODUCTS_SUMMED, ROWS_SUMMED = 96, 64
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
    if parts == 1:  # saves a small step two divisions
        return 0, total
    return total * part // parts, total * (part + 1) // parts


@inner
def tile_at(panels: Any, stride: int, row: int, column: int) -> Any:
    """Pointer to `row` of the tile that starts at `column`, in panels `stride` apart."""
    return move(panels, column // PANEL * stride + row * PANEL + column % PANEL)


@inner
def prefetch_row(prefetch: Any, array: Any, sample: int, t: int, first: int, last: int) -> None:
    """Ask for columns `first` to `last` of one row of `array` (n, m, T), contiguous along n."""
    for k in range(first, last, CACHE_LINE // itemsize_of(array)):
        prefetch(pointer_into(array, k, sample, t))


@inner
def prefetch_first(
    prefetch: Any, array: Any, t: int, order: Any, lo: int, hi: int, first: int, last: int
) -> None:
    """Ask for these columns of the first of the samples `order[lo:hi]`; others follow in time."""
    for i in range(lo, min(lo + AHEAD, hi)):
        prefetch_row(prefetch, array, order[i], t, first, last)


@inner
def in_one_piece(array: Any) -> bool:
    """Whether the columns of a row of `array` (n, m, T) follow each other; a single one does."""
    return array.shape[0] == 1 or array.strides[0] == itemsize_of(array)


@inner
def _gather_rows(
    source: Any, t: int, order: Any, lo: int, hi: int, panels: Any, stride: int, row: int
) -> None:
    """`pack_rows` from another memory order: each number from a cache line of its own."""
    columns = source.shape[0]
    for i in range(hi - lo):
        sample = order[lo + i]
        for first in range(0, columns, PANEL):
            out, used = tile_at(panels, stride, row + i, first), min(PANEL, columns - first)
            clear_row(out, PANEL)
            for c in range(used):
                copy(move(out, c), pointer_into(source, first + c, sample, t), 1)


def _pack_rows_type(dtype: types.Type) -> types.Type:
    index = types.int64
    return types.void(
        array_in(dtype, 3), index, array_in(index, 1), index, index, types.CPointer(dtype), index,
        index,
    )  # fmt: skip


@shared(_pack_rows_type)
def pack_rows(
    source: Any, t: int, order: Any, lo: int, hi: int, panels: Any, stride: int, row: int
) -> None:
    """Step `t` of samples `order[lo:hi]` of `source` (n, m, T) into panels, from `row` on."""
    columns = source.shape[0]
    if not in_one_piece(source):
        _gather_rows(source, t, order, lo, hi, panels, stride, row)
        return
    far = reach_to_read(source) == FAR
    if far:
        prefetch_first(prefetch_to_read, source, t, order, lo, hi, 0, columns)
    for i in range(hi - lo):
        sample = order[lo + i]
        if far and lo + i + AHEAD < hi:
            prefetch_row(prefetch_to_read, source, order[lo + i + AHEAD], t, 0, columns)
        for first in range(0, columns, PANEL):
            out = tile_at(panels, stride, row + i, first)
            if first + PANEL <= columns:
                copy(out, pointer_into(source, first, sample, t), PANEL)
            else:
                fill_row(out, pointer_into(source, first, sample, t), columns - first)


def _unpack_rows_type(dtype: types.Type) -> types.Type:
    index = types.int64
    return types.void(
        types.CPointer(dtype), index, index, array_out(dtype, 3, "A"), index, array_in(index, 1),
        index, index, index,
    )  # fmt: skip


@shared(_unpack_rows_type)
def unpack_rows(
    panels: Any, stride: int, row: int, target: Any, t: int, order: Any, lo: int, hi: int,
    reach: int,
) -> None:  # fmt: skip
    """The way back, into Fortran-ordered `target` (n, m, T) within a `reach`."""
    columns = target.shape[0]
    if reach == FAR:
        prefetch_first(prefetch_to_write, target, t, order, lo, hi, 0, columns)
    for i in range(hi - lo):
        sample = order[lo + i]
        if reach == FAR and lo + i + AHEAD < hi:
            prefetch_row(prefetch_to_write, target, order[lo + i + AHEAD], t, 0, columns)
        for first in range(0, columns, PANEL):
            values = tile_at(panels, stride, row + i, first)
            out = pointer_into(target, first, sample, t)
            if first + PANEL > columns:
                store_row(out, values, columns - first)
            elif reach == PAST:
                copy_lines(out, values, PANEL)
            else:
                copy(out, values, PANEL)
