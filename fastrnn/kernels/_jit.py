"""How every kernel is compiled: the options of ``njit`` and a cache that cannot go stale.

Numba keys its on-disk cache by the file of the cached function alone. A kernel here calls
pieces that live in other files, so the cache below takes a digest of all kernel sources into
the key: an edit of any of them, or a ``git pull`` under an editable install, compiles anew.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

#: For the pieces that kernels are made of. ``error_model="numpy"`` removes the test for a zero
#: divisor, which would keep loops from being vectorised. No ``fastmath``: NaN and inf must
#: propagate, and the order of every sum is part of the result.
inner = njit(error_model="numpy", nogil=True)

#: For the pieces of one kernel that stand in one place of it. Numba joins them before LLVM sees
#: them: a chain of separately compiled callers would optimise the innermost code once a caller.
inlined = njit(error_model="numpy", nogil=True, inline="always")


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
    costs a compilation and nothing else.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return super()._index_key(sig, codegen), source_digest()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:
            return


def entry(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a kernel that Python calls: compiled lazily, cached on disk where that works."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(error_model="numpy", nogil=True, parallel=parallel)(function)
        try:
            dispatcher._cache = _SourceCache(function)
        except (RuntimeError, OSError):
            pass  # no directory that can be written: compile in every process
        return dispatcher

    return decorate
