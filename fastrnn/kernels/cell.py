"""The pointwise part of the vanilla cell: what happens to one column tile of a step.

    forward   a[t] = tanh(z[t])                backward   dz[t] = da[t] * (1 - a[t]^2)

Another cell differs from this one here, and in how many gates its products have.
"""

from __future__ import annotations

from typing import Any

from numba import carray

from ._jit import inner
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


@inner
def copy_out(z: Any, rows: int, a: Any, t: int, order: Any, lo: int, column: int) -> None:
    """One column tile to step `t` of `a` (n_a, m, T)."""
    width = width_of(a)  # known when this is compiled, so whole tiles are plain vector moves
    used = min(width, a.shape[0] - column)
    for i in range(rows):
        if i + AHEAD < rows:
            prefetch_to_write(pointer_into(a, column, order[lo + i + AHEAD], t))
        values = carray(move(z, i * PANEL), (width,))
        state = carray(pointer_into(a, column, order[lo + i], t), (width,))
        if used == width:
            for c in range(width):
                state[c] = values[c]
        else:
            for c in range(used):
                state[c] = values[c]


@inner
def differentiate(z: Any, rows: int, a: Any, t: int, order: Any, lo: int, column: int) -> None:
    """One column tile of gradients times `1 - a[t]^2`, the derivative of tanh."""
    width = width_of(a)
    used = min(width, a.shape[0] - column)
    for i in range(rows):
        if i + AHEAD < rows:
            prefetch_to_read(pointer_into(a, column, order[lo + i + AHEAD], t))
        gradient = carray(move(z, i * PANEL), (width,))
        state = carray(pointer_into(a, column, order[lo + i], t), (width,))
        if used == width:
            for c in range(width):
                gradient[c] *= (1 - state[c]) * (1 + state[c])
        else:
            for c in range(used):
                gradient[c] *= (1 - state[c]) * (1 + state[c])
