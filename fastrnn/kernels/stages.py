"""The order of work through a ragged batch: blocks of samples, chunks of steps, stages.

A block is a range of samples that goes through its time steps on its own. They are sorted by
length, longest first, so those that are active at a step are a prefix. A block goes in chunks of
consecutive steps, whose rows (one for each sample and step) fit a buffer:

    PREPARE   pack the rows of the chunk
    STEP      one time step, once for each step of the chunk; forward, the first also does for all
              rows what does not depend on the recurrence. A worker that has the block to itself
              takes all steps of the chunk at once
    FINISH    what follows from the states of all rows of the chunk, or from their gradients

The backward pass runs the same stages over the steps in reverse; nothing comes before its first
one, so PREPARE takes that along. Inside a stage every part can run at the same time. Two buffers
take turns, so that the first step of a chunk finds the one before it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from ._jit import array_in, array_out, entry, inner
from .tile import PANEL

PREPARE, STEP, FINISH, DONE = range(4)

#: Groups of blocks at most.
MOST_GROUPS = 16


class Sizes(NamedTuple):
    """How the work is cut up: a matter of shapes and lengths alone."""

    blocks: int  #: of samples, each with a time loop of its own; 1: all workers share it
    groups: int  #: sums of weight gradients, each over blocks of its own
    capacity: int  #: rows of a chunk, at least the samples of a block
    clear: int  #: 1: results may hold anything, and are set to 0 at padded steps
    past: int  #: 1: results are large, and are written past the caches
    apart: int  #: 1: the samples of a block follow each other in memory


class Block(NamedTuple):
    """Samples on their way through `steps` steps."""

    lo: int  #: where their order starts
    hi: int  #: where it ends
    at: int  #: where the numbers of them start that are active at each step
    steps: int
    capacity: int  #: rows of a chunk
    backward: int  #: 1: the steps are taken in reverse
    group: int  #: where its weight gradients are summed
    alone: int  #: 1: one worker runs it, all steps of a chunk in one stage


class Stage(NamedTuple):
    """Where a block stands. Turns count the steps in the order in which they are taken."""

    kind: int
    begin: int  #: first turn of the chunk
    end: int  #: turn after its last
    rows: int  #: rows of the chunk
    turn: int  #: of STEP its first, or only one; of FINISH the last of the chunk
    row: int  #: first row of this turn in the buffer
    previous: int  #: of STEP, first row of the turn before it, in its buffer
    side: int  #: which of the two buffers holds this chunk


@inner
def stride_of(sizes: Sizes) -> int:
    """Elements from one panel of a chunk's rows to the next."""
    return (sizes.capacity + 1) * PANEL


@inner
def block_of(
    order: Any, active: Any, number: int, sizes: Sizes, backward: int, group: int, alone: int
) -> Block:
    """Block `number`: an equal share of the samples; it lasts as long as its first one."""
    lo = order.size * number // sizes.blocks
    hi = order.size * (number + 1) // sizes.blocks
    at = active.size // sizes.blocks * number
    steps, end = 0, active.size // sizes.blocks - 1  # samples end: fewer from step to step, last 0
    while steps < end:
        middle = (steps + end) // 2
        if active[at + middle] > 0:
            steps = middle + 1
        else:
            end = middle
    return Block(lo, hi, at, steps, sizes.capacity, backward, group, alone)


@inner
def step_of(block: Block, turn: int) -> int:
    """Time step of a turn."""
    return block.steps - 1 - turn if block.backward else turn


@inner
def rows_at(block: Block, active: Any, turn: int) -> int:
    """Samples of the block that are active at a turn (none after the last or before the first)."""
    if turn < 0 or turn >= block.steps:
        return 0
    return active[block.at + step_of(block, turn)]


@inner
def _chunk(block: Block, active: Any, begin: int, previous: int, side: int) -> Stage:
    """The stage that starts the chunk at turn `begin`: as many turns as the buffer takes."""
    rows = 0
    end = begin
    while end < block.steps:
        more = rows_at(block, active, end)
        if end > begin and rows + more > block.capacity:
            break
        rows += more
        end += 1
    return Stage(PREPARE, begin, end, rows, begin, 0, previous, side)


