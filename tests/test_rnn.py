"""The RNN functions against the reference and the oracles, and what they promise besides."""

import contextlib
import copy
import itertools
import math

import numpy as np
import oracles
import pytest
from accuracy import assert_accurate, assert_close, assert_same_bits, run
from cutting import as_if_large
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal, assert_equal
from strategies import (
    LENGTH_FORMS,
    LENGTH_KINDS,
    MEMORY_ORDERS,
    Shape,
    batches,
    make_batch,
    make_cotangent,
    memory_orders,
    padding_mask,
    poison_padding,
    seeds,
)

import fastrnn
from fastrnn import reference
from fastrnn.kernels import chunk, stages

FLOAT64 = np.dtype(np.float64)
DTYPES = ["float32", "float64"]
LENGTHS = np.array([3, 0, 6, 1, 3, 5, 6])
# Many samples, which are cut into blocks; few with many hidden units, which are not; others.
LARGE = [
    Shape(12, 32, 9, 300, 30),
    Shape(40, 250, 9, 15, 18),
    Shape(40, 200, 9, 20, 9),
    Shape(5, 33, 3, 1, 300),
]
# Single steps of more than one row of tiles, whose weights have long rows and are not packed.
LONG_ROWS = [Shape(520, 530, 3, 16, 1), Shape(600, 520, 3, 24, 1), Shape(30, 530, 3, 70, 1)]
#: One sample, whose tiles are multiplied two at a time, other pairs by every number of threads.
LONE = Shape(3, 300, 3, 1, 100)
# As (n_x, n_a, m, T): few samples or few steps, the last in blocks of samples.
FEW = [
    *[(300, 300, 1, 1), (7, 131, 3, 30), (40, 300, 6, 8), (33, 530, 40, 1), (33, 530, 70, 1)],
    (33, 150, 70, 1),
    (3, 2050, 1, 1),
    (2050, 20, 2, 1),
]


@st.composite
def several_tiles(draw):
    """Sizes that fill several tiles of the kernels, and leave rests of any width."""
    size, count = st.integers(1, 40), st.integers(0, 40)
    n_a, T = draw(st.integers(1, 70)), draw(st.integers(0, 9))
    return Shape(draw(size), n_a, draw(size), draw(count), T)


def ragged_batch(dtype=FLOAT64, T=6, n_a=19):
    return make_batch(rng(0), 3, n_a, 5, len(LENGTHS), T, dtype, LENGTHS)


def test_aliases():
    assert fastrnn.rnn_cell_forward is fastrnn.rnnCell_forward
    assert fastrnn.rnn_cell_backward is fastrnn.rnnCell_backward


@given(batches(shape=several_tiles()), memory_orders(), seeds(), st.booleans())
def test_against_the_reference(batch, order, seed, large):
    da = MEMORY_ORDERS[order](make_cotangent(rng(seed), batch))
    with as_if_large() if large else contextlib.nullcontext():
        assert_accurate(run, batch, da, neighbours=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["ragged", "one_long", "full"])
@pytest.mark.parametrize("shape", LARGE)
def test_large_batches_against_the_reference(shape, kind, dtype):
    batch = make_batch(rng(0), *shape, dtype, kind)
    assert_accurate(run, batch, make_cotangent(rng(1), batch))


def test_weight_gradients_of_many_samples_in_one_step():
    """Where all terms have one sign, long chains of additions lose digits."""
    batch = make_batch(rng(0), 12, 8, 3, 4000, 1, np.float32, "full")
    batch = batch.replaced(x=0.1 * rng(1).random(batch.x.shape, np.float32))
    assert_accurate(run, batch, rng(2).random((8, 4000, 1), np.float32))


