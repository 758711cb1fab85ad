"""The vanilla (tanh) RNN over a padded batch of sequences of different lengths, in plain NumPy.

The teaching notebook that fastrnn replaces, repaired so that it runs: a Python loop over the steps,
with a boolean mask of the samples still running. The tests hold the compiled functions against it
and the benchmarks time them against it, so it is deliberately not made faster.

Letters: ``n_x`` features, ``n_a`` hidden units, ``n_y`` classes, ``m`` samples, ``T`` steps, and
``L[i]`` the true length of sample ``i``, which is active at the steps ``t < L[i]``.

Arguments are floating arrays, not checked and never modified. The arithmetic is done in the dtype
that NumPy finds for them; ``a``, ``y_pred`` and ``dx`` are stored in float64 all the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "final_states",
    "output_backward",
    "pad_sequences",
    "rnnCell_backward",
    "rnnCell_forward",
    "rnn_backward",
    "rnn_cell_backward",
    "rnn_cell_forward",
    "rnn_forward",
    "softmax",
]

Array: TypeAlias = NDArray[Any]
Parameters: TypeAlias = Mapping[str, Any]
CellCache: TypeAlias = tuple[Array, Array, Array, Parameters]
StepCache: TypeAlias = tuple[CellCache, NDArray[np.bool_]]
Caches: TypeAlias = tuple[Sequence[StepCache], ArrayLike, ArrayLike]


class _StepCaches(list[StepCache]):
    """The entries of the steps that ran; `parameters` tells their shapes when none did."""

    parameters: Parameters


def _dtype(*arrays: ArrayLike, step_caches: Sequence[StepCache] = ()) -> np.dtype[Any]:
    """Find the floating dtype of arithmetic with these arrays, and with the states of a cache."""
    states = [step_caches[0][0][0]] if len(step_caches) else []
    return np.result_type(np.float16, *arrays, *states)


def softmax(x: Array) -> Array:
    """Exponentials of each column, divided by their sum.

    Parameters
    ----------
    x : ndarray, shape (n, ...) or (n,)
        A vector counts as one column. Each column's maximum is subtracted first: that keeps `exp`
        from overflowing and does not change the quotient.

    Returns
    -------
    ndarray, shape (n, ...) or (n, 1)

    Examples
    --------
    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [[0.5], [0.5]]
    """
    if x.ndim == 1:
        x = x.reshape(-1, 1)
    e_x = np.exp(x - np.max(x, axis=0, keepdims=True))
    softmax_output: Array = e_x / e_x.sum(axis=0, keepdims=True)
    return softmax_output


def pad_sequences(
    sequences: Sequence[Array], max_len: int | None = None, padding_value: float = 0.0
) -> tuple[Array, list[int]]:
    """Lay sequences of different lengths side by side in one array.

    Parameters
    ----------
    sequences : sequence of ndarray, each of shape (n_x, T_i)
        At least one.
    max_len : int, optional
        Steps of the result; the longest sequence's when not given.
    padding_value : float, default 0.0
        What fills the steps past the end of a sequence.

    Returns
    -------
    padded_x : ndarray, shape (n_x, m, max_len)
        Of the sequences' common floating dtype: float32 at least, float64 when all are integers.
    seq_lengths : list of int
        The lengths T_i.

    Examples
    --------
    >>> pad_sequences([np.ones((1, 2)), np.ones((1, 1))], max_len=3)
    (array([[[1., 1., 0.],
            [1., 0., 0.]]]), [2, 1])
    """
    seq_lengths = [seq.shape[1] for seq in sequences]
    if max_len is None:
        max_len = max(seq_lengths)

    floating = [seq.dtype for seq in sequences if seq.dtype.kind == "f"]
    dtype = np.result_type(np.float32, *floating) if floating else np.float64

    n_x, m = sequences[0].shape[0], len(sequences)
    padded_x = np.full((n_x, m, max_len), padding_value, dtype)
    for i, seq in enumerate(sequences):
        padded_x[:, i, : seq_lengths[i]] = seq
    return padded_x, seq_lengths


def rnnCell_forward(
    xt: Array, a_prev: Array, parameters: Parameters
) -> tuple[Array, Array, CellCache]:
    """Take all samples one step forward.

    Parameters
    ----------
    xt, a_prev : ndarray, shapes (n_x, m) and (n_a, m)
        Input of this step, and hidden states after the one before.
    parameters : mapping
        ``Wax (n_a, n_x)``, ``Waa (n_a, n_a)``, ``Wya (n_y, n_a)``, ``ba (n_a, 1)`` and
        ``by (n_y, 1)``; other keys are ignored.

    Returns
    -------
    at, yt_pred : ndarray, shapes (n_a, m) and (n_y, m)
        Hidden states ``tanh(Wax xt + Waa a_prev + ba)``, and predictions ``softmax(Wya at + by)``.
    cache : tuple
        ``(at, a_prev, xt, parameters)``, for `rnnCell_backward`.

    Examples
    --------
    >>> a, b = np.zeros((1, 1)), np.zeros((4, 1))
    >>> parameters = {"Wax": a, "Waa": a, "Wya": b, "ba": a, "by": b}
    >>> at, yt_pred, cache = rnnCell_forward(np.ones((1, 1)), np.ones((1, 1)), parameters)
    >>> at.ravel(), yt_pred.ravel()
    (array([0.]), array([0.25, 0.25, 0.25, 0.25]))
    """
    Wax, Waa, Wya = parameters["Wax"], parameters["Waa"], parameters["Wya"]
    ba, by = parameters["ba"], parameters["by"]
    at = np.tanh(np.dot(Wax, xt) + np.dot(Waa, a_prev) + ba)
    yt_pred = softmax(np.dot(Wya, at) + by)
    return at, yt_pred, (at, a_prev, xt, parameters)


def rnn_forward(
    x: Array, a0: Array, parameters: Parameters, seq_lengths: ArrayLike
) -> tuple[Array, Array, Caches]:
    """Run the cell over a padded batch, each sample for its own number of steps.

    Parameters
    ----------
    x : ndarray, shape (n_x, m, T)
        Padded input; what it holds at steps ``t >= L[i]`` is never looked at.
    a0 : ndarray, shape (n_a, m)
        Hidden state before the first step.
    parameters : mapping
        As for `rnnCell_forward`.
    seq_lengths : array_like of int, shape (m,)
        True lengths.

    Returns
    -------
    a, y_pred : ndarray of float64, shapes (n_a, m, T) and (n_y, m, T)
        Hidden states and predictions, 0 at padded steps.
    caches : tuple
        ``(step_caches, x, seq_lengths)``. ``step_caches[t]`` is ``(cache, active_batch)``: the
        cell's cache, whose columns are the active samples, and the boolean mask of those samples.

    Examples
    --------
    >>> one, zero = np.ones((1, 1)), np.zeros((1, 1))
    >>> parameters = {"Wax": one, "Waa": one, "Wya": one, "ba": zero, "by": zero}
    >>> rnn_forward(np.zeros((1, 2, 2)), np.zeros((1, 2)), parameters, [1, 2])[1]
    array([[[1., 0.],
            [1., 1.]]])
    """
    step_caches = _StepCaches()
    step_caches.parameters = parameters
    lengths = np.asarray(seq_lengths)
    _, m, T_max = x.shape
    n_y, n_a = parameters["Wya"].shape
    a = np.zeros((n_a, m, T_max))
    y_pred = np.zeros((n_y, m, T_max))

    a_prev = a0.astype(_dtype(a0, x, *(parameters[key] for key in ("Wax", "Waa", "ba"))))
    for t in range(T_max):
        active_batch = lengths > t
        if not np.any(active_batch):
            break

        xt = x[:, active_batch, t]
        a_prev_active = a_prev[:, active_batch]
        at, yt_pred, cache = rnnCell_forward(xt, a_prev_active, parameters)
        a[:, active_batch, t] = at
        y_pred[:, active_batch, t] = yt_pred
        step_caches.append((cache, active_batch))
        a_prev[:, active_batch] = at
    return a, y_pred, (step_caches, x, seq_lengths)


def rnnCell_backward(da_next: Array, cache: CellCache) -> dict[str, Array]:
    """Take the gradient of the loss back through one step.

    Parameters
    ----------
    da_next : ndarray, shape (n_a, m)
        Gradient with respect to the hidden state after the step.
    cache : tuple
        Third result of `rnnCell_forward`.

    Returns
    -------
    dict of ndarray
        ``dxt (n_x, m)``, ``da_prev (n_a, m)``, ``dWax (n_a, n_x)``, ``dWaa (n_a, n_a)`` and
        ``dba (n_a, 1)``, by the chain rule: tanh has the derivative ``1 - tanh**2``.

    Examples
    --------
    >>> parameters = {"Wax": np.array([[2.0]]), "Waa": np.array([[3.0]])}
    >>> cache = (np.array([[0.0]]), np.array([[5.0]]), np.array([[7.0]]), parameters)
    >>> {key: value.item() for key, value in rnnCell_backward(np.ones((1, 1)), cache).items()}
    {'dxt': 2.0, 'da_prev': 3.0, 'dWax': 7.0, 'dWaa': 5.0, 'dba': 1.0}
    """
    a_next, a_prev, xt, parameters = cache
    Wax, Waa = parameters["Wax"], parameters["Waa"]
    dtanh = (1 - a_next**2) * da_next
    dWax = np.dot(dtanh, xt.T)
    dWaa = np.dot(dtanh, a_prev.T)
    dba = np.sum(dtanh, axis=1, keepdims=True)
    dxt = np.dot(Wax.T, dtanh)
    da_prev = np.dot(Waa.T, dtanh)
    return {"dxt": dxt, "da_prev": da_prev, "dWax": dWax, "dWaa": dWaa, "dba": dba}


rnn_cell_forward = rnnCell_forward
rnn_cell_backward = rnnCell_backward


def rnn_backward(da: Array, caches: Caches) -> dict[str, Array]:
    """Backpropagate through time, over the steps that each sample really has.

    Parameters
    ----------
    da : ndarray, shape (n_a, m, T)
        Gradient of the loss with respect to the hidden states, without what reaches them through
        later steps. What it holds at padded steps is never looked at.
    caches : tuple
        Third result of `rnn_forward`, of this module or of fastrnn.

    Returns
    -------
    dict of ndarray
        ``dx (n_x, m, T)``, 0 at padded steps, ``da0 (n_a, m)``, ``dWax (n_a, n_x)``,
        ``dWaa (n_a, n_a)`` and ``dba (n_a, 1)``.

    Examples
    --------
    >>> one, zero = np.ones((1, 1)), np.zeros((1, 1))
    >>> parameters = {"Wax": one, "Waa": one / 2, "Wya": one, "ba": zero, "by": zero}
    >>> a, y_pred, caches = rnn_forward(np.zeros((1, 1, 3)), zero, parameters, [2])
    >>> gradients = rnn_backward(np.ones((1, 1, 3)), caches)
    >>> gradients["dx"], gradients["da0"]
    (array([[[1.5, 1. , 0. ]]]), array([[0.75]]))
    """
    step_caches, x, _ = caches
    n_a, m, T_x = da.shape
    n_x = np.shape(x)[0]
    dtype = _dtype(da, step_caches=step_caches)

    dx = np.zeros((n_x, m, T_x))
    dWax = np.zeros((n_a, n_x), dtype)
    dWaa = np.zeros((n_a, n_a), dtype)
    dba = np.zeros((n_a, 1), dtype)
    da_prevt = np.zeros((n_a, m), dtype)

    for t in reversed(range(len(step_caches))):
        cache, active_batch = step_caches[t]
        da_next = da[:, active_batch, t] + da_prevt[:, active_batch]
        gradients = rnn_cell_backward(da_next, cache)

        dx[:, active_batch, t] = gradients["dxt"]
        dWax += gradients["dWax"]
        dWaa += gradients["dWaa"]
        dba += gradients["dba"]
        da_prevt[:, active_batch] = gradients["da_prev"]
    return {"dx": dx, "da0": da_prevt, "dWax": dWax, "dWaa": dWaa, "dba": dba}


def _labels_by_step(labels: ArrayLike, seq_lengths: ArrayLike, T: int) -> NDArray[np.int64]:
    """Spread labels of either form over (m, T), with -1 wherever none counts."""
    steps = np.arange(T)
    lengths = np.asarray(seq_lengths, dtype=np.int64)[:, np.newaxis]
    labels = np.asarray(labels, dtype=np.int64)
    if labels.ndim == 1:
        return np.where(steps == lengths - 1, labels[:, np.newaxis], -1)
    return np.where(steps < lengths, labels, -1)


def output_backward(
    y_pred: Array, labels: ArrayLike, caches: Caches, *, reduction: Literal["mean", "sum"] = "mean"
) -> tuple[float, dict[str, Array]]:
    """Cross-entropy of the predictions, and its gradients back to the hidden states.

    Parameters
    ----------
    y_pred : ndarray, shape (n_y, m, T)
        Second result of `rnn_forward`.
    labels : array_like of int, shape (m, T) or (m,)
        The true class at each step, -1 where there is none; or of each sequence, at its last true
        step. Labels at padded steps, and of sequences of length 0, are ignored.
    caches : tuple
        Third result of `rnn_forward`.
    reduction : {"mean", "sum"}, default "mean"
        Whether loss and gradients are divided by the number of labels that count.

    Returns
    -------
    loss : float
        From the logits ``z = Wya a + by``, so that it is right where `y_pred` underflowed to 0.
    gradients : dict of ndarray
        ``da (n_a, m, T)``, ``dWya (n_y, n_a)`` and ``dby (n_y, 1)``, from
        ``dz = y_pred - onehot(labels)``. All are 0 when no label counts.

    Examples
    --------
    >>> a, b = np.zeros((1, 1)), np.zeros((4, 1))
    >>> parameters = {"Wax": a, "Waa": a, "Wya": b, "ba": a, "by": b}
    >>> _, y_pred, caches = rnn_forward(np.ones((1, 1, 5)), a, parameters, [5])
    >>> loss, gradients = output_backward(y_pred, [2], caches)
    >>> round(loss, 4), gradients["dby"].ravel()
    (1.3863, array([ 0.25,  0.25, -0.75,  0.25]))
    """
    step_caches, _, seq_lengths = caches
    parameters = getattr(step_caches, "parameters", None) or step_caches[0][0][3]
    Wya, by = parameters["Wya"], parameters["by"]

    n_y, m, T_x = y_pred.shape
    dtype = _dtype(Wya, by, step_caches=step_caches)
    da = np.zeros((Wya.shape[1], m, T_x), dtype)
    dWya = np.zeros(Wya.shape, dtype)
    dby = np.zeros((n_y, 1), dtype)

    labels = _labels_by_step(labels, seq_lengths, T_x)
    labelled = labels >= 0
    divisor = max(1, int(labelled.sum())) if reduction == "mean" else 1

    loss = 0.0
    for t in range(len(step_caches)):
        (a_next, _, _, _), active_batch = step_caches[t]
        a_labelled = a_next[:, labelled[active_batch, t]]
        chosen = (labels[labelled[:, t], t], np.arange(a_labelled.shape[1]))
        z = np.dot(Wya, a_labelled) + by
        shift_z = z - np.max(z, axis=0, keepdims=True)
        log_sum = np.log(np.exp(shift_z).sum(axis=0))
        loss += float(np.sum(log_sum - shift_z[chosen], dtype=np.float64)) / divisor

        dz = y_pred[:, labelled[:, t], t].astype(dtype)
        dz[chosen] -= 1
        dz /= divisor
        da[:, labelled[:, t], t] = np.dot(Wya.T, dz)
        dWya += np.dot(dz, a_labelled.T)
        dby += np.sum(dz, axis=1, keepdims=True)
    return loss, {"da": da, "dWya": dWya, "dby": dby}


def final_states(a: Array, seq_lengths: ArrayLike) -> Array:
    """Pick each sample's last true state out of the states of all steps.

    Parameters
    ----------
    a : ndarray, shape (n_a, m, T)
        First result of `rnn_forward`.
    seq_lengths : array_like of int, shape (m,)
        True lengths.

    Returns
    -------
    ndarray, shape (n_a, m)
        ``a[:, i, L[i] - 1]``, or 0 where ``L[i] == 0``; of the dtype of `a`. As `a0` of the next
        call it continues sequences that are fed in pieces.

    Examples
    --------
    >>> final_states(np.array([[[1.0, 2.0, 0.0], [3.0, 4.0, 5.0], [0.0, 0.0, 0.0]]]), [2, 3, 0])
    array([[2., 5., 0.]])
    """
    lengths = np.asarray(seq_lengths, dtype=np.int64)
    started = lengths > 0
    final = np.zeros(a.shape[:2], a.dtype)
    final[:, started] = a[:, started, lengths[started] - 1]
    return final
