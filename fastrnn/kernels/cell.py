"""The pointwise part of the vanilla cell: what happens to one column tile of a step.

    forward   a[t] = tanh(z[t])                backward   dz[t] = da[t] * (1 - a[t]^2)

Another cell differs from this one here, and in how many gates its products have.
"""

from __future__ import annotations

from typing import Any

from numba import carray

from ._jit import inner
from .activation import lanes_of, tanh_copied, tanh_register, tanh_streamed
from .memory import FAR, PAST, move, pointer_into, prefetch_to_read, prefetch_to_write
from .panels import AHEAD, prefetch_row, width_of
from .parts import store_register
from .tile import PANEL


@inner
def activate(
    z: Any, rows: int, a: Any, t: int, order: Any, lo: int, column: int, reach: int
) -> None:
    """`tanh` of one column tile in place, and to step `t` of `a` (n_a, m, T) within a reach."""
    lanes, used = lanes_of(z), min(width_of(a), a.shape[0] - column)
    for i in range(rows):
        if reach == FAR and i + AHEAD < rows:
            sample = order[lo + i + AHEAD]
            prefetch_row(prefetch_to_write, a, sample, t, column, column + used)
        values = move(z, i * PANEL)
        state = pointer_into(a, column, order[lo + i], t)
        for c in range(0, used, lanes):
            if used - c < lanes:
                tanh_register(move(values, c))
                store_register(move(state, c), move(values, c), used - c)
            elif reach == PAST:
                tanh_streamed(move(values, c), move(state, c))
            else:
                tanh_copied(move(values, c), move(state, c))


@inner
def differentiate(
    z: Any, rows: int, a: Any, t: int, order: Any, lo: int, column: int, reach: int
) -> None:
    """One column tile of gradients times `1 - a[t]^2`, the derivative of tanh."""
    width = width_of(a)  # known when this is compiled, so whole tiles are plain vector moves
    used = min(width, a.shape[0] - column)
    for i in range(rows):
        if reach == FAR and i + AHEAD < rows:
            prefetch_row(prefetch_to_read, a, order[lo + i + AHEAD], t, column, column + used)
        tile_row = carray(move(z, i * PANEL), (width,))
        state = carray(pointer_into(a, column, order[lo + i], t), (width,))
        if used == width:
            for c in range(width):
                tile_row[c] *= (1 - state[c]) * (1 + state[c])
        else:
            for c in range(used):
                tile_row[c] *= (1 - state[c]) * (1 + state[c])
