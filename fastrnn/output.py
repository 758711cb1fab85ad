"""The output layer: softmax, and the loss with its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _check, _threads
from fastrnn.caches import forward_pass_of
from fastrnn.kernels.output import output_backward as output_kernel
from fastrnn.kernels.softmax import softmax as softmax_kernel

#: Rows in a group of labelled rows, at least, and groups at most: one thread takes one at a time.
_GROUP_ROWS = 64
_GROUPS = 16


def softmax(x: ArrayLike) -> NDArray[np.floating[Any]]:
    """Softmax over axis 0.

    Parameters
    ----------
    x : array_like of float or integer, shape (n, ...)
        Logits. One-dimensional ``x`` of length n counts as one column.

    Returns
    -------
    ndarray of float32 or float64, the shape of ``x``, or (n, 1) for one dimension
        ``exp(x) / sum(exp(x))``, computed from ``x`` less its largest element.

    Raises
    ------
    TypeError
        If ``x`` is not an array of real numbers.
    ValueError
        If ``x`` has no dimension or ``n`` is 0.

    Examples
    --------
    >>> softmax([0.0, 0.0])
    array([[0.5],
           [0.5]])
    """
    logits = _check.softmax_argument(x)
    shape = logits.shape if logits.ndim > 1 else (len(logits), 1)
    columns = logits.reshape(len(logits), -1)
    out = np.empty_like(columns)
    softmax_kernel(out.dtype, columns[:, :, np.newaxis], out[:, :, np.newaxis])
    return out.reshape(shape)


def output_backward(
    y_pred: ArrayLike, labels: ArrayLike, caches: Any, *, reduction: str = "mean"
) -> tuple[float, dict[str, NDArray[np.floating[Any]]]]:
    """Softmax cross-entropy of the output layer, and its gradients.

    Parameters
    ----------
    y_pred : array_like, shape (n_y, m, T)
        Predictions of `rnn_forward`, taken as they are: other numbers give another loss.
    labels : array_like of int, shape (m, T) or (m,)
        Classes 0 to ``n_y - 1``, and -1 where there is none. With shape (m,), one label for each
        sequence, which belongs to its last true step. Labels at steps at or past the true length
        of a sample are ignored, whatever they hold.
    caches : tuple
        Third result of the same `rnn_forward`, or of `fastrnn.reference.rnn_forward`.
    reduction : {"mean", "sum"}
        Whether loss and gradients are divided by the number of labelled steps.

    Returns
    -------
    loss : float
        Mean or sum of ``-log y_pred[label]`` over the labelled steps; 0 without any. Where a
        prediction underflowed, its logarithm comes from the logits.
    gradients : dict
        ``da`` (n_a, m, T), Fortran-ordered, for ``rnn_backward(gradients["da"], caches)``;
        ``dWya`` (n_y, n_a) and ``dby`` (n_y, 1). In the dtype of the forward pass.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If a shape does not fit, a label lies outside 0..n_y-1, or ``reduction`` is neither.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> parameters = fastrnn.initialize_parameters(3, 4, 2, seed=0)
    >>> x, a0 = np.zeros((3, 2, 5), np.float32), np.zeros((4, 2), np.float32)
    >>> a, y_pred, caches = fastrnn.rnn_forward(x, a0, parameters, [5, 3])
    >>> loss, gradients = output_backward(y_pred, [0, 1], caches)
    >>> round(loss, 4)
    0.6931
    """
    _, _, a, weights, plan = forward_pass_of(caches)
    _, _, Wya, _, by = weights
    n_a, m, T = a.shape
    shape = len(by), m, T
    y_pred = _check.floating("y_pred", y_pred, shape, a.dtype, "y_pred of the forward pass")
    labels = _check.labels(labels, m, T, len(by), plan.lengths)
    mean = _check.choice("reduction", reduction, ("mean", "sum")) == "mean"

    if labels.ndim == 2:
        steps, samples = np.nonzero(labels.T >= 0)
        chosen = labels[samples, steps]
    else:
        samples = np.flatnonzero(labels >= 0)
        samples = samples[np.argsort(plan.lengths[samples], kind="stable")]
        steps, chosen = plan.lengths[samples] - 1, labels[samples]
    gradients = {
        "da": np.zeros((n_a, m, T), a.dtype, order="F"),
        "dWya": np.zeros((len(by), n_a), a.dtype),
        "dby": np.zeros((len(by), 1), a.dtype),
    }
    if not len(steps):
        return 0.0, gradients
    groups = min(_GROUPS, -(-len(steps) // _GROUP_ROWS))
    losses = np.zeros(groups)
    scale = 1 / len(steps) if mean else 1.0
    rows = steps, np.ascontiguousarray(samples), chosen  # kernels go through its memory
    outputs = tuple(gradients.values())
    arguments = a.dtype.type(scale), rows, (y_pred, a, Wya, by), outputs, losses
    small = 2 * len(steps) * n_a * len(by) < _threads.SERIAL_WORK
    alone = small or _threads.threads() == 1
    _threads.call(output_kernel, a.dtype, groups, arguments, alone)
    return float(losses.sum()) * scale, gradients
