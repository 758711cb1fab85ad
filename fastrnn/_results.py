"""Memory of results and large workspaces, used again when nobody needs it any more.

What an allocation of more than some MiB gives back goes to the system, and comes anew as pages that
the system clears when they are first written: at (128, 128, m 4096, T 50) that was a quarter of the
time of a forward pass. So such memory is mapped here, and kept when it has become idle. Of what is
more than a little, the system is told at once that its contents may go: when it is short of memory
it takes the pages, and puts empty ones in their place. To tell it interrupts all other threads of
the process, which on a virtual machine was seen to take a quarter of a millisecond.

Smaller results and workspaces come from the C library. That of GNU returns what is free at the
end of its heap to the system once that is more than twice the largest block that it ever got back,
of those of up to 32 MiB that it had mapped; a call that takes several arrays, each smaller, has
fresh pages every time. So it is given back one block, never touched, of the size of all of them.

An array in such memory ends while Python is in the middle of anything. What is done then is done in
C: were it bytecode, an exception of a signal's handler, such as KeyboardInterrupt, would be lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import sys
import weakref
from collections import deque
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

#: Bytes from which results are written past the caches.
_LARGE_BYTES = 1 << 25
#: Results of a call that writes so start at a multiple of it: a row of the widest tile.
_ALIGNMENT = 128
#: Bytes of a mapping that is worth being kept, and of the largest.
_SMALLEST, _LARGEST = 1 << 22, 1 << 28
#: Bytes of all mappings, in use and idle. What does not fit is left to NumPy.
_MOST = 1 << 30
#: Bytes of those whose contents the system is not told that it may take, at most: as much as the C
#: library keeps of what it gets back.
_LASTING = 1 << 26
#: Bytes of the largest block that changes what the C library keeps, its own records included.
_LARGEST_BLOCK = (1 << 25) - (1 << 14)
#: Bytes of blocks that were given back for that; at first so many that it never maps fewer.
_expected = 1 << 17
#: Bytes of a large page; Linux aligns a mapping of whole ones to them.
_PAGE = 1 << 21


def _advice() -> Any:
    """`madvise`, if the system can take pages back later, and nothing runs meanwhile."""
    if not hasattr(mmap, "MADV_FREE") or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    function = ctypes.PyDLL(None).madvise
    # The last argument is the weak reference that a callback is handed; the system sees three.
    function.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.py_object
    return function


class _Mapping(mmap.mmap):
    """Memory from the system."""

    lasting = False  #: whether it stays as it is when it is idle, whatever else needs memory


_madvise = _advice()
_idle: deque[_Mapping] = deque()
#: References to leases that have ended, and by the `id` of each what it was of: the memory, and the
#: references whose callbacks say so.
_ended: deque[weakref.ref[_Lease]] = deque()
_leased: dict[int, tuple[_Mapping, list[weakref.ref[_Lease]]]] = {}


class _Lease:
    """Memory of one result: the arrays that show it refer to this, and it ends with the last."""

    def __init__(self, memory: _Mapping) -> None:
        self.memory = memory  # for as long as an array needs it, whatever becomes of the tables
        self.__array_interface__ = np.frombuffer(memory, np.uint8).__array_interface__
        address, _ = self.__array_interface__["data"]
        references = [weakref.ref(self, _ended.append)]
        if not memory.lasting:  # callbacks are called from the latest one to the first
            freed = partial(_madvise, address, len(memory), mmap.MADV_FREE)
            references.append(weakref.ref(self, freed))
        _leased[id(references[0])] = memory, references


def _collect() -> None:
    """Make what ended since the last call idle."""
    with contextlib.suppress(IndexError):
        while True:
            memory, _ = _leased.pop(id(_ended.popleft()), (None, None))
            if memory is not None:  # else its lease ended before it had begun
                _idle.append(memory)


def _take(size: int) -> _Mapping | None:
    """An idle mapping of `size` bytes or up to a half more, if there is one.

    Several threads may do this at once, each with those that it finds.
    """
    with contextlib.suppress(IndexError):
        for _ in range(len(_idle)):
            memory = _idle.popleft()
            if size <= len(memory) <= size + size // 2:
                return memory
            _idle.append(memory)
    return None


def _map(size: int) -> _Mapping | None:
    """Fresh memory, all 0, in large pages if the system has them; idle memory makes room for it."""
    size = -(-size // _PAGE) * _PAGE
    leased = [memory for memory, _ in list(_leased.values())]
    in_use = sum(map(len, leased))
    with contextlib.suppress(IndexError):
        while in_use + size + sum(map(len, _idle.copy())) > _MOST:
            _idle.popleft()
    if in_use + size > _MOST:
        return None
    try:
        memory = _Mapping(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return _map(size) if release() else None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    lasting = sum(len(each) for each in [*leased, *_idle.copy()] if each.lasting)
    memory.lasting = lasting + size <= _LASTING
    return memory


def _kept(size: int) -> tuple[NDArray[np.uint8], bool] | None:
    """Memory that is kept when idle, and whether it has been used; None if it has to be NumPy's."""
    if _madvise is None or not _SMALLEST <= size <= _LARGEST:
        return None
    _collect()
    used = _take(size)
    memory = used or _map(size)
    if memory is None:
        return None
    return np.asarray(_Lease(memory))[:size], used is not None


def release() -> bool:
    """Give all idle memory back to the system, and say whether there was any."""
    _collect()
    some = bool(_idle)
    _idle.clear()
    return some


def _zeros(size: int) -> NDArray[np.uint8]:
    """Aligned memory, all 0."""
    if size > _LARGEST:
        release()
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size]


def expect(size: int) -> None:
    """Have the C library keep so many bytes, taken and given back by one call after the other.

    It keeps twice as many from then on, whoever in the process gives them back.
    """
    global _expected
    if size > _expected and _expected < _LARGEST_BLOCK:
        size = _expected = min(size, _LARGEST_BLOCK)
        with contextlib.suppress(MemoryError):  # less may do
            np.empty(size, np.uint8)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], order: Literal["C", "F"]) -> NDArray[Any]:
    """An array that holds anything; a large one does not own its memory, and cannot be resized."""
    size = math.prod(shape) * dtype.itemsize
    kept = _kept(size) if size >= _SMALLEST else None
    if kept is None:
        return np.empty(shape, dtype, order)
    return kept[0].view(dtype).reshape(shape, order=order)


def results(
    rows: tuple[int, ...], m: int, T: int, dtype: np.dtype[Any]
) -> tuple[list[NDArray[Any]], int, int]:
    """Fortran-ordered arrays (n, m, T) for each n of `rows`; `clear` and `past`, 0 or 1.

    They are for the kernel that fills the arrays. `clear`: it has to clear padded steps. `past`:
    the arrays are large, and written past the caches where their rows start cache lines.
    """
    row = m * T * dtype.itemsize
    largest = max(rows) * row
    if largest < _LARGE_BYTES:
        # A microsecond for each counts in small calls.
        make = np.empty if largest < _SMALLEST else empty
        return [make((n, m, T), dtype, "F") for n in rows], 1, 0
    arrays, clear = [], False
    for n in rows:
        memory, used = _kept(n * row) or (_zeros(n * row), False)
        arrays.append(memory.view(dtype).reshape((n, m, T), order="F"))
        clear = clear or used
    return arrays, int(clear), 1
