"""Sequences of different lengths, side by side in one array."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _check
from fastrnn._results import empty


def pad_sequences(
    sequences: Iterable[ArrayLike], max_len: int | None = None, padding_value: float = 0.0
) -> tuple[NDArray[np.floating[Any]], list[int]]:
    """Lay sequences of different lengths side by side in one padded array.

    Parameters
    ----------
    sequences : iterable of array_like, each of shape (n_x, T_i)
        At least one; n_x is the same for all, a length T_i may be 0. The dtypes are float16,
        float32, float64, integer or boolean.
    max_len : int, optional
        Steps of the result, at least the longest T_i, which is the default.
    padding_value : float, default 0.0
        What fills the steps past the end of a sequence, NaN and inf included. It has no influence
        on the dtype.

    Returns
    -------
    padded_x : ndarray of float32 or float64, shape (n_x, m, max_len)
        ``padded_x[:, i, :T_i]`` holds sequence i. The dtype is the `numpy.result_type` of the
        floating sequences, float16 counting as float32, and float64 where all are integer. The
        memory order is Fortran's: one time step ``padded_x[:, :, t]`` is contiguous, and one
        sample in it is contiguous too.
    seq_lengths : list of int, length m
        The lengths T_i.

    Raises
    ------
    TypeError
        If ``sequences`` cannot be iterated over, a sequence is of another dtype or a masked array,
        ``max_len`` is not an integer, or ``padding_value`` is not a real number.
    ValueError
        If there is no sequence, a sequence is not two-dimensional or differs in n_x, or
        ``max_len`` is smaller than the longest sequence.

    Examples
    --------
    >>> import numpy as np
    >>> long, short = np.ones((2, 3)), np.full((2, 1), 5.0)
    >>> padded_x, seq_lengths = pad_sequences([long, short])
    >>> padded_x.shape, seq_lengths
    ((2, 2, 3), [3, 1])
    >>> padded_x[0]
    array([[1., 1., 1.],
           [5., 0., 0.]])
    """
    arrays, seq_lengths, steps, value, dtype = _check.padding_arguments(
        sequences, max_len, padding_value
    )
    shape = (arrays[0].shape[0], len(arrays), steps)
    padded_x = empty(shape, dtype, "F")
    # A padding value that float32 cannot hold becomes infinite, and needs no warning.
    with np.errstate(over="ignore"):
        padded_x.fill(value)
    for i, (array, length) in enumerate(zip(arrays, seq_lengths, strict=True)):
        padded_x[:, i, :length] = array
    return padded_x, seq_lengths
