"""The pointwise part of the vanilla cell: what happens to one column tile of a step.

    forward   a[t] = tanh(z[t])                backward   dz[t] = da[t] * (1 - a[t]^2)

Here `da[t]` has what the step after it hands back.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ._jit import shared
from .activation import tanh_copied, tanh_register, tanh_streamed
from .memory import FAR, PAST, move, prefetch_to_read, prefetch_to_write, view
from .panels import Rows, entry_of, lanes_at, prefetch_next, rows_type, width_at
from .parts import store_register
from .tile import PANEL


def _finish_type(dtype: types.Type) -> types.Type:
    """Type of what finishes a column tile of a step."""
    index = types.int64
    return types.void(types.CPointer(dtype), index, rows_type(dtype), index, index)


@shared(_finish_type)
def activate(z: Any, number: int, states: Rows, columns: int, reach: int) -> None:
    """`tanh` of the first columns of a tile in place, and to so many rows within a reach."""
    lanes, used = lanes_at(z), min(width_at(z), columns)
    for i in range(number):
        if reach == FAR:
            prefetch_next(prefetch_to_write, states, i, number, used)
        values, state = move(z, i * PANEL), entry_of(states, i, 0)
        for c in range(0, used, lanes):
            if used - c < lanes:
                tanh_register(move(values, c))
                store_register(move(state, c), move(values, c), used - c)
            elif reach == PAST:
                tanh_streamed(move(values, c), move(state, c))
            else:
                tanh_copied(move(values, c), move(state, c))


@shared(_finish_type)
def differentiate(z: Any, number: int, states: Rows, columns: int, reach: int) -> None:
    """The first columns of a tile of gradients times `1 - a^2`, the derivative of tanh."""
    width = width_at(z)  # known when this is compiled, so whole tiles are plain vector moves
    used = min(width, columns)
    for i in range(number):
        if reach == FAR:
            prefetch_next(prefetch_to_read, states, i, number, used)
        tile_row = view(move(z, i * PANEL), width)
        state = view(entry_of(states, i, 0), width)
        if used == width:
            for c in range(width):
                tile_row[c] *= (1 - state[c]) * (1 + state[c])
        else:
            for c in range(used):
                tile_row[c] *= (1 - state[c]) * (1 + state[c])
