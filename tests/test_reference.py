"""The reference against implementations of others, central differences, and its own promises."""

from __future__ import annotations

import copy
import pickle
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal, assert_equal
from strategies import (
    LENGTH_FORMS,
    LENGTH_KINDS,
    MEMORY_ORDERS,
    Array,
    Batch,
    batches,
    make_batch,
    make_cotangent,
    make_labels,
    make_sequences,
    padding_mask,
    poison_padding,
    seeds,
)

from fastrnn import reference

FLOAT64 = np.dtype(np.float64)
LOSSES = [((5, 6), "mean"), ((5, 6), "sum"), ((5,), "mean"), ((5,), "sum")]
COPIES = [copy.deepcopy, lambda caches: pickle.loads(pickle.dumps(caches))]


def ragged_batch(dtype: Any = FLOAT64) -> Batch:
    lengths = np.array([3, 0, 6, 1, 3])
    return make_batch(rng(0), n_x=3, n_a=4, n_y=5, m=5, T=6, dtype=dtype, lengths=lengths)


def run(batch: Batch, da: Array) -> dict[str, Array]:
    a, y_pred, caches = reference.rnn_forward(*batch)
    return {"a": a, "y_pred": y_pred, **reference.rnn_backward(da, caches)}


def run_output(batch: Batch, labels: Any, reduction: Any = "mean") -> tuple[float, Any]:
    _, y_pred, caches = reference.rnn_forward(*batch)
    return reference.output_backward(y_pred, labels, caches, reduction=reduction)


def assert_close(comp: dict[str, Array], ref: dict[str, Array], tolerance: float) -> None:
    assert comp.keys() == ref.keys()
    for key in ref:
        assert_allclose(comp[key], ref[key], rtol=tolerance, atol=tolerance, err_msg=key)


def test_aliases() -> None:
    assert reference.rnn_cell_forward is reference.rnnCell_forward
    assert reference.rnn_cell_backward is reference.rnnCell_backward


def test_softmax() -> None:
    x = rng(0).standard_normal((4, 3, 2))
    assert_allclose(reference.softmax(x), np.exp(x) / np.exp(x).sum(axis=0), rtol=1e-14)
    assert_allclose(reference.softmax(np.log([1.0, 3.0])), [[0.25], [0.75]], rtol=1e-14)
    assert_array_equal(reference.softmax(np.array([[1e4, -1e4], [1e4, 1e4]])), [[0.5, 0], [0.5, 1]])


@pytest.mark.parametrize("max_len", [None, 5, 7])
def test_pad_sequences(max_len: int | None) -> None:
    sequences = make_sequences(rng(0), 2, [3, 0, 5])
    padded_x, seq_lengths = reference.pad_sequences(sequences, max_len, padding_value=-1)
    assert type(seq_lengths) is list
    assert seq_lengths == [3, 0, 5]
    assert padded_x.shape == (2, 3, max_len or 5)
    for i, sequence in enumerate(sequences):
        assert_array_equal(padded_x[:, i, : seq_lengths[i]], sequence)
        assert_array_equal(padded_x[:, i, seq_lengths[i] :], -1)


@pytest.mark.parametrize(
    ("dtypes", "ref"),
    [
        (["float32", "float32"], "float32"),
        (["float64", "float32"], "float64"),
        (["float16", "float16"], "float32"),
        (["int64", "float32"], "float32"),
        (["int64", "int8"], "float64"),
    ],
)
@pytest.mark.parametrize("padding_value", [0, 0.5, np.float64(np.nan)])
def test_pad_sequences_dtype(dtypes: list[str], ref: str, padding_value: float) -> None:
    sequences = [np.full((2, 1 + i), 3, dtype) for i, dtype in enumerate(dtypes)]
    padded_x, _ = reference.pad_sequences(sequences, padding_value=padding_value)
    assert padded_x.dtype == ref
    assert_array_equal(padded_x[:, 0], [[3, padding_value]] * 2)


@pytest.mark.parametrize("kind", LENGTH_KINDS)
def test_forward_against_onnxruntime(kind: str) -> None:
    batch = make_batch(rng(0), 4, 6, 3, 7, 9, np.float32, kind)
    a, y_pred, _ = reference.rnn_forward(*batch)
    ref_a, ref_y_pred = oracles.onnx_forward(batch)
    assert_allclose(a, ref_a, rtol=1e-5, atol=1e-6)
    assert_allclose(y_pred, ref_y_pred, rtol=1e-5, atol=1e-6)


