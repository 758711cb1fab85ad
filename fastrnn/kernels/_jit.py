"""How every kernel is compiled: the options of ``njit`` and a cache that cannot go stale.

Numba keys its on-disk cache by the file of the cached function alone. A kernel here calls
pieces that live in other files, so the cache below takes a digest of all kernel sources into
the key: an edit of any of them, or a ``git pull`` under an editable install, compiles anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import config, from_dtype, njit, types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import intrinsic

#: ``error_model="numpy"`` removes the test for a zero divisor, which would keep loops from being
#: vectorised. No ``fastmath``: NaN and inf must propagate, and the order of every sum is part of
#: the result.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}

#: What kernels are made of is not called from Python, makes no arrays, and counts no references to
#: those it gets: the count is one place in memory, which threads that share an array would hand to
#: and fro.
BARE = {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "_nrt": False,
}


class _Unoptimized(JITCodeLibrary):
    """Code that is left as it is: it was written instruction by instruction."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass


class _Part(_Unoptimized):
    """Code of an `inner` function, left as it is: whoever it becomes a part of optimises it.

    Numba would do that for each such function, and again at each level of those that call it, and
    would make machine code of each, which nobody runs.
    """

    def _optimize_final_module(self) -> None:
        self._shared_module = self._final_module.clone()  # what callers get
        for module, linkage in (
            (self._shared_module, llvm.Linkage.linkonce_odr),
            (self._final_module, llvm.Linkage.available_externally),
        ):
            for function in module.functions:
                if not function.is_declaration:
                    function.linkage = linkage


def _compiler(kind: type[JITCodeLibrary]) -> type[Compiler]:
    """Numba's compiler, with another kind of library for what it makes."""

    class IntoLibrary(Compiler):
        def __init__(self, typing: Any, target: Any, library: Any, *rest: Any) -> None:
            library = kind(target.codegen(), "fastrnn")
            library.enable_object_caching()
            super().__init__(typing, target, library, *rest)

    return IntoLibrary


