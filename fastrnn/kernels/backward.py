"""The time loop backward: backpropagation through the steps of `forward`, in reverse.

Equations, for the active samples of a step, one sample a row:

    dz[t] = (da[t] + dz[t+1] Waa) * (1 - a[t]^2)      dx[t] = dz[t] Wax
    dWax  = sum over t of dz[t]' x[t]                 dWaa = sum over t of dz[t]' a[t-1]
    dba   = sum over t of dz[t]                       da0 = dz[0] Waa
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, types

from . import stages
from ._jit import array_in, array_out, inlined, inner
from .cell import differentiate
from .chunk import clear_padding, multiply_rows_of, pack_chunk, share_of, side_of, unpack_chunk
from .launch import run_team, team_entry, worker
from .memory import CACHE_LINE, first_aligned, move, pointer_to
from .panels import (
    SUMMED_ROWS,
    add_outer,
    multiply_column,
    pack_weights,
    panels_of,
    tile_at,
    tiles_of,
    unpack_rows,
    width_of,
)
from .schedule import COUNTERS, end, sharing, take, wait_for, work_types
from .stages import Block, Sizes, Stage, batch_types, rows_at, step_of
from .tile import PANEL


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


def backward_types(dtype: types.Type) -> list[types.Type]:
    """Types of sizes, batch, parameters (Wax, Waa), states (a, da) and outputs."""
    matrix = array_out(dtype, 2, "C")
    return [
        *batch_types(dtype),
        types.UniTuple(array_in(dtype, 2), 2),
        types.UniTuple(array_in(dtype, 3), 2),
        types.Tuple([*[array_out(dtype, 3, "A")] * 2, matrix, matrix, matrix]),
    ]


@worker(lambda dtype: [types.int64, *backward_types(dtype), *work_types(dtype)])
def backward_worker(number, workers, sizes, batch, parameters, states, outputs, work, counters):  # type: ignore[no-untyped-def]
    """One worker's share of a backward pass."""
    sizes = Sizes(*sizes)
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
        at_dz += number * scratch
    ticket = take(counters)
    while ticket < workers:
        pack_weights(Wax, ticket, workers, work, at_Wax, 0.0)
        pack_weights(Waa, ticket, workers, work, at_Waa, 0.0)
        if sizes.clear:
            clear_padding(dx, order, active, ticket, workers)
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


@team_entry(backward_types, backward_worker)
def backward(team, sizes, batch, parameters, states, outputs):  # type: ignore[no-untyped-def]
    """The backward pass; bit for bit the same for every number of workers."""
    work = backward_work(team[0], Sizes(*sizes), outputs[0], outputs[1])
    counters = np.zeros(COUNTERS, np.int64)
    run_team(team, (team[0], sizes, batch, parameters, states, outputs, work, counters))
