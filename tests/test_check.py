"""What `_check` returns: values, dtypes, and the caller's own arrays wherever they will do."""

import fractions
from collections import UserDict, defaultdict

import numpy as np
import pytest
from hypothesis import given
from numpy.random import default_rng as rng
from numpy.testing import assert_array_equal
from strategies import LENGTH_FORMS, MEMORY_ORDERS, Batch, batches, make_batch, make_lengths

from fastrnn import _check, _conform, reference
from fastrnn.kernels import stages

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
SIZES = {"n_x": 3, "n_a": 4, "n_y": 2, "m": 5, "T": 6}
KEYS = ("Wax", "Waa", "Wya", "ba", "by")


def unaligned(array):
    """Copy an array to an address, and to strides, that are no multiple of its item size."""
    packed = np.zeros(array.shape, [("byte", "u1"), ("item", array.dtype)])
    packed["item"] = array
    return packed["item"]


CONVERSIONS = {
    "big_endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "unaligned": unaligned,
    "nested_lists": lambda array: array.tolist(),
    "subclass": lambda array: array.view(type("Subclass", (np.ndarray,), {})),
}


def check_forward(batch):
    """Run `forward_arguments`; return the arrays by name, and the lengths."""
    x, a0, weights, lengths, total = _check.forward_arguments(*batch)
    assert total == lengths.sum()
    return {"x": x, "a0": a0, **dict(zip(KEYS, weights, strict=True))}, lengths


def assert_view(comp, array):
    """It is a view of its own, which shows all that the array does."""
    assert comp is not array
    assert _conform.same_numbers(comp, array)


def assert_ready(array, dtype):
    assert type(array) is np.ndarray
    assert array.dtype == dtype
    assert array.dtype.isnative
    assert array.flags.aligned


@given(batch=batches())
def test_arrays_of_one_dtype_are_not_copied(batch):
    comp, lengths = check_forward(batch)
    for name, array in batch.arrays.items():
        assert_view(comp[name], array)
    assert_array_equal(lengths, batch.seq_lengths)


@given(batch=batches())
def test_the_fast_decision_agrees_with_the_thorough_one(batch):
    weights = tuple(batch.parameters[key] for key in KEYS)
    named = {"x": batch.x, "a0": batch.a0}
    fitting = _conform.fit(batch.x, 3, (batch.a0,), weights)
    for arrays, found in (fitting, _conform.conform(named, weights)):
        for comp, ref in zip([*arrays, *found], [*named.values(), *weights], strict=True):
            assert_view(comp, ref)


@pytest.mark.parametrize("order", MEMORY_ORDERS)
def test_the_cell_takes_any_memory_order_without_a_copy(order):
    batch = make_batch(rng(0), **SIZES).in_order(order)
    xt, a_prev, weights = _check.cell_arguments(batch.x[:, :, 0], batch.a0, batch.parameters)
    assert_view(xt, batch.x[:, :, 0])
    assert_view(a_prev, batch.a0)
    for key, weight in zip(KEYS, weights, strict=True):
        assert_view(weight, batch.parameters[key])


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
@pytest.mark.parametrize("name", ["x", "a0", *KEYS])
def test_other_forms_of_an_array_are_converted(name, convert):
    batch = make_batch(rng(1), **SIZES)
    comp, _ = check_forward(batch.replaced(**{name: convert(batch.arrays[name])}))
    for key, ref in batch.arrays.items():
        assert_ready(comp[key], FLOAT64)
        assert_array_equal(comp[key], ref)


def test_matrices_are_taken_for_their_arrays():
    batch = make_batch(rng(2), **SIZES)
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(batch.parameters["Waa"])
    comp, _ = check_forward(batch.replaced(Waa=matrix))
    assert_ready(comp["Waa"], FLOAT64)


