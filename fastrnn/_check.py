"""The errors on arguments of the RNN functions: they check here, by the parts in `_conform`.

Each function takes what a caller passed and returns it as the kernels want it, or raises a
`ValueError` (a `TypeError` where the type is wrong) that names the argument, what was expected
and what came. Arrays come back of one dtype, float32 or float64: the `numpy.result_type` of the
floating arguments, float16 counting as float32, integer and boolean arrays taking no part, and
float64 where all are integer. Of an array that fits a view is returned; none is ever modified.

Letters: ``n_x`` features, ``n_a`` hidden units, ``n_y`` classes, ``m`` samples, ``T`` steps, and
``L[i]`` the true length of sample ``i``. Weights are the tuple ``(Wax, Waa, Wya, ba, by)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastrnn._conform import (
    INT64,
    KEYS,
    SHAPES,
    Array,
    Sizes,
    Weights,
    came,
    came_as,
    computing_dtype,
    conform,
    convert,
    fit,
    integer,
    integers,
    items,
    match,
    numeric,
    plain,
    same_numbers,
    weights_fit,
    weights_in,
    whole,
)
from fastrnn.kernels.stages import add_lengths

_CELL_CACHE = ("a_next", "a_prev", "xt", "parameters")
_ONLY_INT = {int}


class Step(NamedTuple):
    """One step of plain caches, such as those of `fastrnn.reference`; k samples are active."""

    a_next: Array  # (n_a, k)
    a_prev: Array  # (n_a, k)
    xt: Array  # (n_x, k)
    weights: Weights
    active_batch: NDArray[np.bool_]  # (m,)


def forward_arguments(
    x: Any, a0: Any, parameters: Any, seq_lengths: Any
) -> tuple[Array, Array, Weights, NDArray[np.int64], int]:
    """Check the arguments of `rnn_forward`: x (n_x, m, T), a0 (n_a, m), L (m,) and their sum."""
    weights = weights_in(parameters)
    (x, a0), weights = fit(x, 3, (a0,), weights) or conform({"x": x, "a0": a0}, weights)
    _, m, T = x.shape
    return x, a0, weights, *lengths(seq_lengths, m, T)


def cell_arguments(xt: Any, a_prev: Any, parameters: Any) -> tuple[Array, Array, Weights]:
    """Check the arguments of `rnnCell_forward`: xt (n_x, m), a_prev (n_a, m)."""
    weights = weights_in(parameters)
    (xt, a_prev), weights = fit(xt, 2, (a_prev,), weights) or conform(
        {"xt": xt, "a_prev": a_prev}, weights
    )
    return xt, a_prev, weights


def cell_cache(cache: Any) -> tuple[Array, Array, Array, Weights]:
    """Check the cache of `rnnCell_forward`: a_next, a_prev (n_a, m), xt (n_x, m), parameters."""
    a_next, a_prev, xt, parameters = items("cache", cache, _CELL_CACHE)
    weights = weights_in(parameters, "cache: ")
    (xt, a_next, a_prev), weights = fit(xt, 2, (a_next, a_prev), weights) or conform(
        {"xt": xt, "a_next": a_next, "a_prev": a_prev}, weights, where="cache: "
    )
    return a_next, a_prev, xt, weights


def parameter_arrays(
    parameters: Any, n_x: int, n_a: int, n_y: int, dtype: np.dtype[Any]
) -> Weights:
    """Check parameters once more, when the sizes and the dtype are those of a forward pass."""
    weights = weights_in(parameters)
    fitting = weights_fit(weights, n_x, dtype)
    if fitting is not None and fitting[2].shape == (n_y, n_a):
        return fitting
    forward = "the forward pass"
    sizes = {"n_x": (n_x, forward), "n_a": (n_a, forward), "n_y": (n_y, forward)}
    return conform({}, weights, sizes, dtype)[1]


def floating(
    name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], like: str
) -> Array:
    """Check an array, such as ``da``, whose shape and dtype are those of what `like` names."""
    array = numeric(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape} as {like}, got {array.shape}")
    return convert(array, dtype)


def states(a: Any, seq_lengths: Any) -> tuple[Array, NDArray[np.int64]]:
    """Check the arguments of `final_states`: a (n_a, m, T), L (m,)."""
    array = numeric("a", a)
    match("a", array.shape, SHAPES["a"], {})
    _, m, T = array.shape
    return convert(array, computing_dtype([array])), lengths(seq_lengths, m, T)[0]


def softmax_argument(x: Any) -> Array:
    """Check the argument of `softmax`: x (n, ...), n >= 1."""
    array = numeric("x", x)
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"x must have shape (n, ...) with n >= 1, got {array.shape}")
    return convert(array, computing_dtype([array]))


def lengths(
    seq_lengths: Any, m: int, T: int, name: str = "seq_lengths"
) -> tuple[NDArray[np.int64], int]:
    """Check true lengths: m whole numbers in 0..T; return them as a new int64 array, and their sum.

    It is copied before it is checked: another thread may be writing to what was passed, and
    addresses are made of lengths.
    """
    if isinstance(seq_lengths, (list, tuple)):
        given = list(seq_lengths)
        # Item by item, because np.array([True, 2]) hides the boolean.
        if given and set(map(type, given)) != _ONLY_INT:
            given = [whole(f"{name}[{i}]", item) for i, item in enumerate(given)]
        if len(given) != m or (m and not 0 <= min(given) <= max(given) <= T):
            _refuse_lengths(name, given, m, T)
        return np.array(given, INT64), sum(given)

    array = plain(name, seq_lengths)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold whole numbers, got {came_as(seq_lengths, array)}")
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape ({m},), one for each sample, got {array.shape}")
    if array.dtype.kind == "f":
        return lengths(array.tolist(), m, T, name)
    array = array.copy()
    numbers = array if array.dtype == INT64 else array.astype(INT64)
    total = add_lengths(INT64, numbers, T)
    if len(numbers) != m or total < 0:
        _refuse_lengths(name, array.tolist(), m, T)
    return numbers, total


def _refuse_lengths(name: str, given: Sequence[int], m: int, T: int) -> NoReturn:
    if len(given) != m:
        raise ValueError(f"{name} must have shape ({m},), one for each sample, got ({len(given)},)")
    i = next(i for i, length in enumerate(given) if not 0 <= length <= T)
    wrong = integer(f"{name}[{i}]", given[i])
    raise ValueError(f"{name} must lie in 0..{T}, the steps T of x, got {wrong} at index {i}")


def labels(
    labels: Any, m: int, T: int, n_y: int, seq_lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Check labels (m, T) or (m,) of `output_backward`; return them as a new int64 array.

    It holds -1 wherever a label counts for nothing: where there is none, at steps at or past
    ``L[i]``, and, of labels (m,), where ``L[i] == 0``.
    """
    array = integers("labels", labels)
    if array.shape not in ((m, T), (m,)):
        raise ValueError(f"labels must have shape {(m, T)} or {(m,)}, got {array.shape}")

    array = array.copy()  # before it is checked, as the lengths are
    counts = np.arange(T) < seq_lengths[:, np.newaxis] if array.ndim == 2 else seq_lengths > 0
    wrong = counts & ((array < -1) | (array >= n_y))
    if wrong.any():
        where = tuple(np.argwhere(wrong)[0].tolist())
        raise ValueError(
            f"labels must lie in 0..{n_y - 1}, the n_y classes, or be -1 for none, "
            f"got {array[where]} at {list(where)}"
        )
    return np.where(counts, array.astype(np.int64, copy=False), -1)


