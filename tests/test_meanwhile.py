"""Arguments that get another shape or dtype while a call runs: what was checked is what is used.

An object that is asked for its numbers does it, at one certain place. Another thread could at any.
"""

import numpy as np
import pytest
from hostile import retyped, set_shape
from numpy.random import default_rng as rng
from numpy.testing import assert_equal
from strategies import make_batch, make_cotangent, make_labels

import fastrnn
from fastrnn.embedding import embedding_forward

LENGTHS = [6, 2, 0, 5]
ARRAYS = ("x", "a0", "Wax", "Waa", "Wya", "ba", "by")


def flattened(array):
    set_shape(array, (array.size, *[1] * (array.ndim - 1)))


CHANGES = pytest.mark.parametrize("change", [flattened, retyped])


class Number:
    """An integer that does something when it is asked for."""

    def __init__(self, value, act):
        self.value, self.act = value, act

    def __index__(self):
        self.act()
        return self.value


class Numbers:
    """An array that does something when it is asked for."""

    def __init__(self, array, act):
        self.array, self.act = array, act

    def __array__(self, dtype=None, copy=None):
        self.act()
        return self.array


def new_batch():
    return make_batch(rng(0), 3, 17, 5, len(LENGTHS), 6, np.float64, LENGTHS)


@CHANGES
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_during_a_forward_pass(name, change):
    batch = new_batch()
    lengths = [Number(6, lambda: change(batch.arrays[name])), *LENGTHS[1:]]
    comp = fastrnn.rnn_forward(batch.x, batch.a0, batch.parameters, lengths)[:2]
    assert_equal(comp, fastrnn.rnn_forward(*new_batch())[:2])


@CHANGES
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_an_object_keeps(name, change):
    batch = new_batch()
    kept = batch.arrays[name]
    batch = batch.replaced(**{name: Numbers(kept, lambda: None)})
    lengths = [Number(6, lambda: change(kept)), *LENGTHS[1:]]
    comp = fastrnn.rnn_forward(batch.x, batch.a0, batch.parameters, lengths)[:2]
    assert_equal(comp, fastrnn.rnn_forward(*new_batch())[:2])


@CHANGES
def test_sequences_that_are_padded(change):
    sequences = [np.arange(6.0).reshape(2, 3), np.arange(2.0).reshape(2, 1)]
    ref = fastrnn.pad_sequences([sequence.copy() for sequence in sequences], 4)
    comp = fastrnn.pad_sequences(sequences, Number(4, lambda: change(sequences[0])))
    assert_equal(comp, ref)


@CHANGES
@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("of_output", [False, True], ids=["rnn", "output"])
def test_arrays_during_a_backward_pass(of_output, name, change):
    def result(act):
        batch = new_batch()
        _, y_pred, caches = fastrnn.rnn_forward(*batch)
        array = y_pred if of_output else make_cotangent(rng(1), batch)
        passed = Numbers(array, lambda: act(batch.arrays[name]))
        if of_output:
            return fastrnn.output_backward(passed, make_labels(rng(2), 5, (4, 6)), caches)
        return fastrnn.rnn_backward(passed, caches)

    assert_equal(result(change), result(lambda array: None))


@CHANGES
@pytest.mark.parametrize("name", ["at", "a_prev", "xt", "Wax", "Waa", "Wya", "ba", "by"])
def test_arrays_during_a_step_back(name, change):
    def result(act):
        batch = new_batch()
        xt = batch.x[:, :, 0].copy()
        at, _, cache = fastrnn.rnnCell_forward(xt, batch.a0, batch.parameters)
        cache = at.copy(), *cache[1:]
        arrays = {"at": cache[0], "a_prev": batch.a0, "xt": xt, **batch.parameters}
        da = Numbers(rng(1).standard_normal(at.shape), lambda: act(arrays[name]))
        return fastrnn.rnnCell_backward(da, cache)

    assert_equal(result(change), result(lambda array: None))


@CHANGES
def test_the_table_of_an_embedding(change):
    def result(act):
        table = np.arange(12.0).reshape(3, 4)
        return embedding_forward(Numbers(np.array([[3, 0]]), lambda: act(table)), table)

    assert_equal(result(change), result(lambda array: None))


def read_only(array):
    array.flags.writeable = False


@pytest.mark.parametrize("change", [flattened, retyped, read_only])
@pytest.mark.parametrize("make", [fastrnn.SGD, fastrnn.Adam])
def test_parameters_during_a_step_of_an_optimizer(make, change):
    def results(act):
        parameters = {"W": np.ones((2, 3)), "b": np.ones(2)}
        kept = {name: array.view() for name, array in parameters.items()}
        optimizer = make(parameters, learning_rate=0.1)
        given = Numbers(np.full(2, 0.5), lambda: act(parameters["b"]))
        optimizer.step({"dW": np.full((2, 3), 2.0), "db": given})
        return kept, optimizer.state_dict()

    assert_equal(results(change), results(lambda array: None))


def test_an_object_is_asked_once():
    _, _, caches = fastrnn.rnn_forward(*new_batch())
    asked = []
    fastrnn.rnn_backward(Numbers(np.ones((17, 4, 6)), lambda: asked.append(1)), caches)
    assert len(asked) == 1
