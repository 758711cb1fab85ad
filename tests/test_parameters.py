"""Initial parameters: their distributions, their arrays, their reproducibility."""

import numpy as np
import pytest
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal

from fastrnn import parameters, reference

initialize_parameters = parameters.initialize_parameters


@pytest.mark.parametrize("dtype", [np.float32, np.float64, "float32", np.dtype("float64")])
@pytest.mark.parametrize(
    "sizes", [(12, 32, 9), (1, 1, 1), (5, 2, 3), (0, 4, 2), (3, 0, 2), (0, 0, 2)]
)
def test_arrays_are_of_the_asked_kind(sizes, dtype):
    n_x, n_a, n_y = sizes
    comp = initialize_parameters(n_x, n_a, n_y, seed=0, dtype=dtype)
    assert {name: array.shape for name, array in comp.items()} == {
        "Wax": (n_a, n_x),
        "Waa": (n_a, n_a),
        "Wya": (n_y, n_a),
        "ba": (n_a, 1),
        "by": (n_y, 1),
    }
    for array in comp.values():
        assert array.dtype == np.dtype(dtype)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.flags.owndata


def test_default_is_float32_and_numpy_sizes_are_taken():
    comp = initialize_parameters(np.int64(2), np.uint8(3), np.int32(4), seed=np.int64(5))
    assert {array.dtype for array in comp.values()} == {np.dtype(np.float32)}
    for name, ref in initialize_parameters(2, 3, 4, seed=5).items():
        assert_array_equal(comp[name], ref, err_msg=name)


def test_a_forward_pass_takes_them():
    n_x, n_a, n_y, m, T = 3, 4, 5, 2, 6
    _, y_pred, _ = reference.rnn_forward(
        rng(0).standard_normal((n_x, m, T)),
        np.zeros((n_a, m)),
        initialize_parameters(n_x, n_a, n_y, seed=0),
        [T, T],
    )
    assert_allclose(y_pred.sum(axis=0), np.ones((m, T)), rtol=1e-6)


def test_biases_are_zero():
    comp = initialize_parameters(3, 4, 5, seed=0)
    assert not comp["ba"].any()
    assert not comp["by"].any()


@pytest.mark.parametrize(("name", "fans"), [("Wax", 300 + 200), ("Wya", 200 + 100)])
def test_input_and_output_weights_are_glorot_uniform(name, fans):
    weights = initialize_parameters(300, 200, 100, seed=0, dtype=np.float64)[name]
    limit = np.sqrt(6 / fans)
    assert np.abs(weights).max() <= limit
    # Quantiles of 20000 draws or more are within a few thousandths of those of the distribution.
    levels = np.linspace(0, 1, 21)
    ref = limit * (2 * levels - 1)
    assert_allclose(np.quantile(weights, levels), ref, rtol=0, atol=0.02 * limit)


@pytest.mark.parametrize("n_a", [1, 2, 33, 128])
def test_recurrent_weights_are_orthogonal(n_a):
    Waa = initialize_parameters(1, n_a, 1, seed=0, dtype=np.float64)["Waa"]
    assert_allclose(Waa.T @ Waa, np.eye(n_a), rtol=0, atol=1e-13)


def test_recurrent_weights_have_no_preferred_sign():
    # What QR returns without a correction has a negative first element whatever the seed.
    Waa = np.stack([initialize_parameters(1, 3, 1, seed=seed)["Waa"] for seed in range(400)])
    assert_allclose((Waa > 0).mean(axis=0), np.full((3, 3), 0.5), atol=0.1)
    # An element of a random unit vector in three dimensions is uniform in -1..1.
    assert_allclose(Waa.var(axis=0), np.full((3, 3), 1 / 3), atol=0.05)


def test_dtypes_agree_up_to_rounding():
    ref = initialize_parameters(12, 32, 9, seed=3, dtype=np.float64)
    comp = initialize_parameters(12, 32, 9, seed=3, dtype=np.float32)
    for name in ref:
        assert_array_equal(comp[name], ref[name].astype(np.float32), err_msg=name)


def test_a_seed_gives_the_same_and_another_seed_other_parameters():
    ref = initialize_parameters(2, 3, 4, seed=1)
    same = initialize_parameters(2, 3, 4, seed=1)
    other = initialize_parameters(2, 3, 4, seed=2)
    unseeded = [initialize_parameters(2, 3, 4) for _ in range(2)]
    for name in ("Wax", "Waa", "Wya"):
        assert_array_equal(same[name], ref[name], err_msg=name)
        assert not np.array_equal(other[name], ref[name])
        assert not np.array_equal(unseeded[0][name], unseeded[1][name])


def test_a_generator_is_drawn_from():
    generator = rng(1)
    first = initialize_parameters(2, 3, 4, seed=generator)
    second = initialize_parameters(2, 3, 4, seed=generator)
    for name, ref in initialize_parameters(2, 3, 4, seed=1).items():
        assert_array_equal(first[name], ref, err_msg=name)
    assert not np.array_equal(first["Wax"], second["Wax"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_x": -1}, ValueError, "n_x must be 0 or more, got -1"),
        ({"n_a": 2.0}, TypeError, "n_a must be an integer, got 2.0"),
        ({"n_a": True}, TypeError, "n_a must be an integer, got True"),
        ({"n_x": 2**62}, ValueError, "n_x, n_a and n_y must leave room .*, got .46116"),
        ({"n_x": 2**31, "n_a": 2**30}, ValueError, "n_x, n_a and n_y must leave room to address"),
        ({"n_y": 0}, ValueError, "n_y must be at least 1, got 0"),
        ({"seed": -1}, ValueError, "seed.* must be 0 or more, got -1"),
        ({"seed": "a"}, TypeError, "seed, .*Generator, must be an integer, got 'a'"),
        ({"seed": np.random.RandomState(0)}, TypeError, "seed.* must be an integer"),
        ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64, got .*float16"),
        ({"dtype": ">f4"}, TypeError, "dtype must be float32 or float64, got '>f4'"),
        ({"dtype": None}, TypeError, "dtype must be float32 or float64, got None"),
        ({"dtype": "number"}, TypeError, "dtype must be float32 or float64, got 'number'"),
    ],
)
def test_bad_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        initialize_parameters(**{"n_x": 2, "n_a": 3, "n_y": 4, "seed": 0, **arguments})
