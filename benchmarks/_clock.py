"""Timings that a `track_` benchmark takes itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], Any]


def repeated(call: Call, number: int) -> float:
    """Seconds that `number` calls take."""
    begin = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - begin


def number_for(call: Call, seconds: float) -> int:
    """How many calls take about so long, and one at least."""
    return max(1, round(seconds / min(repeated(call, 1) for _ in range(3))))


def seconds_per_call(call: Call, duration: float = 0.3, turns: int = 30) -> float:
    """Median over as many turns as `duration` has room for."""
    number = number_for(call, duration / turns)
    end = time.perf_counter() + duration
    times = [repeated(call, number)]
    while time.perf_counter() < end:
        times.append(repeated(call, number))
    return statistics.median(times) / number


def ratio(call: Call, baseline: Call, duration: float = 1.0, turns: int = 100) -> float:
    """Time of a call over that of another, which takes turns with it.

    Two turns that follow each other find the machine in one state, whatever else it does, so their
    ratio holds still where neither time does; the median passes over turns that were interrupted.
    """
    slice_seconds = duration / turns / 2
    number, baseline_number = (number_for(each, slice_seconds) for each in (call, baseline))
    ratios: list[float] = []
    end = time.perf_counter() + duration
    while len(ratios) < 5 or time.perf_counter() < end:
        ratios.append(repeated(call, number) / repeated(baseline, baseline_number))
    return statistics.median(ratios) * baseline_number / number
