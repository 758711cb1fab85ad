"""Packing into panels and weights, unpacking out of them, and products of whole columns."""

from __future__ import annotations

from typing import Any

from numba import carray

from ._jit import inner
from .memory import (
    CACHE_LINE,
    FAR,
    PAST,
    copy,
    copy_lines,
    move,
    pointer_into,
    pointer_to,
    pointer_to_entry,
    prefetch_to_read,
    prefetch_to_write,
    reach_to_read,
)
from .parts import fill_row, store_row
from .tile import PANEL, ROWS, TILE, add_transposed_product, multiply_rows
from .transposition import transpose_block

#: Bytes in one row of a tile, and of a block of rows that stays in the first cache level.
WIDTH_BYTES = TILE.vectors * TILE.vector_bytes
BLOCK_BYTES = 16384

#: Rows whose products are summed on their own before they join a weight gradient: one chain over
#: all rows would lose more digits than NumPy's sum over the steps does.
SUMMED_ROWS = 64

#: Rows ahead of the one being copied whose cache lines are asked for: samples lie in any order, so
#: the processor cannot guess them.
AHEAD = 8


@inner
def width_of(array: Any) -> int:
    """Columns of a tile in the dtype of `array`."""
    return WIDTH_BYTES // array.itemsize


@inner
def panels_of(columns: int) -> int:
    """Panels that hold so many columns."""
    return (columns + PANEL - 1) // PANEL


@inner
def tiles_of(columns: int, width: int) -> int:
    """Tiles that hold so many columns."""
    return (columns + width - 1) // width


