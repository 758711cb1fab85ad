"""Numbers at the ends of their range, and over very many steps."""

import numpy as np
import pytest
from accuracy import assert_accurate, run
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal
from oracles import central_differences
from strategies import Shape, make_batch, make_cotangent, make_labels

import fastrnn
from fastrnn import reference

DTYPES = ["float32", "float64"]
SMALL, BLOCKS, UNITS = Shape(3, 19, 5, 7, 6), Shape(12, 64, 9, 150, 12), Shape(40, 250, 9, 15, 9)
SHAPES = [SMALL, BLOCKS, UNITS]
BY_SAMPLE = ("a", "y_pred", "dx", "da0")


def scaled(batch, **factors):
    arrays = {key: batch.arrays[key] * batch.x.dtype.type(by) for key, by in factors.items()}
    return batch.replaced(**arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [[10_000, 4321, 9_999], [10_000] * 3])
def test_ten_thousand_steps_drift_no_more_than_numpy(lengths, dtype):
    batch = make_batch(rng(0), 3, 9, 4, 3, 10_000, dtype, lengths)
    da = make_cotangent(rng(1), batch)
    assert_accurate(run, batch, da)
    if dtype == "float32":  # the last steps on their own: an error that grows shows there first
        wide = batch.astype(float)
        exact = reference.rnn_forward(*wide)[0][:, :, -1000:]
        errors = {
            module: np.abs(module.rnn_forward(*batch)[0][:, :, -1000:] - exact).max()
            for module in (fastrnn, reference)
        }
        assert errors[fastrnn] <= 4 * errors[reference]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_saturated_states(size, dtype):
    """States are 1 or -1, so that nothing goes back through them."""
    batch = scaled(make_batch(rng(0), *SMALL, dtype, "full"), x=size)
    ref, comp = (
        run(module, batch, make_cotangent(rng(1), batch)) for module in (reference, fastrnn)
    )
    saturated = np.abs(comp["a"]) == 1
    assert saturated.mean() > 0.99
    assert_allclose(comp["a"], ref["a"], rtol=1e-5)
    assert_allclose(comp["y_pred"], ref["y_pred"], rtol=1e-4)
    for key in ("dx", "da0", "dWax", "dWaa", "dba"):
        assert np.isfinite(comp[key]).all()
        assert_allclose(
            comp[key], ref[key], rtol=1e-4, atol=1e-4 * np.abs(ref[key]).max(), err_msg=key
        )


def test_saturated_to_the_last_bit_gives_no_gradient():
    batch = make_batch(rng(0), *SMALL, "float32", "full")
    batch = batch.replaced(x=np.abs(batch.x) + 1, Wax=np.full((19, 3), 1e30, np.float32))
    comp = run(fastrnn, batch, np.full((19, 7, 6), 1e30, np.float32))
    assert_array_equal(comp["a"], 1)
    for key in ("dx", "da0", "dWax", "dWaa", "dba"):
        assert_array_equal(comp[key], 0)


@pytest.mark.parametrize("gain", [4.0, 8.0])
def test_gradients_near_saturation_by_the_exact_derivative(gain):
    """One step, where the derivative of tanh is 1 / cosh**2: down to 1e-7 here."""
    n_a, m = 19, 7
    batch = make_batch(rng(0), 3, n_a, 2, m, 1, "float64", "full")
    z = gain * np.sign(batch.a0)
    batch = batch.replaced(x=np.zeros_like(batch.x), Waa=np.eye(n_a), a0=z, ba=np.zeros((n_a, 1)))
    da = make_cotangent(rng(1), batch)
    comp = run(fastrnn, batch, da)
    a = comp["a"][..., 0]
    # What the nearest float64 to tanh can tell of the derivative, and no less.
    rounding = np.spacing(1.0) / (1 - np.abs(a))
    ref = da[..., 0] / np.cosh(z) ** 2
    assert np.all(np.abs(comp["da0"] - ref) <= 2 * rounding * np.abs(ref))
    assert_allclose(comp["da0"], da[..., 0] * ((1 - a) * (1 + a)), rtol=1e-15)


@pytest.mark.parametrize("gain", [2.0, 5.0])
@pytest.mark.parametrize("name", ["x", "a0", "Wax", "Waa", "ba"])
def test_gradients_near_saturation_by_central_differences(name, gain):
    batch = scaled(make_batch(rng(0), 2, 4, 2, 3, 3, lengths=[3, 1, 2]), Wax=gain, Waa=gain)
    da = make_cotangent(rng(1), batch)
    assert (np.abs(fastrnn.rnn_forward(*batch)[0]) > 0.99).mean() > 0.1

    def loss(array):
        return float(np.sum(da * fastrnn.rnn_forward(*batch.replaced(**{name: array}))[0]))

    ref = central_differences(loss, batch.arrays[name])
    assert_allclose(run(fastrnn, batch, da)["d" + name], ref, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormal_numbers_are_kept(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    batch = make_batch(rng(0), *SMALL, dtype, "full")
    small = batch.x.dtype.type(1000) * tiny
    zero = {key: np.zeros_like(batch.arrays[key]) for key in ("a0", "ba", "by")}
    batch = batch.replaced(x=np.full_like(batch.x, small), **zero)
    da = np.full((19, 7, 6), small)
    comp, ref = (run(module, batch, da) for module in (fastrnn, reference))
    for key in ("a", "dx", "da0", "dba"):
        assert 0 < np.abs(comp[key]).max() < np.finfo(dtype).tiny, key
        assert_allclose(comp[key], ref[key], rtol=0, atol=float(64 * tiny), err_msg=key)
    # Nor do the kernels leave the processor in a mode that flushes them.
    assert small * batch.x.dtype.type(0.5) != 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ["x", "a0", "da"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_value_that_is_not_finite_stays_in_its_sample(shape, dtype, name, value):
    """In a real step; other samples have the same bits as without it."""
    batch = make_batch(rng(0), *shape, dtype, "full")
    da = make_cotangent(rng(1), batch)
    arrays = {"x": batch.x.copy(), "a0": batch.a0.copy(), "da": da.copy()}
    sample = shape.m - 2
    arrays[name][(1, sample, 2) if name != "a0" else (1, sample)] = value
    wrong = batch.replaced(x=arrays["x"], a0=arrays["a0"])
    ref, comp = run(fastrnn, batch, da), run(fastrnn, wrong, arrays["da"])
    others = np.arange(shape.m) != sample
    for key in BY_SAMPLE:
        assert comp[key][:, others].tobytes() == ref[key][:, others].tobytes(), key
    touched = {"x": ("a", "dx"), "a0": ("a", "dx"), "da": ("dx", "da0")}[name]
    assert all(np.any(comp[key][:, sample] != ref[key][:, sample]) for key in touched)
    if np.isnan(value):
        assert all(np.isnan(comp[key][:, sample]).any() for key in touched)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_output_layer_keeps_it_in_its_sample(shape, dtype):
    batch = make_batch(rng(0), *shape, dtype, "full")
    labels = make_labels(rng(1), shape.n_y, (shape.m, shape.T))
    sample = shape.m // 2
    labels[sample] = 0
    _, y_pred, caches = fastrnn.rnn_forward(*batch)
    ref = fastrnn.output_backward(y_pred, labels, caches)[1]["da"]
    y_pred[:, sample] = np.nan
    loss, gradients = fastrnn.output_backward(y_pred, labels, caches)
    others = np.arange(shape.m) != sample
    assert np.isnan(loss)
    assert np.isnan(gradients["da"][:, sample]).all()
    assert gradients["da"][:, others].tobytes() == ref[:, others].tobytes()
