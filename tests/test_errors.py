"""Bad arguments of the public functions: the error names it, what was expected and what came.

Each case is a call that succeeds but for one argument, which the case replaces or changes. In the
messages here ``...`` stands for anything. What was passed must be the same after the error.
"""

import numpy as np
import pytest
from refusals import (
    FUNCTIONS,
    KEYS,
    N_A,
    assert_refused,
    at,
    become,
    first,
    freeze,
    good_arguments,
    makers_of_caches,
    masked,
    put,
    taller,
    wider,
    without,
)

import fastrnn


@pytest.mark.parametrize("function", FUNCTIONS)
@makers_of_caches
def test_the_good_arguments_are_good(function, maker):
    arguments = good_arguments(function, maker)
    before = freeze(arguments)
    getattr(fastrnn, function)(**arguments)
    assert freeze(arguments) == before


def not_numbers(name):
    """What is no array of numbers, and what is said of it."""
    dtypes = {
        "complex64": lambda array: array.astype(np.complex64),
        "complex128": lambda array: array.astype(np.complex128),
        str(np.dtype(np.longdouble)): lambda array: array.astype(np.longdouble),
        "object": lambda array: array.astype(object),
        "<U": lambda array: array.astype(str),
        "|S": lambda array: array.astype(bytes),
        "datetime64": lambda array: array.astype("datetime64[s]"),
        "timedelta64": lambda array: array.astype("timedelta64[s]"),
        "a masked array": masked,
        "an object of type NoneType": become(None),
        "an object of type dict": become({"data": 1}),
        "'data' of type str": become("data"),
    }
    uneven = f"{name} must be an array or evenly nested lists, got an object of type list: ..."
    return [
        *(
            pytest.param(change, TypeError, f"{name} must be an ...got ...{came}", id=came)
            for came, change in dtypes.items()
        ),
        pytest.param(become([[1.0, 2.0], [3.0]]), ValueError, uneven, id="uneven"),
    ]


@pytest.mark.parametrize(("change", "exception", "message"), not_numbers("NAME"))
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        ("rnn_forward", "x"),
        ("rnn_forward", "a0"),
        ("rnnCell_forward", "xt"),
        ("rnnCell_forward", "a_prev"),
        ("rnn_backward", "da"),
        ("rnnCell_backward", "da_next"),
        ("output_backward", "y_pred"),
        ("final_states", "a"),
        ("softmax", "x"),
    ],
)
def test_arrays_of_no_numbers(function, argument, change, exception, message):
    assert_refused(function, argument, change, exception, message.replace("NAME", argument))


@pytest.mark.parametrize(("change", "exception", "message"), not_numbers("NAME"))
@pytest.mark.parametrize("function", ["rnn_forward", "rnnCell_forward"])
@pytest.mark.parametrize("key", KEYS)
def test_parameters_of_no_numbers(function, key, change, exception, message):
    change = put(key, change)
    assert_refused(function, "parameters", change, exception, message.replace("NAME", key))


@pytest.mark.parametrize(("change", "exception", "message"), not_numbers("sequences[2]"))
def test_sequences_of_no_numbers(change, exception, message):
    assert_refused("pad_sequences", "sequences", at(2, change), exception, message)


@pytest.mark.parametrize("function", ["rnn_forward", "rnnCell_forward"])
@pytest.mark.parametrize("key", KEYS)
def test_missing_parameters(function, key):
    message = f"parameters must have the keys Wax, Waa, Wya, ba, by, got none named {key}"
    assert_refused(function, "parameters", without(key), ValueError, message)


@pytest.mark.parametrize("function", ["rnn_forward", "rnnCell_forward"])
@pytest.mark.parametrize(
    ("bad", "came"),
    [(None, "NoneType"), ([1], "list"), (3, "3 of type int"), (np.ones(5), "float64")],
)
def test_parameters_that_are_no_mapping(function, bad, came):
    message = f"parameters must be a mapping with the keys Wax, Waa, Wya, ba, by, got ...{came}"
    assert_refused(function, "parameters", become(bad), TypeError, message)


