"""The time loops of the recurrent network: forward, and below it, backward.

Dimensions: n_x features, n_a hidden units, n_y classes, m samples, T steps.
Equations, for the active samples of a step, one sample a row:

    a[t]  = tanh(x[t] Wax' + a[t-1] Waa' + ba)        y[t] = softmax(a[t] Wya' + by)
    dz[t] = (da[t] + dz[t+1] Waa) * (1 - a[t]^2)      dx[t] = dz[t] Wax
    dWax  = sum over t of dz[t]' x[t]                 dWaa = sum over t of dz[t]' a[t-1]

Two ways to use the processors, chosen by shapes alone: many samples are cut into blocks that run
their time loop alone; few samples with many hidden units stay one block, and its column tiles are
shared out within every stage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, prange, types

from . import stages
from ._jit import array_in, array_out, entry, inlined, inner
from .activation import tanh_in_place
from .chunk import (
    multiply_rows_of,
    pack_chunk,
    share_of,
    side_of,
    unpack_chunk,
)
from .memory import (
    CACHE_LINE,
    first_aligned,
    move,
    pointer_into,
    pointer_to,
    prefetch_to_read,
    prefetch_to_write,
)
from .output import softmax_rows
from .panels import (
    AHEAD,
    SUMMED_ROWS,
    add_outer,
    multiply_column,
    pack_rows,
    pack_weights,
    panels_of,
    tile_at,
    tiles_of,
    unpack_rows,
    width_of,
)
from .schedule import COUNTERS, end, sharing, take, wait_for
from .stages import Block, Sizes, Stage, rows_at, step_of
from .tile import PANEL


class Forward(NamedTuple):
    """What the tasks of a forward pass share: arrays, packed weights and buffers."""

    x: Any
    a0: Any
    order: Any
    active: Any
    a: Any
    y_pred: Any
    Wax: Any  #: packed, as are the next two
    Waa: Any
    Wya: Any
    ba: Any  #: padded to whole tiles, as is the next
    by: Any
    states: Any  #: two buffers of panels
    inputs: Any
    logits: Any
    stride: int  #: elements between panels
    width: int  #: columns of a tile


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


@inlined
def project_inputs(job: Forward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """PREPARE: `x Wax' + ba` for the rows of a chunk, and `a0` before the first step."""
    n_x, n_a, stride = job.x.shape[0], job.a.shape[0], job.stride
    first, last = share_of(stage.rows, part, parts)
    pack_chunk(
        job.x, job.a0, 0, job.order, job.active, block, stage, first, last, job.inputs, stride
    )
    states = side_of(job.states, stage.side, n_a, stride)
    multiply_rows_of(
        first, last, n_x, job.inputs, job.Wax, job.ba, n_a, states, stride, job.width
    )  # fmt: skip
    if stage.begin == 0:
        before = side_of(job.states, 1 - stage.side, n_a, stride)
        last = min(last, rows_at(block, job.active, 0))
        pack_rows(job.a0, 0, job.order, block.lo + first, block.lo + last, before, stride, first)


@inlined
def step_forward(job: Forward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """STEP: `a[t]` from `a[t-1]` in the column tiles of this part."""
    n_a, width, stride = job.a.shape[0], job.width, job.stride
    rows = rows_at(block, job.active, stage.turn)
    states = side_of(job.states, stage.side, n_a, stride)
    side = stage.side if stage.turn > stage.begin else 1 - stage.side
    before = move(side_of(job.states, side, n_a, stride), stage.previous * PANEL)
    first, last = share_of(tiles_of(n_a, width), part, parts)
    for j in range(first, last):
        z = tile_at(states, stride, stage.row, j * width)
        weights = move(job.Waa, j * n_a * width)
        multiply_column(rows, n_a, before, stride, weights, z, PANEL, z, width)
        activate(z, rows, width)
        copy_out(z, rows, job.a, stage.turn, job.order, block.lo, j * width)


@inlined
def predict(job: Forward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """FINISH: the output layer for the rows of a chunk."""
    n_a, n_y, stride = job.a.shape[0], job.y_pred.shape[0], job.stride
    first, last = share_of(stage.rows, part, parts)
    states = side_of(job.states, stage.side, n_a, stride)
    multiply_rows_of(
        first, last, n_a, states, job.Wya, job.by, n_y, job.logits, stride, job.width
    )  # fmt: skip
    softmax_rows(move(job.logits, first * PANEL), stride, last - first, n_y)
    unpack_chunk(
        job.logits, stride, job.order, job.active, block, stage, first, last, job.y_pred
    )  # fmt: skip


@inlined
def run_forward(job: Forward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """A task of the forward pass."""
    if stage.kind == stages.PREPARE:
        project_inputs(job, block, stage, part, parts)
    elif stage.kind == stages.STEP:
        step_forward(job, block, stage, part, parts)
    elif stage.kind == stages.FINISH:
        predict(job, block, stage, part, parts)


share_forward = sharing(run_forward)


@inner
def forward_scratch(n_x: int, n_a: int, n_y: int, stride: int) -> int:
    """Elements of the buffers of one block."""
    return (2 * panels_of(n_a) + panels_of(n_x) + panels_of(n_y)) * stride


@inner
def forward_worker(worker, workers, sizes, batch, parameters, outputs, work, counters):  # type: ignore[no-untyped-def]
    """One worker's share of a forward pass."""
    x, a0, order, active = batch
    Wax, Waa, Wya, ba, by = parameters
    a, y_pred = outputs
    n_x, n_a, n_y, width = x.shape[0], a.shape[0], y_pred.shape[0], width_of(a)
    tiles, classes = tiles_of(n_a, width), tiles_of(n_y, width)
    stride = (sizes.capacity + 1) * PANEL
    at_Wax = first_aligned(work)
    at_Waa = at_Wax + tiles * width * n_x
    at_Wya = at_Waa + tiles * width * n_a
    at_ba = at_Wya + classes * width * n_a
    at_by = at_ba + tiles * width
    at_states = at_by + classes * width
    if sizes.blocks > 1:
        at_states += worker * forward_scratch(n_x, n_a, n_y, stride)
    at_inputs = at_states + 2 * panels_of(n_a) * stride
    at_logits = at_inputs + panels_of(n_x) * stride
    ticket = take(counters)
    while ticket < workers:
        pack_weights(Wax.T, ticket, workers, work, at_Wax)
        pack_weights(Waa.T, ticket, workers, work, at_Waa)
        pack_weights(Wya.T, ticket, workers, work, at_Wya)
        pack_weights(ba.T, ticket, workers, work, at_ba)
        pack_weights(by.T, ticket, workers, work, at_by)
        end(counters)
        ticket = take(counters)
    job = Forward(
        x, a0, order, active, a, y_pred,
        pointer_to(work, at_Wax), pointer_to(work, at_Waa), pointer_to(work, at_Wya),
        pointer_to(work, at_ba), pointer_to(work, at_by),
        pointer_to(work, at_states), pointer_to(work, at_inputs), pointer_to(work, at_logits),
        stride, width,
    )  # fmt: skip
    share_forward(job, sizes, 0, workers, workers, ticket, counters)


