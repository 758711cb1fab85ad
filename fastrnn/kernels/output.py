"""The output layer backward: the gradient of cross-entropy.

With logits `z = Wya a + by`, `y = softmax(z)` and label `k`, the loss of a row is `-log y[k]` and
its gradient with respect to `z` is `y - e[k]`, from which `dWya`, `dby` and `da` follow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from ._jit import array_in, array_out, inner
from .chunk import multiply_rows_of, multiply_tiles_of
from .gradients import add_groups, add_weight_gradient, sums_in_work
from .launch import has_to_ask, run_team, team_entry, worker, workspace
from .memory import (
    NEAR,
    aligned_size,
    move,
    pointer_to,
    reach_to_read,
    view,
)
from .panels import (
    pack_rows,
    panels_of,
    rows_in,
    share_of,
    tile_at,
    tiles_of,
    unpack_rows,
    width_at,
)
from .tile import PANEL
from .weights import pack_weights, packed_weights

#: Rows that are worked on at a time, and elements from one panel of them to the next.
CAPACITY = 192
STRIDE = (CAPACITY + 1) * PANEL


@inner
def logit(k: int, a: Any, t: int, sample: int, Wya: Any, by: Any) -> float:
    """One logit, in float64."""
    z = np.float64(by[k, 0])
    for j in range(a.shape[0]):
        z += np.float64(Wya[k, j]) * np.float64(a[j, sample, t])
    return z


@inner
def cross_entropy(y: Any, label: int, a: Any, t: int, sample: int, Wya: Any, by: Any) -> float:
    """`-log y`; from the logits, in float64, where `y` has underflowed."""
    if y >= np.finfo(a.dtype).tiny or np.isnan(y):
        return -np.log(np.float64(y))
    largest = -np.inf
    for k in range(by.size):
        largest = max(largest, logit(k, a, t, sample, Wya, by))
    total = 0.0
    for k in range(by.size):
        total += np.exp(logit(k, a, t, sample, Wya, by) - largest)
    return np.log(total) + largest - logit(label, a, t, sample, Wya, by)


class Places(NamedTuple):
    """Where things start in the workspace of `output_backward`, in elements."""

    Wya: int  #: packed
    zeros: int
    sums: int  #: of a group: of `dWya`, then of `dby`; behind them its buffers
    dby: int
    dz: int
    states: int
    gradients: int
    row: int  #: elements of a row of the sums of `dWya`
    one_set: int  #: elements of a group's sums and buffers
    size: int  #: elements of the workspace


@inner
def places_of(groups: int, dWya: Any) -> Places:
    """The places of so many groups."""
    (n_y, n_a), width = dWya.shape, width_at(dWya)
    row = tiles_of(n_a, width) * width
    at_zeros = row * n_y
    at_sums = at_zeros + row
    at_dby = at_sums + row * n_y
    at_dz = at_dby + n_y
    at_states = at_dz + panels_of(n_y) * STRIDE
    at_gradients = at_states + panels_of(n_a) * STRIDE
    one_set = at_gradients + panels_of(n_a) * STRIDE - at_sums
    return Places(
        0, at_zeros, at_sums, at_dby, at_dz, at_states, at_gradients, row, one_set,
        at_sums + groups * one_set,
    )  # fmt: skip


def output_types(dtype: types.Type) -> list[types.Type]:
    """Types of scale, rows (steps, samples, labels), layer, outputs (da, dWya, dby), losses."""
    vector = array_in(types.int64, 1)
    return [
        dtype,
        types.UniTuple(vector, 3),
        types.Tuple([*[array_in(dtype, 3)] * 2, *[array_in(dtype, 2)] * 2]),
        types.Tuple([array_out(dtype, 3, "A"), *[array_out(dtype, 2, "C")] * 2]),
        array_out(types.float64, 1, "C"),
    ]


@worker(
    lambda dtype: [types.int64, *output_types(dtype), array_out(dtype, 1, "C")],
    multiply_tiles_of, add_weight_gradient, pack_rows, unpack_rows,
)  # fmt: skip
def output_worker(group, groups, scale, rows, layer, outputs, losses, work):  # type: ignore[no-untyped-def]
    """A group of labelled rows: their part of the loss, of the weight gradients, and `da`."""
    steps, samples, labels = rows
    y_pred, a, Wya, by = layer
    da, dWya, _ = outputs
    n_y, n_a = dWya.shape
    places = places_of(groups, dWya)
    weights, zeros = packed_weights(Wya, work, places.Wya), pointer_to(work, places.zeros)
    own = pointer_to(work, group * places.one_set)
    sums, bias_sums = move(own, places.sums), view(move(own, places.dby), n_y)
    dz, states = move(own, places.dz), move(own, places.states)
    gradients = move(own, places.gradients)
    begin, finish = share_of(steps.size, group, groups)
    for first in range(begin, finish, CAPACITY):
        last = min(first + CAPACITY, finish)
        lo = first
        while lo < last:
            t, hi = steps[lo], lo + 1
            while hi < last and steps[hi] == t:
                hi += 1
            for array, panels in ((y_pred, dz), (a, states)):
                out = move(panels, (lo - first) * PANEL)
                pack_rows(
                    rows_in(array, t, samples, lo), len(array), hi - lo, reach_to_read(array), out,
                    STRIDE,
                )  # fmt: skip
            lo = hi
        for i in range(last - first):
            label, sample, t = labels[first + i], samples[first + i], steps[first + i]
            own = view(tile_at(dz, STRIDE, i, label), 1)
            losses[group] += cross_entropy(own[0], label, a, t, sample, Wya, by)
            own[0] -= 1
            for k in range(n_y):
                value = view(tile_at(dz, STRIDE, i, k), 1)
                value[0] *= scale
                bias_sums[k] += value[0]
        multiply_rows_of(0, last - first, n_y, dz, weights, zeros, n_a, gradients, STRIDE)
        for i in range(first, last):
            values = move(gradients, (i - first) * PANEL)
            unpack_rows(values, STRIDE, rows_in(da, steps[i], samples, i), n_a, 1, NEAR)
        add_weight_gradient(
            last - first, dz, states, n_y, n_a, STRIDE, 0, n_a, zeros, False,
            sums_in_work(sums, n_a),
        )  # fmt: skip


@inner
def sum_output_groups(groups: int, work: Any, dWya: Any, dby: Any) -> None:
    """Add the weight gradients of all groups, in their order, to results that are 0."""
    n_y, places = len(dWya), places_of(groups, dWya)
    add_groups(pointer_to(work, places.sums), places.one_set, groups, places.row, dWya, 0, n_y)
    add_groups(pointer_to(work, places.dby), places.one_set, groups, 1, dby, 0, n_y)


@team_entry(output_types, output_worker, pack_weights)
def output_backward(team, scale, rows, layer, outputs, losses, work):  # type: ignore[no-untyped-def]
    """Gradients of the output layer for the labelled rows; `losses`, one for each group.

    The team has one worker for each group, and the sums are bit for bit the same for every
    number of threads.
    """
    _, dWya, dby = outputs
    places = places_of(team[0], dWya)
    size = aligned_size(places.size, work)
    if has_to_ask(size, work):
        return size
    work = workspace(size, work)
    work[:] = 0
    pack_weights(layer[2], 0, 1, work, places.Wya, 0)
    run_team(team, (team[0], scale, rows, layer, outputs, losses, work))
    sum_output_groups(team[0], work, dWya, dby)
    return 0