@pytest.mark.parametrize("function", ["rnn_forward", "rnnCell_forward"])
@pytest.mark.parametrize(
    ("key", "change", "expected", "came"),
    [
        ("Wax", taller, f"(n_a, n_x) with {N_A}", "(5, 3)"),
        ("Wax", np.ravel, f"(n_a, n_x) with {N_A}", "(12,)"),
        ("Wax", np.transpose, f"(n_a, n_x) with {N_A}", "(3, 4)"),
        ("Waa", wider, "(n_a, n_a)", "(4, 5)"),
        ("Waa", np.ravel, "(n_a, n_a)", "(16,)"),
        ("Wya", wider, f"(n_y, n_a) with {N_A}", "(2, 5)"),
        ("Wya", np.ravel, f"(n_y, n_a) with {N_A}", "(8,)"),
        ("ba", np.ravel, f"(n_a, 1) with {N_A}", "(4,)"),
        ("ba", np.transpose, f"(n_a, 1) with {N_A}", "(1, 4)"),
        ("ba", taller, f"(n_a, 1) with {N_A}", "(5, 1)"),
        ("by", np.ravel, "(n_y, 1) with n_y = 2 as in Wya", "(2,)"),
        ("by", taller, "(n_y, 1) with n_y = 2 as in Wya", "(3, 1)"),
        ("by", wider, "(n_y, 1) with n_y = 2 as in Wya", "(2, 2)"),
    ],
)
def test_shapes_of_parameters(function, key, change, expected, came):
    message = f"{key} must have shape {expected}, got {came}"
    assert_refused(function, "parameters", put(key, change), ValueError, message)


@pytest.mark.parametrize(("function", "x"), [("rnn_forward", "x"), ("rnnCell_forward", "xt")])
@pytest.mark.parametrize(
    ("key", "change", "other", "size"),
    [
        ("Waa", become(np.eye(7)), "Wax", "n_a = 7"),
        ("Wax", wider, "x", "n_x = 4"),
        ("Wya", taller, "by", "n_y = 3"),
    ],
)
def test_either_of_two_that_disagree_may_be_wrong(function, x, key, change, other, size):
    message = f"{x if other == 'x' else other} must have shape ... with {size} as in {key}"
    assert_refused(function, "parameters", put(key, change), ValueError, message)


@pytest.mark.parametrize(
    ("function", "argument", "change", "expected", "came"),
    [
        ("rnn_forward", "x", taller, "(n_x, m, T) with n_x = 3 as in Wax", "(4, 5, 6)"),
        ("rnn_forward", "x", first, "(n_x, m, T) with n_x = 3 as in Wax", "(5, 6)"),
        ("rnn_forward", "x", become(1.5), "(n_x, m, T) with n_x = 3 as in Wax", "()"),
        ("rnn_forward", "a0", taller, f"(n_a, m) with {N_A}, m = 5 as in x", "(5, 5)"),
        ("rnn_forward", "a0", wider, f"(n_a, m) with {N_A}, m = 5 as in x", "(4, 6)"),
        ("rnn_forward", "a0", np.ravel, f"(n_a, m) with {N_A}, m = 5 as in x", "(20,)"),
        ("rnnCell_forward", "xt", taller, "(n_x, m) with n_x = 3 as in Wax", "(4, 5)"),
        ("rnnCell_forward", "xt", first, "(n_x, m) with n_x = 3 as in Wax", "(5,)"),
        ("rnnCell_forward", "a_prev", taller, f"(n_a, m) with {N_A}, m = 5 as in xt", "(5, 5)"),
        ("rnnCell_forward", "a_prev", wider, f"(n_a, m) with {N_A}, m = 5 as in xt", "(4, 6)"),
        ("rnnCell_forward", "a_prev", first, f"(n_a, m) with {N_A}, m = 5 as in xt", "(5,)"),
        ("final_states", "a", first, "(n_a, m, T)", "(5, 6)"),
        ("final_states", "a", lambda a: a[np.newaxis], "(n_a, m, T)", "(1, 4, 5, 6)"),
        ("softmax", "x", become(1.5), "(n, ...) with n >= 1", "()"),
        ("softmax", "x", become([]), "(n, ...) with n >= 1", "(0,)"),
        ("softmax", "x", become(np.empty((0, 3))), "(n, ...) with n >= 1", "(0, 3)"),
    ],
)
def test_shapes_of_arrays(function, argument, change, expected, came):
    message = f"{argument} must have shape {expected}, got {came}"
    assert_refused(function, argument, change, ValueError, message)


