"""An embedding: what the network reads for a symbol, such as a letter, is learned with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _check_embedding
from fastrnn.kernels import embedding as kernels

Array = NDArray[np.floating[Any]]


def embedding_forward(symbols: ArrayLike, table: ArrayLike) -> Array:
    """Look up the column of each symbol.

    Parameters
    ----------
    symbols : array_like of int, shape (m, T)
        0 to ``n_symbols - 1``; in the padding any of them.
    table : array_like, shape (n_x, n_symbols)
        The embedding, a parameter.

    Returns
    -------
    ndarray, shape (n_x, m, T)
        ``x[:, i, t] = table[:, symbols[i, t]]`` for `rnn_forward`, Fortran-ordered, in float32 or
        float64 as ``table``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or shape, or a symbol out of range.

    Examples
    --------
    >>> embedding_forward([[2, 0]], [[0.5, 0.0, 1.5]])
    array([[[1.5, 0.5]]])
    """
    columns = _check_embedding.embedding(table)
    found = _check_embedding.symbols(symbols, columns.shape[1])
    rows = np.ascontiguousarray(columns.T)
    return np.take(rows, found.T, axis=0).transpose(2, 1, 0)


def embedding_backward(dx: ArrayLike, symbols: ArrayLike, n_symbols: int) -> Array:
    """Gradient of the embedding.

    Parameters
    ----------
    dx : array_like, shape (n_x, m, T)
        Of `rnn_backward`, which is 0 in the padding.
    symbols : array_like of int, shape (m, T)
        As for `embedding_forward`.
    n_symbols : int
        Columns of the embedding.

    Returns
    -------
    ndarray, shape (n_x, n_symbols)
        The sum, taken in float64, of ``dx[:, i, t]`` over all places of each symbol; in float32
        or float64 as ``dx``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or shape, or a symbol out of range.

    Examples
    --------
    >>> embedding_backward([[[1.0, 2.0, 4.0]]], [[2, 0, 2]], n_symbols=3)
    array([[2., 0., 5.]])
    """
    gradient, found, count = _check_embedding.gradient(dx, symbols, n_symbols)
    table = np.zeros((count, len(gradient)))
    numbers = found.T.astype(np.int64, order="C").ravel()
    kernels.scatter_add(gradient.dtype, numbers, gradient, table)
    with np.errstate(over="ignore"):  # a sum that float32 cannot hold is infinite
        return np.ascontiguousarray(table.T, gradient.dtype)
