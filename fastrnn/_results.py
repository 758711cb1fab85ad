"""Memory of results. That of large ones is used again when nobody needs it any more.

The C library maps allocations of 32 MiB and more anew each time, gives back what smaller ones leave
free, and the system clears pages as they are first written. At (128, 128, m 4096, T 50) that was a
quarter of the time of a forward pass. So such memory is mapped here, and some mappings are kept
when they have become idle. The system is told that their contents may go: when it is short of
memory it takes the pages, and puts empty ones in their place.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

#: Bytes from which results are written past the caches.
_LARGE_BYTES = 1 << 25
#: Results of a call that writes so start at a multiple of it: a row of the widest tile.
_ALIGNMENT = 128
#: Bytes of a mapping that is worth being kept: of large pages, and not so large that to keep it
#: would be felt.
_SMALLEST, _LARGEST = 1 << 22, 1 << 28
#: Mappings kept while idle, and bytes of all of them: what a step or two of training make.
_IDLE, _IDLE_BYTES = 8, 1 << 30

_idle: deque[mmap.mmap] = deque(maxlen=_IDLE)
_can_keep = hasattr(mmap, "MADV_FREE")


class _Lease:
    """Memory of one result: arrays that show it refer to this, and with the last one it ends."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.__array_interface__ = np.frombuffer(memory, np.uint8).__array_interface__
        weakref.finalize(self, _give_back, memory).atexit = False


def _give_back(memory: mmap.mmap) -> None:
    """Keep a mapping; the oldest ones make room for it."""
    try:
        memory.madvise(mmap.MADV_FREE)
    except OSError:  # the system does not know the advice
        return
    _idle.append(memory)
    with contextlib.suppress(IndexError):  # another thread has taken the last one
        while sum(map(len, _idle.copy())) > _IDLE_BYTES:
            _idle.popleft()


def _take(size: int) -> mmap.mmap | None:
    """An idle mapping of `size` bytes or up to a half more, if there is one.

    It takes no lock, as leases end in any thread and at any time.
    """
    for _ in range(_IDLE):
        try:
            memory = _idle.popleft()
        except IndexError:
            break
        if size <= len(memory) <= size + size // 2:
            return memory
        _idle.append(memory)
    return None


def _map(size: int) -> mmap.mmap:
    """Fresh memory, all 0, in large pages if the system has them."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _kept(size: int) -> tuple[NDArray[np.uint8], bool] | None:
    """Memory that is kept when idle, and whether it has been used; None if it has to be NumPy's."""
    if not _can_keep or not _SMALLEST <= size <= _LARGEST:
        return None
    try:
        used = _take(size)
        return np.asarray(_Lease(used or _map(size)))[:size], used is not None
    except OSError:  # no memory is left: what is idle can go
        _idle.clear()
        return None


def _zeros(size: int) -> NDArray[np.uint8]:
    """Aligned memory, all 0."""
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size]


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], order: Literal["C", "F"]) -> NDArray[Any]:
    """An array that holds anything, as `numpy.empty` makes it."""
    kept = _kept(math.prod(shape) * dtype.itemsize)
    if kept is None:
        return np.empty(shape, dtype, order)
    return kept[0].view(dtype).reshape(shape, order=order)


def results(
    shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any]
) -> tuple[list[NDArray[Any]], int, int]:
    """Fortran-ordered arrays, and two 0 or 1 for the kernel that fills them.

    The first is 1 if it has to clear padded steps, the second if any array is large: then all are
    written past the caches, where their rows start cache lines.
    """
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    if max(sizes) < _LARGE_BYTES:
        return [empty(shape, dtype, "F") for shape in shapes], 1, 0
    arrays, clear = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        memory, used = _kept(size) or (_zeros(size), False)
        arrays.append(memory.view(dtype).reshape(shape, order="F"))
        clear |= used
    return arrays, clear, 1
