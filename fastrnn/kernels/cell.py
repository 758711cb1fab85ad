"""The pointwise part of the vanilla cell: what happens to one column tile of a step.

    forward   a[t] = tanh(z[t])                backward   dz[t] = da[t] * (1 - a[t]^2)

Another cell differs from this one here, and in how many gates its products have.
"""

from __future__ import annotations

from typing import Any

from numba import carray

from ._jit import inlined, inner
from .activation import tanh_in_place
from .memory import move, pointer_into, prefetch_to_read, prefetch_to_write
from .panels import AHEAD, width_of
from .tile import PANEL


@inner
def activate(z: Any, rows: int, width: int) -> None:
    """`tanh` of one column tile in place."""
    if width == PANEL:
        tanh_in_place(z, rows * PANEL)
    else:
        for i in range(rows):
            tanh_in_place(move(z, i * PANEL), width)


def _by_row(prefetch: Any, apply: Any) -> Any:
    """What `apply(tile_row, state, count)` does to one column tile and step `t` of `a`."""

    @inner
    def by_row(z: Any, rows: int, a: Any, t: int, order: Any, lo: int, column: int) -> None:
        width = width_of(a)  # known when this is compiled, so whole tiles are plain vector moves
        used = min(width, a.shape[0] - column)
        for i in range(rows):
            if i + AHEAD < rows:
                prefetch(pointer_into(a, column, order[lo + i + AHEAD], t))
            tile_row = carray(move(z, i * PANEL), (width,))
            state = carray(pointer_into(a, column, order[lo + i], t), (width,))
            if used == width:
                apply(tile_row, state, width)
            else:
                apply(tile_row, state, used)

    return by_row


@inlined
def _copy(tile_row: Any, state: Any, count: int) -> None:
    for c in range(count):
        state[c] = tile_row[c]


@inlined
def _times_derivative(tile_row: Any, state: Any, count: int) -> None:
    for c in range(count):
        tile_row[c] *= (1 - state[c]) * (1 + state[c])


#: One column tile of states to step `t` of `a` (n_a, m, T).
copy_out = _by_row(prefetch_to_write, _copy)

#: One column tile of gradients times `1 - a[t]^2`, the derivative of tanh.
differentiate = _by_row(prefetch_to_read, _times_derivative)