@inner
def first_stage(block: Block, active: Any) -> Stage:
    """The stage in which a block starts."""
    if block.steps == 0:
        return Stage(DONE, 0, 0, 0, 0, 0, 0, 0)
    return _chunk(block, active, 0, 0, 0)


@inner
def next_stage(stage: Stage, block: Block, active: Any) -> Stage:
    """The stage after `stage`."""
    kind, begin, end, rows, turn, row, previous, side = stage
    if kind == PREPARE and not (block.backward and begin == 0):
        return Stage(STEP, begin, end, rows, turn, row, previous, side)
    if turn + 1 < end and not (kind == STEP and block.alone):
        after = row + rows_at(block, active, turn)
        return Stage(STEP, begin, end, rows, turn + 1, after, row, side)
    if kind != FINISH:
        last = rows - rows_at(block, active, end - 1)
        return Stage(FINISH, begin, end, rows, end - 1, last, previous, side)
    if end < block.steps:
        return _chunk(block, active, end, row, 1 - side)
    return Stage(DONE, begin, end, rows, turn, row, previous, side)


#: Types of a block and of a stage.
WHERE = (
    types.NamedUniTuple(types.int64, len(Block._fields), Block),
    types.NamedUniTuple(types.int64, len(Stage._fields), Stage),
)


def batch_types(dtype: types.Type) -> list[types.Type]:
    """Types of `sizes` and of `batch`: x, a0 as (n_a, m, 1), order, active."""
    vector = array_in(types.int64, 1)
    return [
        types.UniTuple(types.int64, len(Sizes._fields)),
        types.Tuple([array_in(dtype, 3), array_in(dtype, 3), vector, vector]),
    ]


_INTEGERS, _TABLE = array_out(types.int64, 1, "C"), array_out(types.int64, 2, "C")


@inner
def _count_active(lengths: Any, samples: Any, active: Any) -> None:
    """The number of these samples that are active at each step, and a last 0."""
    active[:] = 0
    for i in samples:
        if lengths[i] > 0:
            active[lengths[i] - 1] += 1
    for t in range(active.size - 2, -1, -1):
        active[t] += active[t + 1]


@entry(lambda dtype: types.int64(array_in(types.int64, 1), types.int64))
def add_lengths(lengths, T):  # type: ignore[no-untyped-def]
    """The sum of lengths that lie in 0..T; -1 if another is among them."""
    total = 0
    for length in lengths:
        if not 0 <= length <= T:
            return -1
        total += length
    return total


@entry(lambda dtype: types.void(array_in(types.int64, 1), types.boolean, _INTEGERS, _TABLE))
def sort_by_length(lengths, apart, order, active):  # type: ignore[no-untyped-def]
    """The samples of each block by length, longest first, and how many of them each step has.

    `order` has one place for each sample, `active` (blocks, T + 1) one for each step of a block and
    a last one, 0. Blocks are shares of all samples by length, or, if they are to be `apart`, of
    the samples as they lie in memory. Samples of one length keep their order.
    """
    blocks, m = len(active), lengths.size
    ranges = blocks if apart else 1
    for r in range(ranges):
        lo, hi = m * r // ranges, m * (r + 1) // ranges
        for i in range(lo, hi):
            order[i] = i
        place = active[r]  # of the next sample of each length: behind the longer ones
        _count_active(lengths, order[lo:hi], place)
        for i in range(lo, hi):
            order[lo + place[lengths[i]]] = i
            place[lengths[i]] += 1
        for t in range(place.size - 1):  # each has come to where the next shorter ones began
            place[t] = place[t + 1]
        place[place.size - 1] = 0
    if blocks > ranges:
        for b in range(blocks):
            _count_active(lengths, order[m * b // blocks : m * (b + 1) // blocks], active[b])
