"""The pointwise part of the vanilla cell: what happens to one column tile of a step.

    forward   a[t] = tanh(z[t])                backward   dz[t] = da[t] * (1 - a[t]^2)

Another cell differs from this one here, and in how many gates its products have.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ._jit import array_in, array_out, shared
from .activation import tanh_copied, tanh_register, tanh_streamed
from .memory import FAR, PAST, move, pointer_into, prefetch_to_read, prefetch_to_write, view
from .panels import AHEAD, lanes_at, prefetch_row, width_at
from .parts import store_register
from .tile import PANEL


def _finish_type(a: types.Type) -> types.Type:
    """Type of what finishes a column tile of a step; `a` is the type of the states."""
    index = types.int64
    return types.void(
        types.CPointer(a.dtype), index, a, index, array_in(index, 1), index, index, index
    )


@shared(lambda dtype: _finish_type(array_out(dtype, 3, "A")))
def activate(
    z: Any, rows: int, a: Any, t: int, order: Any, lo: int, column: int, reach: int
) -> None:
    """`tanh` of one column tile in place, and to step `t` of `a` (n_a, m, T) within a reach."""
    lanes, used = lanes_at(z), min(width_at(a), a.shape[0] - column)
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


@shared(lambda dtype: _finish_type(array_in(dtype, 3)))
def differentiate(
    z: Any, rows: int, a: Any, t: int, order: Any, lo: int, column: int, reach: int
) -> None:
    """One column tile of gradients times `1 - a[t]^2`, the derivative of tanh."""
    width = width_at(a)  # known when this is compiled, so whole tiles are plain vector moves
    used = min(width, a.shape[0] - column)
    for i in range(rows):
        if reach == FAR and i + AHEAD < rows:
            prefetch_row(prefetch_to_read, a, order[lo + i + AHEAD], t, column, column + used)
        tile_row = view(move(z, i * PANEL), width)
        state = view(pointer_into(a, column, order[lo + i], t), width)
        if used == width:
            for c in range(width):
                tile_row[c] *= (1 - state[c]) * (1 + state[c])
        else:
            for c in range(used):
                tile_row[c] *= (1 - state[c]) * (1 + state[c])
