"""Arguments as a stranger may pass them: forms that are right, and values that are wrong.

A form takes an array of float64 and returns something that counts as an array of the same shape,
perhaps of other values (rounded, or repeated). What it means is ``numpy.asarray`` of it.
"""

from __future__ import annotations

import array as buffers
import datetime
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from strategies import MEMORY_ORDERS

Array = NDArray[Any]
DTYPES = ("f4", "f8", "f4", "f8", "f4", "f8", "f2", ">f4", ">f8", "i1", "u2", "i8", ">i4", "?")


class Subclass(np.ndarray):
    """An array that adds nothing."""


class Exporter:
    """No array, but NumPy can make one of it."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return self.array


class Unwilling:
    """What raises an error of its own when NumPy asks for an array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        raise TypeError("no array")


def set_shape(array: Array, shape: tuple[int, ...]) -> None:
    """Set the shape of an array in place, of which NumPy warns since 2.5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        array.shape = shape


def retyped(array: Array) -> None:
    """Set the dtype of an array in place, of which NumPy warns since 2.5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        array.dtype = np.dtype(np.int64)


def cast(array: Array, dtype: str) -> Array:
    """Convert; a square matrix becomes diagonal where rounding would let a recurrence expand."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        return array.astype(dtype)
    if array.ndim == 2 and array.shape[0] == array.shape[1]:
        array = np.diag(np.diag(array))
    rounded = np.clip(np.rint(2 * array), -1, 1)
    return np.abs(rounded).astype(dtype) if kind in "ub" else rounded.astype(dtype)


def _misaligned(array: Array) -> Array:
    room = np.empty(array.nbytes + 1, np.uint8)
    view = np.ndarray(array.shape, array.dtype, room, offset=1)
    view[...] = array
    return view


def _repeated(array: Array) -> Array:
    """Every row, of the last dimension but one, is the first: they are one place in memory."""
    return np.broadcast_to(array[..., :1, :], array.shape)


def _sliding(array: Array) -> Array:
    """Each row begins one element after the one before it, in the same memory."""
    rows, columns = array.shape[-2:]
    line = np.resize(array, (*array.shape[:-2], rows + columns))
    strides = (*line.strides, line.strides[-1])
    return as_strided(line, array.shape, strides)


def _matrix(array: Array) -> Any:
    return array.view(np.matrix) if array.ndim == 2 else array.view(Subclass)


FORMS: dict[str, Callable[[Array], Any]] = {
    **MEMORY_ORDERS,
    "misaligned": _misaligned,
    "repeated": _repeated,
    "sliding": _sliding,
    "matrix": _matrix,
    "subclass": lambda array: array.view(Subclass),
    "lists": lambda array: array.tolist(),
    "rows": lambda array: tuple(array),
    "memoryview": lambda array: memoryview(array) if array.dtype.isnative else array,
    "exporter": Exporter,
}


def _wider(array: Array) -> Array:
    return np.concatenate([array, array[..., :1]], axis=-1)


def _structured(array: Array) -> Array:
    return np.zeros(array.shape, [("value", "f8")])


BAD_ARRAYS: dict[str, Callable[[Array], Any]] = {
    "masked": np.ma.masked_array,
    "complex": lambda array: array.astype(complex),
    "long double": lambda array: array.astype(np.longdouble),
    "object": lambda array: array.astype(object),
    "fractions": lambda array: np.vectorize(Fraction, otypes=[object])(array),
    "string": lambda array: array.astype(str),
    "bytes": lambda array: array.astype(bytes),
    "date": lambda array: array.astype("datetime64[s]"),
    "duration": lambda array: array.astype("timedelta64[s]"),
    "structured": _structured,
    "record": lambda array: _structured(array).view(np.recarray),
    "wider": _wider,
    "taller": lambda array: np.concatenate([array, array[:1]]),
    "deeper": lambda array: array[..., np.newaxis],
    "flat": lambda array: array.ravel(),
    "first": lambda array: array[0],
    "none of it": lambda array: array[:0],
    "scalar": lambda array: float(array.flat[0]),
    "None": lambda array: None,
    "uneven": lambda array: [[1.0, 2.0], [3.0]],
    "too large": lambda array: [[2**70]],
    "text": lambda array: "array",
    "dict": lambda array: {0: array},
    "set": lambda array: {1.0, 2.0},
    "generator": lambda array: (row for row in array),
    "function": lambda array: _wider,
    "class": lambda array: np.ndarray,
    "unwilling": lambda array: Unwilling(),
    "date object": lambda array: datetime.date(2000, 1, 1),
}

LENGTHS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tuple": tuple,
    "numpy list": lambda L: list(np.array(L, np.int16)),
    "mixed": lambda L: [np.uint8(n) if i % 2 else float(n) for i, n in enumerate(L)],
    "buffer": lambda L: buffers.array("h", L),
    "strided": lambda L: np.repeat(np.array(L, np.int64), 2)[::2],
    "reversed": lambda L: np.array(L[::-1], np.int32)[::-1],
    "read-only": lambda L: MEMORY_ORDERS["read_only"](np.array(L, np.int64)),
    "float": lambda L: np.array(L, np.float32),
    **{
        code: lambda L, code=code: np.array(L, code)  # type: ignore[misc]
        for code in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i2", ">u4", ">i8", ">u8")
    },
}

#: Of m >= 1 lengths, of which the first is changed, and T.
BAD_LENGTHS: dict[str, Callable[[list[int], int], Any]] = {
    "boolean": lambda L, T: [True, *L[1:]],
    "booleans": lambda L, T: np.ones(len(L), bool),
    "half": lambda L, T: [0.5, *L[1:]],
    "nan": lambda L, T: [float("nan"), *L[1:]],
    "inf": lambda L, T: np.array([np.inf, *L[1:]]),
    "negative": lambda L, T: [-1, *L[1:]],
    "negative int8": lambda L, T: np.array([-1, *L[1:]], np.int8),
    "past the end": lambda L, T: [T + 1, *L[1:]],
    "past uint64": lambda L, T: np.array([2**64 - 1, *L[1:]], np.uint64),
    "past int64": lambda L, T: [2**63, *L[1:]],
    "huge": lambda L, T: [2**200, *L[1:]],
    "digits": lambda L, T: [str(n) for n in L],
    "text": lambda L, T: "1" * len(L),
    "bytes": lambda L, T: b"1" * len(L),
    "None": lambda L, T: None,
    "None in it": lambda L, T: [None, *L[1:]],
    "complex": lambda L, T: np.array(L, complex),
    "object": lambda L, T: np.array(L, object),
    "masked": lambda L, T: np.ma.masked_array(L),
    "one more": lambda L, T: [*L, 0],
    "one less": lambda L, T: np.array(L[1:], np.int32),
    "nested": lambda L, T: [L],
    "column": lambda L, T: np.array(L)[:, np.newaxis],
    "scalar": lambda L, T: 1,
    "dict": lambda L, T: dict(enumerate(L)),
    "generator": lambda L, T: (n for n in L),
}
