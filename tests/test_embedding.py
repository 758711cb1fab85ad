"""The embedding, against loops and a one-hot product; its errors."""

import numpy as np
import pytest
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal

from fastrnn import _check_embedding
from fastrnn.embedding import embedding_backward, embedding_forward

DTYPES = [np.float32, np.float64]


def some_symbols(m=7, T=5, count=4):
    return rng(0).integers(0, count, (m, T))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_forward_looks_columns_up(kind, dtype):
    symbols, table = some_symbols().astype(kind), rng(1).standard_normal((3, 4)).astype(dtype)
    comp = embedding_forward(symbols, table)
    assert comp.dtype == dtype
    assert comp.flags.f_contiguous
    for i, t in np.ndindex(symbols.shape):
        assert_array_equal(comp[:, i, t], table[:, symbols[i, t]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_backward_is_the_product_with_one_hot_symbols(order, dtype):
    symbols = some_symbols()
    dx = np.asarray(rng(1).standard_normal((3, 7, 5)), dtype, order=order)
    comp = embedding_backward(dx, symbols, 5)
    ref = np.einsum("xmt,mts->xs", dx.astype(np.float64), np.eye(5)[symbols])
    assert comp.dtype == dtype
    assert_allclose(comp, ref, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)
    assert_array_equal(comp[:, 4], 0)


@pytest.mark.parametrize("shape", [(3, 0, 5), (3, 7, 0), (0, 7, 5)])
def test_empty_gives_zero(shape):
    symbols = np.zeros(shape[1:], np.uint8)
    assert embedding_forward(symbols, np.ones((shape[0], 2))).shape == shape
    assert_array_equal(embedding_backward(np.ones(shape), symbols, 2)[:, 1], np.zeros(shape[0]))


@pytest.mark.parametrize(
    ("symbols", "error", "match"),
    [
        ([[0, 4]], ValueError, r"symbols must lie in 0\.\.3, got 0\.\.4"),
        ([[-1, 0]], ValueError, r"symbols must lie in 0\.\.3, got -1"),
        ([0, 1], ValueError, r"symbols must have shape \(m, T\), got \(2,\)"),
        ([[0.0, 1.0]], TypeError, "symbols must be integers, got an array of dtype float64"),
        ([[True, 2]], TypeError, "symbols must be integers, got a boolean among them"),
        (np.array([[True, False]]), TypeError, "symbols must be integers, got .* bool"),
    ],
)
def test_symbols_are_checked(symbols, error, match):
    with pytest.raises(error, match=match):
        embedding_forward(symbols, np.zeros((3, 4)))
    with pytest.raises(error, match=match):
        embedding_backward(np.zeros((3, 1, 2)), symbols, 4)


def test_symbols_are_copied_before_they_are_checked(monkeypatch):
    symbols = np.array([[2, 0]])

    def computing_dtype(arrays):
        symbols[...] = 1  # as another thread could, between the check and the kernel
        return np.dtype(float)

    monkeypatch.setattr(_check_embedding, "computing_dtype", computing_dtype)
    comp = embedding_backward(np.ones((1, 1, 2)), symbols, 3)
    assert_array_equal(comp, [[1, 0, 1]])


def test_lists_without_a_symbol_hold_no_other_type():
    assert embedding_forward([[]], np.zeros((3, 4))).shape == (3, 1, 0)


def test_a_sum_that_float32_cannot_hold_is_infinite():
    dx = np.full((1, 1, 2), 3e38, np.float32)
    with np.errstate(all="raise"):
        assert embedding_backward(dx, [[0, 0]], 1) == np.inf


def test_other_arguments_are_checked():
    with pytest.raises(TypeError, match=r"table must be an array of float64.* got .* complex"):
        embedding_forward([[0]], np.zeros((3, 4), complex))
    with pytest.raises(TypeError, match=r"dx must be an array of float64.* got .* complex"):
        embedding_backward(np.zeros((3, 1, 1), complex), [[0]], 4)
    with pytest.raises(ValueError, match=r"table must have shape \(n_x, n_symbols\), got \(4,\)"):
        embedding_forward([[0]], np.zeros(4))
    with pytest.raises(ValueError, match=r"dx must have shape \(n_x, 1, 2\), got \(3, 2, 1\)"):
        embedding_backward(np.zeros((3, 2, 1)), [[0, 1]], 4)
    with pytest.raises(TypeError, match="n_symbols"):
        embedding_backward(np.zeros((3, 1, 2)), [[0, 1]], 4.5)
