"""The caches of `rnn_forward`: what they hold, and that the backward functions take any of them."""

import copy
import operator
import pickle

import numpy as np
import pytest
from accuracy import assert_close
from hostile import retyped, set_shape
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal, assert_equal
from strategies import make_batch, make_cotangent, make_labels

import fastrnn
from fastrnn import reference

LENGTHS = np.array([3, 0, 6, 1, 3, 5, 6])
COPIES = [copy.copy, copy.deepcopy, lambda caches: pickle.loads(pickle.dumps(caches))]


def ragged_batch(dtype=np.float64):
    return make_batch(rng(0), 3, 19, 5, len(LENGTHS), 6, dtype, LENGTHS)


def gradients(module, batch, y_pred, caches):
    """Gradients of both backward functions, and the loss."""
    da, labels = make_cotangent(rng(1), batch), make_labels(rng(2), 5, (7, 6))
    loss, output = module.output_backward(y_pred, labels, caches)
    return {"loss": loss, **output, **module.rnn_backward(da, caches)}


def test_caches_hold_what_the_reference_holds():
    batch = ragged_batch()
    parameters = {**batch.parameters, "note": "other keys are ignored"}
    seq_lengths = LENGTHS.tolist()
    _, _, caches = fastrnn.rnn_forward(batch.x, batch.a0, parameters, seq_lengths)
    ref_steps = reference.rnn_forward(batch.x, batch.a0, parameters, seq_lengths)[2][0]
    step_caches, x, lengths = caches
    assert isinstance(caches, tuple)
    assert x is batch.x
    assert_array_equal(lengths, seq_lengths)
    assert len(step_caches) == len(ref_steps) == 6

    by_index = [step_caches[t] for t in range(6)] + [step_caches[t - 6] for t in range(6)]
    for (cell, active), (ref_cell, ref_active) in zip(
        [*step_caches, *by_index], ref_steps * 3, strict=True
    ):
        assert active.dtype == np.bool_
        assert_array_equal(active, ref_active)
        for comp, ref in zip(cell[:3], ref_cell[:3], strict=True):
            assert_allclose(comp, ref, rtol=1e-12, atol=1e-12)
        assert cell[3] is parameters
    for t in (6, -7):
        with pytest.raises(IndexError):
            operator.getitem(step_caches, t)


