"""Softmax, and the loss and gradients of the output layer."""

import copy
import itertools

import numpy as np
import oracles
import pytest
from accuracy import FLOAT64, assert_accurate, assert_close, assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal, assert_equal
from strategies import (
    MEMORY_ORDERS,
    Shape,
    batches,
    dtypes,
    make_batch,
    make_labels,
    memory_orders,
    padding_mask,
    poison_padding,
    seeds,
    shapes,
)

import fastrnn
from fastrnn import reference

DTYPES = ["float32", "float64"]
LOSSES = [((7, 6), "mean"), ((7, 6), "sum"), ((7,), "mean"), ((7,), "sum")]
LENGTHS = np.array([3, 0, 6, 1, 3, 5, 6])
# The last has more labelled rows than all groups of a kernel take at once.
LARGE = [
    *[Shape(12, 32, 9, 300, 12), Shape(5, 200, 40, 20, 9), Shape(5, 33, 3, 1, 40)],
    Shape(5, 40, 17, 200, 40),
]


def ragged_batch(dtype=FLOAT64, n_a=19):
    return make_batch(rng(0), 3, n_a, 5, len(LENGTHS), 6, dtype, LENGTHS)


def run(batch, labels, reduction="mean", module=fastrnn):
    _, y_pred, caches = module.rnn_forward(*batch)
    loss, gradients = module.output_backward(y_pred, labels, caches, reduction=reduction)
    return {"loss": loss, **gradients}


def assert_output_accurate(batch, labels, reduction, neighbours=0):
    def function(module, batch):
        return run(batch, labels, reduction, module)

    assert_accurate(function, batch, neighbours=neighbours)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_a_vector_is_a_column(dtype):
    comp = fastrnn.softmax(np.log([1, 3]).astype(dtype))
    assert comp.shape == (2, 1)
    assert comp.dtype == dtype
    assert_allclose(comp, [[0.25], [0.75]], rtol=1e-6)
    assert_array_equal(fastrnn.softmax([0.0, 0.0]), [[0.5], [0.5]])
    assert_array_equal(fastrnn.softmax(np.zeros(1, dtype)), [[1]])