@pytest.mark.parametrize(
    ("x", "others", "dtype"),
    [
        ("f4", "f4", "f4"),
        ("f8", "f8", "f8"),
        ("f2", "f2", "f4"),
        ("f2", "f8", "f8"),
        ("f4", "f8", "f8"),
        ("f8", "f4", "f8"),
        ("i8", "f4", "f4"),
        ("?", "f4", "f4"),
        ("u1", "f8", "f8"),
        ("f2", "i8", "f4"),
        ("i8", "i4", "f8"),
        ("?", "?", "f8"),
        (">f4", "f4", "f4"),
        (">f4", ">f8", "f8"),
    ],
)
def test_the_computing_dtype_is_that_of_the_floating_arguments(x, others, dtype):
    batch = make_batch(rng(3), **SIZES).map(np.round)
    passed = batch.astype(others).replaced(x=batch.x.astype(x))
    comp, _ = check_forward(passed)
    for name, array in passed.arrays.items():
        assert_ready(comp[name], np.dtype(dtype))
        assert_array_equal(comp[name], array)


def test_lists_without_fractions_take_no_part_in_the_dtype():
    batch = make_batch(rng(4), **SIZES, dtype=np.float32)
    comp, _ = check_forward(batch.replaced(x=np.ones(batch.x.shape, int).tolist()))
    assert_ready(comp["x"], FLOAT32)


class KeysInAList(UserDict):
    def keys(self):
        return []


@pytest.mark.parametrize("mapping", [UserDict, lambda items: defaultdict(list, items), KeysInAList])
def test_parameters_may_be_any_mapping_and_have_other_keys(mapping):
    batch = make_batch(rng(5), **SIZES)
    parameters = mapping({"step": "many", **batch.parameters})
    comp, _ = check_forward(batch._replace(parameters=parameters))
    for key in KEYS:
        assert_view(comp[key], batch.parameters[key])


def test_a_missing_key_is_not_added():
    batch = make_batch(rng(5), **SIZES)
    parameters = defaultdict(list, batch.parameters)
    del parameters["ba"]
    with pytest.raises(ValueError, match=r"parameters must have the keys .* got none named ba$"):
        check_forward(batch._replace(parameters=parameters))
    assert "ba" not in parameters


@pytest.mark.parametrize("sizes", [{"m": 0}, {"T": 0}, {"n_x": 0}, {"m": 0, "T": 0}])
def test_sizes_may_be_0(sizes):
    batch = make_batch(rng(6), **(SIZES | sizes))
    comp, lengths = check_forward(batch)
    for name, array in batch.arrays.items():
        assert_view(comp[name], array)
    assert lengths.shape == (batch.shape.m,)


def test_predictions_of_no_class_are_refused():
    batch = make_batch(rng(7), **(SIZES | {"n_y": 0}))
    with pytest.raises(ValueError, match="Wya must have a row for each of n_y >= 1 classes"):
        check_forward(batch)


LENGTHS = {
    **LENGTH_FORMS,
    "int8": lambda lengths: lengths.astype(np.int8),
    "int16": lambda lengths: lengths.astype(np.int16),
    "uint16": lambda lengths: lengths.astype(np.uint16),
    "uint32": lambda lengths: lengths.astype(np.uint32),
    "uint64": lambda lengths: lengths.astype(np.uint64),
    "big_endian": lambda lengths: lengths.astype(">i8"),
    "whole_float16": lambda lengths: lengths.astype(np.float16),
    "whole_float64": lambda lengths: lengths.astype(np.float64),
    "whole_longdouble": lambda lengths: lengths.astype(np.longdouble),
    "list_of_floats": lambda lengths: lengths.astype(float).tolist(),
    "list_of_scalars": list,
    "list_of_0d": lambda lengths: [np.array(length) for length in lengths],
    "mixed": lambda lengths: [float(lengths[0]), *lengths[1:].tolist()],
    "read_only": MEMORY_ORDERS["read_only"],
    "strided": MEMORY_ORDERS["strided"],
}


