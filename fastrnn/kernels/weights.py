"""Weights as the right operand of products: packed, copied, or as they lie in memory."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from ._jit import array_in, array_out, inner, shared
from .memory import copy, itemsize_of, pointer_to, pointer_to_entry
from .panels import share_of, tiles_of, width_at
from .tile import FEW_ROWS, TILE
from .transposition import transpose

#: How weights serve their products: packed into tiles; by the tile but not packed, if rows are
#: contiguous, or if rows or columns are, of which a block is transposed where it is needed; by
#: sums along the lanes of registers, from columns, which are copied unless they are contiguous.
PACKED, ROWS_LIE, EITHER_LIES, ALONG = range(4)

#: Steps of few samples (forward; backward `TILE.few_steps`), and rows of a chunk, up to which
#: weights are not packed: it costs as much as these. Forward, where columns of `Waa` are as long as
#: the last number, it costs as much as twice as many steps.
FEW_STEPS, FEW_IN_CHUNK, LONG_COLUMN = 8, 4 * FEW_ROWS, 256


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
    width = width_at(packed)
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
    width = width_at(packed)
    tiles, whole = tiles_of(columns, width), columns // width
    begin, end = share_of(tiles, part, parts)
    if matrix.strides[1] == itemsize_of(matrix):
        for k in range(depth):
            for tile in range(begin, min(end, whole)):
                at = pointer_to(packed, offset + (tile * depth + k) * width)
                copy(at, pointer_to_entry(matrix, k, tile * width), width)
    for tile in range(begin, end):
        at, column = offset + tile * depth * width, tile * width
        if tile < whole and matrix.strides[1] == itemsize_of(matrix):
            continue
        if tile < whole and matrix.strides[0] == itemsize_of(matrix):
            stride = matrix.strides[1] // itemsize_of(matrix)
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
    one = itemsize_of(matrix)
    columns, rows = matrix.strides[0] == one, matrix.strides[1] == one
    if way == EITHER_LIES:
        return columns or rows
    return columns if way == ALONG else rows and way == ROWS_LIE


@inner
def packed_weights(matrix: Any, work: Any, at: int) -> Weights:
    """Weights in column tiles, at an index of the workspace."""
    return Weights(pointer_to(work, at), width_at(work), matrix.shape[0], True, False)


@inner
def weights_for(matrix: Any, way: int, work: Any, at: int) -> Weights:
    """Weights that serve in a way, from the matrix (depth, columns) or a copy of it."""
    if _lies(matrix, way):
        one = itemsize_of(matrix)
        step, across = matrix.strides[0] // one, matrix.strides[1] // one
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
    if matrix.strides[1] == itemsize_of(matrix):
        transpose(
            pointer_to(copied, offset + first * depth), depth, pointer_to_entry(matrix, 0, first),
            matrix.strides[0] // itemsize_of(matrix), depth, last - first,
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