def test_bias_gradient_of_many_samples_in_one_step():
    """Of states that are 0, so that it is the sum of `da`."""
    batch = make_batch(rng(0), 3, 8, 3, 16_000, 1, np.float32, "full")
    batch = batch.replaced(**{key: 0 * batch.arrays[key] for key in ("x", "a0", "ba")})
    da = rng(2).random((8, 16_000, 1), np.float32)
    ref = da.sum((1, 2), FLOAT64)[:, np.newaxis]
    error = np.abs(run(fastrnn, batch, da)["dba"] - ref)
    assert np.all(error <= 4 * np.spacing(ref.astype(np.float32)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("m", "longest", "alone"),
    [*itertools.product([1, 4], [0], [1, 63, 256, 257, 600]), (4, 2, 300), (400, 7, 390)],
)
def test_steps_of_a_sample_that_is_active_alone(m, longest, alone, order):
    """They are packed and unpacked together, but for `a0`; the last case fills large chunks."""
    lengths = np.arange(m) % 3
    lengths[longest] = 2 + alone
    batch = make_batch(rng(0), 9, 17, 3, m, 2 + alone, lengths=lengths).in_order(order)
    da = make_cotangent(rng(1), batch)
    assert_accurate(run, batch, da)
    with as_if_large():
        assert_same_bits(lambda: run(fastrnn, batch, da))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("units", [48, 41])
@as_if_large()
def test_results_past_the_caches_have_the_same_bits(units, dtype, monkeypatch):
    """Large results are written in another way, where rows start cache lines and where not."""
    batch = make_batch(rng(0), units, units, 33, 65, 9, dtype, "some_zero")
    da = make_cotangent(rng(1), batch)
    ref = run(fastrnn, batch, da)
    monkeypatch.setattr("fastrnn._results._LARGE_BYTES", 0)
    comp = run(fastrnn, batch, da)
    for name in ref:
        assert_array_equal(comp[name], ref[name], strict=True, err_msg=name)


@pytest.mark.parametrize("units", [128, 130])
def test_padded_steps_in_memory_that_held_other_results(units):
    """They are cleared past the caches where rows start cache lines."""
    full, ragged = (
        make_batch(rng(0), units, units, units, 150, 60, np.float32, kind)
        for kind in ("full", "ragged")
    )
    da = make_cotangent(rng(1), full)
    assert run(fastrnn, full, da)["a"].all()
    comp, ref = run(fastrnn, ragged, da), run(reference, ragged, da)
    for name in ("a", "y_pred", "dx"):
        assert_array_equal(comp[name] == 0, ref[name] == 0, err_msg=name)


@pytest.mark.parametrize("n_x", [1025, 1040])
@pytest.mark.parametrize(("m", "T"), [(1, 1), (9, 7), (65, 1)])
def test_weight_gradients_past_the_caches(n_x, m, T, monkeypatch):
    """Large ones of few rows, whose own rows start cache lines, are written in another way."""
    batch = make_batch(rng(0), n_x, 1024, 3, m, T, np.float32, "full")
    da = make_cotangent(rng(1), batch)
    assert_accurate(run, batch, da)
    ref = run(fastrnn, batch, da)

    def off_the_line(shape, dtype, order):
        size = math.prod(shape)
        memory = np.empty(size + 32, dtype)
        begin = -memory.ctypes.data // memory.itemsize % 16 + 1
        return memory[begin : begin + size].reshape(shape, order=order)

    monkeypatch.setattr("fastrnn.rnn.empty", off_the_line)
    comp = run(fastrnn, batch, da)
    for name in ref:
        assert_array_equal(comp[name], ref[name], strict=True, err_msg=name)


@pytest.mark.parametrize("n_a", [520, 1030])
def test_many_rows_and_units_against_the_reference(n_a):
    """The depth of a step is cut where the states of all rows leave the second cache level."""
    batch = make_batch(rng(0), 7, n_a, 3, 100, 4, np.float32, "full")
    assert_accurate(run, batch, make_cotangent(rng(1), batch))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", LENGTH_KINDS)
def test_forward_against_onnxruntime(kind, dtype):
    batch = make_batch(rng(0), 4, 37, 3, 17, 9, dtype, kind)
    a, y_pred, _ = fastrnn.rnn_forward(*batch)
    ref_a, ref_y_pred = oracles.onnx_forward(batch)
    assert_allclose(a, ref_a, rtol=1e-5, atol=1e-6)
    assert_allclose(y_pred, ref_y_pred, rtol=1e-5, atol=1e-6)


@settings(max_examples=40)
@given(batches(dtype=st.just(FLOAT64)).filter(lambda batch: any(batch.seq_lengths)), seeds())
def test_backward_against_autograd(batch, seed):
    da = make_cotangent(rng(seed), batch)
    comp = fastrnn.rnn_backward(da, fastrnn.rnn_forward(*batch)[2])
    assert_close(comp, oracles.autograd_backward(batch, da), 1e-12)


@pytest.mark.parametrize("name", ["x", "a0", "Wax", "Waa", "ba"])
def test_backward_against_central_differences(name):
    batch = ragged_batch()
    da = make_cotangent(rng(1), batch)

    def loss(array):
        return float(np.sum(da * fastrnn.rnn_forward(*batch.replaced(**{name: array}))[0]))

    ref = oracles.central_differences(loss, batch.arrays[name])
    assert_allclose(run(fastrnn, batch, da)["d" + name], ref, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [ragged_batch().shape, *LARGE, *LONG_ROWS, LONE])
def test_bits_do_not_depend_on_the_call_nor_on_the_threads(shape, dtype):
    batch = make_batch(rng(0), *shape, dtype)
    da = make_cotangent(rng(1), batch)
    with as_if_large():
        assert_same_bits(lambda: run(fastrnn, batch, da))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [ragged_batch().shape, LARGE[0], LARGE[1]])
