"""Calls with one bad argument, and the assertion that they are refused with a clear message."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.random import default_rng as rng
from strategies import make_batch, make_cotangent, make_labels, make_sequences

import fastrnn
from fastrnn import reference

SIZES = {"n_x": 3, "n_a": 4, "n_y": 2, "m": 5, "T": 6}
LENGTHS = [6, 0, 3, 5, 3]
KEYS = ("Wax", "Waa", "Wya", "ba", "by")
FUNCTIONS = (
    "rnn_forward",
    "rnnCell_forward",
    "rnn_backward",
    "rnnCell_backward",
    "output_backward",
    "final_states",
    "softmax",
    "pad_sequences",
)
N_A = "n_a = 4 as in Waa"

makers_of_caches = pytest.mark.parametrize("maker", [fastrnn, reference], ids=["own", "plain"])


def good_arguments(function, maker):
    """Make arguments, by name, with which a function succeeds; caches are those of `maker`."""
    batch = make_batch(rng(0), **SIZES, lengths=LENGTHS)
    cell = {"xt": batch.x[:, :, 0].copy(), "a_prev": batch.a0, "parameters": batch.parameters}
    da = make_cotangent(rng(1), batch)
    if function == "rnn_forward":
        return batch._asdict()
    if function == "rnnCell_forward":
        return cell
    if function == "rnnCell_backward":
        return {"da_next": da[:, :, 0].copy(), "cache": maker.rnnCell_forward(**cell)[2]}
    if function == "pad_sequences":
        sequences = make_sequences(rng(3), SIZES["n_x"], LENGTHS)
        return {"sequences": sequences, "max_len": 6, "padding_value": 0.0}

    a, y_pred, caches = maker.rnn_forward(*batch)
    labels = make_labels(rng(2), SIZES["n_y"], (SIZES["m"], SIZES["T"]))
    return {
        "rnn_backward": {"da": da, "caches": caches},
        "output_backward": {"y_pred": y_pred, "labels": labels, "caches": caches},
        "final_states": {"a": a, "seq_lengths": LENGTHS},
        "softmax": {"x": y_pred},
    }[function]


def freeze(value):
    """Copy all that could be modified in a value, to be compared."""
    if isinstance(value, np.ndarray):
        return type(value), value.dtype, value.shape, value.strides, value.tobytes()
    if isinstance(value, Mapping):
        return {key: freeze(item) for key, item in value.items()}
    if isinstance(value, memoryview):
        return value.format, value.shape, value.tobytes()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return type(value), [freeze(item) for item in value]
    return repr(value)


def assert_refused(function, argument, change, exception, message, maker=reference):
    arguments = good_arguments(function, maker)
    arguments[argument] = change(arguments.get(argument))
    before = freeze(arguments)
    with pytest.raises(exception) as caught:
        getattr(fastrnn, function)(**arguments)
    assert caught.type is exception
    pattern = ".*".join(map(re.escape, message.split("...")))
    assert re.match(pattern, str(caught.value), re.DOTALL), str(caught.value)
    assert freeze(arguments) == before


def become(value):
    return lambda _: value


def without(key):
    return lambda mapping: {name: value for name, value in mapping.items() if name != key}


def put(key, change):
    """Change one item of a mapping."""
    return lambda mapping: {**mapping, key: change(mapping[key])}


def at(*path):
    """Change, by the function that comes last, what a path of indices leads to."""
    index, *rest = path
    change = at(*rest) if len(rest) > 1 else rest[0]

    def changed(values):
        items = list(values)
        items[index] = change(items[index])
        return tuple(items) if isinstance(values, tuple) else items

    return changed


def masked(array):
    return np.ma.masked_array(array, mask=np.zeros(array.shape, bool))


def wider(array):
    """Add one to the last dimension."""
    return np.concatenate([array, array[..., :1]], axis=-1)


def taller(array):
    """Add one to the first dimension."""
    return np.concatenate([array, array[:1]])


def first(array):
    return array[0]
