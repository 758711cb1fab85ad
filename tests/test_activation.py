"""tanh and exp: error over the whole range, special values, and the same bits in every lane."""

import decimal

import numpy as np
import pytest
from numba import njit
from numba.extending import intrinsic

from fastrnn.kernels import activation
from fastrnn.kernels.memory import pointer_to
from fastrnn.kernels.panels import lanes_at

FUNCTIONS = ["tanh", "exp"]
DTYPES = [np.float32, np.float64]

# In units in the last place; the docstring of the module has the largest that were measured.
LARGEST_ERROR = {
    ("tanh", np.float32): 2.56,
    ("tanh", np.float64): 2.63,
    ("exp", np.float32): 1.02,
    ("exp", np.float64): 1.05,
}


def loop_over(emit):
    """A loop over single elements, which LLVM may or may not vectorise."""

    @intrinsic
    def function(typingctx, x):
        def codegen(context, builder, signature, arguments):
            return emit(activation.Number(builder, arguments[0])).value

        return x(x), codegen

    @njit(error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


@njit(error_model="numpy")
def tanh_in_place(values, first, count):
    for i in range(0, count, lanes_at(pointer_to(values, 0))):
        activation.tanh_register(pointer_to(values, first + i))


@njit(error_model="numpy")
def lanes_of(values):
    return lanes_at(pointer_to(values, 0))


LOOPS = {name: loop_over(getattr(activation, f"{name}_of")) for name in FUNCTIONS}


def evaluate(name, x):
    out = np.empty_like(x)
    LOOPS[name](x, out)
    return out


def one_by_one(name, x):
    """Every element in a loop of its own, where no vector has room."""
    return np.concatenate([evaluate(name, x[i : i + 1]) for i in range(x.size)])


def spread(dtype, size, seed=3):
    """Arguments of every magnitude and both signs, the limits and NaN among them."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], size) * 10.0 ** rng.uniform(-30, 4, size)
    x[:6] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-310]
    return x.astype(dtype)


def last_place(exact):
    """Unit in the last place of float32 at each of the numbers `exact`."""
    finfo = np.finfo(np.float32)
    _, exponent = np.frexp(exact)
    return np.ldexp(1.0, np.maximum(exponent - 1, finfo.minexp) - finfo.nmant)


def largest_error32(name, x):
    comp = evaluate(name, x).astype(np.float64)
    ref = getattr(np, name)(x.astype(np.float64))
    return np.max(np.abs(comp - ref) / last_place(ref))


def exact64(name, x):
    with decimal.localcontext() as context:
        context.prec = 50
        power = decimal.Decimal(x).exp()
        return power if name == "exp" else (power - 1 / power) / (power + 1 / power)


def largest_error64(name, x):
    largest = 0.0
    finfo = np.finfo(np.float64)
    for argument, comp in zip(x.tolist(), evaluate(name, x).tolist(), strict=True):
        ref = exact64(name, argument)
        exponent = max(int(np.frexp(float(ref))[1]) - 1, finfo.minexp) - finfo.nmant
        error = abs(decimal.Decimal(comp) - ref) / decimal.Decimal(2) ** exponent
        largest = max(largest, float(error))
    return largest


def floats32(low, high, step):
    """Every `step`-th float32 from `low` to `high`, both positive."""
    first, last = np.array([low, high], np.float32).view(np.int32).tolist()
    return np.arange(first, last, step, dtype=np.int32).view(np.float32)


def test_tanh_error_float32():
    x = np.concatenate([floats32(2.0**-14, 11.0, 101), floats32(0.4, 0.7, 3)])
    assert 1.5 < largest_error32("tanh", x) <= LARGEST_ERROR["tanh", np.float32]


def test_exp_error_float32():
    positive = floats32(2.0**-26, 88.7, 101)
    x = np.concatenate([positive, -positive, -floats32(80.0, 104.0, 5)])
    assert 0.5 < largest_error32("exp", x) <= LARGEST_ERROR["exp", np.float32]


def test_tanh_error_float64():
    rng = np.random.default_rng(11)
    parts = [
        10.0 ** rng.uniform(-9, 1.3, 3000),
        rng.uniform(0, 20, 2000),
        rng.uniform(0.5, 0.6, 3000),
    ]
    assert 1.5 < largest_error64("tanh", np.concatenate(parts)) <= LARGEST_ERROR["tanh", np.float64]


def test_exp_error_float64():
    rng = np.random.default_rng(12)
    small = rng.choice([-1.0, 1.0], 1000) * 10.0 ** rng.uniform(-17, 0, 1000)
    parts = [rng.uniform(-745.1, 709.7, 3000), rng.uniform(-1, 1, 2000), small]
    parts.append(rng.uniform(-745.1, -708.0, 1000))
    assert 0.5 < largest_error64("exp", np.concatenate(parts)) <= LARGEST_ERROR["exp", np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_is_odd_bounded_and_saturates(dtype):
    x = np.abs(spread(dtype, 20000))[3:]
    comp = evaluate("tanh", x)
    assert np.array_equal(evaluate("tanh", -x), -comp)
    assert np.all(comp <= 1)
    limit = 9.02 if dtype is np.float32 else 19.07
    assert np.all(comp[x >= limit] == 1)
    assert np.count_nonzero(x >= limit) > 100


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_next_to_saturation(dtype):
    x = np.linspace(7, 10, 100001) if dtype is np.float32 else np.linspace(16, 20, 100001)
    comp = evaluate("tanh", x.astype(dtype))
    assert np.all(comp <= 1)
    assert np.all(np.diff(comp) >= -4 * np.finfo(dtype).epsneg)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_of_tiny_numbers_is_the_number(dtype):
    finfo = np.finfo(dtype)
    x = np.array(
        [
            finfo.smallest_subnormal,
            37 * finfo.smallest_subnormal,
            finfo.tiny / 3,
            finfo.tiny,
            finfo.eps / 4,
        ],
        dtype,
    )
    assert np.all(x > 0)
    assert np.array_equal(evaluate("tanh", x), x)
    zeros = evaluate("tanh", np.array([0.0, -0.0], dtype))
    assert np.array_equal(zeros, [0, 0])
    assert np.array_equal(np.signbit(zeros), [False, True])


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype):
    x = np.array([np.nan, np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    np.testing.assert_array_equal(evaluate("tanh", x), [np.nan, 1, -1, 1, -1])
    np.testing.assert_array_equal(evaluate("exp", x), [np.nan, np.inf, 0, np.inf, 0])
    assert np.array_equal(evaluate("exp", np.array([0.0, -0.0], dtype)), [1, 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_at_its_limits(dtype):
    largest = np.log(np.finfo(dtype).max)
    ends = np.array([np.nextafter(largest, dtype(0)), np.nextafter(largest, dtype(np.inf))])
    assert np.array_equal(np.isinf(evaluate("exp", ends)), [False, True])
    # Results below half of the smallest number round to zero.
    smallest = np.finfo(dtype).smallest_subnormal
    end = np.log(float(smallest)) - np.log(2.0)
    ends = np.array([end + 0.01, end - 0.01], dtype)
    assert np.array_equal(evaluate("exp", ends), [smallest, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_bits_wherever_an_element_falls(name, dtype):
    integer = np.dtype(f"i{np.dtype(dtype).itemsize}")
    x = spread(dtype, 140)
    ref = one_by_one(name, x).view(integer)
    for first in range(9):
        for count in [*range(1, 41), 96, 131]:
            part = slice(first, first + count)
            comp = evaluate(name, x[part]).view(integer)
            assert np.array_equal(comp, ref[part])


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_in_place(dtype):
    integer = np.dtype(f"i{np.dtype(dtype).itemsize}")
    x = spread(dtype, 140)
    ref = one_by_one("tanh", x).view(integer)
    for first in range(9):
        for count in range(0, 120, lanes_of(x)):
            part = slice(first, first + count)
            values = x.copy()
            tanh_in_place(values, first, count)
            comp = values.view(integer)
            assert np.array_equal(comp[part], ref[part])
            assert np.array_equal(np.delete(comp, part), np.delete(x.view(integer), part))