@pytest.mark.parametrize("form", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("kind", ["zero", "full", "ragged"])
def test_lengths_of_every_form(form, kind):
    ref = make_lengths(rng(8), m=9, T=20, kind=kind)
    comp, total = _check.lengths(form(ref), 9, 20)
    assert total == sum(ref)
    assert comp.dtype == np.int64
    assert_array_equal(comp, ref)


def test_what_was_checked_cannot_change_any_more():
    """Another thread may write to an array while it is checked, or later."""
    lengths, labels = np.array([3, 0, 4]), np.array([1, 0, 2])
    assert not np.shares_memory(_check.lengths(lengths, 3, 4)[0], lengths)
    assert not np.shares_memory(_check.labels(labels, 3, 4, 3, lengths), labels)


def test_labels_are_copied_before_they_are_checked(monkeypatch):
    labels = np.array([1, 0, 2])
    plain_where = np.where

    def where(*arguments):
        labels[...] = 99  # as another thread could, between the check and its result
        return plain_where(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_check.np, "where", where)
        comp = _check.labels(labels, 3, 4, 3, np.array([3, 3, 4]))
    assert_array_equal(comp, [1, 0, 2])


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint64])
def test_lengths_are_copied_before_they_are_checked(dtype, monkeypatch):
    lengths, wrong = np.array([3, 0, 4], dtype), np.array([3, 0, 9], dtype)

    def add_lengths(*arguments):
        total = stages.add_lengths(*arguments)
        lengths[...], wrong[...] = 99, 0  # as another thread could, after the check
        return total

    monkeypatch.setattr(_check, "add_lengths", add_lengths)
    comp, total = _check.lengths(lengths, 3, 4)
    assert_array_equal(comp, [3, 0, 4])
    assert total == 7
    wrong[...] = 3, 0, 9
    with pytest.raises(ValueError, match="got 9 at index 2"):
        _check.lengths(wrong, 3, 4)


def test_a_list_of_lengths_is_copied_before_it_is_checked(monkeypatch):
    given = [3, 0, 4]

    def largest(numbers):
        result = max(numbers)
        given[:] = 99, 99, 99
        return result

    monkeypatch.setattr(_check, "max", largest, raising=False)
    comp, total = _check.lengths(given, 3, 4)
    assert given == [99, 99, 99]
    assert_array_equal(comp, [3, 0, 4])
    assert total == 7


@pytest.mark.parametrize("given", [[1, -1, 2], [5, 0], [2, 9, 0, -7]])
def test_lengths_out_of_range_are_no_sum(given):
    with pytest.raises(ValueError, match=r"must lie in 0\.\.4"):
        _check.lengths(np.array(given), len(given), 4)


@pytest.mark.parametrize("none", [[], (), np.array([]), np.array([], int), range(0)])
def test_lengths_of_no_sample(none):
    assert _check.lengths(none, 0, 4)[0].shape == (0,)


def test_gradients_are_converted_to_the_dtype_of_the_forward_pass():
    da = rng(9).standard_normal((2, 3, 4))
    assert_view(_check.floating("da", da, (2, 3, 4), FLOAT64, "a"), da)
    for passed in (da, da.tolist(), da.astype(">f8"), unaligned(da)):
        comp = _check.floating("da", passed, (2, 3, 4), FLOAT32, "a")
        assert_ready(comp, FLOAT32)
        assert_array_equal(comp, da.astype(np.float32))


def test_numbers_too_large_for_float32_become_infinite_without_a_warning():
    da = np.array([1e300, -1e300, np.nan, 1.0])
    comp = _check.floating("da", da, (4,), FLOAT32, "a")
    assert_array_equal(comp, np.array([np.inf, -np.inf, np.nan, 1.0], np.float32))


@pytest.mark.parametrize("dtype", ["i1", "i4", "i8", "u1", "u8", ">i4", "list"])
def test_labels_are_cleared_where_they_do_not_count(dtype):
    lengths = np.array([3, 0, 2])
    of_steps = np.array([[1, 0, 1], [77, 1, 0], [0, 1, 99]])
    of_sequences = np.array([1, 88, 0])
    for labels, ref in [
        (of_steps, [[1, 0, 1], [-1, -1, -1], [0, 1, -1]]),
        (of_sequences, [1, -1, 0]),
    ]:
        passed = labels.tolist() if dtype == "list" else labels.astype(dtype)
        comp = _check.labels(passed, 3, 3, 2, lengths)
        assert comp.dtype == np.int64
        assert not np.shares_memory(comp, passed)
        assert_array_equal(comp, ref)