@pytest.mark.parametrize(
    ("function", "argument", "expected"),
    [
        ("rnn_backward", "da", "(4, 5, 6) as a of the forward pass"),
        ("rnnCell_backward", "da_next", "(4, 5) as a_next in the cache"),
        ("output_backward", "y_pred", "(2, 5, 6) as y_pred of the forward pass"),
    ],
)
@pytest.mark.parametrize("change", [taller, wider, first, np.ravel, np.transpose, become(0.0)])
@makers_of_caches
def test_shapes_of_arrays_of_a_backward_pass(function, argument, expected, change, maker):
    message = f"{argument} must have shape {expected}, got "
    assert_refused(function, argument, change, ValueError, message, maker)


@pytest.mark.parametrize("function", ["rnn_forward", "final_states"])
@pytest.mark.parametrize(
    ("bad", "exception", "message"),
    [
        ([6, 0, 3, 5], ValueError, " must have shape (5,), one for each sample, got (4,)"),
        ([6, 0, 3, 5, 3, 1], ValueError, " must have shape (5,), one for each sample, got (6,)"),
        ([], ValueError, " must have shape (5,), one for each sample, got (0,)"),
        (np.array([6, 0, 3, 5]), ValueError, " must have shape (5,), ...got (4,)"),
        (np.array([[6, 0, 3, 5, 3]]), ValueError, " must have shape (5,), ...got (1, 5)"),
        (6, ValueError, " must have shape (5,), one for each sample, got ()"),
        ([[6, 0, 3, 5, 3]], TypeError, "[0] must be an integer, got an object of type list"),
        ([6, 0, -1, 5, 3], ValueError, " must lie in 0..6, the steps T of x, got -1 at index 2"),
        (np.array([6, 0, -1, 5, 3]), ValueError, " must lie in 0..6, ...got -1 at index 2"),
        (np.array([6, 0, -1, 5, 3], "i1"), ValueError, " must lie in 0..6, ...got -1 at index 2"),
        ([6, 0, 3, 7, 3], ValueError, " must lie in 0..6, the steps T of x, got 7 at index 3"),
        ((6, 0, 3, 7, 3), ValueError, " must lie in 0..6, the steps T of x, got 7 at index 3"),
        (np.array([6, 0, 3, 7, 3]), ValueError, " must lie in 0..6, ...got 7 at index 3"),
        (np.array([6, 0, 3, 7, 3], "u1"), ValueError, " must lie in 0..6, ...got 7 at index 3"),
        (np.array([6, 0, 3, 7.0, 3]), ValueError, " must lie in 0..6, ...got 7 at index 3"),
        ([6, 0, 3, 2**70, 3], ValueError, f" must lie in 0..6, ...got {2**70} at index 3"),
        (np.array([6, 0, 3, 2**63, 3], "u8"), ValueError, f" must lie in 0..6, ...got {2**63} at"),
        ([6, 0, 3, 2.5, 3], ValueError, "[3] must be a whole number, got 2.5"),
        (np.array([6, 0, 3, 2.5, 3]), ValueError, "[3] must be a whole number, got 2.5"),
        ([6, 0, 3, np.nan, 3], ValueError, "[3] must be a whole number, got nan"),
        (np.array([6, 0, 3, np.nan, 3]), ValueError, "[3] must be a whole number, got nan"),
        ([6, 0, 3, -np.inf, 3], ValueError, "[3] must be a whole number, got -inf"),
        ([6, 0, 3, True, 3], TypeError, "[3] must be an integer, got True of type bool"),
        ((6, 0, 3, True, 3), TypeError, "[3] must be an integer, got True of type bool"),
        ([6, 0, 3, np.True_, 3], TypeError, "[3] must be an integer, got ...True"),
        ([6, 0, 3, np.array(True), 3], TypeError, "[3] must be an integer, got ...dtype bool"),
        (np.array([True] * 5), TypeError, " must hold whole numbers, got an array of dtype bool"),
        (["6", "0", "3", "5", "3"], TypeError, "[0] must be an integer, got '6' of type str"),
        ([6, 0, 3, None, 3], TypeError, "[3] must be an integer, got an object of type NoneType"),
        ([6, 0, 3, 5j, 3], TypeError, "[3] must be an integer, got 5j of type complex"),
        ("60353", TypeError, " must hold whole numbers, got '60353' of type str"),
        (np.array(list("60353")), TypeError, " must hold whole numbers, got ...dtype <U1"),
        (np.ones(5, complex), TypeError, " must hold whole numbers, got ...complex128"),
        (np.ones(5, object), TypeError, " must hold whole numbers, got ...dtype object"),
        (np.ones(5, "m8[s]"), TypeError, " must hold whole numbers, got ...timedelta64"),
        (masked(np.ones(5, int)), TypeError, " must be an ordinary array, got a masked array"),
        (None, TypeError, " must hold whole numbers, got an object of type NoneType"),
        ({6, 0, 3, 5}, TypeError, " must hold whole numbers, got an object of type set"),
    ],
)
def test_lengths(function, bad, exception, message):
    assert_refused(function, "seq_lengths", become(bad), exception, f"seq_lengths{message}")


