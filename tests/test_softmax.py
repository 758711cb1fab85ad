"""Softmax of rows in panels: against NumPy in long double, the same bits beside any other row."""

import numpy as np
import pytest
from numba import njit
from numpy.random import default_rng as rng
from numpy.testing import assert_array_equal

from fastrnn.kernels.memory import pointer_to
from fastrnn.kernels.panels import lanes_at
from fastrnn.kernels.softmax import softmax_rows
from fastrnn.kernels.tile import PANEL

CAPACITY = 11


@njit(error_model="numpy")
def in_panels(panels, first, rows, n_y):
    softmax_rows(pointer_to(panels, first * PANEL), (CAPACITY + 1) * PANEL, rows, n_y)


@njit(error_model="numpy")
def lanes_of(values):
    return lanes_at(pointer_to(values, 0))


def evaluate(logits, first=0):
    """Softmax of each row by the kernel, and nothing else is touched."""
    rows, n_y = logits.shape
    softmax_rows.piece.compile(logits.dtype)
    in_use = -(-n_y // lanes_of(logits.ravel())) * lanes_of(logits.ravel())
    panels = np.full((-(-n_y // PANEL), CAPACITY + 1, PANEL), 7, logits.dtype)
    columns = np.full((rows, panels.shape[0] * PANEL), 7, logits.dtype)
    columns[:, :in_use] = -np.inf
    columns[:, :n_y] = logits
    inside = panels[:, first : first + rows]
    inside[:] = columns.reshape(rows, -1, PANEL).transpose(1, 0, 2)
    in_panels(panels.ravel(), first, rows, n_y)
    result = inside.transpose(1, 0, 2).reshape(rows, -1).copy()
    inside[:] = 7
    assert np.all(panels == 7)
    assert np.all(result[:, in_use:] == 7)
    return result[:, :n_y]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_y", [1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 32, 33, 64, 100, 257])
def test_against_long_double(n_y, dtype):
    for rows in range(1, CAPACITY):
        logits = (rng(rows).standard_normal((rows, n_y)) * 4).astype(dtype)
        less = logits - logits.max(axis=1, keepdims=True)
        exact = np.exp(less.astype(np.longdouble))
        exact /= exact.sum(axis=1, keepdims=True)
        limit = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(evaluate(logits, 1), exact, rtol=limit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_y", [1, 9, 16, 40])
def test_bits_of_a_row_do_not_depend_on_others(n_y, dtype):
    logits = rng(0).uniform(-90, 90, (CAPACITY, n_y)).astype(dtype)
    logits[3, n_y // 2] = np.nan
    logits[6, 0] = np.inf
    ref = np.concatenate([evaluate(row[np.newaxis]) for row in logits])
    assert_array_equal(np.isnan(ref).all(axis=1), np.isin(range(CAPACITY), [3, 6]))
    for first in range(CAPACITY):
        for last in range(first + 1, CAPACITY + 1):
            assert_array_equal(evaluate(logits[first:last]), ref[first:last], strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(dtype):
    largest = np.finfo(dtype).max
    logits = np.array([[0, -largest, -largest], [largest, largest, -largest]], dtype)
    assert_array_equal(evaluate(logits), np.array([[1, 0, 0], [0.5, 0.5, 0]], dtype), strict=True)
    assert np.isnan(evaluate(np.full((1, 3), -np.inf, dtype))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_y", [2, 20, 40])
def test_logits_far_below_0(n_y, dtype):
    logits = rng(0).integers(-9, 9, (CAPACITY, n_y)).astype(dtype)
    assert_array_equal(evaluate(logits - 1000), evaluate(logits), strict=True)