@given(batches(dtype=st.just(FLOAT64)))
def test_forward_against_a_loop_over_samples(batch: Batch) -> None:
    a, y_pred, caches = reference.rnn_forward(*batch)
    ref_a, ref_y_pred = oracles.loop_forward(batch)
    assert_allclose(a, ref_a, rtol=1e-12, atol=1e-12)
    assert_allclose(y_pred, ref_y_pred, rtol=1e-12, atol=1e-12)
    assert len(caches[0]) == max(batch.seq_lengths, default=0)


@settings(max_examples=40)
@given(batches(dtype=st.just(FLOAT64)).filter(lambda batch: any(batch.seq_lengths)), seeds())
def test_backward_against_autograd(batch: Batch, seed: int) -> None:
    da = make_cotangent(rng(seed), batch)
    comp = reference.rnn_backward(da, reference.rnn_forward(*batch)[2])
    assert_close(comp, oracles.autograd_backward(batch, da), 1e-12)


@pytest.mark.parametrize("name", ["x", "a0", "Wax", "Waa", "ba"])
def test_backward_against_central_differences(name: str) -> None:
    batch = ragged_batch()
    da = make_cotangent(rng(1), batch)

    def loss(array: Array) -> float:
        return float(np.sum(da * reference.rnn_forward(*batch.replaced(**{name: array}))[0]))

    ref = oracles.central_differences(loss, batch.arrays[name])
    assert_allclose(run(batch, da)["d" + name], ref, rtol=1e-8, atol=1e-8)


