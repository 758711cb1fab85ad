"""Column tiles of a product with weights, in whichever way these serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ._jit import inner, shared
from .emitter import Emitter
from .memory import CACHE_LINE, copy, move, on_stack, prefetch_for_later, view
from .panels import WIDTH_BYTES, rows_at_once, tiles_of, width_at
from .products import multiply_columns, multiply_few, multiply_rows, tiles
from .tile import PANEL, ROWS, TILE
from .transposition import transpose
from .weights import Weights

#: Bytes of a block of rows of a tile that stays in the first cache level, and its rows.
BLOCK_BYTES = 16384
BLOCK_ROWS = BLOCK_BYTES // WIDTH_BYTES // PANEL * PANEL
BLOCK_ELEMENTS = BLOCK_BYTES // 4  #: in float32, twice as many as in float64

#: Rows of a tile that a product multiplies by, for one that it asks for ahead of time.
ROWS_PER_ASKED = Emitter.UNROLL * WIDTH_BYTES // Emitter.AHEAD

#: Length of columns that are summed along lanes at a time: as many of few rows on the left stay in
#: the first cache level.
DOT_DEPTH = 2048


def _product_type(right: Callable[[types.Type], list[types.Type]]) -> Callable[..., Any]:
    """Type of a way to multiply; `right` are the types of what it needs of weights beside them."""
    index = types.int64

    def signature(dtype: types.Type) -> types.Type:
        pointer = types.CPointer(dtype)
        return types.void(
            index, index, index, pointer, index, pointer, *right(dtype), pointer, index, pointer
        )

    return signature


@shared(_product_type(lambda dtype: [types.int64]), tiles)
def multiply_along(
    rows: int, columns: int, depth: int, left: Any, stride: int, right: Any, across: int,
    start: Any, start_stride: int, out: Any,
) -> None:  # fmt: skip
    """`multiply_column` by sums along lanes, for columns that are contiguous and `across` apart."""
    for k in range(0, max(depth, 1), DOT_DEPTH):
        multiply_columns(
            rows,
            columns,
            min(DOT_DEPTH, depth - k),
            move(left, k // PANEL * stride),
            stride,
            move(right, k),
            across,
            start,
            start_stride,
            out,
        )
        start, start_stride = out, PANEL


@inner
def _copy_tile(weights: Any, step: int, across: int, depth: int, columns: int, out: Any) -> None:
    """Rows of a tile, from contiguous rows of weights, or, if `step` is 1, from contiguous columns.

    They are filled up to the tile's width with 0: what comes of it is added to -inf for padded
    classes, and must not be NaN. Of contiguous rows, each in a page of its own where they are long,
    the tile after the next is asked for.
    """
    width = width_at(out)
    if step == 1:
        transpose(out, width, weights, across, columns, depth)
    for k in range(depth):
        row, values = move(out, k * width), move(weights, k * step)
        if step != 1 and not TILE.prefetches:
            for line in range(0, width, width * CACHE_LINE // WIDTH_BYTES):
                prefetch_for_later(move(values, 2 * width + line))
        if columns < width:
            if step != 1:
                copy(row, values, columns)
            for c in range(columns, width):
                view(row, width)[c] = 0
        elif step != 1:
            copy(row, values, width)  # a constant: vector moves


@shared(_product_type(lambda dtype: [types.int64] * 2), tiles, transpose)
def multiply_lying(
    rows: int, columns: int, depth: int, left: Any, stride: int, right: Any, step: int,
    across: int, start: Any, start_stride: int, out: Any,
) -> None:  # fmt: skip
    """`multiply_column` by the tile for weights whose rows or columns are contiguous.

    A block is copied first, unless a single tile can take it as it lies: from whole rows.
    """
    copied, width = on_stack(out, BLOCK_ELEMENTS), width_at(out)
    at_once = rows_at_once(columns, out)
    for k in range(0, max(depth, 1), BLOCK_ROWS):
        some = min(BLOCK_ROWS, depth - k)
        block, block_step = move(right, k * step), step
        if columns < width or rows > at_once or step == 1:
            _copy_tile(block, step, across, some, columns, copied)
            block, block_step = copied, width
        multiply_rows(
            rows,
            columns,
            some,
            move(left, k // PANEL * stride),
            stride,
            block,
            block_step,
            left,  # what is asked for is there already
            0,
            start,
            start_stride,
            out,
        )
        start, start_stride = out, PANEL


@inner
def start_of_last_tile(rows: int, at_once: int) -> int:
    """First row of the last tile into which `multiply_rows` cuts so many."""
    if rows <= at_once:
        return 0
    last_two = rows - (tiles_of(rows, at_once) - 2) * at_once
    return rows - last_two // 2


@shared(_product_type(lambda dtype: [types.CPointer(dtype)]), tiles)
def multiply_packed(
    rows: int, columns: int, depth: int, left: Any, stride: int, right: Any, after: Any,
    start: Any, start_stride: int, out: Any,
) -> None:  # fmt: skip
    """`multiply_column` for packed weights; those at `after`, likely, will be multiplied next.

    They are asked for meanwhile, each tile a share; a single one can ask for half of a block, or
    a quarter. What lies behind all weights is not: one worker writes there, and would lose its
    cache lines to all that ask.

    The depth goes in blocks, so that a block of the weights stays in the first cache level for
    all rows; a sum continues where the block before left it.
    """
    width, last = width_at(out), start_of_last_tile(rows, rows_at_once(columns, out))
    for k in range(0, max(depth, 1), BLOCK_ROWS):
        some, rest = min(BLOCK_ROWS, depth - k), depth - k - BLOCK_ROWS
        ahead = move(right, (k + BLOCK_ROWS) * width) if rest > 0 else after
        following = min(BLOCK_ROWS, rest if rest > 0 else depth)
        asked = some // PANEL * PANEL // ROWS_PER_ASKED
        if asked > following:
            ahead, following = move(right, k * width), some
        multiply_rows(
            rows,
            columns,
            some,
            move(left, k // PANEL * stride),
            stride,
            move(right, k * width),
            width,
            ahead,
            (following - asked) * width // max(last, 1),
            start,
            start_stride,
            out,
        )
        start, start_stride = out, PANEL


#: What `multiply_column` calls by symbols.
PRODUCTS = multiply_along, multiply_lying, multiply_packed, tiles


@inner
def multiply_column(
    rows: int, columns: int, depth: int, left: Any, stride: int, weights: Weights, k: int,
    column: int, start: Any, start_stride: int, out: Any,
) -> None:  # fmt: skip
    """One column tile of `out = start + left @ weights`, `left` in panels `stride` apart.

    The product takes the weights from index `k` of their depth on, and `depth` of them. The first
    `columns` of the tile are computed, and no more than fill up a register.
    """
    begin, width = move(weights.data, k * weights.step), width_at(out)
    right = move(begin, column * weights.across)
    used = min(columns, width)
    if weights.along:
        multiply_along(
            rows, columns, depth, left, stride, right, weights.across, start, start_stride, out
        )  # fmt: skip
    elif weights.copied:
        after = move(right, width * weights.across) if columns > width else begin
        if rows <= ROWS and depth <= BLOCK_ROWS:  # a single tile: saves a call
            multiply_rows(
                rows, used, depth, left, stride, right, width, after, 0, start, start_stride, out
            )  # fmt: skip
        else:
            multiply_packed(rows, used, depth, left, stride, right, after, start, start_stride, out)
    else:
        multiply_lying(
            rows, used, depth, left, stride, right, weights.step, weights.across, start,
            start_stride, out,
        )  # fmt: skip


@inner
def tiles_at_once(weights: Weights, rows: int, column: int, end: int, out: Any) -> int:
    """Tiles of `out` from `column` on, up to the column `end`, that are multiplied at once.

    Several for few rows, whose sums are so few that multipliers would wait for them.
    """
    if weights.along or not weights.copied or column % PANEL != 0:
        return 1
    room = (end - column) // width_at(out)
    if room >= 4 and 4 * rows <= ROWS:
        return 4
    return 2 if room >= 2 and 2 * rows <= ROWS else 1


@inner
def add_to_tiles(
    number: int, rows: int, depth: int, left: Any, stride: int, weights: Weights, k: int,
    column: int, out: Any,
) -> None:  # fmt: skip
    """Several column tiles of `out += left @ weights`, as `multiply_column` makes each."""
    begin = move(weights.data, k * weights.step + column * weights.across)
    for first in range(0, depth, BLOCK_ROWS):
        multiply_few(
            rows, number, min(BLOCK_ROWS, depth - first), move(left, first // PANEL * stride),
            stride, move(begin, first * weights.step), width_at(out) * weights.across, out,
        )  # fmt: skip
