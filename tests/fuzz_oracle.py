"""What a call of the fuzzer must give: `fastrnn.reference`, in float64, or an error."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refusals import freeze
from strategies import Batch, Shape

import fastrnn
from fastrnn import embedding, reference

Array = NDArray[Any]
KEYS = ("Wax", "Waa", "Wya", "ba", "by")
TOLERANCE = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-10}

calls = Counter[str]()


class Refused(Exception):
    """What `call` returns in place of a result."""


def call(name: str, *arguments: Any, **options: Any) -> Any:
    """Call a public function; an error that a wrong argument may raise becomes a value."""
    calls[name] += 1
    try:
        module = embedding if name.startswith("embedding") else fastrnn
        return getattr(module, name)(*arguments, **options)
    except (ValueError, TypeError) as error:
        if type(error) not in (ValueError, TypeError):
            raise
        return Refused(str(error))


def assert_refused(name: str, *arguments: Any, **options: Any) -> None:
    before = freeze([arguments, options])
    result = call(name, *arguments, **options)
    assert isinstance(result, Refused), f"{name} took it"
    assert str(result), "an error must say what is wrong"
    assert freeze([arguments, options]) == before


def assert_near(comp: dict[str, Any], ref: dict[str, Any], dtype: np.dtype[Any]) -> None:
    assert comp.keys() == ref.keys()
    for key, expected in ref.items():
        found = np.asarray(comp[key])
        assert found.shape == np.shape(expected), key
        assert key == "loss" or found.dtype == dtype, key
        limit = TOLERANCE[dtype] * max(1, np.max(np.abs(expected), initial=0))
        assert np.max(np.abs(found - expected), initial=0) <= limit, key


def common_dtype(*values: Any) -> np.dtype[Any]:
    """The dtype to compute in, as the README states it."""
    floats = [array.dtype for array in map(np.asarray, values) if array.dtype.kind == "f"]
    return np.result_type(np.float32, *floats) if floats else np.dtype(np.float64)


def held(value: Any, dtype: np.dtype[Any]) -> Array:
    """What fastrnn keeps of an argument: the array itself if it can be used as it is."""
    array = np.asarray(value)
    return array if array.dtype == dtype and array.flags.aligned else array.astype(dtype)


def wide(value: Any, dtype: np.dtype[Any]) -> Array:
    """The value in float64 after it was rounded to a dtype."""
    return np.asarray(value).astype(dtype).astype(np.float64)


class Entries(list[Any]):
    """Step caches of the reference."""

    parameters: Any = None


class Pass:
    """A forward pass: what was passed, what came, and what its caches refer to."""

    def __init__(self, batch: Batch, lengths: list[int]) -> None:
        self.batch = batch
        self.lengths = np.array(lengths, np.int64)
        n_y, n_a = np.shape(batch.parameters["Wya"])
        n_x, m, T = np.shape(batch.x)
        self.shape = Shape(n_x, n_a, n_y, m, T)
        self.dtype = common_dtype(batch.x, batch.a0, *(batch.parameters[key] for key in KEYS))
        self.x, self.a0 = held(batch.x, self.dtype), held(batch.a0, self.dtype)
        ref_a, ref_y_pred, _ = reference.rnn_forward(
            wide(self.x, self.dtype), wide(self.a0, self.dtype), self.weights(), self.lengths
        )
        result = call("rnn_forward", *batch)
        assert not isinstance(result, Refused), result
        self.a, self.y_pred, self.caches = result
        self.predicted = self.y_pred.copy()
        assert_near({"a": self.a, "y": self.y_pred}, {"a": ref_a, "y": ref_y_pred}, self.dtype)

    def weights(self) -> dict[str, Array]:
        """The parameters as they are now."""
        return {key: wide(self.batch.parameters[key], self.dtype) for key in KEYS}

    def fits(self) -> bool:
        """Whether the parameters still have their shapes."""
        n_x, n_a, n_y = self.shape[:3]
        shapes = {"Wax": (n_a, n_x), "Waa": (n_a, n_a), "Wya": (n_y, n_a), "ba": (n_a, 1)}
        shapes["by"] = (n_y, 1)
        parameters = self.batch.parameters
        return all(
            key in parameters and np.shape(parameters[key]) == shape
            for key, shape in shapes.items()
        )

    def reference_caches(self) -> Any:
        """Caches of the reference, of what the arrays hold now."""
        entries = Entries()
        entries.parameters = weights = self.weights()
        x, a0, a = (wide(array, self.dtype) for array in (self.x, self.a0, self.a))
        for t in range(int(self.lengths.max(initial=0))):
            active = self.lengths > t
            before = a[:, active, t - 1] if t else a0[:, active]
            entries.append(((a[:, active, t], before, x[:, active, t], weights), active))
        return entries, x, self.lengths


def loss_of(y_pred: Array, labels: Array, run: Pass, mean: bool) -> float:
    """Cross-entropy of predictions, summed one by one."""
    total, count = 0.0, 0
    for i, length in enumerate(run.lengths.tolist()):
        steps = range(length) if labels.ndim == 2 else range(max(0, length - 1), length)
        for t in steps:
            label = labels[i, t] if labels.ndim == 2 else labels[i]
            if label >= 0:
                total, count = total - np.log(y_pred[label, i, t]), count + 1
    return total / max(count, 1) if mean else total
