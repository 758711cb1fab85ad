"""How far fastrnn may be from `fastrnn.reference`, and from itself."""

from functools import partial

import numba
import numpy as np
import pytest
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose

import fastrnn
from fastrnn import reference

FLOAT64 = np.dtype(np.float64)
PREDICTIONS = ("a", "y_pred")


def run(module, batch, da):
    a, y_pred, caches = module.rnn_forward(*batch)
    return {"a": a, "y_pred": y_pred, **module.rnn_backward(da, caches)}


def assert_close(comp, ref, tolerance):
    assert comp.keys() == ref.keys()
    for key in ref:
        assert_allclose(comp[key], ref[key], rtol=tolerance, atol=tolerance, err_msg=key)


def neighbour(generator, array):
    """An array that differs from this one in its last digits."""
    factor = 1 + 1e-6 * generator.standard_normal(array.shape)
    return (array * factor).astype(array.dtype)


def float32_error(function, batch, arrays):
    """NumPy's largest error in float32, for each array."""
    wide = [array.astype(FLOAT64) for array in arrays]
    comp = function(reference, batch, *arrays)
    ref = function(reference, batch.astype(FLOAT64), *wide)
    return {key: np.max(np.abs(comp[key] - ref[key]), initial=0) for key in ref}


def assert_accurate(function, batch, *arrays, neighbours=0):
    """Hold what a function of (module, batch, *arrays) returns against the reference.

    In float32 it may be 4 times as far from the float64 result as NumPy's float32, or 4 ulp of the
    largest magnitude. Where an array has a few elements only, NumPy's error is small by chance now
    and then: so it may be measured for some neighbours of the arguments too.
    """
    comp = function(fastrnn, batch, *arrays)
    wide = [array.astype(FLOAT64) for array in arrays]
    ref = function(reference, batch.astype(FLOAT64), *wide)
    assert comp.keys() == ref.keys()
    if batch.x.dtype == FLOAT64:
        for key in ref:
            tolerance = 1e-12 if key in PREDICTIONS else 1e-10
            assert_allclose(comp[key], ref[key], rtol=tolerance, atol=tolerance, err_msg=key)
        return

    errors = [float32_error(function, batch, arrays)]
    for seed in range(neighbours):
        near = partial(neighbour, rng(seed))
        errors.append(float32_error(function, batch.map(near), [near(array) for array in arrays]))
    for key in ref:
        assert np.shape(comp[key]) == np.shape(ref[key]), key
        ulp = np.spacing(np.max(np.abs(ref[key]), initial=0).astype(np.float32))
        limit = 4 * max(ulp, *(error[key] for error in errors))
        assert np.max(np.abs(comp[key] - ref[key]), initial=0) <= limit, key


def assert_same_bits(function):
    """Call a function repeatedly, with every number of threads up to 3, and compare its arrays."""
    available = numba.config.NUMBA_NUM_THREADS
    if available == 1:
        pytest.skip("Numba has been given a single thread")
    ref = function()
    before = numba.get_num_threads()
    try:
        for threads in range(1, min(available, 3) + 1):
            numba.set_num_threads(threads)
            for _ in range(3):
                comp = function()
                for key in ref:
                    assert comp[key].tobytes() == ref[key].tobytes(), f"{key}, {threads} threads"
    finally:
        numba.set_num_threads(before)