def test_padding_is_invisible(shape, dtype, value):
    batch = make_batch(rng(0), *shape, dtype, "some_zero")
    da = make_cotangent(rng(1), batch)
    poisoned = batch.replaced(x=poison_padding(batch.x, batch.seq_lengths, value))
    comp = run(fastrnn, poisoned, poison_padding(da, batch.seq_lengths, value))
    assert_equal(comp, run(fastrnn, batch, da))


def test_initial_state_of_an_empty_sequence_is_invisible():
    batch = ragged_batch()
    da = make_cotangent(rng(1), batch)
    poisoned = batch.replaced(a0=np.where(LENGTHS == 0, np.nan, batch.a0))
    assert_equal(run(fastrnn, poisoned, da), run(fastrnn, batch, da))


@pytest.mark.parametrize("dtype", DTYPES)
def test_padded_steps_are_zero_and_none_is_cut_off(dtype):
    batch = ragged_batch(dtype, T=9)
    da = make_cotangent(rng(1), batch)
    comp = run(fastrnn, batch, da)
    assert_array_equal(~comp["da0"].any(axis=0), LENGTHS == 0)
    for key in ("a", "y_pred", "dx"):
        assert_array_equal(~comp[key].any(axis=0), padding_mask(LENGTHS, T=9))
        comp[key] = comp[key][:, :, :6]
    shorter = batch.replaced(x=batch.x[:, :, :6])
    assert_equal(comp, run(fastrnn, shorter, da[:, :, :6]))


