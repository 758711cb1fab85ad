"""What `_check` is for the functions around training: every error on their arguments.

Numbers that steer training, parameters and gradients that are updated in place, and the state of
an optimizer. Of an array that is to be updated a view comes back: its owner sees it change, and
cannot change its shape, or make it read-only, half-way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn._check import count, dimension, floating, real_number
from fastrnn._conform import FLOAT32, FLOAT64, Array, came, plain

#: Steps that no training takes: from here on a count could leave the range of int64.
_MANY = 2**62

#: Labelled steps that no rank has: fewer are exact in two numbers of float32, 12 bits in one.
_MANY_LABELLED = 2**36

#: Gradients that belong to samples, and to no parameter.
_OF_SAMPLES = ("da", "dx", "da0", "dxt", "da_prev")


def non_negative_number(name: str, value: Any) -> float:
    """Check a finite number of 0 or more."""
    number = real_number(name, value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be a finite number of 0 or more, got {value}")
    return number


def decay_rate(name: str, value: Any) -> float:
    """Check what a running mean keeps at each step."""
    number = real_number(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
    return number


def norm_limit(name: str, value: Any) -> float:
    """Check an upper limit of a norm: above 0, inf for none."""
    number = real_number(name, value)
    if not number > 0:
        raise ValueError(f"{name} must be above 0, or inf for no limit, got {value}")
    return number


def initialization(
    n_x: Any, n_a: Any, n_y: Any, seed: Any, dtype: Any
) -> tuple[tuple[int, int, int], np.random.Generator, np.dtype[Any]]:
    """Check the arguments of `initialize_parameters`; make a generator of the seed."""
    sizes = (dimension("n_x", n_x), dimension("n_a", n_a), dimension("n_y", n_y))
    if sizes[2] == 0:
        raise ValueError("n_y must be at least 1, got 0")
    if not (seed is None or isinstance(seed, np.random.Generator)):
        seed = count("seed, if not a numpy.random.Generator,", seed)
    # numpy.dtype takes None for float64, and raises an error of its own for what is no dtype.
    try:
        found = np.dtype(object if dtype is None else dtype)
    except TypeError:
        found = np.dtype(object)
    if found not in (FLOAT32, FLOAT64):
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")
    n_x, n_a, n_y = sizes
    if n_a * max(n_x, n_a, n_y) * found.itemsize > np.iinfo(np.intp).max:
        raise ValueError(f"n_x, n_a and n_y must leave room to address the weights, got {sizes}")
    return sizes, np.random.default_rng(seed), found


def named_arrays(
    name: str,
    arrays: Any,
    besides: Sequence[str] = (),
    dtypes: Sequence[np.dtype[Any]] = (FLOAT32, FLOAT64),
    to_update: bool = True,
) -> dict[str, Array]:
    """Check a mapping of arrays, all but those of some keys, as a rule `to_update` in place.

    Return views. Without `dtypes` they may be of any numbers.
    """
    expected = f"an array of {' or '.join(map(str, dtypes)) or 'numbers'}"
    chosen = {}
    for key, value in _mapping(name, arrays).items():
        if key in besides:
            continue
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name}[{key!r}] must be {expected}, got {came(value)}")
        array = plain(f"{name}[{key!r}]", value)
        fits = array.dtype in dtypes if dtypes else array.dtype.kind in "biufc"
        if not fits:
            raise TypeError(f"{name}[{key!r}] must be {expected}, got {came(array)}")
        if to_update and not array.flags.writeable:
            raise ValueError(f"{name}[{key!r}] must be writeable, got a read-only array")
        chosen[key] = array
    return chosen


def gradients_to_update(gradients: Any) -> dict[str, Array]:
    """Check that the gradients of parameters can be updated in place; return views of them."""
    return named_arrays("gradients", gradients, besides=_OF_SAMPLES)


def steps_labelled(name: str, value: Any) -> int:
    """Check a number of labelled steps."""
    number = count(name, value)
    if number >= _MANY_LABELLED:
        raise ValueError(f"{name} must be below 2**36, got {number}")
    return number


def _mapping(name: str, arrays: Any) -> Mapping[str, Any]:
    """Check a mapping, and that its keys are names."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{name} must be a mapping of names to arrays, got {came(arrays)}")
    for key in arrays:
        if not isinstance(key, str):
            raise TypeError(f"{name} must be a mapping of names to arrays, got the key {came(key)}")
    return arrays


def parameters_like(
    parameters: Mapping[str, Any], layout: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
) -> dict[str, Array]:
    """Check that parameters have the shapes and dtypes that they had before; return views."""
    missing = [repr(name) for name in layout if name not in parameters]
    if missing:
        raise ValueError(f"parameters must have the keys of before, got no {', '.join(missing)}")
    arrays = named_arrays("parameters", {name: parameters[name] for name in layout})
    for name, array in arrays.items():
        shape, dtype = layout[name]
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"parameters[{name!r}] must be {dtype} of shape {shape} as before, "
                f"got {array.dtype} of shape {array.shape}"
            )
    return arrays


def gradients_by_parameter(gradients: Any, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Check gradients ``dW`` of parameters ``W``; return them in the parameters' dtypes, by W."""
    names, checked = {f"d{name}": name for name in parameters}, {}
    given = _mapping("gradients", gradients)
    unknown = [key for key in given if key not in names and key not in _OF_SAMPLES]
    if unknown:
        raise ValueError(
            f"gradients must have keys of {', '.join((*names, *_OF_SAMPLES))}, "
            f"got {', '.join(map(repr, unknown))}"
        )
    for key, value in given.items():
        if key in names:
            name = names[key]
            like, parameter = f"parameters[{name!r}]", parameters[name]
            array = floating(f"gradients[{key!r}]", value, parameter.shape, parameter.dtype, like)
            # One that is part of another parameter would change before its turn.
            others = (other for key, other in parameters.items() if key != name)
            shared = any(np.may_share_memory(array, other) for other in others)
            checked[name] = array.copy() if shared else array
    return checked


def state_arrays(state: Any, like: Mapping[str, Array]) -> dict[str, Array]:
    """Check the state of an optimizer against another of the same keys, shapes and dtypes."""
    state = _mapping("state", state)
    wrong = [f"no {key}" for key in like if key not in state]
    wrong += [repr(key) for key in state if key not in like]
    if wrong:
        raise ValueError(f"state must have the keys {', '.join(like)}, got {', '.join(wrong)}")
    arrays = {key: plain(f"state[{key!r}]", state[key]) for key in like}
    for key, array in arrays.items():
        if array.dtype != like[key].dtype:
            raise TypeError(f"state[{key!r}] must be {like[key].dtype}, got {came(array)}")
        if array.shape != like[key].shape:
            raise ValueError(f"state[{key!r}] must have shape {like[key].shape}, got {array.shape}")
        if key.endswith("square") and array.min(initial=0) < 0:
            raise ValueError(f"state[{key!r}] must be 0 or more, got {array}")
        if array.dtype.kind == "i" and not 0 <= int(array) < _MANY:  # a count
            raise ValueError(f"state[{key!r}] must be 0 or more and below {_MANY}, got {array}")
    return arrays
