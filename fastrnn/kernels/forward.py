"""The time loop forward. Its other half is `backward`.

Dimensions: n_x features, n_a hidden units, n_y classes, m samples, T steps.
Equations, for the active samples of a step, one sample a row:

    a[t] = tanh(x[t] Wax' + a[t-1] Waa' + ba)        y[t] = softmax(a[t] Wya' + by)

Two ways to use the processors, chosen by shapes and lengths alone: many samples are cut into blocks
that run their time loop alone; few samples with many hidden units stay one block, and its column
tiles are shared out within every stage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from . import stages
from ._jit import array_in, array_out, inlined, inner
from .cell import activate
from .chunk import (
    clear_padding,
    multiply_rows_of,
    multiply_tiles_of,
    pack_chunk,
    side_of,
    staged_size,
    stepping,
    unpack_chunk,
)
from .columns import PRODUCTS
from .held import hold
from .launch import has_to_ask, run_team, team_entry, worker, workspace
from .memory import (
    aligned_size,
    move,
    pointer_to,
    prefetch_to_write,
    reach_to_read,
    reach_to_write,
)
from .panels import pack_rows, panels_of, rows_in, share_of, tiles_of, width_at
from .schedule import claim, counters_size, end, sharing, work_types
from .softmax import softmax_rows
from .stages import Block, Sizes, Stage, batch_types, rows_at, stride_of
from .tile import PANEL
from .weights import (
    copied_size,
    lay_out,
    pack_weights,
    ways_forward,
    weights_for,
)


class Forward(NamedTuple):
    """What the tasks of a forward pass share: arrays, packed weights and buffers."""

    x: Any
    a0: Any
    order: Any
    active: Any
    a: Any
    y_pred: Any
    Wax: Any  #: `Weights`, as are the next two
    Waa: Any
    Wya: Any
    ba: Any  #: padded to whole tiles, as is the next
    by: Any
    states: Any  #: two buffers of panels
    inputs: Any
    logits: Any
    staged: Any
    room: int  #: elements of `staged`; 0: `x` is read as it lies
    reach_a: int  #: how `a` is written
    reach_y: int
    stride: int  #: elements between panels


@inner
def gather_inputs(job: Forward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """PREPARE: `x` for the rows of a chunk, and `a0` before the first."""
    n_a, stride = job.a.shape[0], job.stride
    first, last = share_of(stage.rows, part, parts)
    pack_chunk(
        job.x, job.a0, 0, job.order, job.active, block, stage, first, last, job.inputs, stride,
        job.staged, job.room,
    )  # fmt: skip
    if stage.begin == 0:
        before = side_of(job.states, 1 - stage.side, n_a, stride)
        last = min(last, rows_at(block, job.active, 0))
        rows = rows_in(job.a0, 0, job.order, block.lo + first)
        reach, to = reach_to_read(job.a0), move(before, first * PANEL)
        pack_rows(rows, n_a, last - first, reach, to, stride)


step_through = stepping(prefetch_to_write, activate)


@inner
def step_forward(job: Forward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """STEP: `a[t]` from `a[t-1]` in the column tiles of this part, for one step or more.

    Before that, the first step of a chunk makes `x Wax' + ba` for all of its rows.
    """
    if stage.turn == stage.begin:
        n_x, n_a, stride = job.x.shape[0], job.a.shape[0], job.stride
        states = side_of(job.states, stage.side, n_a, stride)
        first, last = share_of(tiles_of(n_a, width_at(states)), part, parts)
        multiply_tiles_of(
            first, last, 0, stage.rows, n_x, job.inputs, job.Wax, job.ba, n_a, states, stride
        )  # fmt: skip
    step_through(job, job.states, block, stage, part, parts)


@inner
def predict(job: Forward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """FINISH: the output layer for the rows of a chunk."""
    n_a, n_y, stride = job.a.shape[0], job.y_pred.shape[0], job.stride
    first, last = share_of(stage.rows, part, parts)
    states = side_of(job.states, stage.side, n_a, stride)
    multiply_rows_of(
        first, last, n_a, states, job.Wya, job.by, n_y, job.logits, stride
    )  # fmt: skip
    softmax_rows(move(job.logits, first * PANEL), stride, last - first, n_y)
    unpack_chunk(
        job.logits, stride, job.order, job.active, block, stage, first, last, job.y_pred,
        job.reach_y,
    )  # fmt: skip


@inner
def clear_forward(job: Forward, block: Block, part: int, parts: int) -> None:
    """Set padded steps of `a` and `y_pred` to 0."""
    clear_padding(job.a, job.order, job.active, block, part, parts, job.reach_a)
    clear_padding(job.y_pred, job.order, job.active, block, part, parts, job.reach_y)


@inlined
def run_forward(job: Forward, block: Block, stage: Stage, part: int, parts: int) -> None:
    """A task of the forward pass."""
    if stage.kind == stages.PREPARE:
        gather_inputs(job, block, stage, part, parts)
    elif stage.kind == stages.STEP:
        step_forward(job, block, stage, part, parts)
    elif stage.kind == stages.FINISH:
        predict(job, block, stage, part, parts)


share_forward = sharing(run_forward, clear_forward)


class Places(NamedTuple):
    """Where things start in the workspace of a forward pass, in elements."""

    Wax: int  #: copies of weights, as far as there are any
    Waa: int
    Wya: int
    ba: int
    by: int
    states: int  #: the buffers of a block
    inputs: int
    logits: int
    staged: int
    one_set: int  #: elements of these buffers; workers with blocks of their own have a set each
    size: int  #: elements of the workspace


@inner
def places_of(workers: int, sizes: Sizes, batch: Any, parameters: Any, outputs: Any) -> Places:
    """The places of a pass by so many workers."""
    x, _, order, active = batch
    Wax, Waa, Wya, _, _ = parameters
    a, y_pred = outputs
    n_x, n_a, n_y, width = x.shape[0], a.shape[0], y_pred.shape[0], width_at(a)
    stride = stride_of(sizes)
    way_x, way_a = ways_forward(n_a, order.size, active, sizes)
    at_Waa = copied_size(Wax.T, way_x, width)
    at_Wya = at_Waa + copied_size(Waa.T, way_a, width)
    at_ba = at_Wya + copied_size(Wya.T, way_x, width)
    at_by = at_ba + tiles_of(n_a, width) * width
    at_states = at_by + tiles_of(n_y, width) * width
    at_inputs = at_states + 2 * panels_of(n_a) * stride
    at_logits = at_inputs + panels_of(n_x) * stride
    at_staged = at_logits + panels_of(n_y) * stride
    one_set = at_staged + staged_size(x, sizes) - at_states
    size = at_states + (workers if sizes.blocks > 1 else 1) * one_set
    return Places(
        0, at_Waa, at_Wya, at_ba, at_by, at_states, at_inputs, at_logits, at_staged, one_set, size
    )


def forward_types(dtype: types.Type) -> list[types.Type]:
    """Types of sizes, batch, parameters (Wax, Waa, Wya, ba, by), outputs (a, y_pred)."""
    return [
        *batch_types(dtype),
        types.UniTuple(array_in(dtype, 2), 5),
        types.UniTuple(array_out(dtype, 3, "A"), 2),
    ]


@worker(
    lambda dtype: [types.int64, *forward_types(dtype), *work_types(dtype)],
    multiply_tiles_of, *PRODUCTS, pack_weights, lay_out, pack_rows, pack_chunk, unpack_chunk,
    activate, softmax_rows,
)  # fmt: skip
def forward_worker(number, workers, sizes, batch, parameters, outputs, work, counters):  # type: ignore[no-untyped-def]
    """One worker's share of a forward pass."""
    sizes = Sizes(*sizes)
    x, a0, order, active = batch
    Wax, Waa, Wya, ba, by = parameters
    a, y_pred = outputs
    places = places_of(workers, sizes, batch, parameters, outputs)
    way_x, way_a = ways_forward(len(a), order.size, active, sizes)
    in_x = weights_for(Wax.T, way_x, work, places.Wax)
    in_a = weights_for(Waa.T, way_a, work, places.Waa)
    in_y = weights_for(Wya.T, way_x, work, places.Wya)
    for i in range(workers):
        part = (number + i) % workers
        if not claim(counters, part, 0):
            continue
        lay_out(in_x, Wax.T, part, workers, work, places.Wax)
        lay_out(in_a, Waa.T, part, workers, work, places.Waa)
        lay_out(in_y, Wya.T, part, workers, work, places.Wya)
        pack_weights(ba.T, part, workers, work, places.ba, 0.0)
        pack_weights(by.T, part, workers, work, places.by, -np.inf)
        end(counters)
    own = pointer_to(work, number * places.one_set if sizes.blocks > 1 else 0)
    reach_a, reach_y = reach_to_write(a, sizes), reach_to_write(y_pred, sizes)
    job = hold(Forward(
        x, a0, order, active, a, y_pred,
        in_x, in_a, in_y,
        pointer_to(work, places.ba), pointer_to(work, places.by),
        move(own, places.states), move(own, places.inputs), move(own, places.logits),
        move(own, places.staged), staged_size(x, sizes), reach_a, reach_y, stride_of(sizes),
    ))  # fmt: skip
    share_forward(job, sizes, 0, number, workers, counters)


@team_entry(forward_types, forward_worker)
def forward(team, sizes, batch, parameters, outputs, work):  # type: ignore[no-untyped-def]
    """The forward pass; bit for bit the same for every number of workers."""
    size = aligned_size(places_of(team[0], Sizes(*sizes), batch, parameters, outputs).size, work)
    if has_to_ask(size, work):
        return size
    work = workspace(size, work)
    counters = np.zeros(counters_size(team[0]), np.int64)
    run_team(team, (team[0], sizes, batch, parameters, outputs, work, counters))
    return 0