@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        (become(None), TypeError, " must be an iterable of arrays (n_x, T_i), got ...NoneType"),
        (become(3), TypeError, " must be an iterable of arrays (n_x, T_i), got 3 of type int"),
        (become([]), ValueError, " must hold at least one array (n_x, T_i), got none"),
        (become(np.empty((0, 3, 4))), ValueError, " must hold at least one array ...got none"),
        (at(4, taller), ValueError, "[4] must ...n_x = 3 as in sequences[0], got (4, 3)"),
        (at(0, taller), ValueError, "[1] must ...n_x = 4 as in sequences[0], got (3, 0)"),
        (at(0, np.ravel), ValueError, "[0] must have shape (n_x, T_0), got (18,)"),
        (at(3, np.ravel), ValueError, "[3] must have shape (n_x, T_3) with ...got (15,)"),
        (at(0, become(1.5)), ValueError, "[0] must have shape (n_x, T_0), got ()"),
        (first, ValueError, "[0] must have shape (n_x, T_0), got (6,)"),
        (lambda s: masked(np.array([s[0]])), TypeError, "[0] must be ...got a masked array"),
        (become("words"), TypeError, "[0] must be an array ...got 'w' of type str"),
        (become({"a": [[1.0]]}), TypeError, "[0] must be an array ...got 'a' of type str"),
    ],
)
def test_sequences(change, exception, message):
    assert_refused("pad_sequences", "sequences", change, exception, f"sequences{message}")


@pytest.mark.parametrize(
    ("bad", "exception", "message"),
    [
        (5, ValueError, "be at least 6, the longest T_i, got 5"),
        (-1, ValueError, "be at least 6, the longest T_i, got -1"),
        (6.0, TypeError, "be an integer, got 6.0 of type float"),
        (np.float32(6), TypeError, "be an integer, got ...of type float32"),
        ("6", TypeError, "be an integer, got '6' of type str"),
        (True, TypeError, "be an integer, got True of type bool"),
        ([6], TypeError, "be an integer, got an object of type list"),
        (2**61, ValueError, f"leave room to address the result, got {2**61}"),
        (10**30, ValueError, f"leave room to address the result, got {10**30}"),
    ],
)
def test_max_len(bad, exception, message):
    assert_refused("pad_sequences", "max_len", become(bad), exception, f"max_len must {message}")


@pytest.mark.parametrize(
    ("bad", "came"),
    [
        ("0", "'0' of type str"),
        (1j, "1j of type complex"),
        (None, "an object of type NoneType"),
        (False, "False of type bool"),
        ([0.0], "an object of type list"),
        (np.zeros(3), "an array of dtype float64"),
    ],
)
def test_padding_values(bad, came):
    message = f"padding_value must be a real number, got {came}"
    assert_refused("pad_sequences", "padding_value", become(bad), TypeError, message)
