"""Memory of the results of a pass. That of large ones is used again when nobody needs it any more.

The C library maps allocations of 32 MiB and more anew each time, and the system clears their pages
as they are first written. At (128, 128, m 4096, T 50) that was a quarter of the time of a forward
pass. So such memory is mapped here, and a few mappings are kept when they have become idle. The
system is told that their contents may go: when it is short of memory it takes the pages, and puts
empty ones in their place.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bytes from which a result counts as large: the C library's largest threshold for a mapping.
_LARGE_BYTES = 1 << 25
#: Large results start at a multiple of it: a row of the widest tile.
_ALIGNMENT = 128
#: Bytes of a mapping that is worth being kept: of large pages, and not so large that to keep it
#: would be felt.
_SMALLEST, _LARGEST = 1 << 22, 1 << 28
#: Mappings kept while idle: more than a step of training makes.
_IDLE = 4

_idle: deque[mmap.mmap] = deque(maxlen=_IDLE)
_can_keep = hasattr(mmap, "MADV_FREE")


class _Lease:
    """Memory of one result: arrays that show it refer to this, and with the last one it ends."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.__array_interface__ = np.frombuffer(memory, np.uint8).__array_interface__
        weakref.finalize(self, _give_back, memory).atexit = False


def _give_back(memory: mmap.mmap) -> None:
    """Keep a mapping; the oldest one makes room for it."""
    with contextlib.suppress(OSError):  # a system that does not know the advice keeps nothing
        memory.madvise(mmap.MADV_FREE)
        _idle.append(memory)


def _take(size: int) -> mmap.mmap | None:
    """An idle mapping of `size` bytes or up to twice as many, if there is one.

    It takes no lock, as leases end in any thread and at any time.
    """
    for _ in range(_IDLE):
        try:
            memory = _idle.popleft()
        except IndexError:
            break
        if size <= len(memory) <= 2 * size:
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


def _kept(size: int) -> tuple[NDArray[np.uint8], bool]:
    """`_bytes` that are kept when they are idle."""
    used = _take(size)
    return np.asarray(_Lease(used or _map(size)))[:size], used is not None


def _bytes(size: int) -> tuple[NDArray[np.uint8], bool]:
    """Aligned memory, and whether it may hold anything but 0."""
    if _can_keep and _SMALLEST <= size <= _LARGEST:
        try:
            return _kept(size)
        except OSError:  # none is left: what is idle can go, and else NumPy says what is missing
            _idle.clear()
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size], False


def results(
    shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any]
) -> tuple[list[NDArray[Any]], int, int]:
    """Fortran-ordered arrays, and two 0 or 1 for the kernel that fills them.

    The first is 1 if it has to clear padded steps, the second if any array is large: then all are
    written past the caches, where their rows start cache lines.
    """
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    if max(sizes) < _LARGE_BYTES:
        return [np.empty(shape, dtype, "F") for shape in shapes], 1, 0
    arrays, clear = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        memory, used = _bytes(size)
        arrays.append(memory.view(dtype).reshape(shape, order="F"))
        clear |= used
    return arrays, clear, 1
