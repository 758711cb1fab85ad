"""How the workers of a kernel are started: one after the other, or in Numba's threads.

A worker is the part of a kernel that several threads run at once. Numba would compile the body of
a `prange` four times over, and once more for a call without threads. So a worker is compiled on
its own, once, and called through its address: by the kernel itself, or by `_launch`, a parallel
loop that knows nothing but addresses and therefore serves every kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from ._jit import BARE, Kernel, allocating, array_out, inner, kernels_of
from .memory import first_aligned, huge_pages, itemsize_of

_BYTES = ir.IntType(8).as_pointer()
#: What `_launch` calls, with a number and the address of what the kernel handed on.
_CALL = ir.FunctionType(ir.VoidType(), [ir.IntType(64), _BYTES])
_LAUNCH = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 3)

#: A team: how many workers, the address of `_launch` or 0, and the address of the worker.
TEAM = types.UniTuple(types.int64, 3)


@intrinsic
def _call_at(typingctx: Any, function: Any, number: Any, context_address: Any) -> Any:
    """Call the function at an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function, number, address = arguments
        callee = builder.inttoptr(function, _CALL.as_pointer())
        builder.call(callee, [number, builder.inttoptr(address, _BYTES)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _launch(function, context, count):  # type: ignore[no-untyped-def]
    """Call the function at an address with the numbers up to `count`, in Numba's threads."""
    for number in prange(count):
        _call_at(function, np.int64(number), context)


_launch_kernel = Kernel(
    _launch, lambda dtype: types.void(types.int64, types.int64, types.int64), parallel=True
)


@functools.cache
def launch_address() -> int:
    """Address of `_launch`; the first call compiles or loads it."""
    dtype = np.dtype(np.int64)
    _launch_kernel.compile(dtype)
    return _launch_kernel.address(dtype, "llvm_cfunc_wrapper_name")


def _emit_call(context: Any, builder: Any, closure_type: Any, argument_types: Any) -> Any:
    """Emit the function that `_launch` calls: `worker(number, *arguments)` with a closure's."""
    name = builder.module.get_unique_name("fastrnn.call")
    function = ir.Function(builder.module, _CALL, name)
    function.linkage = "internal"
    number, address = function.args
    inside = ir.IRBuilder(function.append_basic_block("entry"))
    closure = inside.bitcast(address, closure_type.as_pointer())
    worker, _, arguments = (
        inside.load(cgutils.gep_inbounds(inside, closure, 0, field)) for field in range(3)
    )
    worker_type = context.call_conv.get_function_type(types.void, argument_types)
    status, _ = context.call_conv.call_function(
        inside,
        inside.inttoptr(worker, worker_type.as_pointer()),
        types.void,
        argument_types,
        [number, *cgutils.unpack_tuple(inside, arguments)],
    )
    with inside.if_then(status.is_error):
        failed = cgutils.gep_inbounds(inside, closure, 0, 1)
        inside.store(ir.Constant(ir.IntType(64), 1), failed)
    inside.ret_void()
    return function


@intrinsic
def run_team(typingctx: Any, team: Any, arguments: Any) -> Any:
    """Call the team's worker as `worker(number, *arguments)` for each number of the team."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        i64 = ir.IntType(64)
        count, launch, worker = cgutils.unpack_tuple(builder, values[0], 3)
        closure_type = ir.LiteralStructType([i64, i64, values[1].type])
        closure = cgutils.alloca_once(builder, closure_type)
        for field, value in enumerate((worker, ir.Constant(i64, 0), values[1])):
            builder.store(value, cgutils.gep_inbounds(builder, closure, 0, field))
        function = _emit_call(
            context, builder, closure_type, (types.int64, *signature.args[1].types)
        )
        alone = builder.icmp_signed("==", launch, ir.Constant(i64, 0))
        with builder.if_else(alone) as (serial, threads):
            with serial, cgutils.for_range(builder, count) as loop:
                builder.call(function, [loop.index, builder.bitcast(closure, _BYTES)])
            with threads:
                addresses = [builder.ptrtoint(value, i64) for value in (function, closure)]
                builder.call(builder.inttoptr(launch, _LAUNCH.as_pointer()), [*addresses, count])
        failed = builder.load(cgutils.gep_inbounds(builder, closure, 0, 1))
        with cgutils.if_unlikely(builder, cgutils.is_true(builder, failed)):
            context.call_conv.return_user_exc(builder, RuntimeError, ("a worker failed",))
        return context.get_dummy_value()

    return types.void(team, arguments), codegen


#: Bytes of a workspace from which a kernel asks its caller for it, who keeps it for the next call:
#: of blocks of this size the C library keeps none.
ASKED_BYTES = 1 << 25


@inner
def has_to_ask(size: int, given: Any) -> bool:
    """Whether a workspace of `size` elements is neither made by the kernel nor `given` yet."""
    return size > given.size and size * itemsize_of(given) >= ASKED_BYTES


@allocating
def workspace(size: int, given: Any) -> Any:
    """A workspace that holds anything: the one that was `given`, if it has `size`, or a new one.

    It begins at its first cache line: `size` is an `aligned_size`.
    """
    work = given
    if given.size < size:
        work = np.empty(size, given.dtype)
        huge_pages(work)
    return work[first_aligned(work) :]


class TeamKernel(Kernel):
    """A kernel that runs its worker by `run_team`.

    `kernel(dtype, count, launch, *arguments, work)` is 0. If it is not, nothing has been done, and
    it is the elements of `work` that the kernel asks for.
    """

    def __init__(
        self, function: Callable[..., Any], signature: Callable[..., Any], worker: Kernel
    ) -> None:
        super().__init__(function, signature)
        self.worker = worker
        self.calls: dict[np.dtype[Any], tuple[Callable[..., Any], int]] = {}

    def __call__(self, dtype: np.dtype[Any], count: int, launch: int, *arguments: Any) -> Any:
        """Call the kernel for `count` workers: threads, if the address `launch` is not 0."""
        call = self.calls.get(dtype)
        if call is None:
            self.worker.compile(dtype)
            call = self.calls[dtype] = self.entry_point(dtype), self.worker.address(dtype)
        enter, address = call
        return enter((count, launch, address), *arguments)


def worker(types_of: Callable[..., Any], *needs: Any) -> Callable[..., Kernel]:
    """Make a function the worker of a `TeamKernel`.

    Its first argument is its number; `types_of(dtype)` gives the types of the others, `needs`
    are the pieces that it calls by their symbols.
    """

    def decorate(function: Callable[..., Any]) -> Kernel:
        kernel = Kernel(
            function,
            lambda dtype: types.void(types.int64, *types_of(dtype)),
            **BARE,
        )
        kernel.needs = kernels_of(needs)
        return kernel

    return decorate


def team_entry(
    types_of: Callable[..., Any], worker: Kernel, *needs: Any
) -> Callable[..., TeamKernel]:
    """Make a function a `TeamKernel`.

    Its first argument is the team, its last the workspace if it asked for one, else an empty array.
    `types_of(dtype)` gives the types of the others, `needs` are the pieces that it calls by their
    symbols.
    """

    def signature(dtype: types.Type) -> Any:
        return types.int64(TEAM, *types_of(dtype), array_out(dtype, 1, "C"))

    def decorate(function: Callable[..., Any]) -> TeamKernel:
        kernel = TeamKernel(function, signature, worker)
        kernel.needs = kernels_of(needs)
        return kernel

    return decorate
