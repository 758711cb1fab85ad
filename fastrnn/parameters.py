"""Parameters of an RNN before training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastrnn import _check_training


def initialize_parameters(
    n_x: int,
    n_a: int,
    n_y: int,
    *,
    seed: int | np.random.Generator | None = None,
    dtype: DTypeLike = np.float32,
) -> dict[str, NDArray[Any]]:
    """Draw parameters that training can start from.

    Parameters
    ----------
    n_x, n_a, n_y : int
        Features, hidden units and classes.
    seed : int or numpy.random.Generator, optional
        A generator is drawn from and so left in another state. Without a seed the parameters
        differ from call to call.
    dtype : dtype, default float32
        float32 or float64. One seed gives the same parameters in both, up to rounding.

    Returns
    -------
    dict of ndarray
        - ``Wax (n_a, n_x)`` and ``Wya (n_y, n_a)``: uniform within ``sqrt(6 / (rows + columns))``
          of 0, so that signals and gradients keep their variance [1]_.
        - ``Waa (n_a, n_a)``: orthogonal, so that they keep their norm over many steps [2]_, and
          uniform among the orthogonal matrices [3]_.
        - ``ba (n_a, 1)`` and ``by (n_y, 1)``: 0.

        The arrays are C-ordered, writeable and own their data.

    Raises
    ------
    ValueError
        If a size or the seed is negative, or `n_y` is 0.
    TypeError
        If a size is not an integer, or the seed or the dtype is none of the above.

    References
    ----------
    .. [1] X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward
       neural networks", AISTATS 2010, equation 16.
    .. [2] A. M. Saxe, J. L. McClelland and S. Ganguli, "Exact solutions to the nonlinear dynamics
       of learning in deep linear neural networks", ICLR 2014, section 3.
    .. [3] F. Mezzadri, "How to generate random matrices from the classical compact groups",
       Notices of the AMS 54 (2007), section 5: the signs of R's diagonal make QR unique.

    Examples
    --------
    >>> parameters = initialize_parameters(12, 32, 9, seed=0)
    >>> {name: array.shape for name, array in parameters.items()}
    {'Wax': (32, 12), 'Waa': (32, 32), 'Wya': (9, 32), 'ba': (32, 1), 'by': (9, 1)}
    >>> np.allclose(parameters["Waa"].T @ parameters["Waa"], np.eye(32), atol=1e-6)
    True
    """
    sizes, generator, dtype = _check_training.initialization(n_x, n_a, n_y, seed, dtype)
    n_x, n_a, n_y = sizes

    drawn = {
        "Wax": _glorot_uniform(generator, n_a, n_x),
        "Waa": _orthogonal(generator, n_a),
        "Wya": _glorot_uniform(generator, n_y, n_a),
        "ba": np.zeros((n_a, 1)),
        "by": np.zeros((n_y, 1)),
    }
    return {name: np.array(array, dtype, order="C") for name, array in drawn.items()}


def _glorot_uniform(generator: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    limit = math.sqrt(6 / max(1, rows + columns))
    return generator.uniform(-limit, limit, (rows, columns))


def _orthogonal(generator: np.random.Generator, size: int) -> NDArray[np.float64]:
    q, r = np.linalg.qr(generator.standard_normal((size, size)))
    # copysign and not sign: a column must not be lost where the diagonal happens to hold a 0.
    q *= np.copysign(1.0, np.diagonal(r))
    return q