def test_cell_is_one_step() -> None:
    batch = make_batch(rng(0), 3, 4, 5, m=6, T=1, lengths="full")
    da = make_cotangent(rng(1), batch)
    xt, a0 = batch.x[:, :, 0], batch.a0
    at, yt_pred, cache = reference.rnnCell_forward(xt, a0, batch.parameters)
    comp = reference.rnnCell_backward(da[:, :, 0], cache)

    ref_a, ref_y_pred = oracles.loop_forward(batch)
    assert_allclose(at, ref_a[:, :, 0], rtol=1e-13)
    assert_allclose(yt_pred, ref_y_pred[:, :, 0], rtol=1e-13)
    assert tuple(map(id, cache)) == tuple(map(id, (at, a0, xt, batch.parameters)))

    ref = oracles.autograd_backward(batch, da)
    ref["dxt"] = ref.pop("dx")[:, :, 0]
    ref["da_prev"] = ref.pop("da0")
    assert_close(comp, ref, 1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_padding_is_invisible(value: float) -> None:
    batch = ragged_batch()
    da = make_cotangent(rng(1), batch)
    ref = run(batch, da)
    poisoned = batch.replaced(x=poison_padding(batch.x, batch.seq_lengths, value))
    comp = run(poisoned, poison_padding(da, batch.seq_lengths, value))
    assert_equal(comp, ref)

    labels = make_labels(rng(2), 5, (5, 6))
    y_pred = poison_padding(ref["y_pred"], batch.seq_lengths, value)
    caches = reference.rnn_forward(*poisoned)[2]
    comp_output = reference.output_backward(y_pred, labels, caches)
    assert_equal(comp_output, run_output(batch, labels))


def test_padded_steps_are_zero_and_none_is_cut_off() -> None:
    batch = ragged_batch()
    longer = batch.replaced(x=np.concatenate([batch.x, np.ones((3, 5, 2))], axis=2))
    da = make_cotangent(rng(1), longer)
    comp = run(longer, da)
    assert_array_equal(~comp["da0"].any(axis=0), batch.seq_lengths == 0)
    for key in ("a", "y_pred", "dx"):
        assert_array_equal(~comp[key].any(axis=0), padding_mask(batch.seq_lengths, T=8))
        comp[key] = comp[key][:, :, :6]
    assert_equal(comp, run(batch, da[:, :, :6]))


@pytest.mark.parametrize(("m", "T", "kind"), [(0, 4, "full"), (3, 0, "full"), (3, 4, "zero")])
@pytest.mark.parametrize("form", ["list", "int64"])
@pytest.mark.parametrize("copied", [lambda caches: caches, *COPIES])
def test_nothing_to_do(m: int, T: int, kind: str, form: str, copied: Any) -> None:
    batch = make_batch(rng(0), 3, 4, 5, m, T, np.float32, kind)
    seq_lengths = LENGTH_FORMS[form](batch.seq_lengths)
    a, y_pred, caches = copied(reference.rnn_forward(*batch._replace(seq_lengths=seq_lengths)))
    loss, output_gradients = reference.output_backward(y_pred, np.zeros(m, int), caches)
    gradients = reference.rnn_backward(output_gradients["da"], caches)
    final = reference.final_states(a, seq_lengths)

    assert len(caches[0]) == loss == 0
    stored = {"a": a, "y_pred": y_pred, "final": final, "dx": gradients.pop("dx")}
    computed = {**output_gradients, **gradients}
    assert {array.dtype for array in stored.values()} == {FLOAT64}
    assert {array.dtype for array in computed.values()} == {np.dtype(np.float32)}
    arrays = [*stored.values(), *computed.values()]
    shapes = [(4, m, T), (5, m, T), (4, m), (3, m, T)]
    shapes += [(4, m, T), (5, 4), (5, 1), (4, m), (4, 3), (4, 4), (4, 1)]
    assert [array.shape for array in arrays] == shapes
    assert not any(array.any() for array in arrays)


@pytest.mark.parametrize("order", MEMORY_ORDERS)
def test_inputs_are_not_modified(order: str) -> None:
    batch = ragged_batch().in_order(order)
    da = MEMORY_ORDERS[order](make_cotangent(rng(1), batch))
    labels = make_labels(rng(2), 5, (5, 6))
    before = copy.deepcopy((batch, da, labels))
    a, y_pred, caches = reference.rnn_forward(*batch)
    outputs_before = copy.deepcopy((a, y_pred, caches))

    reference.output_backward(y_pred, labels, caches)
    reference.rnn_backward(da, caches)
    reference.final_states(a, batch.seq_lengths)
    assert_equal((batch, da, labels), before)
    assert_equal((a, y_pred, caches), outputs_before)


@pytest.mark.parametrize("form", LENGTH_FORMS)
def test_forms_of_lengths(form: str) -> None:
    batch = ragged_batch()
    da, labels = make_cotangent(rng(1), batch), make_labels(rng(2), 5, (5,))
    other = batch._replace(seq_lengths=LENGTH_FORMS[form](batch.seq_lengths))
    assert_equal(run(other, da), run(batch, da))
    assert_equal(run_output(other, labels), run_output(batch, labels))


def test_computes_in_the_dtype_of_its_inputs() -> None:
    batch = ragged_batch(np.float32)
    a, y_pred, caches = reference.rnn_forward(*batch)
    _, gradients = reference.output_backward(y_pred, np.zeros(5, int), caches)
    gradients.update(reference.rnn_backward(gradients["da"], caches))

    stored = [a, y_pred, gradients.pop("dx")]
    computed = [*gradients.values(), *(array for cache, _ in caches[0] for array in cache[:3])]
    assert {array.dtype for array in stored} == {FLOAT64}
    assert {array.dtype for array in computed} == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("narrow", ["x", "a0", "da"])
def test_one_narrow_argument_does_not_narrow_the_rest(narrow: str, dtype: Any) -> None:
    batch = ragged_batch()
    arrays = {"x": batch.x, "a0": batch.a0, "da": make_cotangent(rng(1), batch)}
    arrays[narrow] = (2 * arrays[narrow]).astype(dtype)
    da = arrays.pop("da")
    batch = batch.replaced(**arrays)
    a, y_pred = oracles.loop_forward(batch)
    ref = {"a": a, "y_pred": y_pred, **oracles.autograd_backward(batch, da)}
    assert_close(run(batch, da), ref, 1e-12)


def test_integers_alone_count_as_float64() -> None:
    batch = ragged_batch().map(lambda array: (2 * array).astype(np.int64))
    da = make_cotangent(rng(1), ragged_batch())
    assert_close(run(batch, da), run(batch.astype(FLOAT64), da), 1e-14)
    assert run_output(batch._replace(seq_lengths=[0] * 5), [0] * 5)[1]["da"].dtype == FLOAT64


def test_caches() -> None:
    batch = ragged_batch()
    parameters: Any = {**batch.parameters, "note": "other keys are ignored"}
    seq_lengths = batch.seq_lengths.tolist()
    a, _, caches = reference.rnn_forward(batch.x, batch.a0, parameters, seq_lengths)
    step_caches, x, lengths = caches

    assert x is batch.x
    assert lengths is seq_lengths
    assert len(step_caches) == 6
    for t, ((a_next, a_prev, xt, cached_parameters), active_batch) in enumerate(step_caches):
        assert active_batch.dtype == np.bool_
        assert_array_equal(active_batch, batch.seq_lengths > t)
        assert_array_equal(a_next, a[:, active_batch, t])
        assert_array_equal(a_prev, (a[:, :, t - 1] if t else batch.a0)[:, active_batch])
        assert_array_equal(xt, batch.x[:, active_batch, t])
        assert cached_parameters is parameters


@pytest.mark.parametrize(
    "convert",
    [
        lambda caches: (list(caches[0]), *caches[1:]),
        lambda caches: (deque(caches[0]), caches[1].tolist(), caches[2]),
        *COPIES,
    ],
)
def test_backward_accepts_other_caches(convert: Callable[[Any], Any]) -> None:
    batch = ragged_batch()
    da, labels = make_cotangent(rng(1), batch), make_labels(rng(2), 5, (5, 6))
    _, y_pred, caches = reference.rnn_forward(*batch)
    other = convert(caches)
    assert_equal(reference.rnn_backward(da, other), reference.rnn_backward(da, caches))
    ref = reference.output_backward(y_pred, labels, caches)
    assert_equal(reference.output_backward(y_pred, labels, other), ref)


@pytest.mark.parametrize(("shape", "reduction"), LOSSES)
def test_output_against_autograd(shape: tuple[int, ...], reduction: str) -> None:
    batch = ragged_batch()
    labels = make_labels(rng(2), 5, shape)
    loss, comp = run_output(batch, labels, reduction)
    ref_loss, ref = oracles.autograd_output_backward(batch, labels, reduction)
    assert type(loss) is float
    assert loss == pytest.approx(ref_loss, rel=1e-13)
    assert_close(comp, ref, 1e-13)


@pytest.mark.parametrize(("shape", "reduction"), LOSSES)
@pytest.mark.parametrize("name", ["x", "a0", "Wax", "Waa", "Wya", "ba", "by"])
def test_output_by_central_differences(shape: tuple[int, ...], reduction: str, name: str) -> None:
    batch = ragged_batch()
    labels = make_labels(rng(2), 5, shape)
    _, comp = run_output(batch, labels, reduction)
    comp.update(run(batch, comp["da"]))

    def loss(array: Array) -> float:
        return run_output(batch.replaced(**{name: array}), labels, reduction)[0]

    ref = oracles.central_differences(loss, batch.arrays[name])
    assert_allclose(comp["d" + name], ref, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("shape", "reduction"), LOSSES)
def test_ignored_labels(shape: tuple[int, ...], reduction: str) -> None:
    batch = ragged_batch()
    labels = make_labels(rng(2), 5, shape)
    ignored = padding_mask(batch.seq_lengths, 6) if len(shape) == 2 else batch.seq_lengths == 0
    ref = run_output(batch, np.where(ignored, -1, labels), reduction)
    for value in (3, 99, -7):
        comp = run_output(batch, np.where(ignored, value, labels), reduction)
        assert_equal(comp, ref)

    loss, gradients = run_output(batch, np.full(shape, -1), reduction)
    assert loss == 0
    assert [array.shape for array in gradients.values()] == [(4, 5, 6), (5, 4), (5, 1)]
    assert not any(array.any() for array in gradients.values())


@pytest.mark.parametrize("shape", [(5, 6), (5,)])
def test_forms_of_labels(shape: tuple[int, ...]) -> None:
    batch = ragged_batch()
    labels = rng(2).integers(0, 5, shape)
    for form in (labels.tolist(), labels.astype(np.uint8), labels.astype(np.int32)):
        assert_equal(run_output(batch, form), run_output(batch, labels))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_true_loss_where_the_prediction_underflowed(dtype: Any) -> None:
    batch = make_batch(rng(0), 1, 1, 2, 1, 1, dtype, lengths="full")
    batch = batch.replaced(Wya=np.zeros((2, 1), dtype), by=np.array([[800], [0]], dtype))
    assert reference.rnn_forward(*batch)[1][1, 0, 0] == 0

    loss, gradients = run_output(batch, [1])
    assert loss == 800
    assert_array_equal(gradients["dby"], [[1], [-1]])


def test_final_states() -> None:
    batch = ragged_batch()
    a, _, _ = reference.rnn_forward(*batch)
    ref = np.stack([a[:, 0, 2], np.zeros(4), a[:, 2, 5], a[:, 3, 0], a[:, 4, 2]], axis=1)
    a = poison_padding(a, batch.seq_lengths)
    for form in LENGTH_FORMS.values():
        assert_array_equal(reference.final_states(a, form(batch.seq_lengths)), ref)
    assert reference.final_states(a.astype(np.float32), [1] * 5).dtype == np.float32


def test_a_long_sequence_in_pieces() -> None:
    batch = make_batch(rng(0), 3, 4, 5, m=3, T=8, lengths=[8, 5, 6])
    ref = reference.rnn_forward(*batch)[0]
    first = reference.rnn_forward(batch.x[:, :, :4], batch.a0, batch.parameters, [4] * 3)[0]
    a0 = reference.final_states(first, [4] * 3)
    second = reference.rnn_forward(batch.x[:, :, 4:], a0, batch.parameters, [4, 1, 2])[0]
    assert_allclose(np.concatenate([first, second], axis=2), ref, rtol=1e-14)
