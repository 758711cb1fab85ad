"""Bad caches and labels handed to the backward functions, which are refused as in `test_errors`."""

import re

import numpy as np
import pytest
from numpy.random import default_rng as rng
from refusals import (
    LENGTHS,
    SIZES,
    assert_refused,
    at,
    become,
    first,
    makers_of_caches,
    masked,
    put,
    taller,
    wider,
    without,
)
from strategies import make_batch

import fastrnn

CELL_CACHE = "(a_next, a_prev, xt, parameters)"


@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        (become(None), TypeError, f"cache must be the tuple {CELL_CACHE}, got ...NoneType"),
        (become(np.ones((4, 5))), TypeError, f"cache must be the tuple {CELL_CACHE}, got ...float"),
        (become({"a_next": 1}), TypeError, f"cache must be the tuple {CELL_CACHE}, got ...dict"),
        (
            become("abcd"),
            TypeError,
            f"cache must be the tuple {CELL_CACHE}, got 'abcd' of type str",
        ),
        (become(()), ValueError, f"cache must be the tuple {CELL_CACHE}, got 0 items"),
        (lambda cache: cache[:3], ValueError, f"cache must be the tuple {CELL_CACHE}, got 3 items"),
        (
            at(3, without("by")),
            ValueError,
            "cache: parameters must have the keys ...got none named by",
        ),
        (at(3, become(None)), TypeError, "cache: parameters must be a mapping ...got ...NoneType"),
        (at(3, put("Waa", wider)), ValueError, "cache: Waa must have shape (n_a, n_a), got (4, 5)"),
        (at(0, wider), ValueError, "cache: a_next must have shape (n_a, m) ...got (4, 6)"),
        (at(1, taller), ValueError, "cache: a_prev must have shape (n_a, m) ...got (5, 5)"),
        (
            at(2, np.ravel),
            ValueError,
            "cache: xt must have shape (n_x, m) with n_x = 3 ...got (15,)",
        ),
        (at(2, become(None)), TypeError, "cache: xt must be an array ...got ...NoneType"),
    ],
)
@makers_of_caches
def test_what_is_no_cache_of_a_cell(change, exception, message, maker):
    assert_refused("rnnCell_backward", "cache", change, exception, message, maker)


CACHES = "(step_caches, x, seq_lengths)"


@pytest.mark.parametrize("function", ["rnn_backward", "output_backward"])
@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        (become(None), TypeError, f"caches must be the tuple {CACHES}, got ...NoneType"),
        (become(7), TypeError, f"caches must be the tuple {CACHES}, got 7 of type int"),
        (become("abc"), TypeError, f"caches must be the tuple {CACHES}, got 'abc' of type str"),
        (become(np.ones(3)), TypeError, f"caches must be the tuple {CACHES}, got ...dtype float64"),
        (become({0: 1}), TypeError, f"caches must be the tuple {CACHES}, got ...dict"),
        (become(()), ValueError, f"caches must be the tuple {CACHES}, got 0 items"),
        (become(([], np.ones(3))), ValueError, f"caches must be the tuple {CACHES}, got 2 items"),
        (become((1, 2, 3, {})), ValueError, f"caches must be the tuple {CACHES}, got 4 items"),
        (at(0, become(None)), TypeError, "caches[0] must be a sequence of ...got ...NoneType"),
        (at(0, become("steps")), TypeError, "caches[0] must be a sequence of ...got 'steps'"),
        (at(0, lambda s: s[:-1]), ValueError, "caches[0] must hold one ...of 6 steps, ...got 5"),
        (at(0, lambda s: [*s, s[0]]), ValueError, "caches[0] must hold one ...of 6 ...got 7"),
        (at(1, become(None)), TypeError, "caches[1] must be an array ...got ...NoneType"),
        (at(1, first), ValueError, "caches[1] must have shape (n_x, m, T), got (5, 6)"),
        (
            at(1, taller),
            ValueError,
            "caches[0][0][0]: Wax must ...n_x = 4 as in caches[1], got (4, 3)",
        ),
        (at(2, lambda L: L[:-1]), ValueError, "caches[2] must have shape (5,), ...got (4,)"),
        (at(2, 0, become(9)), ValueError, "caches[2] must lie in 0..6, ...got 9 at index 0"),
        (at(0, 1, become(None)), TypeError, "caches[0][1] must be the tuple ...got ...NoneType"),
        (at(0, 1, lambda e: e[:1]), ValueError, "caches[0][1] must be the tuple ...got 1 items"),
        (at(0, 1, 0, become(3)), TypeError, "caches[0][1][0] must be the tuple ...got 3 of type"),
        (at(0, 1, 0, lambda c: c[:3]), ValueError, "caches[0][1][0] must be the tuple ...3 items"),
        (at(0, 2, 1, np.invert), ValueError, "caches[0][2][1] must be ...[0 2 3 4], got [1] in"),
        (at(0, 2, 1, first), ValueError, "caches[0][2][1] must be the mask ...in shape ()"),
        (
            at(0, 2, 1, lambda a: a + 0),
            TypeError,
            "caches[0][2][1] must be a boolean ...got ...int",
        ),
        (at(0, 0, 0, 0, wider), ValueError, "caches[0][0][0]: a_next must ...got (4, 5)"),
        (at(0, 0, 0, 1, taller), ValueError, "caches[0][0][0]: a_prev must ...got (5, 4)"),
        (at(0, 5, 0, 2, wider), ValueError, "caches[0][5][0]: xt must ...got (3, 2)"),
        (
            at(0, 5, 0, 2, become("x")),
            TypeError,
            "caches[0][5][0]: xt must be an array ...got 'x' of type str",
        ),
        (
            at(0, 1, 0, 3, without("Wax")),
            ValueError,
            "caches[0][1][0]: parameters must have the keys ...named Wax",
        ),
        (at(0, 1, 0, 3, put("Waa", wider)), ValueError, "caches[0][1][0]: Waa must ...got (4, 5)"),
        (
            at(0, 1, 0, 3, put("by", lambda by: by + 1)),
            ValueError,
            "caches[0][1][0]: parameters['by'] must be that of the step before, got other numbers",
        ),
        (
            at(0, 3, 0, 1, lambda a: a + 1),
            ValueError,
            "caches[0][3][0]: a_prev must be a_next of the step before, got other numbers",
        ),
    ],
)
@makers_of_caches
def test_what_is_no_cache(function, change, exception, message, maker):
    assert_refused(function, "caches", change, exception, message, maker)


