"""The pointwise part of the vanilla cell: what happens to one column tile of a step.

    forward   a[t] = tanh(z[t])                backward   dz[t] = da[t] * (1 - a[t]^2)

Another cell differs from this one here, and in how many gates its products have.
"""

from __future__ import annotations

from typing import Any

from numba import carray

from ._jit import inner
from .activation import tanh_copied, tanh_in_place, tanh_streamed
from .memory import copy, move, pointer_into, prefetch_to_read, prefetch_to_write
from .panels import AHEAD, width_of
from .tile import PANEL


@inner
def activate(
    z: Any, rows: int, a: Any, t: int, order: Any, lo: int, column: int, stream: int
) -> None:
    """`tanh` of one column tile in place, and to step `t` of `a` (n_a, m, T)."""
    width = width_of(a)
    used = min(width, a.shape[0] - column)
    for i in range(rows):
        tile_row = move(z, i * PANEL)
        state = pointer_into(a, column, order[lo + i], t)
        if stream and used == width:
            tanh_streamed(tile_row, state)
            continue
        if i + AHEAD < rows:
            prefetch_to_write(pointer_into(a, column, order[lo + i + AHEAD], t))
        if used == width:
            tanh_copied(tile_row, state)
        else:
            tanh_in_place(tile_row, width)
            copy(state, tile_row, used)


@inner
def differentiate(z: Any, rows: int, a: Any, t: int, order: Any, lo: int, column: int) -> None:
    """One column tile of gradients times `1 - a[t]^2`, the derivative of tanh."""
    width = width_of(a)  # known when this is compiled, so whole tiles are plain vector moves
    used = min(width, a.shape[0] - column)
    for i in range(rows):
        if i + AHEAD < rows:
            prefetch_to_read(pointer_into(a, column, order[lo + i + AHEAD], t))
        tile_row = carray(move(z, i * PANEL), (width,))
        state = carray(pointer_into(a, column, order[lo + i], t), (width,))
        if used == width:
            for c in range(width):
                tile_row[c] *= (1 - state[c]) * (1 + state[c])
        else:
            for c in range(used):
                tile_row[c] *= (1 - state[c]) * (1 + state[c])
