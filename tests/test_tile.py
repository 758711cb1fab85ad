"""The register tile against NumPy, for every number of rows, in both dtypes."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastrnn.kernels.columns import _copy_tile, start_of_last_tile
from fastrnn.kernels.emitter import Emitter
from fastrnn.kernels.memory import CACHE_LINE, aligned_size, first_aligned, pointer_to
from fastrnn.kernels.panels import panels_of, rows_at_once, width_at
from fastrnn.kernels.parts import fill_row
from fastrnn.kernels.products import (
    add_rows,
    add_transposed,
    multiply_columns,
    multiply_few,
    multiply_rows,
    tiles,
)
from fastrnn.kernels.tile import FEW_ROWS, PANEL, ROWS, TILE, TILES, lanes_of
from fastrnn.kernels.transposition import transpose, transpose_block

DTYPES = [np.float32, np.float64]
GUARD = 64


for dtype in DTYPES:
    tiles.compile(np.dtype(dtype))
    transpose.piece.compile(np.dtype(dtype))


@njit
def _multiply(rows, columns, depth, left, stride, right, right_stride, start, start_stride, out):
    multiply_rows(
        rows,
        columns,
        depth,
        pointer_to(left, 0),
        stride,
        pointer_to(right, 0),
        right_stride,
        pointer_to(right, 0),
        0,
        pointer_to(start, 0),
        start_stride,
        pointer_to(out, GUARD),
    )


@njit
def _multiply_few(rows, tiles, depth, left, stride, right, tile_stride, out):
    multiply_few(
        rows,
        tiles,
        depth,
        pointer_to(left, 0),
        stride,
        pointer_to(right, 0),
        tile_stride,
        pointer_to(out, GUARD),
    )


@njit
def _multiply_columns(rows, columns, depth, left, stride, right, at, right_stride, start, out):
    multiply_columns(
        rows,
        columns,
        depth,
        pointer_to(left, 0),
        stride,
        pointer_to(right, at),
        right_stride,
        pointer_to(start, 0),
        0,
        pointer_to(out, GUARD),
    )


@njit
def _transpose(target, target_stride, source, source_stride):
    transpose_block(pointer_to(target, GUARD), target_stride, pointer_to(source, 0), source_stride)


@njit
def _copy(weights, step, across, depth, columns, out):
    _copy_tile(pointer_to(weights, 0), step, across, depth, columns, pointer_to(out, GUARD))


@njit
def _add_transposed(
    rows, columns, depth, left, right, start, start_stride, out, out_stride, begin=GUARD, past=False
):
    add_transposed(
        rows,
        columns,
        depth,
        pointer_to(left, 0),
        pointer_to(right, 0),
        pointer_to(start, GUARD),
        start_stride,
        pointer_to(out, begin),
        out_stride,
        past,
    )


@njit
def _add_rows(rows, source, out):
    add_rows(rows, pointer_to(source, 0), pointer_to(out, GUARD))


@njit
def _width(array):
    return width_at(array)


@njit
def _fill(out, source, count):
    fill_row(pointer_to(out, GUARD), pointer_to(source, 0), count)


@njit
def _first_aligned(array):
    return first_aligned(array)


@njit
def _aligned_size(size, array):
    return aligned_size(size, array)


def to_panels(matrix):
    """Panels of a matrix, the columns past its last one NaN: they must not be read."""
    rows, columns = matrix.shape
    padded = np.full((rows, panels_of.py_func(columns) * PANEL), np.nan, matrix.dtype)
    padded[:, :columns] = matrix
    panels = padded.reshape(rows, -1, PANEL).transpose(1, 0, 2)
    return np.ascontiguousarray(panels).ravel()


def guarded(values):
    """Values with NaN before and after them, which a tile must leave alone."""
    return np.concatenate([np.full(GUARD, np.nan), values.ravel(), np.full(GUARD, np.nan)]).astype(
        values.dtype
    )


def assert_guards(array):
    assert np.isnan(array[:GUARD]).all()
    assert np.isnan(array[-GUARD:]).all()


def test_row_of_the_table():
    expected = os.environ.get("FASTRNN_EXPECTED_TILE")
    assert TILE in TILES.values()
    if expected:
        assert TILE.name == expected


@pytest.mark.parametrize("tile", TILES.values(), ids=lambda tile: tile.name)
def test_accumulators_fit_the_registers(tile):
    registers = 32 if tile.name == "avx512" else 16
    for vectors, rows in enumerate(tile.rows, start=1):
        held = vectors if tile.embedded else min(rows, vectors)
        assert rows * vectors + held + 1 <= registers
    for itemsize in (4, 8):
        assert tile.panel % (len(tile.rows) * tile.vector_bytes // itemsize) == 0


def columns_of(dtype):
    """Columns in use of a tile, and how many are computed: they fill registers."""
    lanes = lanes_of(np.dtype(dtype).itemsize)
    return [
        (columns, vectors * lanes)
        for vectors in range(1, len(TILE.rows) + 1)
        for columns in ((vectors - 1) * lanes + 1, vectors * lanes)
    ]


#: A tile, up to all of its rows, and several, of which the last two share theirs out.
NUMBERS_OF_ROWS = range(1, 2 * max(TILE.rows) + 2)


@intrinsic
def _write_rows_of_tiles(typingctx, rows, columns, target):
    """Write the number of rows of each tile where its first row is."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(context, builder, target.dtype)
        rows, columns, target_at = arguments

        def emit(number, place):
            builder.store(ir.Constant(emitter.element, float(number)), place)

        emitter.over_tiles(rows, columns, [target_at], [emitter.constant(1)], emit)
        return context.get_dummy_value()

    return types.void(rows, columns, target), codegen