@makers_of_caches
def test_the_cache_of_the_other_function(maker):
    batch = make_batch(rng(0), **SIZES, lengths=LENGTHS)
    caches = maker.rnn_forward(*batch)[2]
    cache = maker.rnnCell_forward(batch.x[:, :, 0], batch.a0, batch.parameters)[2]
    message = f"caches must be the tuple {CACHES}, got 4 items"
    assert_refused("rnn_backward", "caches", become(cache), ValueError, message)
    with pytest.raises((TypeError, ValueError), match=re.escape("cache must be the tuple (a_next")):
        fastrnn.rnnCell_backward(np.ones((4, 5)), caches)


@pytest.mark.parametrize(
    ("bad", "exception", "message"),
    [
        (np.zeros((5, 7), int), ValueError, "have shape (5, 6) or (5,), got (5, 7)"),
        (np.zeros((6, 5), int), ValueError, "have shape (5, 6) or (5,), got (6, 5)"),
        ([0, 1, 0, 1], ValueError, "have shape (5, 6) or (5,), got (4,)"),
        (1, ValueError, "have shape (5, 6) or (5,), got ()"),
        ([0, 0, 2, 0, 0], ValueError, "lie in 0..1, the n_y classes, or be -1 ...got 2 at [2]"),
        ([0, 0, -2, 0, 0], ValueError, "lie in 0..1, the n_y classes, or be -1 ...got -2 at [2]"),
        (np.full((5, 6), 2, "u1"), ValueError, "lie in 0..1, ...got 2 at [0, 0]"),
        (np.zeros((5, 6)), TypeError, "be integers, got an array of dtype float64"),
        ([0.0, 1.0, 0.0, 1.0, 0.0], TypeError, "be integers, got an array of dtype float64"),
        (np.zeros(5, bool), TypeError, "be integers, got an array of dtype bool"),
        ([0, True, 1, 0, 1], TypeError, "be integers, got a boolean among them"),
        ([0, np.True_, 1, 0, 1], TypeError, "be integers, got a boolean among them"),
        (list("01011"), TypeError, "be integers, got an array of dtype <U1"),
        (np.zeros(5, complex), TypeError, "be integers, got an array of dtype complex128"),
        (np.zeros(5, object), TypeError, "be integers, got an array of dtype object"),
        (masked(np.zeros(5, int)), TypeError, "be an ordinary array, got a masked array"),
        ([masked(np.zeros(6, int))] * 5, TypeError, "be an ordinary array, got a masked array"),
        (None, TypeError, "be integers, got an object of type NoneType"),
        ([[0, 1], [0]], ValueError, "be an array or evenly nested lists, got ...list"),
    ],
)
def test_labels(bad, exception, message):
    assert_refused("output_backward", "labels", become(bad), exception, f"labels must {message}")


@pytest.mark.parametrize(
    ("bad", "came"),
    [
        ("max", "'max' of type str"),
        ("none", "'none' of type str"),
        (None, "an object of type NoneType"),
        (3, "3 of type int"),
        (b"mean", "an object of type bytes"),
    ],
)
def test_reductions(bad, came):
    message = f"reduction must be one of 'mean', 'sum', got {came}"
    assert_refused("output_backward", "reduction", become(bad), ValueError, message)
