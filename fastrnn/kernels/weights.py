"""Weights as the right operand of products: packed, copied, or as they lie in memory."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from ._jit import array_in, array_out, inner, shared
from .emitter import Emitter
from .memory import (
    copy,
    move,
    on_stack,
    pointer_to,
    pointer_to_entry,
    prefetch_for_later,
    view,
)
from .panels import WIDTH_BYTES, lanes_at, share_of, tiles_of, width_at, width_of
from .products import multiply_columns, multiply_few, multiply_rows, tiles
from .tile import DOT_COLUMNS, FEW_ROWS, PANEL, ROWS, TILE
from .transposition import transpose

#: Bytes of a block of rows of a tile that stays in the first cache level, and its rows.
BLOCK_BYTES = 16384
BLOCK_ROWS = BLOCK_BYTES // WIDTH_BYTES // PANEL * PANEL
BLOCK_ELEMENTS = BLOCK_BYTES // 4  #: in float32, twice as many as in float64

#: Rows of a tile that a product multiplies by, for one that it asks for ahead of time.
ROWS_PER_ASKED = Emitter.UNROLL * WIDTH_BYTES // Emitter.AHEAD

#: How weights serve their products: packed into tiles; by the tile but not packed, if rows are
#: contiguous, or if rows or columns are, of which a block is transposed where it is needed; by
#: sums along the lanes of registers, from columns, which are copied unless they are contiguous.
PACKED, ROWS_LIE, EITHER_LIES, ALONG = range(4)

#: Steps of few samples (forward; backward `TILE.few_steps`), and rows of a chunk, up to which
#: weights are not packed: it costs as much as these, or twice as many steps where columns are as
#: long as the last number.
FEW_STEPS, FEW_IN_CHUNK, LONG_COLUMN = 8, 4 * FEW_ROWS, 256
#: Length of their columns at a time: those of few rows on the left stay in the first cache level.
DOT_DEPTH = 2048


class Weights(NamedTuple):
    """The right operand (depth, columns) of products.

    Index `k` of a column is at `data + k * step + column * across`: of any column if `step` or
    `across` is 1, of the first one of a column tile if they are packed into tiles.
    """

    data: Any
    step: int
    across: int
    copied: bool  #: into the workspace; if not, they are used as they lie
    along: bool  #: sums run along lanes


def weights_type(dtype: types.Type) -> types.Type:
    """Type of `Weights` of a dtype."""
    fields = types.CPointer(dtype), types.int64, types.int64, *[types.boolean] * 2
    return types.NamedTuple(fields, Weights)


@inner
def _pack_element_wise(
    matrix: Any, column: int, used: int, packed: Any, at: int, padding: float
) -> None:
    """One column tile, of which `used` columns exist, to `at`."""
    width = width_of(packed)
    for k in range(len(matrix)):
        row = at + k * width
        for c in range(used):
            packed[row + c] = matrix[k, column + c]
        for c in range(used, width):
            packed[row + c] = padding


def _pack_weights_type(dtype: types.Type) -> types.Type:
    index = types.int64
    return types.void(array_in(dtype, 2), index, index, array_out(dtype, 1, "C"), index, dtype)


@shared(_pack_weights_type, transpose)
def pack_weights(
    matrix: Any, part: int, parts: int, packed: Any, offset: int, padding: float
) -> None:
    """A part of the column tiles of `matrix` (depth, columns), filled up with `padding`.

    Whole tiles are copied where rows are contiguous, all tiles of a row before the next, and
    transposed where columns are.
    """
    depth, columns = matrix.shape
    width = width_of(packed)
    tiles, whole = tiles_of(columns, width), columns // width
    begin, end = share_of(tiles, part, parts)
    if matrix.strides[1] == matrix.itemsize:
        for k in range(depth):
            for tile in range(begin, min(end, whole)):
                at = pointer_to(packed, offset + (tile * depth + k) * width)
                copy(at, pointer_to_entry(matrix, k, tile * width), width)
    for tile in range(begin, end):
        at, column = offset + tile * depth * width, tile * width
        if tile < whole and matrix.strides[1] == matrix.itemsize:
            continue
        if tile < whole and matrix.strides[0] == matrix.itemsize:
            stride = matrix.strides[1] // matrix.itemsize
            source = pointer_to_entry(matrix, 0, column)
            transpose(pointer_to(packed, at), width, source, stride, width, depth)
        else:
            _pack_element_wise(matrix, column, min(width, columns - column), packed, at, padding)


@inner
def _one_step(active: Any, sizes: Any) -> bool:
    """Whether there is no second step: of blocks by length the first is the longest."""
    return active.size <= 2 * sizes.blocks or (not sizes.apart and active[1] == 0)


@inner
def _few_rows(active: Any, sizes: Any) -> bool:
    """Whether weights that all rows are multiplied by serve too few of them to be packed."""
    few = sizes.capacity <= FEW_IN_CHUNK or _one_step(active, sizes)
    return few and sizes.blocks == 1


@inner
def _few_steps(most: int, active: Any, sizes: Any) -> bool:
    """Whether weights of the recurrence serve too few steps, `most` at most, to be packed."""
    few = active.size <= most or active[most] == 0
    return few and active[0] <= FEW_ROWS and sizes.blocks == 1


@inner
def ways_backward(active: Any, sizes: Any) -> tuple[int, int]:
    """How `Wax` and `Waa` serve their products backward."""
    way_x = EITHER_LIES if _few_rows(active, sizes) else PACKED
    if _one_step(active, sizes):
        return way_x, way_x
    return way_x, ROWS_LIE if _few_steps(TILE.few_steps, active, sizes) else PACKED


@inner
def ways_forward(n_a: int, samples: int, active: Any, sizes: Any) -> tuple[int, int]:
    """How `Wax` and `Wya`, and `Waa`, serve their products forward."""
    if samples > TILE.along:
        return ways_backward(active, sizes)
    one, most = _one_step(active, sizes), 2 * FEW_STEPS if n_a >= LONG_COLUMN else FEW_STEPS
    along_x, along_a = one or _few_rows(active, sizes), one or _few_steps(most, active, sizes)
    return ALONG if along_x else PACKED, ALONG if along_a else PACKED


@inner
def _lies(matrix: Any, way: int) -> bool:
    """Whether a matrix (depth, columns) serves as it lies."""
    columns, rows = matrix.strides[0] == matrix.itemsize, matrix.strides[1] == matrix.itemsize
    if way == EITHER_LIES:
        return columns or rows
    return columns if way == ALONG else rows and way == ROWS_LIE


@inner
def packed_weights(matrix: Any, work: Any, at: int) -> Weights:
    """Weights in column tiles, at an index of the workspace."""
    return Weights(pointer_to(work, at), width_of(work), matrix.shape[0], True, False)


@inner
def weights_for(matrix: Any, way: int, work: Any, at: int) -> Weights:
    """Weights that serve in a way, from the matrix (depth, columns) or a copy of it."""
    if _lies(matrix, way):
        step, across = matrix.strides[0] // matrix.itemsize, matrix.strides[1] // matrix.itemsize
        return Weights(pointer_to_entry(matrix, 0, 0), step, across, False, way == ALONG)
    if way == ALONG:
        return Weights(pointer_to(work, at), 1, matrix.shape[0], True, True)
    return packed_weights(matrix, work, at)


@inner
def copied_size(matrix: Any, way: int, width: int) -> int:
    """Elements of a copy of weights (depth, columns) in the workspace, if there is one."""
    return 0 if _lies(matrix, way) else tiles_of(matrix.shape[1], width) * width * matrix.shape[0]


@inner
def _copy_columns(matrix: Any, part: int, parts: int, copied: Any, offset: int) -> None:
    """A part of the columns of `matrix` (depth, columns), one behind the other."""
    depth, columns = matrix.shape
    first, last = share_of(columns, part, parts)
    if matrix.strides[1] == matrix.itemsize:
        transpose(
            pointer_to(copied, offset + first * depth), depth, pointer_to_entry(matrix, 0, first),
            matrix.strides[0] // matrix.itemsize, depth, last - first,
        )  # fmt: skip
        return
    for c in range(first, last):
        for k in range(depth):
            copied[offset + c * depth + k] = matrix[k, c]


def _lay_out_type(dtype: types.Type) -> types.Type:
    index = types.int64
    return types.void(
        weights_type(dtype), array_in(dtype, 2), index, index, array_out(dtype, 1, "C"), index
    )


@shared(_lay_out_type, pack_weights, transpose)
def lay_out(weights: Weights, matrix: Any, part: int, parts: int, work: Any, at: int) -> None:
    """Copy a part of the weights into the workspace, unless they are used as they lie."""
    if weights.copied and weights.along:
        _copy_columns(matrix, part, parts, work, at)
    elif weights.copied:
        pack_weights(matrix, part, parts, work, at, 0.0)


@inner
def _multiply_along(
    rows: int, columns: int, depth: int, left: Any, stride: int, right: Any, across: int,
    start: Any, start_stride: int, out: Any,
) -> None:  # fmt: skip
    """`multiply_column` by sums along lanes, for columns that are contiguous and `across` apart."""
    lanes, used = lanes_at(out), min(columns, width_at(out))
    some = min(DOT_COLUMNS, lanes)
    for k in range(0, max(depth, 1), DOT_DEPTH):
        for c in range(0, (used + lanes - 1) // lanes * lanes, some):
            for first in range(0, rows, FEW_ROWS):
                multiply_columns(
                    min(FEW_ROWS, rows - first),
                    columns - 1 - c,
                    min(DOT_DEPTH, depth - k),
                    move(left, k // PANEL * stride + first * PANEL),
                    stride,
                    move(right, c * across + k),
                    across,
                    move(start, first * start_stride + c),
                    start_stride,
                    move(out, first * PANEL + c),
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
            prefetch_for_later(move(values, 2 * width))
        if columns < width:
            if step != 1:
                copy(row, values, columns)
            for c in range(columns, width):
                view(row, width)[c] = 0
        elif step != 1:
            copy(row, values, width)  # a constant: vector moves


@inner
def _multiply_lying(
    rows: int, columns: int, depth: int, left: Any, stride: int, right: Any, step: int,
    across: int, start: Any, start_stride: int, out: Any,
) -> None:  # fmt: skip
    """`multiply_column` by the tile for weights whose rows or columns are contiguous.

    A block is copied first, unless a single tile can take it as it lies: from whole rows.
    """
    copied, width = on_stack(out, BLOCK_ELEMENTS), width_at(out)
    for k in range(0, max(depth, 1), BLOCK_ROWS):
        some = min(BLOCK_ROWS, depth - k)
        block, block_step = move(right, k * step), step
        if columns < width or rows > ROWS or step == 1:
            _copy_tile(block, step, across, some, columns, copied)
            block, block_step = copied, width
        for first in range(0, rows, ROWS):
            multiply_rows(
                min(ROWS, rows - first),
                columns,
                some,
                move(left, k // PANEL * stride + first * PANEL),
                stride,
                block,
                block_step,
                left,  # what is asked for is there already
                move(start, first * start_stride),
                start_stride,
                move(out, first * PANEL),
            )
        start, start_stride = out, PANEL


@inner
def _multiply_packed(
    rows: int, columns: int, depth: int, left: Any, stride: int, right: Any, after: Any,
    start: Any, start_stride: int, out: Any,
) -> None:  # fmt: skip
    """`multiply_column` for packed weights; those at `after`, likely, will be multiplied next.

    They are asked for meanwhile, each call a share; a single one can ask for half of a block. What
    lies behind all weights is not: one worker writes there, and would lose its cache lines to all
    that ask.

    The depth goes in blocks, so that a block of the weights stays in the first cache level for
    all rows; a sum continues where the block before left it.
    """
    parts, width = (rows + ROWS - 1) // ROWS, width_at(out)
    for k in range(0, max(depth, 1), BLOCK_ROWS):
        some, rest = min(BLOCK_ROWS, depth - k), depth - k - BLOCK_ROWS
        ahead = move(right, (k + BLOCK_ROWS) * width) if rest > 0 else after
        following = min(BLOCK_ROWS, rest if rest > 0 else depth)
        asked = some // PANEL * PANEL // ROWS_PER_ASKED
        if asked > following:
            ahead, following = move(right, k * width), some
        for i in range(parts):
            first, last = share_of(rows, i, parts)
            multiply_rows(
                last - first,
                columns,
                some,
                move(left, k // PANEL * stride + first * PANEL),
                stride,
                move(right, k * width),
                width,
                move(ahead, (following - asked) * i // max(parts - 1, 1) * width),
                move(start, first * start_stride),
                start_stride,
                move(out, first * PANEL),
            )
        start = out
        start_stride = PANEL


def _multiply_column_type(dtype: types.Type) -> types.Type:
    index, pointer = types.int64, types.CPointer(dtype)
    return types.void(
        index, index, index, pointer, index, weights_type(dtype), index, index, pointer, index,
        pointer,
    )  # fmt: skip


@shared(_multiply_column_type, tiles, transpose)
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
        _multiply_along(
            rows, columns, depth, left, stride, right, weights.across, start, start_stride, out
        )  # fmt: skip
    elif weights.copied:
        after = move(right, width * weights.across) if columns > width else begin
        _multiply_packed(rows, used, depth, left, stride, right, after, start, start_stride, out)
    else:
        _multiply_lying(
            rows, used, depth, left, stride, right, weights.step, weights.across, start,
            start_stride, out,
        )  # fmt: skip


@inner
def tiles_at_once(weights: Weights, rows: int, column: int, columns: int, out: Any) -> int:
    """Tiles of `out` from `column` on that are multiplied at once, up to `columns`.

    Several for few rows, whose sums are so few that multipliers would wait for them.
    """
    if rows > FEW_ROWS or weights.along or not weights.copied or column % PANEL != 0:
        return 1
    room = (columns - column) // width_at(out)
    if room >= 4 and 4 * rows <= ROWS:
        return 4
    return 2 if room >= 2 else 1


@inner
def add_to_tiles(
    tiles: int, rows: int, depth: int, left: Any, stride: int, weights: Weights, k: int,
    column: int, out: Any,
) -> None:  # fmt: skip
    """Several column tiles of `out += left @ weights`, as `multiply_column` makes each."""
    begin = move(weights.data, k * weights.step + column * weights.across)
    for first in range(0, depth, BLOCK_ROWS):
        multiply_few(
            rows, tiles, min(BLOCK_ROWS, depth - first), move(left, first // PANEL * stride),
            stride, move(begin, first * weights.step), width_at(out) * weights.across, out,
        )  # fmt: skip
