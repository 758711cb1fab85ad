"""The order of work through a ragged batch: blocks of samples, chunks of steps, stages.

Samples are sorted by length, longest first, so those that are active at a step are a prefix:
`active[t]` of them. A block is a range of that order that goes through its time steps on its own.
It does so in chunks of consecutive steps, whose rows (one for each sample and step) fit a buffer:

    PREPARE   pack the rows of the chunk; what does not depend on the recurrence
    STEP      one time step, once for each step of the chunk (and the latter, if it has but one)
    FINISH    what follows from the states of all rows of the chunk
    PRODUCTS  weight gradients of all rows of the chunk (backward only)
    LAST      what follows from the last step (backward only)

The backward pass runs the same stages over the steps in reverse. Inside a stage every part can run
at the same time. Two buffers take turns, so that the first step of a chunk finds the one before it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from ._jit import array_in, array_out, entry, inner

PREPARE, STEP, FINISH, PRODUCTS, LAST, DONE = range(6)


class Sizes(NamedTuple):
    """How the work is cut up: a matter of shapes alone."""

    blocks: int  #: of samples, each with a time loop of its own; 1: all workers share it
    groups: int  #: sums of weight gradients, each over blocks of its own
    capacity: int  #: rows of a chunk, at least the samples of a block
    clear: int  #: 1: results hold anything yet, and are set to 0 at padded steps


class Block(NamedTuple):
    """Samples `lo` to `hi` of the sorted order, on their way through `steps` steps."""

    lo: int
    hi: int
    steps: int
    capacity: int  #: rows of a chunk
    backward: int  #: 1: the steps are taken in reverse
    group: int  #: where its weight gradients are summed


class Stage(NamedTuple):
    """Where a block stands. Turns count the steps in the order in which they are taken."""

    kind: int
    begin: int  #: first turn of the chunk
    end: int  #: turn after its last
    rows: int  #: rows of the chunk
    turn: int
    row: int  #: first row of this turn in the buffer
    previous: int  #: first row of the turn before it, in its buffer
    side: int  #: which of the two buffers holds this chunk


@inner
def block_of(active: Any, number: int, sizes: Sizes, backward: int, group: int) -> Block:
    """Block `number`: an equal share of the samples; it lasts as long as its first one."""
    lo = active[0] * number // sizes.blocks
    hi = active[0] * (number + 1) // sizes.blocks
    steps = 0
    while steps < active.size - 1 and active[steps] > lo:
        steps += 1
    return Block(lo, hi, steps if hi > lo else 0, sizes.capacity, backward, group)


@inner
def step_of(block: Block, turn: int) -> int:
    """Time step of a turn."""
    return block.steps - 1 - turn if block.backward else turn


@inner
def rows_at(block: Block, active: Any, turn: int) -> int:
    """Samples of the block that are active at a turn (none after the last or before the first)."""
    if turn < 0 or turn >= block.steps:
        return 0
    return min(active[step_of(block, turn)], block.hi) - block.lo


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
    if kind == PREPARE:
        return Stage(STEP, begin, end, rows, turn, row, previous, side)
    if kind == STEP and turn + 1 < end:
        after = row + rows_at(block, active, turn)
        return Stage(STEP, begin, end, rows, turn + 1, after, row, side)
    if kind == STEP:
        return Stage(FINISH, begin, end, rows, turn, row, previous, side)
    if kind == FINISH and block.backward:
        return Stage(PRODUCTS, begin, end, rows, turn, row, previous, side)
    if kind != LAST and end < block.steps:
        return _chunk(block, active, end, row, 1 - side)
    if kind == PRODUCTS:
        return Stage(LAST, begin, end, rows, turn, row, previous, side)
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
        types.UniTuple(types.int64, 4),
        types.Tuple([array_in(dtype, 3), array_in(dtype, 3), vector, vector]),
    ]


_INTEGERS = array_out(types.int64, 1, "C")


@entry(lambda dtype: types.int64(array_in(types.int64, 1), _INTEGERS, _INTEGERS))
def sort_by_length(lengths, order, active):  # type: ignore[no-untyped-def]
    """Order of samples by length, longest first, and the number that are active at each step.

    Returned is the sum of the lengths.

    `order` has one place for each sample, `active` one for each step and a last one, 0.
    Samples of one length keep their order.
    """
    active[:] = 0
    for length in lengths:
        if length > 0:
            active[length - 1] += 1
    for t in range(active.size - 2, -1, -1):
        active[t] += active[t + 1]
    place = active.copy()
    rest, total = active[0], 0
    for i in range(lengths.size):
        if lengths[i] > 0:
            order[place[lengths[i]]] = i
            place[lengths[i]] += 1
            total += lengths[i]
        else:
            order[rest] = i
            rest += 1
    return total
