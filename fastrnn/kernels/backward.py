"""The time loop backward: backpropagation through the steps of `forward`, in reverse.

Equations, for the active samples of a step, one sample a row:

    dz[t] = (da[t] + dz[t+1] Waa) * (1 - a[t]^2)      dx[t] = dz[t] Wax
    dWax  = sum over t of dz[t]' x[t]                 dWaa = sum over t of dz[t]' a[t-1]
    dba   = sum over t of dz[t]                       da0 = dz[0] Waa
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from . import stages
from ._jit import array_in, array_out, inlined, inner
from .cell import differentiate
from .chunk import (
    clear_padding,
    multiply_tiles_of,
    pack_chunk,
    side_of,
    staged_size,
    stepping,
    unpack_chunk,
)
from .columns import PRODUCTS
from .gradients import (
    add_groups,
    add_weight_gradient,
    copy_rest,
    summed_at_once,
    sums_in_place,
    sums_in_work,
    sums_of_group,
    sums_sizes,
)
from .held import hold
from .launch import has_to_ask, run_team, team_entry, worker, workspace
from .memory import (
    NEAR,
    aligned_size,
    move,
    pointer_to,
    prefetch_to_read,
    reach_to_read,
    reach_to_write,
)
from .panels import (
    ROWS_SUMMED,
    SUMS_SUMMED,
    columns_from,
    panels_of,
    rows_in,
    share_of,
    sums_of,
    tile_at,
    tiles_of,
    unpack_rows,
    width_at,
)
from .parts import clear_row
from .products import add_rows
from .schedule import SUMMED, claim, counters_size, end, sharing, take, wait_for, work_types
from .stages import Block, Sizes, Stage, batch_types, rows_at, step_of, stride_of
from .tile import PANEL
from .weights import copied_size, lay_out, ways_backward, weights_for

#: Rows of states that are read from their start to their end, which the processor notices.
AT_ONCE = 8


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
    Wax: Any  #: `Weights`, as is the next
    Waa: Any
    zeros: Any  #: for sums that start from nothing
    dz: Any  #: two buffers of panels
    rows: Any  #: panels of `x[t]`, then of `a[t-1]`
    staged: Any
    room_da: int  #: elements of `da` in `staged`; 0: it is read as it lies
    room_x: int  #: elements of `x` behind them, likewise
    dba: Any  #: sums of the first group, and of the others behind them
    dWax: Any  #: `Sums` of the first group, as is the next
    dWaa: Any
    others_x: Any  #: sums of `dWax` of the other groups
    others_a: Any  #: of `dWaa`
    others_size: int  #: elements from those of one group to those of the next
    one_group: bool  #: the first chunk of all makes the sums of `dWax` and `dWaa`, and none is 0
    reach_a: int  #: how `a` is read
    reach_dx: int  #: how `dx` is written
    stride: int


@inner
def prepare_backward(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """PREPARE: `da` for the rows of a chunk, and `dz` of those that no step comes after."""
    n_a, stride, width = job.a.shape[0], job.stride, width_at(job.dz)
    first, last = share_of(stage.rows, part, parts)
    dz = side_of(job.dz, stage.side, n_a, stride)
    pack_chunk(
        job.da, job.da, 0, job.order, job.active, block, stage, first, last, dz, stride,
        job.staged, job.room_da,
    )  # fmt: skip
    if stage.begin == 0:
        lo, hi = block.lo + first, block.lo + min(last, rows_at(block, job.active, 0))
        t = step_of(block, 0)
        for row in range(lo, hi, AT_ONCE):
            rows = min(AT_ONCE, hi - row)
            for column in range(0, n_a, width):
                tile = tile_at(dz, stride, first + row - lo, column)
                states = columns_from(rows_in(job.a, t, job.order, row), column)
                differentiate(tile, rows, states, n_a - column, NEAR)


step_through = stepping(prefetch_to_read, differentiate)


@inner
def step_backward(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """STEP: `dz[t]` from `dz[t+1]` in the column tiles of this part, for one step or more."""
    step_through(job, job.dz, block, stage, part, parts)


@inner
def finish_backward(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """FINISH: all that follows from `dz`, in panels of `x`, then of the states, shared out by cost.

    A part has its panels to itself: for `dx` or `da0`, then for `x` or `a[t-1]`.
    """
    n_x, n_a = job.x.shape[0], job.a.shape[0]
    first_rows = rows_at(block, job.active, stage.turn) if stage.end == block.steps else 0
    panels = panels_of(n_x)
    cost, cost_a = 2 * stage.rows, stage.rows + first_rows  # of a panel: rows of its products
    total = panels * cost + panels_of(n_a) * cost_a
    begin, beyond = share_of(total, part, parts)
    first, last = min(begin // cost, panels), min(beyond // cost, panels)
    if first < last:
        finish_inputs(job, block, stage, first * PANEL, min(last * PANEL, n_x))
    first, last = max(begin - panels * cost, 0) // cost_a, max(beyond - panels * cost, 0) // cost_a
    if first < last:
        finish_states(job, block, stage, first_rows, first * PANEL, min(last * PANEL, n_a))


@inner
def finish_inputs(job: Backward, block: Block, stage: Stage, first: int, last: int) -> None:
    """`dx` for the rows of a chunk, then its `dz[t]' x[t]`, in some columns of both."""
    n_x, n_a, stride, width = job.x.shape[0], job.a.shape[0], job.stride, width_at(job.dz)
    dz = side_of(job.dz, stage.side, n_a, stride)
    own = tile_at(job.rows, stride, 0, first)
    multiply_tiles_of(
        first // width, tiles_of(last, width), 0, stage.rows, n_a, dz, job.Wax, job.zeros, n_x,
        job.rows, stride,
    )  # fmt: skip
    unpack_chunk(
        own, stride, job.order, job.active, block, stage, 0, stage.rows, job.dx[first:last],
        job.reach_dx,
    )  # fmt: skip
    pack_chunk(
        job.x[first:last], job.a0, 0, job.order, job.active, block, stage, 0, stage.rows, own,
        stride, move(job.staged, job.room_da), job.room_x,
    )  # fmt: skip
    add_weight_gradient(
        stage.rows, dz, job.rows, n_a, n_x, stride, first, last, job.zeros, is_fresh(job, stage),
        sums_of_group(job.dWax, job.others_x, job.others_size, block.group, n_x),
    )  # fmt: skip


@inner
def finish_states(
    job: Backward, block: Block, stage: Stage, first_rows: int, first: int, last: int
) -> None:
    """`da0` for the rows of the first step, then the chunk's `dz[t]' a[t-1]` and sum of `dz[t]`."""
    n_a, stride, width = job.a.shape[0], job.stride, width_at(job.dz)
    dz = side_of(job.dz, stage.side, n_a, stride)
    states = move(job.rows, panels_of(job.x.shape[0]) * stride)
    own = tile_at(states, stride, 0, first)
    if first_rows:
        multiply_tiles_of(
            first // width, tiles_of(last, width), 0, first_rows, n_a,
            move(dz, stage.row * PANEL), job.Waa, job.zeros, n_a, states, stride,
        )  # fmt: skip
        rows = rows_in(job.da0[first:last], 0, job.order, block.lo)
        unpack_rows(own, stride, rows, last - first, first_rows, NEAR)
    pack_chunk(
        job.a[first:last], job.a0[first:last], 1, job.order, job.active, block, stage, 0,
        stage.rows, own, stride, own, 0,
    )  # fmt: skip
    add_weight_gradient(
        stage.rows, dz, states, n_a, n_a, stride, first, last, job.zeros, is_fresh(job, stage),
        sums_of_group(job.dWaa, job.others_a, job.others_size, block.group, n_a),
    )  # fmt: skip
    dba = move(job.dba, block.group * panels_of(n_a) * PANEL)
    add_bias_gradient(stage.rows, dz, stride, first, last, own, dba)


@inner
def is_fresh(job: Backward, stage: Stage) -> bool:
    """Whether the chunk makes the sums of weight gradients; one group is one block."""
    return job.one_group and stage.begin == 0


@inner
def add_bias_gradient(
    rows: int, dz: Any, stride: int, first: int, last: int, own: Any, out: Any
) -> None:
    """Add the sum of the rows of `dz` to `out`, for columns `first` to `last`, whole tiles.

    Sums of some rows each replace what the panels `own` of these columns hold, then are summed in
    the same way: one after the other, those of the largest chunks would lose digits.
    """
    width = width_at(dz)
    sums = sums_of(rows, ROWS_SUMMED)
    sums_of_sums = sums_of(sums, SUMS_SUMMED)
    for column in range(first, last, width):
        for i in range(sums):
            begin, end = share_of(rows, i, sums)
            own_sum = tile_at(own, stride, i, column - first)
            clear_row(own_sum, width)
            add_rows(end - begin, tile_at(dz, stride, begin, column), own_sum)
        for i in range(sums_of_sums):
            begin, end = share_of(sums, i, sums_of_sums)
            add_rows(end - begin, tile_at(own, stride, begin, column - first), move(out, column))


@inner
def clear_backward(job: Backward, block: Block, part: int, parts: int) -> None:
    """Set padded steps of `dx` to 0."""
    clear_padding(job.dx, job.order, job.active, block, part, parts, job.reach_dx)


@inlined
def run_backward(job: Backward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """A task of the backward pass."""
    if stage.kind == stages.PREPARE:
        prepare_backward(job, block, stage, part, parts)
    elif stage.kind == stages.STEP:
        step_backward(job, block, stage, part, parts)
    elif stage.kind == stages.FINISH:
        finish_backward(job, block, stage, part, parts)


share_backward = sharing(run_backward, clear_backward)


class Places(NamedTuple):
    """Where things start in the workspace of a backward pass, in elements."""

    Wax: int  #: copies of weights, as far as there are any
    Waa: int
    zeros: int
    dba: int  #: sums of all groups
    rest_x: int  #: of the first group, columns of `dWax` that fill no tile
    rest_a: int
    others_x: int  #: sums of the second group: of `dWax`, then of `dWaa`; then of the other groups
    others_a: int
    dz: int  #: the buffers of a block
    rows: int
    staged: int
    others: int  #: elements of the sums of one of the other groups
    one_set: int  #: elements of the buffers; workers with blocks of their own have a set each
    size: int  #: elements of the workspace


@inner
def places_of(workers: int, sizes: Sizes, batch: Any, parameters: Any, da: Any) -> Places:
    """The places of a pass by so many workers."""
    x, _, _, active = batch
    Wax, Waa = parameters
    (n_a, n_x), width, stride = Wax.shape, width_at(Wax), stride_of(sizes)
    (rest_x, all_x), (rest_a, all_a) = sums_sizes(n_a, n_x, width), sums_sizes(n_a, n_a, width)
    way_x, way_a = ways_backward(active, sizes)
    panels = panels_of(n_x) + panels_of(n_a)
    at_Waa = copied_size(Wax, way_x, width)
    at_zeros = at_Waa + copied_size(Waa, way_a, width)
    at_dba = at_zeros + panels * PANEL
    at_rest_x = at_dba + sizes.groups * panels_of(n_a) * PANEL
    at_rest_a = at_rest_x + rest_x
    at_others = at_rest_a + rest_a
    others = all_x + all_a
    at_dz = at_others + (sizes.groups - 1) * others
    at_rows = at_dz + 2 * panels_of(n_a) * stride
    at_staged = at_rows + panels * stride
    one_set = at_staged + staged_size(da, sizes) + staged_size(x, sizes) - at_dz
    size = at_dz + (workers if sizes.blocks > 1 else 1) * one_set
    return Places(
        0, at_Waa, at_zeros, at_dba, at_rest_x, at_rest_a, at_others, at_others + all_x, at_dz,
        at_rows, at_staged, others, one_set, size,
    )  # fmt: skip


def backward_types(dtype: types.Type) -> list[types.Type]:
    """Types of sizes, batch, parameters (Wax, Waa), states (a, da) and outputs."""
    matrix = array_out(dtype, 2, "C")
    return [
        *batch_types(dtype),
        types.UniTuple(array_in(dtype, 2), 2),
        types.UniTuple(array_in(dtype, 3), 2),
        types.Tuple([*[array_out(dtype, 3, "A")] * 2, matrix, matrix, matrix]),
    ]


@worker(
    lambda dtype: [types.int64, *backward_types(dtype), *work_types(dtype)],
    multiply_tiles_of, *PRODUCTS, add_weight_gradient, lay_out, pack_chunk, unpack_chunk,
    unpack_rows, differentiate,
)  # fmt: skip
def backward_worker(number, workers, sizes, batch, parameters, states, outputs, work, counters):  # type: ignore[no-untyped-def]
    """One worker's share of a backward pass."""
    sizes = Sizes(*sizes)
    x, a0, order, active = batch
    Wax, Waa = parameters
    a, da = states
    dx, da0, dWax, dWaa, dba = outputs
    n_a, groups, one_group = len(a), sizes.groups, sizes.groups == 1
    places = places_of(workers, sizes, batch, parameters, da)
    way_x, way_a = ways_backward(active, sizes)
    to_x = weights_for(Wax, way_x, work, places.Wax)
    to_a = weights_for(Waa, way_a, work, places.Waa)
    for i in range(workers):
        part = (number + i) % workers
        if not claim(counters, part, 0):
            continue
        lay_out(to_x, Wax, part, workers, work, places.Wax)
        lay_out(to_a, Waa, part, workers, work, places.Waa)
        cleared = (places.rest_x if one_group else places.dz) - places.zeros
        first, last = share_of(cleared, part, workers)
        work[places.zeros + first : places.zeros + last] = 0
        if not one_group:
            first, last = share_of(n_a, part, workers)
            dWax[first:last] = 0
            dWaa[first:last] = 0
        end(counters)
    at_once = summed_at_once(active, sizes)
    sums_dWax = sums_in_place(dWax, pointer_to(work, places.rest_x), at_once)
    sums_dWaa = sums_in_place(dWaa, pointer_to(work, places.rest_a), at_once)
    sums_dba = pointer_to(work, places.dba)
    others_x, others_a = pointer_to(work, places.others_x), pointer_to(work, places.others_a)
    own = pointer_to(work, number * places.one_set if sizes.blocks > 1 else 0)
    job = hold(Backward(
        x, a0, order, active, a, da, dx, da0,
        to_x, to_a, pointer_to(work, places.zeros),
        move(own, places.dz), move(own, places.rows), move(own, places.staged),
        staged_size(da, sizes), staged_size(x, sizes),
        sums_dba, sums_dWax, sums_dWaa, others_x, others_a, places.others, one_group,
        reach_to_read(a), reach_to_write(dx, sizes), stride_of(sizes),
    ))  # fmt: skip
    done = share_backward(job, sizes, 1, number, workers, counters)
    wait_for(counters, done)
    part = take(counters, SUMMED)
    while part < workers:
        first, last = share_of(n_a, part, workers)
        dba[first:last] = 0
        add_groups(sums_dba, panels_of(n_a) * PANEL, groups, 1, dba, first, last)
        for sums, more, gradient in ((sums_dWax, others_x, dWax), (sums_dWaa, others_a, dWaa)):
            if active[0] or not one_group:
                copy_rest(sums, gradient, first, last)
            row = sums_in_work(more, gradient.shape[1]).row
            add_groups(more, places.others, groups - 1, row, gradient, first, last)
        part = take(counters, SUMMED)


@team_entry(backward_types, backward_worker)
def backward(team, sizes, batch, parameters, states, outputs, work):  # type: ignore[no-untyped-def]
    """The backward pass; bit for bit the same for every number of workers."""
    size = aligned_size(places_of(team[0], Sizes(*sizes), batch, parameters, states[1]).size, work)
    if has_to_ask(size, work):
        return size
    work = workspace(size, work)
    counters = np.zeros(counters_size(team[0]), np.int64)
    run_team(team, (team[0], sizes, batch, parameters, states, outputs, work, counters))
    return 0
