"""Addresses, and the few atomic operations that workers need to share a list of tasks."""

from __future__ import annotations

import sys
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._jit import inner

#: Workspace starts on a cache line, and packed weights with it.
CACHE_LINE = 64

#: How rows of an array are reached: with no more ado, asked for ahead of time, or past the caches.
NEAR, FAR, PAST = 0, 1, 2

#: Bytes of an array that the second cache level is expected to hold: there is nothing to ask for.
NEAR_BYTES = 1 << 20

#: Linux has the call; 14 is its MADV_HUGEPAGE. Smaller allocations are not worth it.
_ADVISE = "madvise" if sys.platform == "linux" and llvm.address_of_symbol("madvise") else None
_PAGE, _HUGE = 4096, 1 << 22

_YIELD = next((f for f in ("sched_yield", "SwitchToThread") if llvm.address_of_symbol(f)), None)


@intrinsic
def itemsize_of(typingctx: Any, holder: Any) -> Any:
    """Bytes of an element of an array or at a pointer.

    Of an array, its own `itemsize` says so too, but is a number in memory, and dividing by it takes
    time in a small step.
    """
    itemsize = holder.dtype.bitwidth // 8
    return types.intp(holder), lambda context, builder, signature, arguments: context.get_constant(
        types.intp, itemsize
    )


