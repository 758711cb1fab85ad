"""What a second thread is good for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numba

from benchmarks._cases import SHAPE_NAME, SHAPES, TIMEOUT, prepare
from benchmarks._clock import ratio


def processors() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def with_threads(number: int, call: Callable[[], Any]) -> Callable[[], Any]:
    """Make a call that sets its number of threads."""

    def run() -> None:
        numba.set_num_threads(number)
        call()

    return run


class Threads:
    """Time of two threads over that of one: 0.5 at best, 1 where the work is too little for two."""

    params = (["forward", "both", "output_backward"], SHAPES)
    param_names = ("call", SHAPE_NAME)
    timeout = TIMEOUT
    unit = "two threads / one"

    def setup(self, call: str, shape: str) -> None:
        """Skip where two threads would share a processor; compile for one thread and for two."""
        if processors() < 2:
            raise NotImplementedError("needs two processors")
        run = getattr(prepare(call, "fastrnn", shape), call)
        self.one, self.two = with_threads(1, run), with_threads(2, run)
        self.two()

    def track_ratio(self, call: str, shape: str) -> float:
        """Median over turns of some milliseconds, float32."""
        return ratio(self.two, self.one, time.perf_counter)