_INTO_PART = _compiler(_Part)
#: Option of a `Kernel` whose code is written by intrinsics alone.
WRITTEN = {"pipeline_class": _compiler(_Unoptimized)}


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function into every kernel and every `Piece` that calls it."""
    dispatcher = njit(**OPTIONS, **BARE, pipeline_class=_INTO_PART)(function)
    if config.DISABLE_JIT:
        return dispatcher  # the function itself; `Kernel` says why it is of no use
    template_for = dispatcher.get_call_template
    # Numba would compile one more copy for every constant that some caller passes.
    dispatcher.get_call_template = lambda args, kws: template_for(
        tuple(types.unliteral(each) for each in args), kws
    )
    return dispatcher


#: For functions that stand in one place of one kernel: Numba joins them before LLVM sees them.
inlined = njit(**OPTIONS, inline="always", _nrt=False)

#: For functions that make arrays.
allocating = njit(**OPTIONS)


@functools.cache
def source_digest() -> str:
    """Digest of every file in this package, in a fixed order."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _SourceCache(FunctionCache):
    """Numba's function cache, keyed by the digest of all kernel sources as well.

    A cache is a convenience: a file in it that cannot be read or written, whatever the reason,
    costs a compilation and nothing else. To an index that cannot be read nothing can be added
    either, so a new one is begun in its place.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return super()._index_key(sig, codegen), source_digest()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            with contextlib.suppress(Exception):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:
            return


def array_in(dtype: types.Type, ndim: int) -> types.Array:
    """Type of an array that is only read: any strides, so that there is one for every caller."""
    return types.Array(dtype, ndim, "A", readonly=True)


def array_out(dtype: types.Type, ndim: int, layout: str) -> types.Array:
    """Type of an array that a kernel writes."""
    return types.Array(dtype, ndim, layout)


class Kernel:
    """A function that is compiled at the first call in a dtype, and cached on disk.

    The signature is fixed by the dtype alone. Read-only, strided or contiguous arrays all convert
    to it, and none of them costs a compilation of its own.
    """

    def __init__(
        self, function: Callable[..., Any], signature: Callable[..., Any], **options: Any
    ) -> None:
        self.function = function
        self.signature = signature
        self.options = options
        self.needs: tuple[Kernel, ...] = ()  #: whose symbols the code refers to
        self.compiled: dict[np.dtype[Any], Any] = {}
        self.entries: dict[np.dtype[Any], Callable[..., Any]] = {}
        self._lock = threading.Lock()

    def __call__(self, dtype: np.dtype[Any], *arguments: Any) -> Any:
        """Call the function for arrays of `dtype`, float32 or float64."""
        enter = self.entries.get(dtype)
        if enter is None:
            enter = self.entries[dtype] = self.entry_point(dtype)
        return enter(*arguments)

    def entry_point(self, dtype: np.dtype[Any]) -> Callable[..., Any]:
        """Compile the function for a dtype; what Numba's dispatcher would call then.

        The dispatcher finds out the types of all arguments, to choose the only signature, which
        takes longer than a small kernel. Nobody does that here: of an array no more than its
        dimensions and the size of its elements are looked at. So `_check` and `_conform` are what
        keeps a kernel from memory that is not its own.
        """
        (result,) = self.compile(dtype).overloads.values()
        enter: Callable[..., Any] = result.entry_point
        return enter

    def compile(self, dtype: np.dtype[Any]) -> Any:
        """Compile the function for a dtype, or load it."""
        with self._lock:
            if dtype not in self.compiled:
                for kernel in self.needs:
                    kernel.compile(dtype)
                if config.DISABLE_JIT:
                    raise RuntimeError(
                        "the kernels need Numba's compiler, which NUMBA_DISABLE_JIT switches off; "
                        "fastrnn.reference computes the same without it"
                    )
                dispatcher = njit(**OPTIONS, **self.options)(self.function)
                # No directory that can be written is no error: then every process compiles.
                with contextlib.suppress(RuntimeError, OSError):
                    dispatcher._cache = _SourceCache(self.function)
                dispatcher.compile(self.signature(from_dtype(dtype)))
                dispatcher.disable_compile()
                self.compiled[dtype] = dispatcher
        return self.compiled[dtype]

    def address(self, dtype: np.dtype[Any], name: str = "llvm_func_name") -> int:
        """Address, once it is compiled, under one of the names that Numba gives it."""
        (result,) = self.compiled[dtype].overloads.values()
        address: int = result.library.get_pointer_to_function(getattr(result.fndesc, name))
        return address


def entry(signature: Callable[..., Any]) -> Callable[..., Kernel]:
    """Make a function a `Kernel`; `signature(dtype)` gives its Numba signature."""
    return lambda function: Kernel(function, signature)


class Piece(Kernel):
    """A function that is compiled once, and that kernels call by a symbol once `compile` has run.

    As a part of every kernel that calls it one of some size would be optimised anew for each.
    """

    def __init__(self, function: Callable[..., Any], signature: Callable[..., Any]) -> None:
        super().__init__(function, signature, **BARE)

    def symbol(self, dtype: types.Float) -> str:
        """The name that kernels call it by."""
        function = self.function
        return f"{function.__module__}.{function.__name__}.f{dtype.bitwidth}"

    def symbols(self, dtype: types.Float) -> set[str]:
        """All names that kernels may call it by."""
        return {self.symbol(dtype)}

    def compile(self, dtype: np.dtype[Any]) -> Any:
        """Compile the function for a dtype, or load it."""
        dispatcher = super().compile(dtype)
        llvm.add_symbol(self.symbol(from_dtype(dtype)), self.address(dtype))
        return dispatcher

    def call(self, typingctx: Any, *arguments: types.Type) -> tuple[Any, Callable[..., Any]]:
        """Signature and code of an intrinsic that calls the function."""
        holder = next(each for each in arguments if isinstance(each, types.Array | types.CPointer))
        signature = self.signature(holder.dtype)

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            convention = context.call_conv
            kind = convention.get_function_type(signature.return_type, signature.args)
            symbol = self.symbol(holder.dtype)
            callee = cgutils.get_or_insert_function(builder.module, kind, symbol)
            status, result = convention.call_function(
                builder, callee, signature.return_type, signature.args, values
            )
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return result

        return signature, codegen


def shared(signature: Callable[..., Any], *needs: Any) -> Callable[..., Any]:
    """Make a function a `Piece`, and what kernels call it by.

    `signature(dtype)` gives its Numba signature, and the first pointer or array is of that dtype.
    `needs` are the kernels and pieces that it calls by their symbols.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        piece = Piece(function, signature)
        piece.needs = kernels_of(needs)

        @functools.wraps(function)
        def call(typingctx: Any, *arguments: Any) -> Any:
            return piece.call(typingctx, *arguments)

        context = inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_ONLY)
        parameters = inspect.signature(function).parameters.values()
        call.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
        called = intrinsic(call)
        called.piece = piece
        return called

    return decorate


def kernels_of(needs: tuple[Any, ...]) -> tuple[Kernel, ...]:
    """The kernels among which some stand as what calls them."""
    return tuple(getattr(each, "piece", each) for each in needs)
