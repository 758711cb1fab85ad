"""Where threads may be used, and how a kernel gets them.

Numba's threading layers differ in what they bear. GNU OpenMP kills a process that was forked from
one with threads when it asks for threads of its own, and workqueue aborts the process when two
threads ask for them at once. A kernel computes the same to the bit without threads, so it goes
without in both cases.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numba
import numpy as np

from fastrnn._results import empty, release
from fastrnn.kernels.launch import TeamKernel, launch_address

#: Multiply-adds of a call below which one thread is faster than several.
SERIAL_WORK = 4_000_000

#: What a kernel is given for a workspace at first.
_NO_WORK = {dtype: np.empty(0, dtype) for dtype in map(np.dtype, (np.float32, np.float64))}

#: Held by whoever has the threads of a layer that serves one caller at a time.
_one_caller = threading.Lock()

_forked = False


def _started() -> str:
    """Name of the threading layer that has started its threads, or nothing."""
    try:
        name: str = numba.threading_layer()
    except ValueError:
        return ""
    return name


def _after_fork() -> None:
    """Remember in a child that its threads stayed with its parent."""
    global _forked
    _forked = bool(_started())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def threads() -> int:
    """How many threads a call may use."""
    return 1 if _forked else numba.get_num_threads()


def call(
    kernel: TeamKernel,
    dtype: np.dtype[Any],
    workers: int,
    arguments: tuple[Any, ...],
    alone: bool = False,
) -> None:
    """Call a kernel, its workers in threads unless that is unsafe, or `alone` is asked for.

    0 workers stand for one if alone, else for as many as there are `threads`; whoever asks for
    several that are not alone has seen that there are some. A large workspace lies where results
    do, and is kept as they are; if there is no memory for it, idle memory makes room. Until the
    call has ended, others go without threads where they serve one caller at a time.
    """
    workers = workers or (1 if alone else threads())
    if alone or workers == 1:
        _run(kernel, dtype, workers, 0, arguments)
        return
    launch = launch_address()
    guarded = _started() == "workqueue"
    if guarded and not _one_caller.acquire(blocking=False):
        launch, guarded = 0, False
    try:
        _run(kernel, dtype, workers, launch, arguments)
    finally:
        if guarded:
            _one_caller.release()


def _run(
    kernel: TeamKernel, dtype: np.dtype[Any], workers: int, launch: int, arguments: tuple[Any, ...]
) -> None:
    """Call a kernel, with the workspace that it asks for."""
    for first in (True, False):
        work = _NO_WORK[dtype]
        try:
            while size := kernel(dtype, workers, launch, *arguments, work):
                work = empty((size,), dtype, "C")
            return
        except MemoryError:
            if not (first and release()):
                raise