@given(
    st.integers(1, 70),
    st.lists(st.integers(0, 9), max_size=3),
    dtypes(),
    memory_orders(),
    seeds(),
)
def test_softmax_against_the_reference(n, rest, dtype, order, seed):
    x = 5 * rng(seed).standard_normal((n, *rest))
    x = MEMORY_ORDERS[order](x.astype(dtype))
    before = x.copy()
    comp = fastrnn.softmax(x)
    assert comp.dtype == dtype
    assert comp.shape == ((n, *rest) if rest else (n, 1))
    assert_array_equal(x, before)

    ref, plain = reference.softmax(x.astype(FLOAT64)), reference.softmax(x)
    ulp = np.finfo(dtype).eps * np.max(ref, initial=0)
    error, plain_error = (np.max(np.abs(y - ref), initial=0) for y in (comp, plain))
    assert error <= max(4 * ulp, 4 * plain_error)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_large_numbers(dtype):
    x = np.array([[1e4, -1e4, 3e38, 0], [1e4, 1e4, -3e38, -np.inf]], dtype)
    assert_array_equal(fastrnn.softmax(x), [[0.5, 0, 1, 1], [0.5, 1, 0, 0]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_numbers_far_below_0(dtype):
    x = rng(0).integers(-9, 9, (5, 21)).astype(dtype)
    assert_array_equal(fastrnn.softmax(x - 1000), fastrnn.softmax(x), strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_softmax_keeps_nan_in_its_column(dtype, value):
    x = rng(0).standard_normal((3, 4, 2)).astype(dtype)
    ref = fastrnn.softmax(x)
    x[1, 2, 0] = value
    ref[:, 2, 0] = np.nan
    comp = fastrnn.softmax(x)
    # Infinity minus infinity is NaN; what else is in its column may be 0 or NaN.
    assert np.isnan(comp[1, 2, 0])
    if np.isinf(value):
        comp[:, 2, 0] = np.nan
    assert_array_equal(comp, ref)


@pytest.mark.parametrize(
    ("dtype", "ref"),
    [("float16", "float32"), (">f4", "float32"), ("int64", "float64"), ("bool", "float64")],
)
def test_softmax_dtype(dtype, ref):
    x = np.array([[0, 1], [1, 1], [0, 0]])
    comp = fastrnn.softmax(x.astype(dtype))
    assert comp.dtype == ref
    assert_allclose(comp, reference.softmax(x.astype(FLOAT64)), rtol=1e-6)


@given(
    batches(shape=shapes(largest=40).map(lambda shape: shape._replace(T=min(shape.T, 9)))),
    st.booleans(),
    st.sampled_from(["mean", "sum"]),
    seeds(),
)
def test_against_the_reference(batch, by_step, reduction, seed):
    _, _, n_y, m, T = batch.shape
    labels = make_labels(rng(seed), n_y, (m, T) if by_step else (m,))
    assert_output_accurate(batch, labels, reduction, neighbours=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("by_step", [True, False])
@pytest.mark.parametrize("shape", LARGE)
def test_large_batches_against_the_reference(shape, by_step, reduction, dtype):
    batch = make_batch(rng(0), *shape, dtype)
    # The single label of a single sequence would be as likely to be none.
    labels = rng(1).integers(0, shape.n_y, (shape.m, shape.T) if by_step else (shape.m,))
    assert_output_accurate(batch, labels, reduction)


@settings(max_examples=40)
@given(
    batches(dtype=st.just(FLOAT64)).filter(lambda batch: any(batch.seq_lengths)),
    st.booleans(),
    st.sampled_from(["mean", "sum"]),
    seeds(),
)
def test_against_autograd(batch, by_step, reduction, seed):
    _, _, n_y, m, T = batch.shape
    labels = rng(seed).integers(0, n_y, (m, T) if by_step else (m,))
    comp = run(batch, labels, reduction)
    ref_loss, ref = oracles.autograd_output_backward(batch, labels, reduction)
    assert type(comp["loss"]) is float
    assert_close(comp, {"loss": ref_loss, **ref}, 1e-12)


@pytest.mark.parametrize(("shape", "reduction"), LOSSES)
@pytest.mark.parametrize("name", ["x", "a0", "Wax", "Waa", "Wya", "ba", "by"])
def test_by_central_differences(shape, reduction, name):
    batch = ragged_batch(n_a=9)
    labels = make_labels(rng(2), 5, shape)
    _, y_pred, caches = fastrnn.rnn_forward(*batch)
    _, comp = fastrnn.output_backward(y_pred, labels, caches, reduction=reduction)
    comp.update(fastrnn.rnn_backward(comp["da"], caches))

    def loss(array):
        return run(batch.replaced(**{name: array}), labels, reduction)["loss"]

    ref = oracles.central_differences(loss, batch.arrays[name])
    assert_allclose(comp["d" + name], ref, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("shape", "reduction"), LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ignored_labels(shape, reduction, dtype):
    batch = ragged_batch(dtype)
    labels = make_labels(rng(2), 5, shape)
    ignored = padding_mask(LENGTHS, 6) if len(shape) == 2 else LENGTHS == 0
    ref = run(batch, np.where(ignored, -1, labels), reduction)
    for value in (3, 99, -7):
        assert_equal(run(batch, np.where(ignored, value, labels), reduction), ref)

    without = np.where(ignored, 3, labels) == -1
    if len(shape) == 2:
        assert_array_equal(~ref["da"].any(axis=0), without | ignored)
    else:
        expected = np.arange(6) != LENGTHS[:, np.newaxis] - 1
        assert_array_equal(~ref["da"].any(axis=0), expected | without[:, np.newaxis])


@pytest.mark.parametrize("labels", [np.full((7, 6), -1), np.full(7, -1), [2, -1, 2, 2, 2, 2, 2]])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_without_any_label(labels, reduction, dtype):
    batch = ragged_batch(dtype)
    if isinstance(labels, list):
        batch = batch._replace(seq_lengths=[0, 6, 0, 0, 0, 0, 0])
    comp = run(batch, labels, reduction)
    assert type(comp["loss"]) is float
    assert comp.pop("loss") == 0
    assert list(comp) == ["da", "dWya", "dby"]
    assert [array.shape for array in comp.values()] == [(19, 7, 6), (5, 19), (5, 1)]
    assert {array.dtype for array in comp.values()} == {np.dtype(dtype)}
    assert not any(array.any() for array in comp.values())


@pytest.mark.parametrize(
    ("m", "T", "kind"), [(0, 4, "full"), (0, 0, "full"), (3, 0, "full"), (3, 4, "zero")]
)
@pytest.mark.parametrize("maker", [fastrnn, reference], ids=["own", "plain"])
@pytest.mark.parametrize("by_step", [True, False])
def test_nothing_to_do(m, T, kind, maker, by_step):
    batch = make_batch(rng(0), 3, 4, 5, m, T, np.float32, kind)
    _, y_pred, caches = maker.rnn_forward(*batch)
    labels = np.zeros((m, T) if by_step else m, int)
    loss, gradients = fastrnn.output_backward(y_pred.astype(np.float32), labels, caches)
    assert loss == 0
    assert [array.shape for array in gradients.values()] == [(4, m, T), (5, 4), (5, 1)]
    assert {array.dtype for array in gradients.values()} == {np.dtype(np.float32)}
    assert not any(array.any() for array in gradients.values())


@pytest.mark.parametrize("shape", [(7, 6), (7,)])
def test_sum_is_mean_times_count(shape):
    batch = ragged_batch()
    labels = make_labels(rng(2), 5, shape)
    ignored = padding_mask(LENGTHS, 6) if len(shape) == 2 else LENGTHS == 0
    count = np.count_nonzero((labels >= 0) & ~ignored)
    mean, total = run(batch, labels), run(batch, labels, "sum")
    assert_close(total, {key: count * value for key, value in mean.items()}, 1e-13)


@pytest.mark.parametrize("shape", [(7, 6), (7,)])
def test_forms_of_labels(shape):
    batch = ragged_batch()
    labels = rng(2).integers(0, 5, shape)
    ref = run(batch, labels)
    for form in (
        labels.tolist(),
        labels.astype(np.uint8),
        labels.astype(np.int32),
        labels.T.copy().T,
    ):
        assert_equal(run(batch, form), ref)


@pytest.mark.parametrize(
    ("dtype", "gap"),
    # The last two leave a subnormal prediction, of which few digits are right.
    [*itertools.product(DTYPES, [1000, 20000]), ("float32", 102), ("float64", 744)],
)
@pytest.mark.parametrize("largest", ["above 0", "below 0"])
def test_true_loss_where_the_prediction_underflowed(dtype, gap, largest):
    batch = make_batch(rng(0), 3, 4, 3, m=4, T=2, dtype=dtype, lengths=[2, 1, 2, 2])
    by = np.array([[gap], [0], [gap - 1]], dtype)
    if largest == "below 0":
        by -= 2 * gap
    batch = batch.replaced(Wya=np.zeros((3, 4), dtype), by=by)
    y_pred = fastrnn.rnn_forward(*batch)[1]
    if gap >= 1000:
        assert_array_equal(y_pred[1], 0)
    else:
        first = y_pred[1, :, 0]
        assert np.all((first > 0) & (first < np.finfo(dtype).tiny))

    comp = run(batch, [1, 1, 1, 1])
    assert_allclose(comp["loss"], gap + np.log(1 + np.exp(-1)), rtol=1e-6)
    p = 1 / (1 + np.exp(-1))
    assert_allclose(comp["dby"], [[p], [-1], [1 - p]], rtol=1e-6)
    assert_allclose(run(batch, [0] * 4)["loss"], np.log(1 + np.exp(-1)), rtol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(7, 6), (7,)])
def test_padding_is_invisible(shape, value):
    batch = ragged_batch()
    labels = make_labels(rng(2), 5, shape)
    x = poison_padding(batch.x, LENGTHS, value)
    _, y_pred, caches = fastrnn.rnn_forward(*batch.replaced(x=x))
    y_pred = poison_padding(y_pred, LENGTHS, value)
    loss, gradients = fastrnn.output_backward(y_pred, labels, caches)
    assert_equal({"loss": loss, **gradients}, run(batch, labels))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 6), (7,)])
def test_nan_spreads_through_its_own_sample_only(shape, dtype):
    batch = ragged_batch(dtype)
    labels = np.ones(shape, int)
    x = batch.x.copy()
    x[1, 5, 2] = np.nan
    ref, comp = run(batch, labels), run(batch.replaced(x=x), labels)
    others = np.arange(7) != 5
    assert_array_equal(comp["da"][:, others], ref["da"][:, others])
    assert_array_equal(comp["da"][:, 5, :2], ref["da"][:, 5, :2])
    assert np.isnan(comp["da"][:, 5, 2:5] if len(shape) == 2 else comp["da"][:, 5, 4]).all()
    assert not comp["da"][:, 5, 5:].any()
    assert all(np.isnan(comp[key]).all() for key in ("loss", "dWya", "dby"))


@pytest.mark.parametrize("order", MEMORY_ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 6), (7,)])
def test_memory_orders(shape, dtype, order):
    batch = ragged_batch(dtype)
    labels = make_labels(rng(2), 5, shape)
    ref = run(batch, labels)
    _, y_pred, caches = fastrnn.rnn_forward(*batch.in_order(order))
    arguments = MEMORY_ORDERS[order](y_pred), MEMORY_ORDERS[order](labels), caches
    before = copy.deepcopy((*arguments[:2], list(caches[0])))
    loss, gradients = fastrnn.output_backward(*arguments)
    assert_equal((*arguments[:2], list(caches[0])), before)
    assert_equal({"loss": loss, **gradients}, ref)
    assert gradients["da"].flags.f_contiguous
    assert {array.dtype for array in gradients.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [ragged_batch().shape, LARGE[0], LARGE[1]])
@pytest.mark.parametrize("by_step", [True, False])
def test_bits_do_not_depend_on_the_call_nor_on_the_threads(by_step, shape, dtype):
    batch = make_batch(rng(0), *shape, dtype)
    labels = make_labels(rng(1), shape.n_y, (shape.m, shape.T) if by_step else (shape.m,))

    def arrays():
        return {key: np.asarray(value) for key, value in run(batch, labels).items()}

    assert_same_bits(arrays)
