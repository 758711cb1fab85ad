"""Rows of a chunk in and out of panels, products of all of them, and the products of one step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ._jit import array_in, array_out, inlined, inner, shared
from .columns import BLOCK_ROWS, PRODUCTS, add_to_tiles, multiply_column, tiles_at_once
from .memory import (
    FAR,
    NEAR,
    by_sample,
    copy_lines,
    itemsize_of,
    move,
    on_stack,
    pointer_into,
    pointer_to,
    reach_to_read,
    starts_lines,
)
from .panels import (
    NEAR_COLUMNS,
    Rows,
    columns_from,
    in_one_piece,
    lanes_at,
    pack_rows,
    panels_of,
    prefetch_first,
    rows_in,
    share_of,
    tile_at,
    tiles_of,
    unpack_rows,
    width_at,
)
from .parts import clear_row
from .stages import WHERE, Block, Stage, rows_at, step_of
from .tile import PANEL, ROWS, TILE
from .transposition import transpose
from .weights import Weights, weights_type

#: Bytes of a block that is staged, at most: it is read again soon.
STAGED_BYTES = 1 << 24

#: Rows of a step whose states stay there in whole.
NEAR_ROWS = 64

#: 0, 1, 2 and so on: the order of the steps of a sample that is active alone. One call packs so
#: many of them at most, which is all of a chunk (`_plan._CHUNK` rows) of a batch of one sample.
_COUNTING = np.arange(256, dtype=np.int64)


@inner
def side_of(panels: Any, side: int, columns: int, stride: int) -> Any:
    """One of two buffers of `columns` columns."""
    return move(panels, side * panels_of(columns) * stride)


@inner
def staged_size(array: Any, sizes: Any) -> int:
    """Elements of the samples of a block, if they are to be staged, and else 0.

    In C order (n, m, T) a row takes a number from each of `n` cache lines, and the rows of the next
    chunk take others from the same lines, which have left the second cache level by then if they
    are a multiple of a large power of two apart. So a block is transposed as a whole before.
    """
    n, m, T = array.shape
    size = (m + sizes.blocks - 1) // sizes.blocks * T * n
    one = itemsize_of(array)
    in_steps = array.strides[2] == one and not in_one_piece(n, array.strides[0], array)
    whole = array.strides[0] % one == 0
    worth = T * one >= TILE.vector_bytes and size * one <= STAGED_BYTES
    return size if sizes.apart and in_steps and whole and worth else 0


@inner
def _stage(array: Any, order: Any, active: Any, block: Block, staged: Any) -> None:
    """Copy the samples of a block to `staged`: each as its steps, and each of these contiguous."""
    n, _, T = array.shape
    lanes, steps = lanes_at(staged), block.steps
    for i in range(active[block.at]):
        while active[block.at + steps - 1] <= i:
            steps -= 1
        sample, rounded = order[block.lo + i], (steps + lanes - 1) // lanes * lanes
        transpose(
            move(staged, (sample - block.lo) * T * n), n, pointer_into(array, 0, sample, 0),
            array.strides[0] // itemsize_of(array), n, rounded if rounded <= T else steps,
        )  # fmt: skip


@inner
def _turns_alone(block: Block, active: Any, turn: int, end: int) -> int:
    """Turns from `turn` on, before `end`, in which one and the same sample is active; else 1."""
    turns = 1
    if rows_at(block, active, turn) == 1:
        most = min(len(_COUNTING), end - turn)
        while turns < most and rows_at(block, active, turn + turns) == 1:
            turns += 1
    return turns


@inner
def _rows_of_turns(
    array: Any, shift: int, order: Any, block: Block, turn: int, turns: int, first: int
) -> Rows:
    """Rows of `array` (n, m, T) from the `first` of a turn on, or of some turns of one sample."""
    if turns == 1:
        return rows_in(array, step_of(block, turn) - shift, order, block.lo + first)
    across, _, later = array.strides
    begin = pointer_into(array, 0, order[block.lo], step_of(block, turn + first) - shift)
    return Rows(begin, across, -later if block.backward else later, pointer_to(_COUNTING, 0))


def _pack_chunk_type(dtype: types.Type) -> types.Type:
    index, pointer = types.int64, types.CPointer(dtype)
    array, numbers = array_in(dtype, 3), array_in(index, 1)
    return types.void(
        array, array, index, numbers, numbers, *WHERE, index, index, pointer, index, pointer, index
    )


@shared(_pack_chunk_type, pack_rows, transpose)
def pack_chunk(
    source: Any, a0: Any, shift: int, order: Any, active: Any, block: Block, stage: Stage,
    first: int, last: int, panels: Any, stride: int, staged: Any, room: int,
) -> None:  # fmt: skip
    """Rows `first` to `last` of a chunk; from `source` (n, m, T), those of step `t - shift`.

    With a shift of 1, for blocks that go backward, the step before the first is `a0` (n, m, 1). If
    there is `room`, the first chunk brings the block to `staged`, from where all take it.
    """
    if room:
        if stage.begin == 0:
            _stage(source, order, active, block, staged)
        n, _, T = source.shape
        source = by_sample(source, move(staged, -block.lo * T * n))
    reach, row, turn = reach_to_read(source), 0, stage.begin
    while turn < stage.end:
        turns = _turns_alone(block, active, turn, min(stage.end, block.steps - shift))
        rows = turns * rows_at(block, active, turn)
        lo, hi = max(first - row, 0), min(last - row, rows)
        if lo < hi:
            if step_of(block, turn) < shift:
                own = rows_in(a0, 0, order, block.lo + lo)
            else:
                own = _rows_of_turns(source, shift, order, block, turn, turns, lo)
            out = move(panels, (row + lo) * PANEL)
            pack_rows(own, len(source), hi - lo, reach, out, stride)
        row += rows
        turn += turns


def _unpack_chunk_type(dtype: types.Type) -> types.Type:
    index = types.int64
    numbers = array_in(index, 1)
    return types.void(
        types.CPointer(dtype), index, numbers, numbers, *WHERE, index, index,
        array_out(dtype, 3, "A"), index,
    )  # fmt: skip


@shared(_unpack_chunk_type, unpack_rows)
def unpack_chunk(
    panels: Any, stride: int, order: Any, active: Any, block: Block, stage: Stage,
    first: int, last: int, target: Any, reach: int,
) -> None:  # fmt: skip
    """The way back: rows `first` to `last` of a chunk into Fortran-ordered `target` (n, m, T)."""
    row, turn = 0, stage.begin
    while turn < stage.end:
        turns = _turns_alone(block, active, turn, stage.end)
        rows = turns * rows_at(block, active, turn)
        lo, hi = max(first - row, 0), min(last - row, rows)
        if lo < hi:
            own = _rows_of_turns(target, 0, order, block, turn, turns, lo)
            values = move(panels, (row + lo) * PANEL)
            unpack_rows(values, stride, own, len(target), hi - lo, reach)
        row += rows
        turn += turns


@inner
def clear_padding(
    target: Any, order: Any, active: Any, block: Block, part: int, parts: int, reach: int
) -> None:
    """Set Fortran-ordered `target` (n, m, T) to 0 where samples of a block have ended.

    What the second cache level does not hold goes past the caches, if rows start cache lines:
    nobody reads it soon.
    """
    columns, _, T = target.shape
    begin = pointer_into(target, 0, 0, 0)
    past = reach != NEAR and starts_lines(begin, columns * itemsize_of(target))
    zeros = on_stack(begin, PANEL)
    clear_row(zeros, PANEL)
    for t in range(part, T, parts):
        for i in range(block.lo + active[block.at + t], block.hi):
            for first in range(0, columns, PANEL):
                out = pointer_into(target, first, order[i], t)
                if past and first + PANEL <= columns:
                    copy_lines(out, zeros, PANEL)
                else:
                    clear_row(out, columns - first)


@inner
def depth_at_once(weights: Weights, rows: int, most: int) -> int:
    """Depth of weights that all column tiles go through before the next, `most` of them at most.

    Tiles side by side share cache lines of weights that lie as they are, if their rows do not start
    one. Such lines leave the caches early where long rows, often powers of two, are far apart. The
    sums of a product are cut there in any case, so `rows` may be those of a part of a stage.
    """
    lie = not weights.copied and weights.step >= NEAR_COLUMNS
    return BLOCK_ROWS if lie and rows <= ROWS else most


@inner
def multiply_rows_of(
    first: int, last: int, depth: int, left: Any, weights: Weights, bias: Any, columns: int,
    out: Any, stride: int,
) -> None:  # fmt: skip
    """Rows `first` to `last` of `out = bias + left @ weights`, all of its columns."""
    tiles = tiles_of(columns, width_at(out))
    multiply_tiles_of(0, tiles, first, last, depth, left, weights, bias, columns, out, stride)


def _multiply_tiles_of_type(dtype: types.Type) -> types.Type:
    index, pointer = types.int64, types.CPointer(dtype)
    return types.void(
        index, index, index, index, index, pointer, weights_type(dtype), pointer, index, pointer,
        index,
    )  # fmt: skip


@shared(_multiply_tiles_of_type, *PRODUCTS)
def multiply_tiles_of(
    first_tile: int, last_tile: int, first: int, last: int, depth: int, left: Any,
    weights: Weights, bias: Any, columns: int, out: Any, stride: int,
) -> None:  # fmt: skip
    """Some column tiles of `multiply_rows_of`."""
    width, span = width_at(out), depth_at_once(weights, last - first, NEAR_COLUMNS)
    for k in range(0, max(depth, 1), span):
        for j in range(first_tile, last_tile):
            z = tile_at(out, stride, first, j * width)
            multiply_column(
                last - first,
                columns - j * width,
                min(span, depth - k),
                tile_at(left, stride, first, k),
                stride,
                weights,
                k,
                j * width,
                move(bias, j * width) if k == 0 else z,
                0 if k == 0 else PANEL,
                z,
            )


def stepping(prefetch: Any, finish: Any) -> Any:
    """How STEP goes through its turns, one, or all of the chunk where a worker has the block alone.

    A turn goes through column tiles: `z + left Waa'`, then what the cell makes of it.

    `panels` are two buffers: of them `z` is the rows of a turn, and `left` those of the turn before
    that take part: forward as many, backward all. `finish(z, number, states, columns, reach)`
    works on one column tile of so many rows and on those of `a`, of which the first are asked for
    by `prefetch` while the product is made.
    """

    @inlined
    def take_turn(
        z: Any, number: int, states: Rows, reach: int, left: Any, left_rows: int, weights: Weights,
        n_a: int, stride: int, first: int, last: int,
    ) -> None:  # fmt: skip
        width = width_at(z)
        whole = left_rows <= NEAR_ROWS
        span = depth_at_once(weights, left_rows, max(n_a, 1) if whole else NEAR_COLUMNS)
        k = 0
        while k < n_a:  # a range would divide by its step
            depth = min(span, n_a - k)
            column, end = first * width, min(last * width, n_a)
            while column < end:
                tile = tile_at(z, stride, 0, column)
                tiles = tiles_at_once(weights, left_rows, column, end, tile)
                beyond = min(column + tiles * width, end)
                if k + depth == n_a and reach == FAR:
                    own = columns_from(states, column)
                    prefetch_first(prefetch, own, number, beyond - column)
                if tiles > 1:
                    add_to_tiles(
                        tiles, left_rows, depth, tile_at(left, stride, 0, k), stride, weights, k,
                        column, tile,
                    )  # fmt: skip
                else:
                    multiply_column(
                        left_rows, n_a - column, depth, tile_at(left, stride, 0, k), stride,
                        weights, k, column, tile, PANEL, tile,
                    )  # fmt: skip
                if k + depth == n_a:
                    for c in range(column, beyond, width):
                        tile, own = tile_at(z, stride, 0, c), columns_from(states, c)
                        finish(tile, number, own, n_a - c, reach)
                column = beyond
            k += span

    @inlined
    def step(job: Any, panels: Any, block: Block, stage: Stage, part: int, parts: int) -> None:
        # Read before the loop: within it they would be read anew at each turn.
        a, weights, stride = job.a, job.Waa, job.stride
        order, active, reach = job.order, job.active, job.reach_a
        n_a = len(a)
        first, last = share_of(tiles_of(n_a, width_at(panels)), part, parts)
        own = side_of(panels, stage.side, n_a, stride)
        z = move(own, stage.row * PANEL)
        before = own if stage.turn > stage.begin else side_of(panels, 1 - stage.side, n_a, stride)
        left = move(before, stage.previous * PANEL)
        for turn in range(stage.turn, stage.end if block.alone else stage.turn + 1):
            number = rows_at(block, active, turn)
            left_rows = rows_at(block, active, turn - block.backward)
            states = rows_in(a, step_of(block, turn), order, block.lo)
            take_turn(z, number, states, reach, left, left_rows, weights, n_a, stride, first, last)
            z, left = move(z, number * PANEL), z

    return step