@inner
def forward_work(workers: int, sizes: Any, x: Any, a: Any, y_pred: Any) -> Any:
    """Workspace: packed weights, then buffers, one set of them for each worker with its blocks."""
    n_x, n_a, n_y, width = x.shape[0], a.shape[0], y_pred.shape[0], width_of(a)
    weights = tiles_of(n_a, width) * width * (n_x + n_a + 1)
    weights += tiles_of(n_y, width) * width * (n_a + 1)
    scratch = forward_scratch(n_x, n_a, n_y, (sizes.capacity + 1) * PANEL)
    sets = workers if sizes.blocks > 1 else 1
    return np.empty(weights + sets * scratch + CACHE_LINE // a.itemsize, a.dtype)


def _batch_types(dtype: types.Type) -> list[types.Type]:
    """Types of `sizes` and of `batch`: x, a0 as (n_a, m, 1), order, active."""
    vector = array_in(types.int64, 1)
    return [
        types.UniTuple(types.int64, 3),
        types.Tuple([array_in(dtype, 3), array_in(dtype, 3), vector, vector]),
    ]


def forward_types(dtype: types.Type) -> list[types.Type]:
    """Types of sizes, batch, parameters (Wax, Waa, Wya, ba, by), outputs (a, y_pred)."""
    return [
        *_batch_types(dtype),
        types.UniTuple(array_in(dtype, 2), 5),
        types.UniTuple(array_out(dtype, 3, "A"), 2),
    ]


@entry(lambda dtype: types.void(*forward_types(dtype)))
def forward(sizes, batch, parameters, outputs):  # type: ignore[no-untyped-def]
    """The forward pass in the thread that calls."""
    sizes = Sizes(sizes[0], sizes[1], sizes[2])
    work = forward_work(1, sizes, batch[0], outputs[0], outputs[1])
    counters = np.zeros(COUNTERS, np.int64)
    forward_worker(0, 1, sizes, batch, parameters, outputs, work, counters)


@entry(lambda dtype: types.void(types.int64, *forward_types(dtype)), parallel=True)
def forward_parallel(workers, sizes, batch, parameters, outputs):  # type: ignore[no-untyped-def]
    """The forward pass shared by `workers` threads; bit for bit the same."""
    sizes = Sizes(sizes[0], sizes[1], sizes[2])
    work = forward_work(workers, sizes, batch[0], outputs[0], outputs[1])
    counters = np.zeros(COUNTERS, np.int64)
    for worker in prange(workers):
        forward_worker(np.int64(worker), workers, sizes, batch, parameters, outputs, work, counters)


class Backward(NamedTuple):
    """What the tasks of a backward pass share."""

    x: Any
    a0: Any
    order: Any
    active: Any
    a: Any
    da: Any
    dx: Any
    da0: Any
    Wax: Any  #: packed, as is the next
    Waa: Any
    zeros: Any  #: for sums that start from nothing
    dz: Any  #: two buffers of panels
    rows: Any  #: panels of `x[t]`, then of `a[t-1]`
    sums: Any  #: weight gradients and `dba`, one set for each group
    sums_size: int
    stride: int
    width: int


@inlined
def gather_gradients(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """PREPARE: `da` for the rows of a chunk."""
    first, last = share_of(stage.rows, part, parts)
    dz = side_of(job.dz, stage.side, job.a.shape[0], job.stride)
    pack_chunk(
        job.da, job.da, 0, job.order, job.active, block, stage, first, last, dz, job.stride
    )  # fmt: skip


@inlined
def step_backward(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """STEP: `dz[t]` from `dz[t+1]` in the column tiles of this part."""
    n_a, width, stride = job.a.shape[0], job.width, job.stride
    rows = rows_at(block, job.active, stage.turn)
    rows_after = rows_at(block, job.active, stage.turn - 1)
    dz = side_of(job.dz, stage.side, n_a, stride)
    side = stage.side if stage.turn > stage.begin else 1 - stage.side
    after = move(side_of(job.dz, side, n_a, stride), stage.previous * PANEL)
    t = step_of(block, stage.turn)
    first, last = share_of(tiles_of(n_a, width), part, parts)
    for j in range(first, last):
        z = tile_at(dz, stride, stage.row, j * width)
        weights = move(job.Waa, j * n_a * width)
        multiply_column(rows_after, n_a, after, stride, weights, z, PANEL, z, width)
        differentiate(z, rows, job.a, t, job.order, block.lo, j * width)


@inlined
def finish_backward(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """FINISH: `dx` for the rows of a chunk; then `x[t]` and `a[t-1]` beside each other."""
    n_x, n_a, stride = job.x.shape[0], job.a.shape[0], job.stride
    first, last = share_of(stage.rows, part, parts)
    dz = side_of(job.dz, stage.side, n_a, stride)
    multiply_rows_of(
        first, last, n_a, dz, job.Wax, job.zeros, n_x, job.rows, stride, job.width
    )  # fmt: skip
    unpack_chunk(job.rows, stride, job.order, job.active, block, stage, first, last, job.dx)
    pack_chunk(
        job.x, job.a0, 0, job.order, job.active, block, stage, first, last, job.rows, stride
    )  # fmt: skip
    states = move(job.rows, panels_of(n_x) * stride)
    pack_chunk(
        job.a, job.a0, 1, job.order, job.active, block, stage, first, last, states, stride
    )  # fmt: skip


@inlined
def add_weight_gradients(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """PRODUCTS: the chunk's `x[t]' dz[t]`, `a[t-1]' dz[t]` and sum of `dz[t]`."""
    n_x, n_a, width, stride = job.x.shape[0], job.a.shape[0], job.width, job.stride
    panels, tiles = panels_of(n_x) + panels_of(n_a), tiles_of(n_a, width)
    sums = move(job.sums, block.group * job.sums_size)
    dz = side_of(job.dz, stage.side, n_a, stride)
    height = panels * PANEL * width
    first, last = share_of(panels, part, parts)
    for p in range(first, last):
        features = n_x - p * PANEL if p < panels_of(n_x) else n_a - (p - panels_of(n_x)) * PANEL
        add_outer(
            stage.rows, min(features, PANEL), move(job.rows, p * stride), dz, stride, n_a,
            move(sums, p * PANEL * width), height, width,
        )  # fmt: skip
    first, last = share_of(tiles, part, parts)
    for j in range(first, last):
        # Summed in the row after the last of the buffer.
        chunk = carray(tile_at(dz, stride, job.stride // PANEL - 1, j * width), (width,))
        total = carray(move(sums, tiles * height + j * width), (width,))
        for begin in range(0, stage.rows, SUMMED_ROWS):
            chunk[:] = 0
            for i in range(begin, min(begin + SUMMED_ROWS, stage.rows)):
                values = carray(tile_at(dz, stride, i, j * width), (width,))
                for c in range(width):
                    chunk[c] += values[c]
            for c in range(width):
                total[c] += chunk[c]


@inlined
def first_state_gradient(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """LAST: `da0` from `dz[0]`."""
    n_a, stride = job.a.shape[0], job.stride
    first, last = share_of(rows_at(block, job.active, stage.turn), part, parts)
    dz = move(side_of(job.dz, stage.side, n_a, stride), stage.row * PANEL)
    out = side_of(job.dz, 1 - stage.side, n_a, stride)
    multiply_rows_of(
        first, last, n_a, dz, job.Waa, job.zeros, n_a, out, stride, job.width
    )  # fmt: skip
    unpack_rows(out, stride, first, job.da0, 0, job.order, block.lo + first, block.lo + last)


@inlined
def run_backward(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """A task of the backward pass."""
    if stage.kind == stages.PREPARE:
        gather_gradients(job, block, stage, part, parts)
    elif stage.kind == stages.STEP:
        step_backward(job, block, stage, part, parts)
    elif stage.kind == stages.FINISH:
        finish_backward(job, block, stage, part, parts)
    elif stage.kind == stages.PRODUCTS:
        add_weight_gradients(job, block, stage, part, parts)
    elif stage.kind == stages.LAST:
        first_state_gradient(job, block, stage, part, parts)


share_backward = sharing(run_backward)


@inner
def sum_groups(
    sums: Any, size: int, groups: int, first_feature: int, height: int, width: int, out: Any,
    part: int, parts: int,
) -> None:  # fmt: skip
    """One weight gradient `out` (n_a, n) from the tiles of all groups, in their order."""
    n_a, n = out.shape
    first, last = share_of(tiles_of(n_a, width), part, parts)
    for j in range(first, last):
        for k in range(n):
            at = (j * height + first_feature + k) * width
            for c in range(min(width, n_a - j * width)):
                total = carray(move(sums, at + c), (1,))[0]
                for g in range(1, groups):
                    total += carray(move(sums, g * size + at + c), (1,))[0]
                out[j * width + c, k] = total


@inner
def backward_sizes(n_x: int, n_a: int, width: int, stride: int) -> tuple[int, int, int, int]:
    """Elements of packed `Wax` and `Waa`, of one set of sums, and of one block's buffers."""
    tiles, panels = tiles_of(n_a, width), panels_of(n_x) + panels_of(n_a)
    sums = tiles * width * (panels * PANEL + 1)
    scratch = (2 * panels_of(n_a) + panels) * stride
    return tiles_of(n_x, width) * width * n_a, tiles * width * n_a, sums, scratch


@inner
def backward_worker(worker, workers, sizes, batch, parameters, states, outputs, work, counters):  # type: ignore[no-untyped-def]
    """One worker's share of a backward pass."""
    x, a0, order, active = batch
    Wax, Waa = parameters
    a, da = states
    dx, da0, dWax, dWaa, dba = outputs
    n_x, n_a, width = x.shape[0], a.shape[0], width_of(dx)
    stride = (sizes.capacity + 1) * PANEL
    size_Wax, size_Waa, size_sums, scratch = backward_sizes(n_x, n_a, width, stride)
    size_zeros = (panels_of(n_x) + panels_of(n_a)) * PANEL
    at_Wax = first_aligned(work)
    at_Waa = at_Wax + size_Wax
    at_zeros = at_Waa + size_Waa
    at_sums = at_zeros + size_zeros
    at_dz = at_sums + sizes.groups * size_sums
    if sizes.blocks > 1:
        at_dz += worker * scratch
    ticket = take(counters)
    while ticket < workers:
        pack_weights(Wax, ticket, workers, work, at_Wax)
        pack_weights(Waa, ticket, workers, work, at_Waa)
        first, last = share_of(at_sums + sizes.groups * size_sums - at_zeros, ticket, workers)
        work[at_zeros + first : at_zeros + last] = 0
        end(counters)
        ticket = take(counters)
    sums = pointer_to(work, at_sums)
    job = Backward(
        x, a0, order, active, a, da, dx, da0,
        pointer_to(work, at_Wax), pointer_to(work, at_Waa), pointer_to(work, at_zeros),
        pointer_to(work, at_dz), pointer_to(work, at_dz + 2 * panels_of(n_a) * stride),
        sums, size_sums, stride, width,
    )  # fmt: skip
    done, ticket = share_backward(job, sizes, 1, workers, workers, ticket, counters)
    height = (panels_of(n_x) + panels_of(n_a)) * PANEL
    while ticket < done + workers:
        wait_for(counters, done)
        part, groups = ticket - done, sizes.groups
        sum_groups(sums, size_sums, groups, 0, height, width, dWax, part, workers)
        features = panels_of(n_x) * PANEL
        sum_groups(sums, size_sums, groups, features, height, width, dWaa, part, workers)
        if part == 0:
            for i in range(n_a):
                at = at_sums + tiles_of(n_a, width) * width * height + i
                for g in range(groups):
                    dba[i, 0] += work[at + g * size_sums]
        ticket = take(counters)


@inner
def backward_work(workers: int, sizes: Any, dx: Any, da0: Any) -> Any:
    """Workspace of a backward pass."""
    n_x, n_a, width = dx.shape[0], da0.shape[0], width_of(dx)
    stride = (sizes.capacity + 1) * PANEL
    size_Wax, size_Waa, size_sums, scratch = backward_sizes(n_x, n_a, width, stride)
    size = size_Wax + size_Waa + (panels_of(n_x) + panels_of(n_a)) * PANEL
    size += sizes.groups * size_sums
    size += (workers if sizes.blocks > 1 else 1) * scratch
    return np.empty(size + CACHE_LINE // dx.itemsize, dx.dtype)


def backward_types(dtype: types.Type) -> list[types.Type]:
    """Types of sizes, batch, parameters (Wax, Waa), states (a, da) and outputs."""
    matrix = array_out(dtype, 2, "C")
    return [
        *_batch_types(dtype),
        types.UniTuple(array_in(dtype, 2), 2),
        types.UniTuple(array_in(dtype, 3), 2),
        types.Tuple([*[array_out(dtype, 3, "A")] * 2, matrix, matrix, matrix]),
    ]


@entry(lambda dtype: types.void(*backward_types(dtype)))
def backward(sizes, batch, parameters, states, outputs):  # type: ignore[no-untyped-def]
    """The backward pass in the thread that calls."""
    sizes = Sizes(sizes[0], sizes[1], sizes[2])
    work = backward_work(1, sizes, outputs[0], outputs[1])
    counters = np.zeros(COUNTERS, np.int64)
    backward_worker(0, 1, sizes, batch, parameters, states, outputs, work, counters)


@entry(lambda dtype: types.void(types.int64, *backward_types(dtype)), parallel=True)
def backward_parallel(workers, sizes, batch, parameters, states, outputs):  # type: ignore[no-untyped-def]
    """The backward pass shared by `workers` threads; bit for bit the same."""
    sizes = Sizes(sizes[0], sizes[1], sizes[2])
    work = backward_work(workers, sizes, outputs[0], outputs[1])
    counters = np.zeros(COUNTERS, np.int64)
    for worker in prange(workers):
        backward_worker(
            np.int64(worker), workers, sizes, batch, parameters, states, outputs, work, counters
        )  # fmt: skip