@njit
def _rows_of_tiles(rows, columns, target):
    _write_rows_of_tiles(rows, columns, pointer_to(target, 0))
    return start_of_last_tile(rows, rows_at_once(columns, pointer_to(target, 0)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_cut_into_tiles(dtype):
    for columns, computed in columns_of(dtype):
        most = TILE.rows[computed // lanes_of(np.dtype(dtype).itemsize) - 1]
        for rows in range(1, 4 * most + 1):
            numbers = np.zeros(rows, dtype)
            last = _rows_of_tiles(rows, columns, numbers)
            firsts = np.flatnonzero(numbers)
            assert np.array_equal(firsts, np.cumsum(numbers[firsts]) - numbers[firsts])
            assert numbers.sum() == rows
            assert len(firsts) == -(-rows // most)
            assert numbers.max() <= most
            assert last == firsts[-1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", NUMBERS_OF_ROWS)
@pytest.mark.parametrize("depth", [0, 1, 3, PANEL, PANEL + 5, 3 * PANEL])
def test_multiply_rows(rows, depth, dtype):
    rng = np.random.default_rng(rows * 100 + depth)
    width = _width(np.empty(1, dtype))
    left = rng.standard_normal((rows, depth)).astype(dtype)
    right = rng.standard_normal((depth, width)).astype(dtype)
    bias = rng.standard_normal(width).astype(dtype)
    ref = bias.astype(np.longdouble) + left.astype(np.longdouble) @ right
    tolerance = 16 * (depth + 1) * np.finfo(dtype).eps
    apart = np.full((depth, width + 5), np.nan, dtype)
    apart[:, :width] = right
    for (columns, computed), weights in itertools.product(columns_of(dtype), (right, apart)):
        out = guarded(np.zeros((rows - 1) * PANEL + width, dtype))
        operands = to_panels(left), rows * PANEL, weights.ravel(), weights.shape[1]
        _multiply(rows, columns, depth, *operands, bias, 0, out)
        assert_guards(out)
        inner = np.concatenate([out[GUARD:-GUARD], np.zeros(PANEL, dtype)])
        comp = inner[: rows * PANEL].reshape(rows, PANEL)
        np.testing.assert_allclose(
            comp[:, :computed], ref[:, :computed].astype(dtype), rtol=0, atol=tolerance
        )
        # What stands between the rows of a tile belongs to others.
        assert not comp[:, computed:].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", range(1, 2 * FEW_ROWS + 2))
@pytest.mark.parametrize("depth", [0, 1, 3, PANEL - 1, PANEL, 2 * PANEL + 5, 523, 1021])
def test_multiply_columns(rows, depth, dtype):
    rng = np.random.default_rng(rows * 100 + depth)
    width = _width(np.empty(1, dtype))
    left = rng.standard_normal((rows, depth)).astype(dtype)
    bias = rng.standard_normal(width).astype(dtype)
    tolerance = 16 * (depth + 1) * np.finfo(dtype).eps
    for columns, computed in [*columns_of(dtype), (2, lanes_of(bias.itemsize)), (width + 5, width)]:
        right = np.full((columns + 2, depth + 3), np.nan, dtype)  # all that does not exist is NaN
        right[1:-1, :depth] = rng.standard_normal((columns, depth))
        existing = right[1 + np.minimum(range(computed), columns - 1), :depth]
        out = guarded(np.zeros((rows - 1) * PANEL + width, dtype))
        operands = to_panels(left), rows * PANEL, right.ravel(), depth + 3, depth + 3
        _multiply_columns(rows, columns, depth, *operands, bias, out)
        assert_guards(out)
        inner = np.concatenate([out[GUARD:-GUARD], np.zeros(PANEL - width, dtype)])
        comp = inner.reshape(rows, PANEL)
        ref = bias[:computed] + left.astype(np.longdouble) @ existing.T
        np.testing.assert_allclose(comp[:, :computed], ref.astype(dtype), rtol=0, atol=tolerance)
        assert not comp[:, computed:].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "tiles"), [(r, n) for r in range(1, FEW_ROWS + 1) for n in (2, 4) if r * n <= ROWS]
)
@pytest.mark.parametrize("depth", [0, 1, PANEL - 1, PANEL, 2 * PANEL + 3])
def test_tiles_at_once_have_the_bits_of_each(depth, rows, tiles, dtype):
    rng = np.random.default_rng(rows)
    width, gap = _width(np.zeros(1, dtype)), 5
    left = to_panels(rng.standard_normal((rows, depth)).astype(dtype))
    tile_stride = depth * width + gap
    right = rng.standard_normal(tiles * tile_stride).astype(dtype)
    columns = tiles * width
    stride = rows * PANEL + gap
    before = rng.standard_normal(panels_of.py_func(columns) * stride).astype(dtype)
    comp, ref = guarded(before), before.copy()
    # Panels of `left` and `out` are equally far apart.
    panels = np.zeros((panels_of.py_func(depth), stride), dtype)
    panels[:, : rows * PANEL] = left.reshape(-1, rows * PANEL)
    _multiply_few(rows, tiles, depth, panels.ravel(), stride, right, tile_stride, comp)
    assert_guards(comp)
    for tile in range(tiles):
        at = tile * width // PANEL * stride + tile * width % PANEL
        weights = right[tile * tile_stride :][: depth * width]
        out = guarded(np.zeros(rows * PANEL, dtype))
        start = np.r_[ref[at:], np.zeros(PANEL, dtype)]
        _multiply(rows, width, depth, panels.ravel(), stride, weights, width, start, PANEL, out)
        for row in range(rows):
            own = out[GUARD + row * PANEL :][:width]
            ref[at + row * PANEL :][:width] = own
    assert np.array_equal(comp[GUARD:-GUARD], ref)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_block(dtype):
    lanes = lanes_of(np.dtype(dtype).itemsize)
    source = np.arange(lanes * (lanes + 3), dtype=dtype).reshape(lanes, lanes + 3)
    target = guarded(np.zeros((lanes, lanes + 2), dtype))
    _transpose(target, lanes + 2, source.ravel(), lanes + 3)
    assert_guards(target)
    comp = target[GUARD:-GUARD].reshape(lanes, lanes + 2)
    assert np.array_equal(comp[:, :lanes], source[:, :lanes].T)
    assert not comp[:, lanes:].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", NUMBERS_OF_ROWS)
@pytest.mark.parametrize("depth", [0, 1, 3, 4, 37])
def test_add_transposed(rows, depth, dtype):
    rng = np.random.default_rng(rows * 100 + depth)
    width = _width(np.empty(1, dtype))
    left = rng.standard_normal((depth, PANEL)).astype(dtype)
    right = rng.standard_normal((depth, PANEL)).astype(dtype)
    before = rng.standard_normal((rows, width + 3)).astype(dtype)
    sums = left[:, :rows].astype(np.longdouble).T @ right[:, :width]
    tolerance = 16 * (depth + 1) * np.finfo(dtype).eps
    for columns, computed in columns_of(dtype):
        for start_stride in (0, width + 3):
            out = guarded(before)
            start = out if start_stride else guarded(before[0])
            operands = left.ravel(), right.ravel(), start, start_stride
            _add_transposed(rows, columns, depth, *operands, out, width + 3)
            assert_guards(out)
            comp = out[GUARD:-GUARD].reshape(rows, width + 3)
            added = before if start_stride else before[:1]
            ref = (added[:, :computed] + sums[:, :computed]).astype(dtype)
            np.testing.assert_allclose(comp[:, :computed], ref, rtol=0, atol=tolerance)
            assert np.array_equal(comp[:, computed:], before[:, computed:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tile_past_the_caches_has_the_same_bits(dtype):
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal(37 * PANEL).astype(dtype) for _ in range(2))
    width = _width(left)
    row = width + CACHE_LINE // left.itemsize
    out = np.full((ROWS + 2) * row, np.nan, dtype)
    begin = _first_aligned(out) + row
    for rows in range(1, ROWS + 1):
        results = []
        for past in (False, True):
            out[:] = np.nan
            operands = rows, width, 37, left, right, guarded(right[:width]), 0
            _add_transposed(*operands, out, row, begin, past)
            results.append(out.copy())
        assert np.array_equal(*results, equal_nan=True)
        written = np.zeros(out.shape, bool)
        for i in range(rows):
            written[begin + i * row : begin + i * row + width] = True
        assert np.array_equal(np.isfinite(out), written)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 2, 37])
def test_add_rows(rows, dtype):
    rng = np.random.default_rng(rows)
    width = _width(np.empty(1, dtype))
    source = rng.standard_normal((rows, PANEL)).astype(dtype)
    before = rng.standard_normal(width).astype(dtype)
    out = guarded(before)
    _add_rows(rows, source.ravel(), out)
    assert_guards(out)
    total = np.zeros(width, dtype)
    for row in source:
        total += row[:width]
    assert np.array_equal(out[GUARD:-GUARD], before + total)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_joins_what_was_there_at_its_end(dtype):
    """Terms are not rounded to the last digit of a large start."""
    rng = np.random.default_rng(0)
    depth, width = 2 * PANEL + 3, _width(np.empty(1, dtype))
    left = rng.standard_normal((ROWS, depth)).astype(dtype)
    right = rng.standard_normal((depth, width)).astype(dtype)
    start = np.full(width, 1 / np.finfo(dtype).eps, dtype)
    comp, alone = np.zeros((2, 2 * GUARD + ROWS * PANEL), dtype)
    for bias, out in ((start, comp), (0 * start, alone)):
        operands = to_panels(left), ROWS * PANEL, right.ravel(), width
        _multiply(ROWS, width, depth, *operands, bias, 0, out)
    written = alone != 0
    assert written.sum() == ROWS * width
    assert np.array_equal(comp[written], start[0] + alone[written])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, PANEL - 1, PANEL, 2**32, 2**32 + 1])
