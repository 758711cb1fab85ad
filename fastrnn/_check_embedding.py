"""Every error on the arguments of the embedding's functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._check import dimension
from fastrnn._conform import Array, computing_dtype, convert, integers, numeric


def embedding(table: Any) -> Array:
    """Check an embedding (n_x, n_symbols)."""
    array = numeric("table", table)
    if array.ndim != 2:
        raise ValueError(f"table must have shape (n_x, n_symbols), got {array.shape}")
    return convert(array, computing_dtype([array]))


def symbols(value: Any, count: int) -> NDArray[np.integer[Any]]:
    """Check symbols (m, T) from 0 to `count` - 1; return them as a new array, as lengths are."""
    array = integers("symbols", value)
    if array.ndim != 2:
        raise ValueError(f"symbols must have shape (m, T), got {array.shape}")
    array = array.copy()
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < count:
        raise ValueError(
            f"symbols must lie in 0..{count - 1}, got {int(array.min())}..{int(array.max())}"
        )
    return array


def gradient(dx: Any, given: Any, n_symbols: Any) -> tuple[Array, NDArray[np.integer[Any]], int]:
    """Check the arguments of `embedding_backward`."""
    count = dimension("n_symbols", n_symbols)
    array, found = numeric("dx", dx), symbols(given, count)
    if array.shape[1:] != found.shape:
        m, T = found.shape
        raise ValueError(f"dx must have shape (n_x, {m}, {T}), got {array.shape}")
    return convert(array, computing_dtype([array])), found, count
