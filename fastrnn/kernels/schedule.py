"""How workers share a list of tasks, one stage after the other.

A stage has one part for each worker, whose own it is: the same share of every stage of one kind,
from chunk to chunk and from call to call, and so what its core has in its caches. A worker waits
until every task of the earlier stages has ended, runs its part, and then those that nobody came
for. Whoever it waits for has claimed a part, so it is running: any number of workers, one included,
gets to the end, and nobody waits for a worker that the system has not started. What a task computes
does not depend on who runs it.

Of blocks that go through their stages alone a worker takes the next that nobody came for. Where
they are sorted by length all begin with the longest. Where they lie apart in memory each begins
with its own share of them, the same from call to call, whose lines are in its cache. Then it clears
their padded steps as well: rows of neighbouring samples share cache lines, which go to and fro
between processors that write to the two.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ._jit import array_out, inlined, inner
from .memory import fetch_add, load_acquire, replace, spin_pause, yield_processor
from .stages import DONE, MOST_GROUPS, block_of, first_stage, next_stage

#: Turns of a waiting loop before the thread offers its processor to others: 10 to 50 microseconds.
SPINS = 1000

#: Places in the shared counters, a cache line apart: tasks ended, tasks taken of clearing and of
#: summing; side by side from the next on, how often each group of blocks was asked for; then, a
#: cache line apart again, how many tasks of each part were claimed.
_LINE = 8
ENDED, CLEARED, SUMMED, CLAIMED = 0, _LINE, 2 * _LINE, 3 * _LINE
_PARTS = CLAIMED + MOST_GROUPS

#: Tasks of clearing, if they come last: small ones, which even out those before.
CLEARINGS = 8


def work_types(dtype: types.Type) -> list[types.Type]:
    """Types of what workers share beside their arguments: a workspace, and the counters."""
    return [array_out(dtype, 1, "C"), array_out(types.int64, 1, "C")]


@inner
def take(counters: Any, place: int) -> int:
    """The number of the next task of those that are counted at a place."""
    return fetch_add(counters, place, 1)


@inner
def counters_size(workers: int) -> int:
    """Elements of the shared counters."""
    return _PARTS + _LINE * workers


@inner
def claim(counters: Any, part: int, before: int) -> bool:
    """Whether it is up to the caller to run this part of a stage: nobody else came for it.

    `before` is how many stages come before it; weights are laid out in the first.
    """
    place = _PARTS + _LINE * part
    return load_acquire(counters, place) == before and replace(counters, place, before, before + 1)


@inner
def end(counters: Any) -> None:
    """The task is done, and what it wrote is visible to whoever sees that."""
    fetch_add(counters, ENDED, 1)


@inner
def wait_for(counters: Any, tasks: int) -> None:
    """Return once `tasks` tasks have ended."""
    spins = 0
    while load_acquire(counters, ENDED) < tasks:
        spin_pause()
        spins += 1
        if spins % SPINS == 0:
            yield_processor()


def sharing(run: Any, clear: Any) -> Any:
    """How workers share a pass out.

    `run(job, block, stage, part, parts)` does a part of a stage, `clear(job, block, part, parts)` a
    part of clearing what results hold at padded steps.
    """

    @inlined
    def share(job: Any, sizes: Any, backward: int, number: int, workers: int, counters: Any) -> int:
        """Run the pass as worker `number`, and return how many tasks there were up to its end.

        With many blocks, or one worker, a task is a group of blocks, each of which goes through its
        stages alone; with one block a task is one of `workers` parts of a stage. The `workers`
        tasks before laid out the weights. Clearing counts as none.
        """
        done = workers
        shared = sizes.blocks == 1 and workers > 1
        alone = 0 if shared else 1
        parts = workers if shared else 1
        if not shared:
            wait_for(counters, done)
        first_group = number * sizes.groups // workers if sizes.apart else 0
        for k in range(sizes.groups):
            group = (first_group + k) % sizes.groups
            if not shared and take(counters, CLAIMED + group) > 0:
                continue
            for b in range(group, sizes.blocks, sizes.groups):
                block = block_of(job.order, job.active, b, sizes, backward, group, alone)
                stage = first_stage(block, job.active)
                while stage.kind != DONE:
                    if shared:
                        wait_for(counters, done)
                    for i in range(parts):
                        part = (number + i) % parts
                        # Each stage before, and laying out, was `workers` tasks.
                        if shared and not claim(counters, part, done // workers):
                            continue
                        run(job, block, stage, part, parts)
                        if shared:
                            end(counters)
                    if shared:
                        done += parts
                    stage = next_stage(stage, block, job.active)
                if sizes.clear and sizes.apart:
                    clear(job, block, 0, 1)
            if not shared:
                end(counters)
        if sizes.clear and not sizes.apart:
            part = take(counters, CLEARED)
            while part < CLEARINGS:
                for b in range(sizes.blocks):
                    block = block_of(job.order, job.active, b, sizes, 0, 0, 0)
                    clear(job, block, part, CLEARINGS)
                part = take(counters, CLEARED)
        return done if shared else done + sizes.groups

    return share
