"""Timings that a `track_` benchmark takes itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], Any]
Clock = Callable[[], float]

#: Seconds that this process computed, in whichever of its threads: what else keeps the processors
#: busy does not count. Windows counts in ticks of 16 ms, longer than a turn.
COMPUTED: Clock = (
    time.process_time
    if time.get_clock_info("process_time").resolution < 1e-4
    else time.perf_counter
)


def repeated(call: Call, number: int, clock: Clock) -> float:
    """Seconds that `number` calls take."""
    begin = clock()
    for _ in range(number):
        call()
    return clock() - begin


def number_for(call: Call, seconds: float, clock: Clock) -> int:
    """How many calls take about so long, and one at least."""
    return max(1, round(seconds / min(repeated(call, 1, clock) for _ in range(3))))


def seconds_per_call(call: Call, duration: float = 0.3, turns: int = 30) -> float:
    """Median over as many turns as `duration` has room for; the call computes in one thread."""
    number = number_for(call, duration / turns, COMPUTED)
    end = COMPUTED() + duration
    times = [repeated(call, number, COMPUTED)]
    while COMPUTED() < end:
        times.append(repeated(call, number, COMPUTED))
    return statistics.median(times) / number


def ratio(
    call: Call, baseline: Call, clock: Clock, duration: float = 0.5, turns: int = 50
) -> float:
    """Time of a call over that of another, which takes turns with it.

    Two turns that follow each other find the machine in one state, whatever else it does, so their
    ratio holds still where neither time does; the median passes over turns that were interrupted.
    """
    slice_seconds = duration / turns / 2
    number, baseline_number = (number_for(each, slice_seconds, clock) for each in (call, baseline))
    ratios: list[float] = []
    end = clock() + duration
    while len(ratios) < 5 or clock() < end:
        ratios.append(repeated(call, number, clock) / repeated(baseline, baseline_number, clock))
    return statistics.median(ratios) * baseline_number / number
