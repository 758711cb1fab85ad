"""Implementations that fastrnn has no part in, to compare with.

ONNX Runtime's RNN operator, which honours lengths, gives states and predictions in float32. The
autograd package differentiates a loop over the steps of one sample at a time, in float64. Central
differences need nothing but the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeAlias

import autograd
import autograd.numpy as anp
import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper
from strategies import Batch, padding_mask

Array: TypeAlias = NDArray[Any]


@cache
def _onnx_session(n_a: int) -> onnxruntime.InferenceSession:
    """Build the graph RNN, then ``softmax(a Wya + by)``, with the steps leading in every array."""
    nodes = [
        helper.make_node("RNN", ["x", "Wax", "Waa", "ba", "L", "a0"], ["a4"], hidden_size=n_a),
        helper.make_node("Squeeze", ["a4", "directions"], ["a"]),
        helper.make_node("MatMul", ["a", "Wya"], ["Wya_a"]),
        helper.make_node("Add", ["Wya_a", "by"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y_pred"], axis=-1),
    ]
    ranks = {"x": 3, "Wax": 3, "Waa": 3, "ba": 2, "a0": 3, "Wya": 2, "by": 1, "a": 3, "y_pred": 3}
    value = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
        for name, rank in ranks.items()
    }
    results = [value.pop("a"), value.pop("y_pred")]
    lengths = helper.make_tensor_value_info("L", TensorProto.INT32, [None])
    directions = helper.make_tensor("directions", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "rnn", [*value.values(), lengths], results, [directions])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def onnx_forward(batch: Batch) -> tuple[Array, Array]:
    """States (n_a, m, T) and predictions (n_y, m, T) of ONNX Runtime, in float32."""
    x, a0, parameters, lengths = batch.astype(np.float32)
    ba = parameters["ba"].ravel()
    feeds = {
        "x": x.transpose(2, 1, 0),
        "L": np.asarray(lengths, np.int32),
        "a0": a0.T[np.newaxis],
        "Wax": parameters["Wax"][np.newaxis],
        "Waa": parameters["Waa"][np.newaxis],
        "ba": np.concatenate([ba, np.zeros_like(ba)])[np.newaxis],
        "Wya": parameters["Wya"].T,
        "by": parameters["by"].ravel(),
    }
    feeds = {name: np.ascontiguousarray(feed) for name, feed in feeds.items()}
    a, y_pred = _onnx_session(batch.shape.n_a).run(["a", "y_pred"], feeds)

    # The softmax knows nothing of the lengths.
    y_pred = y_pred.transpose(2, 1, 0)
    y_pred[:, padding_mask(lengths, batch.shape.T)] = 0
    return a.transpose(2, 1, 0), y_pred


def _true_steps(batch: Batch) -> Iterator[tuple[int, int]]:
    """Every (sample, step) that is not padding, the steps of a sample in order."""
    return ((i, t) for i, length in enumerate(batch.seq_lengths) for t in range(int(length)))


def _loop_states(batch: Batch, x: Any, a0: Any, Wax: Any, Waa: Any, ba: Any) -> dict[Any, Any]:
    """States by (sample, step), for `batch` with these arrays in place of its own."""
    states = {(i, -1): a0[:, i] for i in range(batch.shape.m)}
    for i, t in _true_steps(batch):
        z = anp.dot(Wax, x[:, i, t]) + anp.dot(Waa, states[i, t - 1]) + ba[:, 0]
        states[i, t] = anp.tanh(z)
    return states


def loop_forward(batch: Batch) -> tuple[Array, Array]:
    """States (n_a, m, T) and predictions (n_y, m, T), one sample and step at a time, in float64."""
    batch = batch.astype(np.float64)
    x, a0, p, _ = batch
    _, n_a, n_y, m, T = batch.shape
    a, y_pred = np.zeros((n_a, m, T)), np.zeros((n_y, m, T))

    states = _loop_states(batch, x, a0, p["Wax"], p["Waa"], p["ba"])
    for i, t in _true_steps(batch):
        a[:, i, t] = states[i, t]
        e = np.exp(p["Wya"] @ states[i, t] + p["by"][:, 0])
        y_pred[:, i, t] = e / e.sum()
    return a, y_pred


def autograd_backward(batch: Batch, da: Array) -> dict[str, Array]:
    """Gradients of ``sum(da * a)`` over the true steps, under the keys of `rnn_backward`."""
    batch = batch.astype(np.float64)
    x, a0, p, _ = batch

    def loss(*arrays: Any) -> Any:
        states = _loop_states(batch, *arrays)
        return sum(anp.dot(da[:, i, t], states[i, t]) for i, t in _true_steps(batch))

    gradients = autograd.grad(loss, [0, 1, 2, 3, 4])(x, a0, p["Wax"], p["Waa"], p["ba"])
    return dict(zip(["dx", "da0", "dWax", "dWaa", "dba"], gradients, strict=True))


def autograd_output_backward(
    batch: Batch, labels: ArrayLike, reduction: str = "mean"
) -> tuple[float, dict[str, Array]]:
    """Cross-entropy and its gradients, as `output_backward` returns them; some label must count."""
    batch = batch.astype(np.float64)
    p = batch.parameters
    labels = np.asarray(labels)
    chosen = {}
    for i, t in _true_steps(batch):
        last = t == int(batch.seq_lengths[i]) - 1
        label = labels[i, t] if labels.ndim == 2 else labels[i] if last else -1
        if label != -1:
            chosen[i, t] = int(label)
    divisor = len(chosen) if reduction == "mean" else 1

    def loss(a: Any, Wya: Any, by: Any) -> Any:
        total = 0.0
        for (i, t), label in chosen.items():
            z = anp.dot(Wya, a[:, i, t]) + by[:, 0]
            total = total + anp.log(anp.sum(anp.exp(z))) - z[label]
        return total / divisor

    arrays = (loop_forward(batch)[0], p["Wya"], p["by"])
    gradients = autograd.grad(loss, [0, 1, 2])(*arrays)
    return loss(*arrays), dict(zip(["da", "dWya", "dby"], gradients, strict=True))


def central_differences(
    f: Callable[[NDArray[np.float64]], float], array: ArrayLike, step: float = 1e-5
) -> NDArray[np.float64]:
    """Gradient of `f` at `array` in float64, one element at a time.

    With values of order 1 the error is about 1e-10: ``step**2`` by truncation, and the rounding of
    `f` over ``step``.
    """
    point = np.array(array, np.float64)
    gradient = np.zeros(point.shape)
    for index in np.ndindex(point.shape):
        sides = []
        for offset in (step, -step):
            moved = point.copy()
            moved[index] += offset
            sides.append(f(moved))
        gradient[index] = (sides[0] - sides[1]) / (2 * step)
    return gradient
