"""From whatever a caller passed to what the kernels take: the parts that `_check` is made of.

An array becomes a plain `numpy.ndarray`, aligned, in native byte order, float32 or float64. One
that is so already is not copied, whatever its strides; nothing that was passed is modified. What
cannot become one raises an error that names the argument, what was expected and what came.

Kernels take what comes out of here without looking at its type: a wrong one is memory that is not
ours. So of an array that was passed a view is taken, and then the view is checked: nobody else can
set its shape or dtype, neither another thread nor an object that is asked for its numbers later.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Weights: TypeAlias = tuple[Array, Array, Array, Array, Array]
# The size of each dimension letter, and the argument that it was read from.
Sizes: TypeAlias = dict[str, tuple[int, str]]

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
#: Of lengths: to make the object of the type takes as long as to make a small array.
INT64 = np.dtype(np.int64)

KEYS = ("Wax", "Waa", "Wya", "ba", "by")
_weights_of: Callable[[Any], Weights] = operator.itemgetter(*KEYS)

#: Of an integer, as many as float64 has room for: Python does not write out those of many more.
_MOST_BITS = 1024

# In the order of checking: an argument is measured against those before it.
SHAPES = {
    "Waa": ("n_a", "n_a"),
    "Wax": ("n_a", "n_x"),
    "Wya": ("n_y", "n_a"),
    "ba": ("n_a", "1"),
    "by": ("n_y", "1"),
    "x": ("n_x", "m", "T"),
    "xt": ("n_x", "m"),
    "a": ("n_a", "m", "T"),
    "a0": ("n_a", "m"),
    "a_prev": ("n_a", "m"),
    "a_next": ("n_a", "m"),
}


def fit(
    x: Any, ndim: int, states: tuple[Any, ...], weights: Weights
) -> tuple[list[Array], Weights] | None:
    """Views of all, if it is as the kernels want it: the common case, decided fast.

    ``x`` is (n_x, m, ...) and the states are (n_a, m). `conform` decides all other cases.
    """
    if type(x) is not np.ndarray:
        return None
    x = x.view()
    dtype = x.dtype
    if x.ndim != ndim or not x.flags.aligned or (dtype != FLOAT32 and dtype != FLOAT64):
        return None
    n_x, m = x.shape[:2]
    fitting = weights_fit(weights, n_x, dtype)
    if fitting is None:
        return None
    state_shape = (fitting[1].shape[0], m)
    arrays = [x]
    for a in states:
        if type(a) is not np.ndarray:
            return None
        a = a.view()
        if a.dtype != dtype or not a.flags.aligned or a.shape != state_shape:
            return None
        arrays.append(a)
    return arrays, fitting


def weights_fit(weights: Weights, n_x: int, dtype: np.dtype[Any]) -> Weights | None:
    """Views of weights, if they are of that dtype and, with that ``n_x``, of shapes that agree."""
    Wax, Waa, Wya, ba, by = weights
    if not (type(Wax) is type(Waa) is type(Wya) is type(ba) is type(by) is np.ndarray):
        return None
    weights = Wax, Waa, Wya, ba, by = Wax.view(), Waa.view(), Wya.view(), ba.view(), by.view()
    if not (Wax.dtype is Waa.dtype is Wya.dtype is ba.dtype is by.dtype is dtype):
        for array in weights:  # which are mostly the same object, but need not be
            if array.dtype != dtype:
                return None
    n_a, n_y = ba.size, by.size
    agree = (
        n_y > 0
        and ba.shape == (n_a, 1)
        and by.shape == (n_y, 1)
        and Waa.shape == (n_a, n_a)
        and Wya.shape == (n_y, n_a)
        and Wax.shape == (n_a, n_x)
        and Wax.flags.aligned
        and Waa.flags.aligned
        and Wya.flags.aligned
        and ba.flags.aligned
        and by.flags.aligned
    )
    return weights if agree else None


def conform(
    named: dict[str, Any],
    weights: Weights,
    sizes: Sizes | None = None,
    dtype: np.dtype[Any] | None = None,
    where: str = "",
) -> tuple[list[Array], Weights]:
    """Check and convert arrays, whose names are keys of `SHAPES`, and the weights to one dtype.

    Sizes that are known beforehand may be given, and are added to. Messages begin with `where`.
    """
    sizes = {} if sizes is None else sizes
    values = {**named, **dict(zip(KEYS, weights, strict=True))}
    arrays = {name: numeric(where + name, value) for name, value in values.items()}
    for name, letters in SHAPES.items():
        if name in arrays:
            match(where + name, arrays[name].shape, letters, sizes)
    if sizes["n_y"][0] == 0:
        raise ValueError(f"{where}Wya must have a row for each of n_y >= 1 classes, got none")
    common = computing_dtype(arrays.values()) if dtype is None else dtype
    converted = {name: convert(array, common) for name, array in arrays.items()}
    return [converted[name] for name in named], _weights_of(converted)


def match(name: str, shape: tuple[int, ...], letters: tuple[str, ...], sizes: Sizes) -> None:
    """Check a shape; the first argument that shows a dimension letter fixes its size."""
    sizes["1"] = (1, name)
    if len(shape) == len(letters):
        for letter, size in zip(letters, shape, strict=True):
            sizes.setdefault(letter, (size, name))
        if all(sizes[letter][0] == size for letter, size in zip(letters, shape, strict=True)):
            return
    known = [
        f"{letter} = {sizes[letter][0]} as in {sizes[letter][1]}"
        for letter in dict.fromkeys(letters)
        if letter in sizes and sizes[letter][1] != name
    ]
    expected = f"({', '.join(letters)})" + (f" with {', '.join(known)}" if known else "")
    raise ValueError(f"{name} must have shape {expected}, got {shape}")


def weights_in(parameters: Any, where: str = "") -> Weights:
    """Look up ``(Wax, Waa, Wya, ba, by)``, unchecked."""
    if type(parameters) is dict:
        try:
            return _weights_of(parameters)
        except KeyError:
            pass
    if not isinstance(parameters, Mapping):
        raise TypeError(
            f"{where}parameters must be a mapping with the keys {', '.join(KEYS)}, "
            f"got {came(parameters)}"
        )
    # Of others not by way of a KeyError: looking up a missing key would modify a defaultdict.
    missing = [key for key in KEYS if key not in parameters]
    if missing:
        raise ValueError(
            f"{where}parameters must have the keys {', '.join(KEYS)}, "
            f"got none named {', '.join(missing)}"
        )
    return _weights_of(parameters)


def items(name: str, value: Any, fields: tuple[str, ...]) -> Sequence[Any]:
    """Check a tuple of named fields, such as a cache."""
    if isinstance(value, (tuple, list)) and len(value) == len(fields):
        return value
    expected = f"{name} must be the tuple ({', '.join(fields)})"
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{expected}, got {came(value)}")
    raise ValueError(f"{expected}, got {len(value)} items")


def plain(name: str, value: Any) -> Array:
    """Make a plain array of anything but a masked array, as yet of any dtype; of one, a view."""
    if type(value) is np.ndarray:
        return value.view()
    given = value if isinstance(value, (list, tuple)) else (value,)
    if any(isinstance(item, np.ma.MaskedArray) for item in given):
        raise TypeError(f"{name} must be an ordinary array, got a masked array")
    try:
        return np.asarray(value).view()  # an object may give an array that it keeps
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be an array or evenly nested lists, got {came(value)}: {error}"
        ) from error
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be an array or nested lists of numbers, got {came(value)}: {error}"
        ) from error


def numeric(name: str, value: Any) -> Array:
    """Make a plain array of float16, float32, float64, integers or booleans."""
    array = plain(name, value)
    if array.dtype.kind not in "iub" and array.dtype.char not in "efd":
        raise TypeError(
            f"{name} must be an array of float64, float32, float16 or integers, "
            f"got {came_as(value, array)}"
        )
    return array


def integers(name: str, value: Any) -> Array:
    """Make a plain array of integers, of which booleans are none; as yet of any integer type."""
    array = plain(name, value)
    if isinstance(value, (list, tuple)):
        # np.asarray hides the boolean in [True, 2], and takes an empty list for floating.
        given = np.array(value, dtype=object).ravel().tolist()
        if any(isinstance(item, (bool, np.bool_)) for item in given):
            raise TypeError(f"{name} must be integers, got a boolean among them")
        array = array if given else array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {came_as(value, array)}")
    return array


def computing_dtype(arrays: Iterable[Array]) -> np.dtype[Any]:
    """Find the dtype to compute in: float32 or float64, by the floating arrays alone."""
    floats = [array.dtype for array in arrays if array.dtype.kind == "f"]
    return np.result_type(FLOAT32, *floats) if floats else FLOAT64


def convert(array: Array, dtype: np.dtype[Any]) -> Array:
    """Bring an array to a dtype and to alignment; copy it only if it must be."""
    if array.dtype == dtype and array.flags.aligned:
        return array
    # Padding may hold anything, so a number that does not fit must not warn.
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def same_numbers(first: Array, second: Array) -> bool:
    """Whether two arrays show the same memory in the same way."""
    return bool(first.__array_interface__ == second.__array_interface__)


def integer(name: str, value: Any) -> int:
    """Check an integer of any integer type; booleans are none."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be an integer, got {came(value)}")
    if number.bit_length() > _MOST_BITS:
        raise ValueError(f"{name} must be an integer of up to {_MOST_BITS} bits, got more")
    return number


def whole(name: str, value: Any) -> int:
    """Check a whole number: an integer or a float such as 3.0."""
    if isinstance(value, (float, np.floating)):
        if not value.is_integer():
            raise ValueError(f"{name} must be a whole number, got {value}")
        return int(value)
    return integer(name, value)


def came_as(value: Any, array: Array) -> str:
    """Say what came, by the array that was made of it where that tells more."""
    return came(array if array.dtype != object and array.ndim else value)


def came(value: Any) -> str:
    """Say what came: the dtype of an array, the type of anything else, a short value itself."""
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype}"
    huge = isinstance(value, int) and value.bit_length() > _MOST_BITS
    short = isinstance(value, (str, int, float, complex, np.generic)) and not huge
    if short and len(repr(value)) < 40:
        return f"{value!r} of type {type(value).__name__}"
    return f"an object of type {type(value).__name__}"
