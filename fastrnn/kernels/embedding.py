"""The gradient of an embedding: rows added up by the number of the row that they came from."""

from __future__ import annotations

from typing import Any

from numba import types

from ._jit import array_in, array_out, entry


@entry(
    lambda dtype: types.void(
        array_in(types.int64, 1), array_in(dtype, 3), array_out(types.float64, 2, "C")
    )
)
def scatter_add(numbers: Any, dx: Any, table: Any) -> None:
    """Add ``dx[:, i, t]`` to row ``numbers[t m + i]`` of ``table``, in that order.

    The sum is in float64: a frequent row has some thousand terms.
    """
    n_x, m, T = dx.shape
    for t in range(T):
        for i in range(m):
            row = table[numbers[t * m + i]]
            for j in range(n_x):
                row[j] += dx[j, i, t]
