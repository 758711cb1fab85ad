"""`pad_sequences` against the reference: values, dtypes, memory order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng as rng
from numpy.testing import assert_array_equal
from strategies import MEMORY_ORDERS, dtypes, make_sequences, memory_orders, seeds

from fastrnn import reference
from fastrnn.sequences import pad_sequences


def assert_padded(comp, ref):
    comp_x, comp_lengths = comp
    ref_x, ref_lengths = ref
    assert comp_lengths == ref_lengths
    assert all(type(length) is int for length in comp_lengths)
    assert type(comp_x) is np.ndarray
    assert comp_x.dtype == ref_x.dtype
    assert comp_x.flags.f_contiguous
    assert comp_x.flags.owndata
    assert_array_equal(comp_x, ref_x)


@given(
    seed=seeds(),
    n_x=st.integers(0, 5),
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=7),
    dtype=dtypes(),
    order=memory_orders(),
    extra=st.none() | st.integers(0, 3),
    value=st.sampled_from([0.0, -1.5, np.nan, np.inf, 3]),
)
def test_padding_is_that_of_the_reference(seed, n_x, lengths, dtype, order, extra, value):
    sequences = make_sequences(rng(seed), n_x, lengths, dtype)
    sequences = [MEMORY_ORDERS[order](sequence) for sequence in sequences]
    max_len = None if extra is None else max(lengths) + extra
    comp = pad_sequences(sequences, max_len, value)
    ref = reference.pad_sequences(sequences, max_len, value)
    assert_padded(comp, ref)


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (["f4", "f4"], "f4"),
        (["f2", "f2"], "f4"),
        (["f4", "f8"], "f8"),
        (["f2", "i8"], "f4"),
        (["f4", "i8"], "f4"),
        (["i8", "?"], "f8"),
        ([">f4", ">f4"], "f4"),
        ([">f4", ">f8"], "f8"),
    ],
)
@pytest.mark.parametrize("value", [0, 0.5, np.float64(0.1), np.float32(0.5), np.array(2)])
def test_the_dtype_comes_from_the_sequences_alone(given, dtype, value):
    sequences = make_sequences(rng(0), 3, [4, 2])
    sequences = [np.round(s).astype(kind) for s, kind in zip(sequences, given, strict=True)]
    comp, _ = pad_sequences(sequences, padding_value=value)
    ref = np.full((3, 2, 4), value, dtype)
    ref[:, 0], ref[:, 1, :2] = sequences
    assert comp.dtype == np.dtype(dtype)
    assert comp.dtype.isnative
    assert_array_equal(comp, ref)


def test_sequences_may_come_in_any_iterable():
    sequences = make_sequences(rng(1), 2, [3, 1, 2])
    ref = reference.pad_sequences(sequences)
    assert_padded(pad_sequences(tuple(sequences)), ref)
    assert_padded(pad_sequences(sequence for sequence in sequences), ref)
    assert_padded(pad_sequences({i: s for i, s in enumerate(sequences)}.values()), ref)


def test_an_array_is_an_iterable_of_sequences():
    array = rng(2).standard_normal((4, 2, 3))
    assert_padded(pad_sequences(array), reference.pad_sequences(list(array)))


def test_sequences_may_be_nested_lists_and_subclasses():
    sequences = make_sequences(rng(3), 2, [3, 1])
    ref = reference.pad_sequences(sequences)
    assert_padded(pad_sequences([sequences[0].tolist(), sequences[1]]), ref)
    assert_padded(pad_sequences([s.view(np.recarray) for s in sequences]), ref)


@pytest.mark.parametrize("max_len", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_max_len_is_of_any_integer_type(max_len):
    sequences = make_sequences(rng(4), 2, [3, 1])
    assert_padded(pad_sequences(sequences, max_len), reference.pad_sequences(sequences, 3))


def test_max_len_is_no_number_of_few_bits_any_more():
    assert pad_sequences([np.ones((2, 3))], np.int8(100))[0].shape == (2, 1, 100)


def test_sequences_of_no_step():
    comp, lengths = pad_sequences([np.empty((2, 0), np.float32)] * 3)
    assert comp.shape == (2, 3, 0)
    assert comp.dtype == np.float32
    assert lengths == [0, 0, 0]


def test_a_padding_value_beyond_float32_becomes_infinite_without_a_warning():
    comp, _ = pad_sequences(make_sequences(rng(5), 1, [2, 1], np.float32), padding_value=1e300)
    assert comp[0, 1, 1] == np.inf


def test_the_result_is_the_callers_own_and_the_sequences_stay():
    sequences = make_sequences(rng(6), 2, [3, 3])
    copies = [sequence.copy() for sequence in sequences]
    comp, _ = pad_sequences(sequences)
    comp[...] = 7
    assert_array_equal(sequences, copies)