def test_labels_that_are_absent():
    lengths = np.array([2, 1])
    assert_array_equal(_check.labels([-1, 0], 2, 2, 1, lengths), [-1, 0])
    assert _check.labels([], 0, 4, 1, np.array([], int)).shape == (0,)
    assert _check.labels([[], []], 2, 0, 1, np.array([0, 0])).shape == (2, 0)


def test_the_largest_unsigned_label_is_not_taken_for_none():
    labels = np.array([np.iinfo(np.uint64).max, 0], np.uint64)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, .* got 18446744073709551615"):
        _check.labels(labels, 2, 2, 3, np.array([1, 1]))


def test_the_cell_cache_is_not_copied():
    batch = make_batch(rng(10), **SIZES)
    _, _, cache = reference.rnnCell_forward(batch.x[:, :, 0], batch.a0, batch.parameters)
    *arrays, weights = _check.cell_cache(cache)
    for comp, ref in zip(arrays, cache, strict=False):
        assert_view(comp, ref)
    for key, weight in zip(KEYS, weights, strict=True):
        assert_view(weight, batch.parameters[key])


def test_the_cell_cache_is_converted():
    batch = make_batch(rng(10), **SIZES, dtype=np.float16)
    _, _, cache = reference.rnnCell_forward(batch.x[:, :, 0], batch.a0, batch.parameters)
    *arrays, weights = _check.cell_cache(list(cache))
    for comp, ref in zip(arrays, cache, strict=False):
        assert_ready(comp, FLOAT32)
        assert_array_equal(comp, ref)
    assert all(weight.dtype == FLOAT32 for weight in weights)


@given(batch=batches())
def test_plain_caches_are_those_of_the_reference(batch):
    caches = reference.rnn_forward(*batch)[2]
    steps, x, lengths, total = _check.plain_caches(*caches)
    assert total == lengths.sum()
    assert_view(x, batch.x)
    assert_array_equal(lengths, batch.seq_lengths)
    assert len(steps) == len(caches[0])
    for step, ((a_next, a_prev, xt, parameters), active_batch) in zip(
        steps, caches[0], strict=True
    ):
        given = [a_next, a_prev, xt, *map(parameters.get, KEYS)]
        for comp, ref in zip([*step[:3], *step.weights], given, strict=True):
            assert_view(comp, ref)
        assert_array_equal(step.active_batch, active_batch)


def test_plain_caches_of_mixed_dtypes_come_in_one():
    batch = make_batch(rng(11), **SIZES, dtype=np.float32)
    mixed: Batch = batch.replaced(Wya=batch.parameters["Wya"].astype(np.float64))
    steps, x, *_ = _check.plain_caches(*reference.rnn_forward(*mixed)[2])
    assert steps
    for step in steps:
        assert {a.dtype for a in (x, step.a_next, step.a_prev, step.xt, *step.weights)} == {FLOAT64}


def test_parameters_are_checked_against_a_forward_pass():
    parameters = make_batch(rng(12), **SIZES).parameters
    weights = _check.parameter_arrays(parameters, 3, 4, 2, FLOAT64)
    for key, weight in zip(KEYS, weights, strict=True):
        assert_view(weight, parameters[key])
    for weight in _check.parameter_arrays(parameters, 3, 4, 2, FLOAT32):
        assert_ready(weight, FLOAT32)
    with pytest.raises(ValueError, match=r"Wya must .* n_y = 3 as in the forward pass.* got \(2, "):
        _check.parameter_arrays(parameters, 3, 4, 3, FLOAT64)
    with pytest.raises(ValueError, match=r"Waa must .* n_a = 5 as in the forward pass"):
        _check.parameter_arrays(parameters, 3, 5, 2, FLOAT64)
    with pytest.raises(ValueError, match=r"Wax must .* n_x = 7 as in the forward pass.* got \(4, "):
        _check.parameter_arrays(parameters, 7, 4, 2, FLOAT64)


