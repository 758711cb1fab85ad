"""The recurrent network: forward, and below it, backward.

Letters: ``n_x`` features, ``n_a`` hidden units, ``n_y`` classes, ``m`` samples, ``T`` steps, and
``L[i]`` the true length of sample ``i``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _check, _threads
from fastrnn._conform import Weights
from fastrnn._plan import Ragged, full, ragged
from fastrnn._results import empty, results
from fastrnn.caches import Array, CellCache, StepCaches, forward_pass_of
from fastrnn.kernels import backward, forward

Caches = tuple[StepCaches, Any, Any]


def _run_forward(x: Array, a0: Array, weights: Weights, plan: Ragged) -> tuple[Array, Array]:
    """Allocate the results of a forward pass, and fill them by one call of a kernel."""
    n_x, m, T = x.shape
    n_a, n_y = len(a0), len(weights[4])
    (a, y_pred), clear, past = results((n_a, n_y), m, T, x.dtype)
    sizes, alone, order, active = plan.cut(n_x, n_a, n_y, clear, past, x.itemsize)
    arguments = sizes, (x, a0[..., np.newaxis], order, active), weights, (a, y_pred)
    _threads.call(forward.forward, x.dtype, 0, arguments, alone)
    return a, y_pred


def rnn_forward(
    x: ArrayLike, a0: ArrayLike, parameters: Mapping[str, Any], seq_lengths: ArrayLike
) -> tuple[Array, Array, Caches]:
    """Run a recurrent network over a padded batch of variable-length sequences.

    ``a[t] = tanh(Wax x[t] + Waa a[t-1] + ba)`` and ``y_pred[t] = softmax(Wya a[t] + by)``, for
    the samples with ``L[i] > t``. What ``x`` holds past the end of a sequence changes nothing.

    Parameters
    ----------
    x : array_like, shape (n_x, m, T)
        Input, padded, in any memory order. Fortran order, which `pad_sequences` returns, is read
        fastest.
    a0 : array_like, shape (n_a, m)
        Initial states.
    parameters : mapping
        ``Wax`` (n_a, n_x), ``Waa`` (n_a, n_a), ``Wya`` (n_y, n_a), ``ba`` (n_a, 1),
        ``by`` (n_y, 1). Other keys are ignored.
    seq_lengths : array_like of int, shape (m,)
        True lengths, 0 to T; whole floats such as 3.0 count.

    Returns
    -------
    a : ndarray, shape (n_a, m, T)
        States, Fortran-ordered; 0 at padded steps.
    y_pred : ndarray, shape (n_y, m, T)
        Predictions, Fortran-ordered; 0 at padded steps.
    caches : tuple
        ``(step_caches, x, seq_lengths)`` for `rnn_backward` and `output_backward`. It refers to
        ``x``, ``a0``, ``a`` and the parameters instead of copying them, so do not modify these
        before the backward pass: it uses what they hold when it is called, and would return
        gradients of the changed values.

    Raises
    ------
    TypeError
        If an argument is no array of real numbers (complex and masked arrays are none), or
        ``parameters`` is no mapping.
    ValueError
        If a key is missing, a shape does not fit, ``n_y`` is 0, or a length is no whole number in
        0..T.

    Notes
    -----
    All is computed in float32 or float64: the `numpy.result_type` of the floating arguments,
    float16 counting as float32, integers taking no part, and float64 where all are integer.
    Results are the same to the bit for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> parameters = fastrnn.initialize_parameters(n_x=3, n_a=4, n_y=2, seed=0)
    >>> x, seq_lengths = fastrnn.pad_sequences([np.ones((3, 5)), np.ones((3, 2))])
    >>> a, y_pred, caches = rnn_forward(x, np.zeros((4, 2)), parameters, seq_lengths)
    >>> a.shape, y_pred.shape
    ((4, 2, 5), (2, 2, 5))
    """
    arguments = _check.forward_arguments(x, a0, parameters, seq_lengths)
    inputs, first, weights, lengths, total = arguments
    plan = ragged(lengths, total, inputs.shape[2])
    a, y_pred = _run_forward(inputs, first, weights, plan)
    steps = StepCaches(inputs, first, a.view(), parameters, plan, (x, seq_lengths), len(y_pred))
    return a, y_pred, (steps, x, seq_lengths)


def rnn_backward(da: ArrayLike, caches: Any) -> dict[str, Array]:
    """Backpropagation through time, for the samples that were active at each step.

    Parameters
    ----------
    da : array_like, shape (n_a, m, T)
        Gradient of the loss with respect to the states ``a``, in any memory order. What it holds
        at padded steps changes nothing.
    caches : tuple
        Third result of `rnn_forward`, or of `fastrnn.reference.rnn_forward`, or put together by
        hand as these are. If no step ran, a plain list of steps leaves the shapes unknown.

    Returns
    -------
    dict
        ``dx`` (n_x, m, T), Fortran-ordered and 0 at padded steps, ``da0`` (n_a, m),
        ``dWax`` (n_a, n_x), ``dWaa`` (n_a, n_a) and ``dba`` (n_a, 1), in the dtype of the
        forward pass.

    Raises
    ------
    TypeError
        If ``da`` is not an array of real numbers or ``caches`` not caches.
    ValueError
        If ``da`` is of another shape, or the parameters have changed their shapes.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> parameters = fastrnn.initialize_parameters(n_x=3, n_a=4, n_y=2, seed=0)
    >>> x, a0 = np.ones((3, 2, 5), np.float32), np.zeros((4, 2), np.float32)
    >>> a, y_pred, caches = fastrnn.rnn_forward(x, a0, parameters, [5, 2])
    >>> gradients = rnn_backward(np.ones_like(a), caches)
    >>> {name: gradient.shape for name, gradient in gradients.items()}
    {'dx': (3, 2, 5), 'da0': (4, 2), 'dWax': (4, 3), 'dWaa': (4, 4), 'dba': (4, 1)}
    """
    x, a0, a, weights, plan = forward_pass_of(caches)
    da = _check.floating("da", da, a.shape, a.dtype, "a of the forward pass")
    return _run_backward(x, a0, a, da, weights, plan)


def _run_backward(
    x: Array, a0: Array, a: Array, da: Array, weights: Weights, plan: Ragged
) -> dict[str, Array]:
    """Allocate the gradients of a pass, and fill them by one call of a kernel."""
    n_x, m, T = x.shape
    n_a = len(a)
    if a.strides[0] != a.itemsize:  # a copy may have come in another order
        a = np.asfortranarray(a)
    da0 = np.zeros((n_a, m, 1), a.dtype, order="F")
    dWax, dWaa, dba = weight_gradients = [empty((n_a, n), a.dtype, "C") for n in (n_x, n_a, 1)]
    if not plan.total:  # without a sample there is nothing to add up
        for gradient in weight_gradients:
            gradient.fill(0)
    (dx,), clear, past = results((n_x,), m, T, a.dtype)
    sizes, alone, order, active = plan.cut(n_x, n_a, 0, clear, past, x.itemsize)
    batch, outputs = (x, a0[..., np.newaxis], order, active), (dx, da0, dWax, dWaa, dba)
    arguments = sizes, batch, weights[:2], (a, da), outputs
    _threads.call(backward.backward, a.dtype, 0, arguments, alone)
    return {"dx": dx, "da0": da0[:, :, 0], "dWax": dWax, "dWaa": dWaa, "dba": dba}


def rnnCell_forward(
    xt: ArrayLike, a_prev: ArrayLike, parameters: Mapping[str, Any]
) -> tuple[Array, Array, CellCache]:
    """Run one step of the network.

    Parameters
    ----------
    xt : array_like, shape (n_x, m)
        Input of the step.
    a_prev : array_like, shape (n_a, m)
        States before it.
    parameters : mapping
        As for `rnn_forward`.

    Returns
    -------
    at : ndarray, shape (n_a, m)
        ``tanh(Wax xt + Waa a_prev + ba)``.
    yt_pred : ndarray, shape (n_y, m)
        ``softmax(Wya at + by)``. Both in the dtype that `rnn_forward` would compute in.
    cache : tuple
        ``(at, a_prev, xt, parameters)`` for `rnnCell_backward`, as they were passed.

    Raises
    ------
    TypeError, ValueError
        As `rnn_forward`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> parameters = fastrnn.initialize_parameters(n_x=3, n_a=4, n_y=2, seed=0)
    >>> at, yt_pred, cache = rnnCell_forward(np.ones((3, 2)), np.zeros((4, 2)), parameters)
    >>> at.shape, yt_pred.shape
    ((4, 2), (2, 2))
    """
    inputs, before, weights = _check.cell_arguments(xt, a_prev, parameters)
    plan = full(inputs.shape[1], 1)
    at, yt_pred = _run_forward(inputs[..., np.newaxis], before, weights, plan)
    state = at[..., 0]
    return state, yt_pred[..., 0], (state, a_prev, xt, parameters)  # type: ignore[return-value]


def rnnCell_backward(da_next: ArrayLike, cache: Any) -> dict[str, Array]:
    """Backward pass of one step.

    Parameters
    ----------
    da_next : array_like, shape (n_a, m)
        Gradient of the loss with respect to the states after the step.
    cache : tuple
        ``(a_next, a_prev, xt, parameters)``, third result of `rnnCell_forward`.

    Returns
    -------
    dict
        ``dxt`` (n_x, m), ``da_prev`` (n_a, m), ``dWax`` (n_a, n_x), ``dWaa`` (n_a, n_a) and
        ``dba`` (n_a, 1), in the dtype that the arrays of the cache have in common.

    Raises
    ------
    TypeError, ValueError
        As `rnn_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> parameters = fastrnn.initialize_parameters(n_x=3, n_a=4, n_y=2, seed=0)
    >>> at, _, cache = fastrnn.rnnCell_forward(np.ones((3, 2)), np.zeros((4, 2)), parameters)
    >>> gradients = rnnCell_backward(np.ones_like(at), cache)
    >>> gradients["dxt"].shape, gradients["da_prev"].shape
    ((3, 2), (4, 2))
    """
    a_next, a_prev, xt, weights = _check.cell_cache(cache)
    da = _check.floating("da_next", da_next, a_next.shape, a_next.dtype, "a_next in the cache")
    x, a, da = (array[..., np.newaxis] for array in (xt, a_next, da))
    gradients = _run_backward(x, a_prev, a, da, weights, full(xt.shape[1], 1))
    return {"dxt": gradients.pop("dx")[:, :, 0], "da_prev": gradients.pop("da0"), **gradients}


def final_states(a: ArrayLike, seq_lengths: ArrayLike | Sequence[int]) -> NDArray[Any]:
    """Take each sample's last true state, so that a long sequence can be fed in pieces.

    Parameters
    ----------
    a : array_like, shape (n_a, m, T)
        States of `rnn_forward`, or its predictions.
    seq_lengths : array_like of int, shape (m,)
        True lengths, 0 to T.

    Returns
    -------
    ndarray, shape (n_a, m)
        ``a[:, i, L[i] - 1]``, and 0 where ``L[i] == 0``: there the state before still holds.

    Raises
    ------
    TypeError, ValueError
        As `rnn_forward`.

    Examples
    --------
    >>> import numpy as np
    >>> final_states(np.arange(6.0).reshape(1, 2, 3), [3, 1])
    array([[2., 3.]])
    """
    states, lengths = _check.states(a, seq_lengths)
    result = np.zeros(states.shape[:2], states.dtype, order="F")
    samples = np.flatnonzero(lengths)
    result[:, samples] = states[:, samples, lengths[samples] - 1]
    return result


rnn_cell_forward = rnnCell_forward
rnn_cell_backward = rnnCell_backward
