"""The output layer backward: the gradient of cross-entropy.

With logits `z = Wya a + by`, `y = softmax(z)` and label `k`, the loss of a row is `-log y[k]` and
its gradient with respect to `z` is `y - e[k]`, from which `dWya`, `dby` and `da` follow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ._jit import array_in, array_out, inner
from .chunk import multiply_rows_of, multiply_tiles_of
from .gradients import add_groups, add_weight_gradient, sums_in_work
from .launch import has_to_ask, run_team, team_entry, worker, workspace
from .memory import (
    CACHE_LINE,
    NEAR,
    first_aligned,
    itemsize_of,
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

#: Rows that are worked on at a time.
CAPACITY = 192


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


@inner
def output_sizes(n_a: int, n_y: int, width: int) -> tuple[int, int, int]:
    """Elements of packed `Wya`, of one group's sums, and of its buffers."""
    stride = (CAPACITY + 1) * PANEL
    sums = (tiles_of(n_a, width) * width + 1) * n_y
    return (
        tiles_of(n_a, width) * width * (n_y + 1),
        sums,
        (panels_of(n_y) + 2 * panels_of(n_a)) * stride,
    )


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
    da, at = outputs[0], first_aligned(work)
    n_y, n_a, width = y_pred.shape[0], a.shape[0], width_at(da)
    stride = (CAPACITY + 1) * PANEL
    size_Wya, size_sums, size_buffers = output_sizes(n_a, n_y, width)
    weights = packed_weights(Wya, work, at)
    zeros = pointer_to(work, at + size_Wya - size_Wya // (n_y + 1))
    at_sums = at + size_Wya + group * (size_sums + size_buffers)
    sums, dz = pointer_to(work, at_sums), pointer_to(work, at_sums + size_sums)
    row = tiles_of(n_a, width) * width
    bias_sums = view(move(sums, n_y * row), n_y)
    states = move(dz, panels_of(n_y) * stride)
    gradients = move(states, panels_of(n_a) * stride)
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
                    stride,
                )  # fmt: skip
            lo = hi
        for i in range(last - first):
            label, sample, t = labels[first + i], samples[first + i], steps[first + i]
            own = view(tile_at(dz, stride, i, label), 1)
            losses[group] += cross_entropy(own[0], label, a, t, sample, Wya, by)
            own[0] -= 1
            for k in range(n_y):
                value = view(tile_at(dz, stride, i, k), 1)
                value[0] *= scale
                bias_sums[k] += value[0]
        multiply_rows_of(0, last - first, n_y, dz, weights, zeros, n_a, gradients, stride)
        for i in range(first, last):
            values = move(gradients, (i - first) * PANEL)
            unpack_rows(values, stride, rows_in(da, steps[i], samples, i), n_a, 1, NEAR)
        add_weight_gradient(
            last - first, dz, states, n_y, n_a, stride, 0, n_a, zeros, False,
            sums_in_work(sums, n_a),
        )  # fmt: skip


@inner
def output_work_size(groups: int, n_a: int, n_y: int, da: Any) -> int:
    """Elements of the workspace: packed `Wya`, zeros, then sums and buffers of each group."""
    size_Wya, size_sums, size_buffers = output_sizes(n_a, n_y, width_at(da))
    return size_Wya + groups * (size_sums + size_buffers) + CACHE_LINE // itemsize_of(da)


@inner
def sum_output_groups(groups: int, work: Any, dWya: Any, dby: Any) -> None:
    """Add the weight gradients of all groups, in their order, to results that are 0."""
    n_y, n_a, width = dWya.shape[0], dWya.shape[1], width_at(dWya)
    size_Wya, size_sums, size_buffers = output_sizes(n_a, n_y, width)
    row = tiles_of(n_a, width) * width
    sums = pointer_to(work, first_aligned(work) + size_Wya)
    size = size_sums + size_buffers
    add_groups(sums, size, groups, row, dWya, 0, n_y)
    add_groups(move(sums, n_y * row), size, groups, 1, dby, 0, n_y)


@team_entry(output_types, output_worker, pack_weights)
def output_backward(team, scale, rows, layer, outputs, losses, work):  # type: ignore[no-untyped-def]
    """Gradients of the output layer for the labelled rows; `losses`, one for each group.

    The team has one worker for each group, and the sums are bit for bit the same for every
    number of threads.
    """
    da, dWya, dby = outputs
    size = output_work_size(team[0], dWya.shape[1], dWya.shape[0], da)
    if has_to_ask(size, work):
        return size
    work = workspace(size, work)
    work[:] = 0
    pack_weights(layer[2], 0, 1, work, first_aligned(work), 0)
    run_team(team, (team[0], scale, rows, layer, outputs, losses, work))
    sum_output_groups(team[0], work, dWya, dby)
    return 0