@pytest.mark.parametrize("value", [0, 3, np.int8(3), np.uint64(3), np.array(3)])
def test_dimensions(value):
    comp = _check.dimension("n_x", value)
    assert type(comp) is int
    assert comp == value


@pytest.mark.parametrize(
    "value", [2, 0.5, np.float16(0.5), np.int32(2), np.array(0.5), fractions.Fraction(1, 2)]
)
def test_positive_numbers(value):
    comp = _check.positive_number("learning_rate", value)
    assert type(comp) is float
    assert comp == value


def test_choices():
    assert _check.choice("reduction", "sum", ("mean", "sum")) == "sum"


@pytest.mark.parametrize(
    ("check", "value", "exception", "message"),
    [
        ("dimension", -1, ValueError, "NAME must be 0 or more, got -1"),
        ("dimension", True, TypeError, "NAME must be an integer, got True of type bool"),
        ("dimension", np.False_, TypeError, "NAME must be an integer, got "),
        ("dimension", 3.0, TypeError, "NAME must be an integer, got 3.0 of type float"),
        ("dimension", None, TypeError, "NAME must be an integer, got an object of type NoneType"),
        ("dimension", [3], TypeError, "NAME must be an integer, got an object of type list"),
        ("dimension", 10**30, ValueError, "NAME must leave room to address the result, got 10000"),
        ("positive_number", 0, ValueError, "NAME must be a finite number above 0, got 0"),
        ("positive_number", np.nan, ValueError, "NAME must be a finite number above 0, got nan"),
        ("positive_number", np.inf, ValueError, "NAME must be a finite number above 0, got inf"),
        ("real_number", True, TypeError, "NAME must be a real number, got True of type bool"),
        ("real_number", "1", TypeError, "NAME must be a real number, got '1' of type str"),
        ("real_number", 1j, TypeError, "NAME must be a real number, got 1j of type complex"),
        ("real_number", np.ones(1), TypeError, "NAME must be a real number, got an array of dtype"),
        ("real_number", 10**400, ValueError, "NAME must be in the range of float64"),
        ("positive_number", "1" * 50, TypeError, "NAME must be a real number, got an object of"),
    ],
)
def test_errors_on_numbers(check, value, exception, message):
    with pytest.raises(exception) as caught:
        getattr(_check, check)("NAME", value)
    assert caught.type is exception
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("refused", "exception", "message"),
    [
        (lambda huge: _check.integer("n", huge), ValueError, "n must be an integer of up to 1024"),
        (lambda huge: _check.lengths([1, huge], 2, 3), ValueError, r"seq_lengths\[1\] must be an"),
        (lambda huge: _check.numeric("x", huge), TypeError, "x must be .* an object of type int"),
        (
            lambda huge: _check.choice("kind", huge, ["a"]),
            ValueError,
            "kind must be one of 'a', got",
        ),
    ],
)
def test_errors_on_integers_that_python_does_not_write_out(refused, exception, message):
    with pytest.raises(exception, match=message):
        refused(10**5000)


@pytest.mark.parametrize("value", ["max", None, np.ones(2)])
def test_errors_on_choices(value):
    with pytest.raises(ValueError, match="reduction must be one of 'mean', 'sum', got"):
        _check.choice("reduction", value, ("mean", "sum"))


class Unreadable:
    """Something whose conversion to an array fails with a certain error, as a tensor's may."""

    def __init__(self, error):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        raise self.error


@pytest.mark.parametrize(
    ("error", "exception"),
    [
        (RuntimeError("requires grad"), TypeError),
        (TypeError("on another device"), TypeError),
        (ValueError("too small"), ValueError),
        (OverflowError("too large"), ValueError),
    ],
)
def test_an_array_that_cannot_be_had_is_named(error, exception):
    with pytest.raises(exception, match=f"^x must be .* got an object of type Unreadable: {error}"):
        _check.softmax_argument(Unreadable(error))