def test_no_more_of_a_row_is_filled_than_there_is_and_than_a_panel_has(count, dtype):
    source = np.arange(1, PANEL + 1, dtype=dtype)
    out = guarded(np.full(PANEL, 7, dtype))
    _fill(out, source, count)
    assert_guards(out)
    ref = np.where(np.arange(PANEL) < count, source, 0)
    assert np.array_equal(out[GUARD:-GUARD], ref)


@pytest.mark.parametrize("dtype", DTYPES)
def test_workspace_starts_on_a_cache_line(dtype):
    array = np.empty(64, dtype)
    size = _aligned_size(32, array)
    for offset in range(16):
        part = array[offset : offset + size]
        first = _first_aligned(part)
        assert (part.ctypes.data + first * part.itemsize) % 64 == 0
        assert size - first >= 32


@pytest.mark.parametrize("lie", ["rows", "columns"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tile_of_weights_is_filled_up_with_zeros(dtype, lie):
    width, depth = _width(np.zeros(1, dtype)), 21
    for columns in range(1, width + 1):
        matrix = np.random.default_rng(0).standard_normal((depth, columns)).astype(dtype)
        step, across = (columns, 1) if lie == "rows" else (1, depth)
        out = np.full(GUARD + depth * width + GUARD, np.nan, dtype)
        _copy(matrix.ravel(order="C" if lie == "rows" else "F"), step, across, depth, columns, out)
        tile = out[GUARD:-GUARD].reshape(depth, width)
        np.testing.assert_array_equal(tile[:, :columns], matrix)
        assert not tile[:, columns:].any()
        assert np.isnan(out[:GUARD]).all()
        assert np.isnan(out[-GUARD:]).all()
