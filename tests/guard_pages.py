"""Compiled code whose every array ends at an unreadable page, or begins behind one.

`install` changes, for this process, how a kernel is handed its arguments and where it takes its
workspace from. An access outside of an array is then a segmentation fault, not a wrong number.
POSIX only.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
from llvmlite import binding as llvm
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python, rtsys

from fastrnn.kernels._jit import Kernel
from fastrnn.kernels.launch import TeamKernel

PAGE = mmap.PAGESIZE
#: What compiled code calls for the memory of an array.
ALLOCATE = "NRT_MemInfo_alloc_aligned"
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def room(size: int, at_end: bool, alignment: int) -> tuple[mmap.mmap, int]:
    """Memory with an unreadable page at both ends, and where in it to put `size` bytes.

    They end at the page after them, but for what `alignment` leaves over, or begin behind the one
    before.
    """
    inside = max(1, -(-size // PAGE)) * PAGE
    area = mmap.mmap(-1, inside + 2 * PAGE)
    for page in (0, PAGE + inside):
        if _mprotect(address_of(area) + page, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    return area, PAGE + ((inside - size) // alignment * alignment if at_end else 0)


def address_of(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def guarded(array: Any, at_end: bool) -> Any:
    """A copy of an array beside an unreadable page, of the same strides."""
    spans = [stride * (n - 1) for n, stride in zip(array.shape, array.strides, strict=True)]
    before = -sum(span for span in spans if span < 0)
    size = before + sum(span for span in spans if span > 0) + array.itemsize if array.size else 0
    area, offset = room(size, at_end, array.itemsize)
    if array.size:
        ctypes.memmove(address_of(area) + offset, array.ctypes.data - before, size)
    copy: Any = np.ndarray(array.shape, array.dtype, area, offset + before, array.strides)
    copy.flags.writeable = array.flags.writeable
    return copy


def call_guarded(function: Any, arguments: tuple[Any, ...], at_end: bool) -> Any:
    """Call a function on guarded copies; what it wrote goes back into the arrays."""
    written = []

    def replace(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(replace, value))
        if not isinstance(value, np.ndarray):
            return value
        copy = guarded(value, at_end)
        if value.flags.writeable:
            written.append((value, copy))
        return copy

    result = function(*map(replace, arguments))
    for value, copy in written:
        value[...] = copy
    return result


class Guards:
    """What was guarded since `install`."""

    def __init__(self, at_end: bool) -> None:
        self.at_end = at_end
        self.calls = self.workspaces = 0

        @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32)
        def allocate(size: int, alignment: int) -> int:
            self.workspaces += 1
            area, offset = room(size, at_end, alignment)
            return int(_nrt_python.meminfo_new(address_of(area) + offset, area))

        self.allocate = allocate  # compiled code calls it as long as the process lives


def install(at_end: bool) -> Guards:
    """Guard all that the kernels touch; call it before the first kernel is loaded."""
    guards = Guards(at_end)

    def guard(kind: type[Kernel]) -> None:
        plain_call = kind.__call__

        def call(kernel: Kernel, dtype: Any, *arguments: Any) -> Any:
            guards.calls += 1
            return call_guarded(lambda *a: plain_call(kernel, dtype, *a), arguments, at_end)

        kind.__call__ = call  # type: ignore[method-assign]

    rtsys.initialize(cpu_target.target_context)
    llvm.add_symbol(ALLOCATE, ctypes.cast(guards.allocate, ctypes.c_void_p).value)
    guard(Kernel)
    guard(TeamKernel)
    return guards