def caches_tuple(caches: Any) -> Sequence[Any]:
    """Check that ``caches`` is a 3-tuple; look no further."""
    return items("caches", caches, ("step_caches", "x", "seq_lengths"))


def plain_caches(
    step_caches: Any, x: Any, seq_lengths: Any
) -> tuple[list[Step], Array, NDArray[np.int64], int]:
    """Check plain caches entry by entry; return the steps that ran, x (n_x, m, T), L and its sum.

    All arrays come in the dtype of the first step.
    """
    if not isinstance(step_caches, Sequence) or isinstance(step_caches, str):
        raise TypeError(
            f"caches[0] must be a sequence of one cache for each step, got {came(step_caches)}"
        )
    x = numeric("caches[1]", x)
    sizes: Sizes = {}
    match("caches[1]", x.shape, SHAPES["x"], sizes)
    _, m, T = x.shape
    L, total = lengths(seq_lengths, m, T, "caches[2]")
    longest, entries = int(L.max(initial=0)), list(step_caches)
    if len(entries) != longest:
        raise ValueError(
            f"caches[0] must hold one cache for each of {longest} steps, the largest of "
            f"caches[2], got {len(entries)}"
        )

    dtype = None if longest else computing_dtype([x])
    steps: list[Step] = []
    for t, entry in enumerate(entries):
        step = _step(f"caches[0][{t}]", entry, L > t, sizes, dtype)
        if steps:
            _follows(f"caches[0][{t}][0]", step, steps[-1])
        steps.append(step)
        dtype = step.xt.dtype
    assert dtype is not None
    return steps, convert(x, dtype), L, total


def weights_without_steps(step_caches: Any, n_x: int, dtype: np.dtype[Any]) -> Weights:
    """Weights of plain caches in which no step ran: `fastrnn.reference` keeps them beside."""
    parameters = getattr(step_caches, "parameters", None)
    if parameters is None:
        raise ValueError(
            "caches[0] must hold a step, or have an attribute parameters, got neither: "
            "the shapes of the weights are unknown"
        )
    return conform({}, weights_in(parameters), {"n_x": (n_x, "caches[1]")}, dtype)[1]