@pytest.mark.parametrize("module", [fastrnn, reference], ids=["own", "plain"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "convert", [lambda caches: (list(caches[0]), *caches[1:]), lambda caches: (*caches,), *COPIES]
)
@pytest.mark.parametrize("maker", [fastrnn, reference], ids=["of_own", "of_plain"])
def test_backward_accepts_any_caches(maker, convert, dtype, module):
    batch = ragged_batch(dtype)
    _, y_pred, caches = maker.rnn_forward(*batch)
    ref = gradients(maker, batch, y_pred, caches)
    comp = gradients(module, batch, y_pred, convert(caches))
    assert_close(comp, ref, {"float32": 2e-5, "float64": 1e-12}[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("convert", COPIES)
def test_copies_give_the_same_bits(convert, dtype):
    batch = ragged_batch(dtype)
    _, y_pred, caches = fastrnn.rnn_forward(*batch)
    ref = gradients(fastrnn, batch, y_pred, caches)
    copied = convert(caches)
    assert_equal(gradients(fastrnn, batch, y_pred, copied), ref)
    assert_equal(list(copied[0]), list(caches[0]))
    assert_array_equal(copied[1], batch.x)
    assert_array_equal(copied[2], LENGTHS)


def test_a_deep_copy_is_independent():
    batch = ragged_batch()
    _, y_pred, caches = fastrnn.rnn_forward(*batch)
    copied = copy.deepcopy(caches)
    ref = gradients(fastrnn, batch, y_pred, caches)
    batch.x[...] = 0
    batch.parameters["Waa"][...] = 0
    assert_equal(gradients(fastrnn, batch, y_pred, copied), ref)


@pytest.mark.parametrize("name", ["Wax", "Waa", "Wya", "x", "a"])
def test_changed_contents_give_gradients_of_the_changed_values(name):
    batch = ragged_batch()
    a, y_pred, caches = fastrnn.rnn_forward(*batch)
    before = gradients(fastrnn, batch, y_pred, caches)
    array = a if name == "a" else batch.arrays[name]
    array *= 0.5
    comp = gradients(fastrnn, batch, y_pred, caches)
    # An entry shows what the caches hold now. The loss is that of the predictions as they were.
    ref = gradients(reference, batch, y_pred, caches)
    del comp["loss"], ref["loss"]
    assert_close(comp, ref, 1e-12)
    if name in batch.parameters:
        assert any(np.any(comp[key] != before[key]) for key in comp)


def test_plain_caches_go_by_their_entries():
    batch = ragged_batch()
    caches, da = reference.rnn_forward(*batch)[2], make_cotangent(rng(1), batch)
    ref = fastrnn.rnn_backward(da, caches)
    batch.x[...] = 0
    assert_equal(fastrnn.rnn_backward(da, caches), ref)
    assert not batch.x.any()


def test_plain_caches_of_a_single_step():
    batch = make_batch(rng(0), 3, 4, 2, 3, 6, np.float64, [1, 0, 1])
    caches, da = reference.rnn_forward(*batch)[2], make_cotangent(rng(1), batch)
    assert_close(fastrnn.rnn_backward(da, caches), reference.rnn_backward(da, caches), 1e-12)


@pytest.mark.parametrize("name", ["x", "by"])
def test_plain_caches_may_hold_nan(name):
    batch = make_batch(rng(0), 3, 4, 2, 5, 6, np.float64, np.full(5, 6))
    batch.arrays[name].flat[0] = np.nan
    steps, *rest = reference.rnn_forward(*batch)[2]
    copied = [((*cell[:3], copy.deepcopy(cell[3])), active) for cell, active in steps]
    da = make_cotangent(rng(1), batch)
    ref = reference.rnn_backward(da, (steps, *rest))
    comp = fastrnn.rnn_backward(da, (copied, *rest))
    for key, array in ref.items():
        assert_allclose(comp[key], array, rtol=1e-10, atol=1e-12, err_msg=key)


def test_plain_caches_without_a_step_and_without_parameters():
    with pytest.raises(ValueError, match=r"^caches\[0\] must hold a step, or have an attribute"):
        fastrnn.rnn_backward(np.zeros((4, 2, 3)), ([], np.zeros((3, 2, 3)), [0, 0]))


def test_changed_parameters_by_the_chain_rule():
    batch = ragged_batch()
    ref_caches = reference.rnn_forward(*batch)[2]
    _, _, caches = fastrnn.rnn_forward(*batch)
    for key in ("Wax", "Waa"):
        batch.parameters[key][...] = -2 * batch.parameters[key] + 0.1
    da = make_cotangent(rng(1), batch)
    assert_close(fastrnn.rnn_backward(da, caches), reference.rnn_backward(da, ref_caches), 1e-10)


def reshaped(array):
    set_shape(array, array.shape[::-1])


@pytest.mark.parametrize(
    ("name", "change"),
    [("x", reshaped), ("x", retyped), ("a0", reshaped), ("a0", retyped), ("a", retyped)],
)
def test_arrays_that_get_another_shape_or_dtype_leave_caches_alone(name, change):
    batch = ragged_batch()
    a, y_pred, caches = fastrnn.rnn_forward(*batch)
    ref = gradients(fastrnn, batch, y_pred, caches)
    change({"x": batch.x, "a0": batch.a0, "a": a}[name])
    assert_equal(gradients(fastrnn, ragged_batch(), y_pred, caches), ref)


def test_lengths_that_change_leave_caches_alone():
    batch = ragged_batch()
    lengths = np.array(LENGTHS)
    _, y_pred, caches = fastrnn.rnn_forward(*batch.replaced(seq_lengths=lengths))
    ref = gradients(fastrnn, batch, y_pred, caches)
    lengths[:] = 10**6
    assert_equal(gradients(fastrnn, batch, y_pred, caches), ref)


@pytest.mark.parametrize("names", [("Waa",), ("Wax", "Waa", "Wya", "ba", "by")], ids=len)
def test_the_reference_takes_caches_of_nested_lists(names):
    batch = ragged_batch()
    parameters = batch.parameters | {name: batch.parameters[name].tolist() for name in names}
    _, y_pred, caches = fastrnn.rnn_forward(batch.x, batch.a0, parameters, LENGTHS)
    ref = gradients(fastrnn, batch, y_pred, caches)
    for name, comp in gradients(reference, batch, y_pred, caches).items():
        assert_allclose(comp, ref[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist])
def test_a_parameter_that_was_removed(form):
    """The caches can still be looked at; the backward pass says what is missing."""
    batch = make_batch(rng(0), 3, 4, 2, 5, 6, np.float64)
    parameters = {name: form(array) for name, array in batch.parameters.items()}
    a, _, caches = fastrnn.rnn_forward(batch.x, batch.a0, parameters, batch.seq_lengths)
    del parameters["ba"]
    (*_, cached), _ = caches[0][0]
    assert cached.keys() == {"Wax", "Waa", "Wya", "by"}
    with pytest.raises(ValueError, match="ba"):
        fastrnn.rnn_backward(a, caches)
