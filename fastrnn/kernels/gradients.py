"""Gradients of weights: sums of outer products, in the result itself or in the workspace."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from ._jit import inner, shared
from .memory import CACHE_LINE, copy, itemsize_of, move, pointer_to_entry, starts_lines, view
from .panels import (
    NEAR_COLUMNS,
    PRODUCTS_SUMMED,
    WIDTH_BYTES,
    panels_of,
    share_of,
    sums_of,
    tile_at,
    tiles_of,
    width_at,
)
from .products import add_transposed, tiles
from .tile import PANEL

#: Bytes of a gradient from which it is written past the caches, if it is summed at once.
PAST_BYTES = 1 << 22


class Sums(NamedTuple):
    """Where a gradient (n_a, n) is summed: its columns that fill tiles, and the rest of them.

    The rows of the rest are filled up to a tile's width.
    """

    whole: Any
    row: int  #: elements from one row to the next
    rest: Any
    rest_row: int
    past: bool  #: `whole` is summed at one go, and written past the caches


def sums_type(dtype: types.Type) -> types.Type:
    """Type of `Sums` of a dtype."""
    pointer = types.CPointer(dtype)
    return types.NamedTuple((pointer, types.int64, pointer, types.int64, types.boolean), Sums)


@inner
def sums_sizes(n_a: int, n: int, width: int) -> tuple[int, int]:
    """Elements of the sums of a gradient (n_a, n): of the rest of its columns, and of all."""
    whole, all_columns = n // width * width, tiles_of(n, width) * width
    return n_a * (all_columns - whole), n_a * all_columns


@inner
def sums_in_work(work: Any, n: int) -> Sums:
    """Sums of `n` columns at a pointer into the workspace."""
    width = width_at(work)
    row = tiles_of(n, width) * width
    return Sums(work, row, move(work, n // width * width), row, False)


@inner
def sums_of_group(first: Sums, others: Any, size: int, group: int, n: int) -> Sums:
    """Sums of `n` columns: those of the `first` group, or of one of the `others`, `size` apart."""
    return first if group == 0 else sums_in_work(move(others, (group - 1) * size), n)


@inner
def summed_at_once(active: Any, sizes: Any) -> bool:
    """Whether all rows of the batch are those of one chunk, and of one sum."""
    rows = 0
    for samples in active:
        rows += samples
        if samples == 0 or sums_of(rows, PRODUCTS_SUMMED) > 1:
            break
    return sizes.blocks == 1 and sums_of(rows, PRODUCTS_SUMMED) == 1


@inner
def sums_in_place(gradient: Any, rest: Any, at_once: bool) -> Sums:
    """Sums in the gradient itself, of the rest of its columns at a pointer into the workspace."""
    whole, row, one = pointer_to_entry(gradient, 0, 0), gradient.shape[1], itemsize_of(gradient)
    large = gradient.size * one >= PAST_BYTES
    lines = WIDTH_BYTES >= CACHE_LINE and starts_lines(whole, row * one)
    return Sums(whole, row, rest, width_at(rest), at_once and large and lines)


@inner
def _add_outer(
    rows: int, features: int, left: Any, right: Any, right_stride: int, columns: int, zeros: Any,
    fresh: bool, past: bool, out: Any, out_stride: int,
) -> None:  # fmt: skip
    """`out += left.T @ right` for one panel `left` of `features` columns, and one tile of `right`.

    `out` has one row for each feature, `out_stride` elements apart. If it is `fresh`, it holds
    anything, and counts as the `zeros` of one row. `past`: it is written past the caches.
    """
    sums = sums_of(rows, PRODUCTS_SUMMED)
    for k in range(sums):  # so few rows of both stay in the first cache level for all tiles
        begin, end = share_of(rows, k, sums)
        add_transposed(
            features,
            columns,
            end - begin,
            move(left, begin * PANEL),
            tile_at(right, right_stride, begin, 0),
            zeros if fresh and k == 0 else out,
            0 if fresh and k == 0 else out_stride,
            out,
            out_stride,
            past,
        )


def _add_weight_gradient_type(dtype: types.Type) -> types.Type:
    index, pointer = types.int64, types.CPointer(dtype)
    return types.void(
        index, pointer, pointer, index, index, index, index, index, pointer, types.boolean,
        sums_type(dtype),
    )  # fmt: skip


@shared(_add_weight_gradient_type, tiles)
def add_weight_gradient(
    rows: int, dz: Any, others: Any, n_a: int, n: int, stride: int, first: int, last: int,
    zeros: Any, fresh: bool, sums: Sums,
) -> None:  # fmt: skip
    """`sums += dz' others` for columns `first` to `last`, whole panels, of the `n` of `others`.

    Sums that are `fresh` count as zeros.
    """
    width = width_at(dz)
    for near in range(first, last, NEAR_COLUMNS):
        for p in range(panels_of(n_a)):
            for column in range(near, min(last, near + NEAR_COLUMNS), width):
                whole = column + width <= n
                row = sums.row if whole else sums.rest_row
                out = move(sums.whole, column) if whole else sums.rest
                _add_outer(
                    rows, min(n_a - p * PANEL, PANEL), move(dz, p * stride),
                    tile_at(others, stride, 0, column), stride, min(n - column, width), zeros,
                    fresh, whole and sums.past, move(out, p * PANEL * row), row,
                )  # fmt: skip


@inner
def copy_rest(sums: Sums, out: Any, first: int, last: int) -> None:
    """Rows `first` to `last` of the columns of a gradient `out` (n_a, n) that fill no tile."""
    width = width_at(sums.rest)
    column, rest = out.shape[1] // width * width, out.shape[1] % width
    for j in range(first, last):
        copy(pointer_to_entry(out, j, column), move(sums.rest, j * sums.rest_row), rest)


@inner
def add_groups(
    sums: Any, size: int, groups: int, row: int, out: Any, first: int, last: int
) -> None:
    """Add the sums of so many groups to rows `first` to `last` of `out` (n_a, n), in their order.

    They are `size` elements apart, and their rows `row`.
    """
    n = out.shape[1]
    for j in range(first, last):
        for g in range(groups):
            values = view(move(sums, g * size + j * row), n)
            for k in range(n):
                out[j, k] += values[k]