@intrinsic
def pointer_to(typingctx: Any, array: Any, index: Any) -> Any:
    """Address of `array[index]` of a contiguous one-dimensional array."""
    signature = types.CPointer(array.dtype)(array, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.gep(data, [arguments[1]])

    return signature, codegen


def _pointer_at(axes: int) -> Any:
    """Code of an intrinsic that gives the address of an element by `axes` indices."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.make_array(signature.args[0])(context, builder, arguments[0])
        strides = cgutils.unpack_tuple(builder, value.strides, axes)
        offset = context.get_constant(types.intp, 0)
        for index, stride in zip(arguments[1:], strides, strict=True):
            offset = builder.add(offset, builder.mul(index, stride))
        return cgutils.pointer_add(builder, value.data, offset)

    return codegen


@intrinsic
def pointer_to_entry(typingctx: Any, array: Any, i: Any, j: Any) -> Any:
    """Address of `array[i, j]` of an array of any strides."""
    return types.CPointer(array.dtype)(array, types.intp, types.intp), _pointer_at(2)


@intrinsic
def pointer_into(typingctx: Any, array: Any, i: Any, j: Any, k: Any) -> Any:
    """Address of `array[i, j, k]` of an array of any strides."""
    return types.CPointer(array.dtype)(array, types.intp, types.intp, types.intp), _pointer_at(3)


@intrinsic
def move(typingctx: Any, pointer: Any, count: Any) -> Any:
    """The pointer `count` elements further on."""
    return pointer(pointer, types.intp), lambda context, builder, signature, arguments: builder.gep(
        arguments[0], [arguments[1]]
    )


@intrinsic
def move_bytes(typingctx: Any, pointer: Any, count: Any) -> Any:
    """The pointer `count` bytes further on."""
    signature = pointer(pointer, types.intp)
    return signature, lambda context, builder, signature, arguments: cgutils.pointer_add(
        builder, *arguments
    )


@intrinsic
def view(typingctx: Any, pointer: Any, count: Any) -> Any:
    """The `count` elements at a pointer as an array, which nothing keeps alive."""
    # Numba has it by now; at import it would take longer than all else here.
    from numba.np.arrayobj import populate_array

    kind = types.Array(pointer.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(kind)(context, builder)
        itemsize = context.get_constant(types.intp, pointer.dtype.bitwidth // 8)
        populate_array(
            array, arguments[0], [arguments[1]], [itemsize], itemsize, meminfo=None
        )  # fmt: skip
        return array._getvalue()

    return kind(pointer, types.intp), codegen


@intrinsic
def by_sample(typingctx: Any, array: Any, pointer: Any) -> Any:
    """An array of the shape of `array` (n, m, T) at a pointer: sample by sample, each (T, n)."""
    from numba.np.arrayobj import populate_array

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        old = context.make_array(array)(context, builder, arguments[0])
        new = context.make_array(array)(context, builder)
        n, _, steps = cgutils.unpack_tuple(builder, old.shape, 3)
        column = builder.mul(n, old.itemsize)
        strides = [old.itemsize, builder.mul(steps, column), column]
        populate_array(new, arguments[1], old.shape, strides, old.itemsize, meminfo=None)
        return new._getvalue()

    return array(array, pointer), codegen


@intrinsic
def copy(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy `count` elements from one pointer to another."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cgutils.raw_memcpy(builder, *arguments, signature.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(target, source, types.intp), codegen


@intrinsic
def copy_lines(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy `count` elements, a constant, to whole cache lines past the caches."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        itemsize = target.dtype.bitwidth // 8
        lanes = CACHE_LINE // itemsize
        line = ir.VectorType(context.get_value_type(target.dtype), lanes)
        for i in range(0, count.literal_value, lanes):
            to, at = (
                builder.bitcast(builder.gep(p, [ir.Constant(ir.IntType(64), i)]), line.as_pointer())
                for p in arguments[:2]
            )
            store_past_caches(builder, builder.load(at, align=itemsize), to)
        return context.get_dummy_value()

    if isinstance(count, types.IntegerLiteral):
        return types.void(target, source, count), codegen
    return None


def store_past_caches(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value) -> None:
    """Emit a store of a vector to an address aligned to it, which no cache keeps.

    Others see it once its thread has done an atomic operation, as each does after each task.
    """
    one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
    size = value.type.count * (4 if isinstance(value.type.element, ir.FloatType) else 8)
    builder.store(value, pointer, align=min(size, CACHE_LINE)).set_metadata("nontemporal", one)


@intrinsic
def on_stack(typingctx: Any, pointer: Any, count: Any) -> Any:
    """Pointer to `count` elements, a constant, of the type of another pointer's."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = context.get_value_type(signature.return_type.dtype)
        return cgutils.alloca_once(builder, element, size=count.literal_value)

    return (pointer(pointer, count), codegen) if isinstance(count, types.IntegerLiteral) else None


def emit_prefetch(builder: ir.IRBuilder, pointer: ir.Value, write: int, level: int) -> None:
    """Emit an instruction that asks for a cache line, into cache level 1 or 2."""
    byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
    options = [ir.Constant(i32, value) for value in (write, 4 - level, 1)]
    builder.call(function, [builder.bitcast(pointer, byte), *options])


def _prefetch(write: int, level: int) -> Any:
    @intrinsic
    def prefetch(typingctx: Any, pointer: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit_prefetch(builder, arguments[0], write, level)
            return context.get_dummy_value()

        return types.void(pointer), codegen

    return prefetch


#: Ask for the cache line at a pointer: to read it, to write it, to read it some time later.
prefetch_to_read = _prefetch(write=0, level=1)
prefetch_to_write = _prefetch(write=1, level=1)
prefetch_for_later = _prefetch(write=0, level=2)


@intrinsic
def _address(typingctx: Any, pointer: Any) -> Any:
    return types.intp(pointer), lambda context, builder, signature, arguments: builder.ptrtoint(
        arguments[0], context.get_value_type(types.intp)
    )


@intrinsic
def huge_pages(typingctx: Any, array: Any) -> Any:
    """Ask the system for large pages under a one-dimensional array, where it has a call for it.

    Weights that are read at every step then cost no walk through page tables, and untouched memory
    costs one fault for 2 MiB.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _ADVISE:
            value = context.make_array(signature.args[0])(context, builder, arguments[0])
            i64, i32 = ir.IntType(64), ir.IntType(32)
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(i32, [i64, i64, i32]), _ADVISE
            )
            page = ir.Constant(i64, -_PAGE)
            begin = builder.ptrtoint(value.data, i64)
            end = builder.add(begin, builder.mul(value.nitems, value.itemsize))
            first = builder.and_(builder.add(begin, ir.Constant(i64, _PAGE - 1)), page)
            size = builder.sub(builder.and_(end, page), first)
            large = builder.icmp_signed(">=", size, ir.Constant(i64, _HUGE))
            with cgutils.if_unlikely(builder, large):
                builder.call(function, [first, size, ir.Constant(i32, 14)])
        return context.get_dummy_value()

    return types.void(array), codegen


@inner
def aligned_size(size: int, holder: Any) -> int:
    """Elements of an array that has so many from `first_aligned` on."""
    return size + CACHE_LINE // itemsize_of(holder)


@inner
def first_aligned(array: Any) -> int:
    """Index of the first element of a one-dimensional array that starts a cache line."""
    return (-_address(pointer_to(array, 0)) % CACHE_LINE) // itemsize_of(array)


@inner
def reach_to_read(array: Any) -> int:
    """How to read rows of `array` (n, m, T): `FAR` if the second cache level cannot hold it."""
    return FAR if array.size * itemsize_of(array) > NEAR_BYTES else NEAR


@inner
def starts_lines(pointer: Any, step: int) -> bool:
    """Whether a pointer, and others so many bytes apart, start cache lines."""
    return (_address(pointer) | step) % CACHE_LINE == 0


@inner
def reach_to_write(array: Any, sizes: Any) -> int:
    """How to write rows of `array` (n, m, T).

    `PAST` the caches if the results of the call are large, and its rows start cache lines.
    """
    aligned = starts_lines(pointer_into(array, 0, 0, 0), array.shape[0] * itemsize_of(array))
    return PAST if aligned and sizes.past else reach_to_read(array)


@intrinsic
def fetch_add(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Add to `array[index]` of an int64 array as one step for all threads; the value before."""
    signature = types.int64(array, types.intp, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), arguments[2], "seq_cst")

    return signature, codegen


@intrinsic
def replace(typingctx: Any, array: Any, index: Any, value: Any, new: Any) -> Any:
    """In one step set `array[index]` of an int64 array to `new` if it is `value`; say if it was."""
    signature = types.boolean(array, types.intp, types.int64, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.gep(data, [arguments[1]])
        pair = builder.cmpxchg(place, arguments[2], arguments[3], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return signature, codegen


@intrinsic
def load_acquire(typingctx: Any, array: Any, index: Any) -> Any:
    """`array[index]` of an int64 array, with all that was written before it was set."""
    signature = types.int64(array, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "acquire", 8)

    return signature, codegen


@intrinsic
def yield_processor(typingctx: Any) -> Any:
    """Let another thread of this machine run, where the system has a call for it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _YIELD:
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.IntType(32), []), _YIELD
            )
            builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def spin_pause(typingctx: Any) -> Any:
    """Tell the processor that this is a waiting loop."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if llvm.get_default_triple().startswith(("x86", "i")):
            pause = ir.FunctionType(ir.VoidType(), [])
            builder.call(
                cgutils.get_or_insert_function(builder.module, pause, "llvm.x86.sse2.pause"), []
            )
        return context.get_dummy_value()

    return types.void(), codegen