@pytest.mark.parametrize(
    ("m", "T", "kind"), [(0, 4, "full"), (0, 0, "full"), (3, 0, "full"), (3, 4, "zero")]
)
@pytest.mark.parametrize("form", ["list", "int64"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("maker", [fastrnn, reference], ids=["own", "plain"])
def test_nothing_to_do(m, T, kind, form, dtype, maker):
    batch = make_batch(rng(0), 3, 4, 5, m, T, dtype, kind)
    seq_lengths = LENGTH_FORMS[form](batch.seq_lengths)
    a, y_pred, caches = fastrnn.rnn_forward(*batch._replace(seq_lengths=seq_lengths))
    if maker is reference:
        caches = reference.rnn_forward(*batch._replace(seq_lengths=seq_lengths))[2]
    gradients = fastrnn.rnn_backward(make_cotangent(rng(1), batch), caches)
    final = fastrnn.final_states(a, seq_lengths)

    assert len(caches[0]) == 0
    arrays = {"a": a, "y_pred": y_pred, "final": final, **gradients}
    shapes = {"a": (4, m, T), "y_pred": (5, m, T), "final": (4, m), "dx": (3, m, T)}
    shapes.update({"da0": (4, m), "dWax": (4, 3), "dWaa": (4, 4), "dba": (4, 1)})
    assert {key: array.shape for key, array in arrays.items()} == shapes
    assert {array.dtype for array in arrays.values()} == {np.dtype(dtype)}
    assert not any(array.any() for array in arrays.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_x", "n_a", "m", "T"), FEW)
@as_if_large()
def test_few_samples_against_the_reference(n_x, n_a, m, T, dtype):
    """Weights are multiplied as they lie, in some of the passes or in all."""
    batch = make_batch(rng(0), n_x, n_a, 21, m, T, dtype, "one_long")
    assert_accurate(run, batch, make_cotangent(rng(1), batch))


@pytest.mark.parametrize("order", MEMORY_ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("T", "n_a"), [(6, 19), (20, 19), (6, 70), (20, 270)])
def test_memory_orders(T, n_a, order, dtype):
    batch = ragged_batch(dtype, T, n_a)
    da = make_cotangent(rng(1), batch)
    ref = run(fastrnn, batch, da)
    given_batch, given_da = batch.in_order(order), MEMORY_ORDERS[order](da)
    before = copy.deepcopy((given_batch, given_da))
    comp = run(fastrnn, given_batch, given_da)
    assert_equal((given_batch, given_da), before)
    assert_equal(comp, ref)
    for key in ("a", "y_pred", "dx"):
        assert comp[key].flags.f_contiguous
    assert {array.dtype for array in comp.values()} == {np.dtype(dtype)}
    assert all(array.flags.writeable for array in comp.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_first_block_of_empty_sequences(dtype):
    """There are more blocks than groups, and others of the first group have steps."""
    lengths = np.where(np.arange(1300) < 100, 0, 2)
    batch = make_batch(rng(0), 5, 57, 3, 1300, 2, dtype, lengths)
    assert_accurate(run, batch, make_cotangent(rng(1), batch))


@pytest.mark.parametrize("order", MEMORY_ORDERS)
@pytest.mark.parametrize("m", [3, 70])
def test_memory_orders_of_single_steps(m, order):
    """Weights are multiplied as they lie, by rows or by columns, or copied."""
    batch = make_batch(rng(0), 21, 270, 5, m, 1, "float32", "one")
    da = make_cotangent(rng(1), batch)
    ref = run(fastrnn, batch, da)
    assert_equal(run(fastrnn, batch.in_order(order), MEMORY_ORDERS[order](da)), ref)


@pytest.mark.parametrize("order", MEMORY_ORDERS)
@pytest.mark.parametrize("sizes", [(1, 1, 3, 5), (1, 5, 1, 40), (1, 17, 90, 20)])
@as_if_large()
def test_memory_orders_of_a_single_feature(sizes, order):
    """Its column is one piece whatever lies between features."""
    n_x, n_a, m, T = sizes
    batch = make_batch(rng(0), n_x, n_a, 5, m, T, "float32", "some_zero" if m > 1 else "full")
    batch = batch._replace(x=poison_padding(batch.x, batch.seq_lengths))
    da = poison_padding(make_cotangent(rng(1), batch), batch.seq_lengths)
    ref = run(fastrnn, batch.in_order("F"), MEMORY_ORDERS["F"](da))
    assert_equal(run(fastrnn, batch.in_order(order), MEMORY_ORDERS[order](da)), ref)


@pytest.mark.parametrize("order", ["C", "sliced", "negative"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", [1, 16, 37])
@as_if_large()
def test_blocks_that_are_staged(T, dtype, order):
    """Many samples in C order, each of which is transposed as a whole."""
    batch = make_batch(rng(0), 21, 37, 5, 150, T, dtype, "some_zero")
    batch = batch._replace(x=poison_padding(batch.x, batch.seq_lengths))
    da = poison_padding(make_cotangent(rng(1), batch), batch.seq_lengths)
    ref = run(fastrnn, batch.in_order("F"), MEMORY_ORDERS["F"](da))
    comp = run(fastrnn, batch.in_order(order), MEMORY_ORDERS[order](da))
    assert_equal(comp, ref)


def test_what_is_staged():
    """C order, of a register's steps or more, in blocks of bounded size."""
    sizes = stages.Sizes(blocks=4, groups=4, capacity=192, clear=1, past=0, apart=1)
    staged_size = njit(lambda array, sizes: chunk.staged_size(array, sizes))
    x = np.zeros((21, 150, 37), np.float32)
    assert staged_size(x, sizes) == 38 * 37 * 21
    assert staged_size(x, sizes._replace(apart=0)) == 0
    single = np.zeros((1, 150, 370), np.float32)
    for other in (
        single,
        np.asfortranarray(x),
        x[..., ::-1],
        x[..., :3],
        np.zeros((128, 80, 2000)),
    ):
        assert staged_size(other, sizes) == 0


@as_if_large()
def test_a_block_too_large_to_be_staged():
    batch = make_batch(rng(0), 128, 16, 3, 80, 2000, np.float32, np.arange(80) % 9)
    da = make_cotangent(rng(1), batch)
    assert_equal(run(fastrnn, batch, da), run(fastrnn, batch.in_order("F"), da))


def test_backward_leaves_the_results_of_forward_alone():
    batch = ragged_batch()
    outputs = fastrnn.rnn_forward(*batch)
    before = copy.deepcopy((outputs[:2], list(outputs[2][0])))
    fastrnn.rnn_backward(make_cotangent(rng(1), batch), outputs[2])
    fastrnn.final_states(outputs[0], LENGTHS)
    assert_equal((outputs[:2], list(outputs[2][0])), before)


@pytest.mark.parametrize(
    ("dtypes", "ref"),
    [
        ({}, "float32"),
        ({"x": "float16"}, "float32"),
        ({"x": "int64"}, "float32"),
        ({"a0": "bool"}, "float32"),
        ({"x": "float64"}, "float64"),
        ({"by": "float64"}, "float64"),
        ({"a0": ">f8"}, "float64"),
        (dict.fromkeys(ragged_batch().arrays, "float16"), "float32"),
        (dict.fromkeys(ragged_batch().arrays, "int8"), "float64"),
    ],
)
@pytest.mark.parametrize("da_dtype", ["float16", "float32", "float64", "int64"])
def test_dtype(dtypes, ref, da_dtype):
    batch = ragged_batch(np.float32).map(lambda array: 2 * array)
    batch = batch.replaced(**{key: batch.arrays[key].astype(dtypes[key]) for key in dtypes})
    da = (2 * make_cotangent(rng(1), ragged_batch())).astype(da_dtype)
    comp = run(fastrnn, batch, da)
    assert {array.dtype for array in comp.values()} == {np.dtype(ref)}
    assert_equal(comp, run(fastrnn, batch.astype(ref), da.astype(ref)))


def test_nested_lists():
    batch = ragged_batch()
    da = make_cotangent(rng(1), batch)
    comp = run(fastrnn, batch.map(np.ndarray.tolist), da.tolist())
    assert_equal(comp, run(fastrnn, batch, da))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_spreads_through_its_own_sample_only(dtype):
    batch = ragged_batch(dtype)
    da = make_cotangent(rng(1), batch)
    x = batch.x.copy()
    x[1, 5, 2] = np.nan
    ref, comp = run(fastrnn, batch, da), run(fastrnn, batch.replaced(x=x), da)
    others = np.arange(len(LENGTHS)) != 5
    for key in ("a", "y_pred", "dx", "da0"):
        assert_array_equal(comp[key][:, others], ref[key][:, others])
    for key in ("a", "y_pred"):
        assert_array_equal(comp[key][:, 5, :2], ref[key][:, 5, :2])
        assert np.isnan(comp[key][:, 5, 2:5]).all()
        assert not comp[key][:, 5, 5:].any()
    assert np.isnan(comp["da0"][:, 5]).all()
    assert np.isnan(comp["dx"][:, 5, :5]).all()
    assert not comp["dx"][:, 5, 5:].any()
    assert all(np.isnan(comp[key]).all() for key in ("dWax", "dWaa", "dba"))


@pytest.mark.parametrize("form", [*LENGTH_FORMS.values(), lambda lengths: lengths.astype(float)])
def test_forms_of_lengths(form):
    batch = ragged_batch()
    da = make_cotangent(rng(1), batch)
    other = batch._replace(seq_lengths=form(LENGTHS))
    assert_equal(run(fastrnn, other, da), run(fastrnn, batch, da))


def run_cell(module, batch, da_next):
    at, yt_pred, cache = module.rnnCell_forward(batch.x[..., 0], batch.a0, batch.parameters)
    return {"a": at, "y_pred": yt_pred, **module.rnnCell_backward(da_next, cache)}


def one_step(shape):
    return shape._replace(T=1)


@given(batches(shape=several_tiles().map(one_step)), memory_orders(), seeds())
def test_cell_against_the_reference(batch, order, seed):
    da_next = MEMORY_ORDERS[order](make_cotangent(rng(seed), batch)[..., 0])
    assert_accurate(run_cell, batch, da_next, neighbours=4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cell_cache(dtype):
    batch = ragged_batch(dtype)
    da_next, xt = make_cotangent(rng(1), batch)[..., 0], batch.x[..., 0]
    at, yt_pred, cache = fastrnn.rnnCell_forward(xt, batch.a0, batch.parameters)
    assert type(cache) is tuple
    assert cache[0] is at
    assert cache[3] is batch.parameters
    assert_equal(cache[1:3], (batch.a0, xt))
    comp = fastrnn.rnnCell_backward(da_next, cache)
    assert {array.dtype for array in (at, yt_pred, *comp.values())} == {np.dtype(dtype)}
    assert_equal(cache[1:3], (batch.a0, xt))
    assert_close(reference.rnnCell_backward(da_next, cache), comp, 1e-5)
    plain = reference.rnnCell_forward(xt, batch.a0, batch.parameters)[2]
    assert_close(fastrnn.rnnCell_backward(da_next, plain), comp, 1e-5)


@pytest.mark.parametrize("order", MEMORY_ORDERS)
def test_final_states(order):
    batch = ragged_batch(np.float32)
    a, _, _ = fastrnn.rnn_forward(*batch)
    ref = reference.final_states(a, LENGTHS)
    given_a = MEMORY_ORDERS[order](poison_padding(a, LENGTHS))
    before = given_a.copy()
    for form in LENGTH_FORMS.values():
        comp = fastrnn.final_states(given_a, form(LENGTHS))
        assert comp.dtype == np.float32
        assert_array_equal(comp, ref)
    comp[...] = 1
    assert_array_equal(given_a, before)
    for dtype, result in [("float64", "float64"), ("float16", "float32"), ("int8", "float64")]:
        assert fastrnn.final_states(a.astype(dtype), LENGTHS).dtype == result


def test_a_long_sequence_in_pieces():
    batch = ragged_batch()
    x, a0, parameters, _ = batch
    da = make_cotangent(rng(1), batch)
    ref = run(fastrnn, batch, da)

    lengths = [np.minimum(LENGTHS, 4), np.maximum(LENGTHS - 4, 0)]
    first, _, first_caches = fastrnn.rnn_forward(x[:, :, :4], a0, parameters, lengths[0])
    middle = fastrnn.final_states(first, lengths[0])
    second, _, second_caches = fastrnn.rnn_forward(x[:, :, 4:], middle, parameters, lengths[1])
    assert_allclose(np.concatenate([first, second], axis=2), ref["a"], rtol=1e-13, atol=1e-14)

    last = fastrnn.rnn_backward(da[:, :, 4:], second_caches)
    through = da[:, :, :4].copy()
    started = lengths[0] > 0
    through[:, started, lengths[0][started] - 1] += last["da0"][:, started]
    comp = fastrnn.rnn_backward(through, first_caches)
    comp["dx"] = np.concatenate([comp["dx"], last["dx"]], axis=2)
    for key in ("dWax", "dWaa", "dba"):
        comp[key] += last[key]
    assert_close({key: ref[key] for key in comp}, comp, 1e-12)