def _step(
    name: str,
    entry: Any,
    active: NDArray[np.bool_],
    sizes: Sizes,
    dtype: np.dtype[Any] | None,
) -> Step:
    cache, active_batch = items(name, entry, ("cache", "active_batch"))
    mask = plain(f"{name}[1]", active_batch)
    if mask.dtype != np.bool_:
        raise TypeError(f"{name}[1] must be a boolean mask, got {came(mask)}")
    if not np.array_equal(mask, active):
        raise ValueError(
            f"{name}[1] must be the mask of the samples that are active by caches[2], "
            f"{np.flatnonzero(active)}, got {np.flatnonzero(mask)} in shape {mask.shape}"
        )
    a_next, a_prev, xt, parameters = items(f"{name}[0]", cache, _CELL_CACHE)
    named = {"a_next": a_next, "a_prev": a_prev, "xt": xt}
    sizes["m"] = (int(np.count_nonzero(active)), f"{name}[1]")
    where = f"{name}[0]: "
    arrays, weights = conform(named, weights_in(parameters, where), sizes, dtype, where)
    return Step(arrays[0], arrays[1], arrays[2], weights, mask)


def _follows(name: str, step: Step, before: Step) -> None:
    """Check that a step starts from the states of the one before, with the same parameters."""
    active = step.active_batch[before.active_batch]
    if not np.array_equal(step.a_prev, before.a_next[:, active], equal_nan=True):
        raise ValueError(f"{name}: a_prev must be a_next of the step before, got other numbers")
    for key, now, then in zip(KEYS, step.weights, before.weights, strict=True):
        if not same_numbers(now, then) and not np.array_equal(now, then, equal_nan=True):
            raise ValueError(
                f"{name}: parameters[{key!r}] must be that of the step before, got other numbers"
            )


def padding_arguments(
    sequences: Any, max_len: Any, padding_value: Any
) -> tuple[list[Array], list[int], int, float, np.dtype[Any]]:
    """Check the arguments of `pad_sequences`: arrays (n_x, T_i).

    Returns the arrays, their T_i, the steps of the result, the padding value and the dtype.
    """
    try:
        arrays = list(sequences)
    except TypeError as error:
        raise TypeError(
            f"sequences must be an iterable of arrays (n_x, T_i), got {came(sequences)}"
        ) from error
    if not arrays:
        raise ValueError("sequences must hold at least one array (n_x, T_i), got none")
    # There may be a great many, so they are checked one by one only to say which is wrong.
    if set(map(type, arrays)) == {np.ndarray}:
        arrays = [array.view() for array in arrays]
    else:
        arrays = [numeric(f"sequences[{i}]", value) for i, value in enumerate(arrays)]
    kinds = {array.dtype: i for i, array in enumerate(arrays)}
    dtype = computing_dtype([numeric(f"sequences[{i}]", arrays[i]) for i in kinds.values()])
    if {array.ndim for array in arrays} != {2} or len({len(array) for array in arrays}) != 1:
        _refuse_shapes([array.shape for array in arrays])

    steps = [array.shape[1] for array in arrays]
    longest = max(steps)
    max_len = longest if max_len is None else integer("max_len", max_len)
    if max_len < longest:
        raise ValueError(f"max_len must be at least {longest}, the longest T_i, got {max_len}")
    size = len(arrays[0]) * len(arrays) * max_len * dtype.itemsize
    if size > np.iinfo(np.intp).max:
        raise ValueError(f"max_len must leave room to address the result, got {max_len}")
    return arrays, steps, max_len, real_number("padding_value", padding_value), dtype


def _refuse_shapes(shapes: Sequence[tuple[int, ...]]) -> NoReturn:
    first = shapes[0]
    i = next(i for i, shape in enumerate(shapes) if len(shape) != 2 or shape[0] != first[0])
    known = f" with n_x = {first[0]} as in sequences[0]" if i else ""
    raise ValueError(f"sequences[{i}] must have shape (n_x, T_{i}){known}, got {shapes[i]}")


def count(name: str, value: Any) -> int:
    """Check an integer of 0 or more."""
    number = integer(name, value)
    if number < 0:
        raise ValueError(f"{name} must be 0 or more, got {number}")
    return number


def dimension(name: str, value: Any) -> int:
    """Check a size of an array."""
    size = count(name, value)
    if size > np.iinfo(np.intp).max:
        raise ValueError(f"{name} must leave room to address the result, got {size}")
    return size


def real_number(name: str, value: Any) -> float:
    """Check a number, NaN and inf included."""
    if isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {came(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be in the range of float64, got a larger integer") from error


def positive_number(name: str, value: Any) -> float:
    """Check a finite number above 0."""
    number = real_number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value}")
    return number


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """Check that a string is one of some."""
    if not isinstance(value, str) or value not in options:
        expected = ", ".join(map(repr, options))
        raise ValueError(f"{name} must be one of {expected}, got {came(value)}")
    return value