@inner
def tile_at(panels: Any, stride: int, row: int, column: int) -> Any:
    """Pointer to `row` of the tile that starts at `column`, in panels `stride` apart."""
    return move(panels, column // PANEL * stride + row * PANEL + column % PANEL)


@inner
def _pack_element_wise(
    matrix: Any, first: int, last: int, column: int, used: int, packed: Any, at: int,
    padding: float,
) -> None:  # fmt: skip
    """Rows `first` to `last` of one column tile, of which `used` columns exist, to `at`."""
    width = width_of(packed)
    for k in range(first, last):
        row = at + (k - first) * width
        for c in range(used):
            packed[row + c] = matrix[k, column + c]
        for c in range(used, width):
            packed[row + c] = padding


@inner
def pack_weights(
    matrix: Any, part: int, parts: int, packed: Any, offset: int, padding: float
) -> None:
    """A part of the column tiles of `matrix` (depth, columns), filled up with `padding`.

    Whole tiles are copied where rows are contiguous, all tiles of a row before the next, and
    transposed block by block where columns are.
    """
    depth, columns = matrix.shape
    width, lanes = width_of(packed), width_of(packed) // TILE.vectors
    tiles, whole = tiles_of(columns, width), columns // width
    begin, end = tiles * part // parts, tiles * (part + 1) // parts
    if matrix.strides[1] == matrix.itemsize:
        for k in range(depth):
            for tile in range(begin, min(end, whole)):
                at = pointer_to(packed, offset + (tile * depth + k) * width)
                copy(at, pointer_to_entry(matrix, k, tile * width), width)
    for tile in range(begin, end):
        at, column, first = offset + tile * depth * width, tile * width, 0
        if tile < whole and matrix.strides[1] == matrix.itemsize:
            first = depth
        elif tile < whole and matrix.strides[0] == matrix.itemsize:
            first = depth // lanes * lanes
            stride = matrix.strides[1] // matrix.itemsize
            for k in range(0, first, lanes):
                for c in range(0, width, lanes):
                    block = pointer_to(packed, at + k * width + c)
                    transpose_block(block, width, pointer_to_entry(matrix, k, column + c), stride)
        used = min(width, columns - column)
        _pack_element_wise(
            matrix, first, depth, column, used, packed, at + first * width, padding
        )  # fmt: skip


@inner
def prefetch_row(prefetch: Any, array: Any, sample: int, t: int, first: int, last: int) -> None:
    """Ask for columns `first` to `last` of one row of `array` (n, m, T), contiguous along n."""
    for k in range(first, last, CACHE_LINE // array.itemsize):
        prefetch(pointer_into(array, k, sample, t))


@inner
def prefetch_first(
    prefetch: Any, array: Any, t: int, order: Any, lo: int, hi: int, first: int, last: int
) -> None:
    """Ask for these columns of the first of the samples `order[lo:hi]`; others follow in time."""
    for i in range(lo, min(lo + AHEAD, hi)):
        prefetch_row(prefetch, array, order[i], t, first, last)


@inner
def pack_rows(
    source: Any, t: int, order: Any, lo: int, hi: int, panels: Any, stride: int, row: int
) -> None:
    """Step `t` of samples `order[lo:hi]` of `source` (n, m, T) into panels, from `row` on."""
    columns = source.shape[0]
    contiguous = source.strides[0] == source.itemsize
    far = contiguous and reach_to_read(source) == FAR
    if far:
        prefetch_first(prefetch_to_read, source, t, order, lo, hi, 0, columns)
    for i in range(hi - lo):
        sample = order[lo + i]
        if far and lo + i + AHEAD < hi:
            prefetch_row(prefetch_to_read, source, order[lo + i + AHEAD], t, 0, columns)
        for first in range(0, columns, PANEL):
            out_at = tile_at(panels, stride, row + i, first)
            if contiguous and first + PANEL <= columns:
                copy(out_at, pointer_into(source, first, sample, t), PANEL)
            elif contiguous:
                fill_row(out_at, pointer_into(source, first, sample, t), columns - first)
            else:
                out = carray(out_at, (PANEL,))
                used = min(PANEL, columns - first)
                for c in range(used):
                    out[c] = source[first + c, sample, t]
                for c in range(used, PANEL):
                    out[c] = 0


@inner
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


@inner
def multiply_column(
    rows: int, columns: int, depth: int, left: Any, stride: int, weights: Any, start: Any,
    start_stride: int, out: Any, width: int,
) -> None:  # fmt: skip
    """One column tile of `out = start + left @ weights`, `left` in panels `stride` apart.

    The depth goes in blocks, so that a block of the weights stays in the first cache level for
    all rows; a sum continues where the block before left it. The first `columns` of the tile are
    computed, and no more than fill up a register.
    """
    block = BLOCK_BYTES // WIDTH_BYTES // PANEL * PANEL
    tiles = (rows + ROWS - 1) // ROWS
    for k in range(0, max(depth, 1), block):
        for i in range(tiles):
            first = rows * i // tiles
            multiply_rows(
                rows * (i + 1) // tiles - first,
                min(columns, width),
                min(block, depth - k),
                move(left, k // PANEL * stride + first * PANEL),
                stride,
                move(weights, k * width),
                move(weights, (k + block + block * i // tiles) * width),
                move(start, first * start_stride),
                start_stride,
                move(out, first * PANEL),
            )
        start = out
        start_stride = PANEL


@inner
def add_outer(
    rows: int, features: int, left: Any, right: Any, right_stride: int, columns: int, zeros: Any,
    fresh: bool, out: Any, out_stride: int, width: int,
) -> None:  # fmt: skip
    """`out += left.T @ right` for one panel `left` of `features` columns and all of `right`.

    `out` has one row for each feature, `out_stride` elements apart and filled up to whole tiles.
    If it is `fresh`, it holds anything, and counts as the `zeros` of one tile's row.
    """
    tiles = (features + ROWS - 1) // ROWS
    for j in range(0, columns, width):
        for i in range(tiles):
            first = features * i // tiles
            target = move(out, first * out_stride + j)
            for k in range(0, rows, SUMMED_ROWS):
                add_transposed_product(
                    features * (i + 1) // tiles - first,
                    min(columns - j, width),
                    min(SUMMED_ROWS, rows - k),
                    move(left, k * PANEL + first),
                    tile_at(right, right_stride, k, j),
                    zeros if fresh and k == 0 else target,
                    0 if fresh and k == 0 else out_stride,
                    target,
                    out_stride,
                )
