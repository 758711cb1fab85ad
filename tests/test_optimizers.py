"""Clipping and optimizers against the textbook's formulas, their state, and what they refuse."""

import copy
import math

import numpy as np
import pytest
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal

from fastrnn import reference
from fastrnn.optimizers import SGD, Adam, clip_gradients

DTYPES = [np.float32, np.float64]
SHAPES = {"Wax": (4, 3), "Waa": (4, 4), "Wya": (2, 4), "ba": (4, 1), "by": (2, 1), "none": (0, 3)}
MAKERS = {
    "sgd": lambda parameters: SGD(parameters, learning_rate=0.05),
    "momentum": lambda parameters: SGD(parameters, learning_rate=0.05, momentum=0.9),
    "adam": lambda parameters: Adam(parameters, learning_rate=0.05),
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def draw(seed, dtype=np.float64, prefix=""):
    generator = rng(seed)
    return {
        prefix + name: generator.standard_normal(shape).astype(dtype)
        for name, shape in SHAPES.items()
    }


def draw_gradients(steps, dtype=np.float64):
    return [draw(1 + step, dtype, prefix="d") for step in range(steps)]


def assert_same(comp, ref):
    assert comp.keys() == ref.keys()
    for key in ref:
        assert_array_equal(comp[key], ref[key], err_msg=str(key))
        assert np.asarray(comp[key]).dtype == np.asarray(ref[key]).dtype, key


def textbook_sgd(parameter, gradients, learning_rate, momentum):
    """Equations 1 and 2 of Sutskever et al., with the learning rate outside of the velocity."""
    velocity = 0.0
    for gradient in gradients:
        velocity = momentum * velocity + gradient
        parameter = parameter - learning_rate * velocity
    return parameter


def textbook_adam(parameter, gradients, alpha, beta1, beta2, epsilon):
    """Algorithm 1 of Kingma and Ba, line by line."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        parameter = parameter - alpha * m_hat / (np.sqrt(v_hat) + epsilon)
    return parameter


# The tolerances are a few rounding errors of each dtype, over 20 steps of numbers of order 1.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}


@dtypes
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_sgd_is_that_of_the_textbook(dtype, momentum):
    start, gradients = draw(0, dtype), draw_gradients(20, dtype)
    comp = copy.deepcopy(start)
    optimizer = SGD(comp, 0.1, momentum)
    for given in gradients:
        optimizer.step(given)
    for name in SHAPES:
        own = [given["d" + name].astype(np.float64) for given in gradients]
        ref = textbook_sgd(start[name].astype(np.float64), own, 0.1, momentum)
        tolerance = TOLERANCE[dtype] * (1 + np.abs(ref).max(initial=0))
        assert_allclose(comp[name], ref, rtol=0, atol=tolerance, err_msg=name)
        assert comp[name].dtype == dtype


@dtypes
@pytest.mark.parametrize(
    "hyper_parameters",
    [(1e-3, 0.9, 0.999, 1e-8), (0.1, 0.5, 0.9, 1e-3), (0.1, 0.0, 0.0, 1e-8)],
)
def test_adam_is_that_of_the_textbook(dtype, hyper_parameters):
    start, gradients = draw(0, dtype), draw_gradients(20, dtype)
    comp = copy.deepcopy(start)
    optimizer = Adam(comp, *hyper_parameters)
    for given in gradients:
        optimizer.step(given)
    for name in SHAPES:
        own = [given["d" + name].astype(np.float64) for given in gradients]
        ref = textbook_adam(start[name].astype(np.float64), own, *hyper_parameters)
        assert_allclose(comp[name], ref, rtol=0, atol=TOLERANCE[dtype], err_msg=name)
        assert comp[name].dtype == dtype


def test_adam_has_the_defaults_of_the_paper():
    start, gradients = draw(0), draw_gradients(3)
    ref, comp = copy.deepcopy(start), copy.deepcopy(start)
    by_default, by_name = Adam(comp), Adam(ref, 0.001, beta1=0.9, beta2=0.999, epsilon=1e-8)
    for given in gradients:
        by_default.step(given)
        by_name.step(given)
    assert_same(comp, ref)


@makers
def test_merged_gradients_of_a_network_can_be_handed_over_whole(make):
    n_x, n_a, m, T = 3, 4, 5, 6
    parameters = {name: draw(0)[name] for name in ("Wax", "Waa", "Wya", "ba", "by")}
    x = rng(1).standard_normal((n_x, m, T))
    labels, lengths = np.array([0, 1, 0, 1, 1]), [6, 1, 0, 3, 4]

    def loss_and_gradients():
        _, y_pred, caches = reference.rnn_forward(x, np.zeros((n_a, m)), parameters, lengths)
        loss, gradients = reference.output_backward(y_pred, labels, caches)
        return loss, gradients | reference.rnn_backward(gradients["da"], caches)

    optimizer = make(parameters)
    before, gradients = loss_and_gradients()
    assert {"da", "dx", "da0"} <= gradients.keys()
    for _ in range(20):
        clip_gradients(gradients, 1.0)
        optimizer.step(gradients)
        after, gradients = loss_and_gradients()
    assert after < before / 2


@makers
def test_gradients_of_no_parameter_are_ignored(make):
    ref, comp = draw(0), draw(0)
    given = draw(1, prefix="d")
    optimizer = make(comp)
    make(ref).step(given)
    ignored = dict.fromkeys(("da", "dx", "da0", "dxt", "da_prev"), "not even an array")
    optimizer.step(given | ignored)
    assert_same(comp, ref)


@makers
def test_a_parameter_without_a_gradient_is_left_alone(make):
    # As if it had an optimizer of its own, which knows only of the steps that it took part in.
    ref, comp = draw(0), draw(0)
    alone, others = make({"Wax": ref["Wax"]}), make({k: v for k, v in ref.items() if k != "Wax"})
    together = make(comp)
    for step, given in enumerate(draw_gradients(6)):
        own = {"dWax": given.pop("dWax")}
        others.step(given)
        if step % 2:
            alone.step(own)
            given |= own
        together.step(given)
    assert_same(comp, ref)


def test_momentum_can_follow_a_schedule():
    parameters, velocity, ref = {"W": np.array([1.0])}, 0.0, 1.0
    optimizer = SGD(parameters, 0.1)
    for momentum in (0.9, 0.9, 0.0, 0.9):
        optimizer.momentum = momentum
        velocity = momentum * velocity + 1.0
        ref -= 0.1 * velocity
        optimizer.step({"dW": np.array([1.0])})
    assert_allclose(parameters["W"], ref, rtol=1e-15)


@makers
def test_learning_rate_can_follow_a_schedule(make):
    ref, comp = draw(0), draw(0)
    optimizer, fresh = make(comp), make(ref)
    rates = (0.1, 0.01, 0.0, np.float32(0.5), np.array(0.25))
    for rate, given in zip(rates, draw_gradients(5), strict=True):
        optimizer.learning_rate = rate
        optimizer.step(given)
        # An optimizer that was made with the rate and loaded the rest of the state.
        state = fresh.state_dict() | {"learning_rate": np.array(float(rate))}
        fresh = make(ref)
        fresh.load_state_dict(state)
        fresh.step(given)
    assert_same(comp, ref)
    before = copy.deepcopy(comp)
    optimizer.learning_rate = 0
    optimizer.step(draw(9, prefix="d"))
    assert_same(comp, before)


@makers
@dtypes
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_arrays_are_updated_in_place_in_any_layout(make, dtype, order):
    def lay_out(array):
        if order != "strided":
            return array.copy(order=order)
        room = np.zeros((2 * array.shape[0], array.shape[1], 2), dtype)
        room[::2, ::-1, 1] = array
        return room[::2, ::-1, 1]

    ref, given = draw(0, dtype), draw(1, dtype, prefix="d")
    comp = {name: lay_out(array) for name, array in ref.items()}
    arrays = dict(comp)
    make(ref).step(given)
    make(comp).step({key: lay_out(array) for key, array in given.items()})
    assert_same(comp, ref)
    assert all(comp[name] is arrays[name] for name in SHAPES)


@makers
def test_zero_dimensional_parameter(make):
    ref, comp = {"scale": np.array([2.0])}, {"scale": np.array(2.0)}
    one, other = make(ref), make(comp)
    for gradient in (0.5, -1.0):
        one.step({"dscale": [gradient]})
        other.step({"dscale": gradient})
    assert comp["scale"] == ref["scale"][0] != 2.0


@makers
def test_gradients_come_in_any_real_dtype_and_stay_as_they_are(make):
    given = {"dWax": np.arange(12).reshape(4, 3)}
    ref, comp = draw(0, np.float32), draw(0, np.float32)
    make(ref).step({"dWax": given["dWax"].astype(np.float32)})
    for kind in (np.int16, np.float16, np.float64, np.ndarray.tolist):
        converted = kind(given["dWax"])
        before = copy.deepcopy(converted)
        comp = draw(0, np.float32)
        make(comp).step({"dWax": converted})
        assert_same(comp, ref)
        assert_array_equal(converted, before)


@makers
def test_an_array_put_in_the_place_of_another_is_trained_from_then_on(make):
    ref, comp = draw(0), draw(0)
    one, other = make(ref), make(comp)
    replaced = comp["Wax"]
    comp["Wax"] = replaced.copy()
    given = draw(1, prefix="d")
    one.step(given)
    other.step(given)
    assert_same(comp, ref)
    assert_array_equal(replaced, draw(0)["Wax"])


@makers
@dtypes
def test_values_that_are_not_finite_go_where_they_belong_and_nowhere_else(make, dtype):
    ref, comp = draw(0, dtype), draw(0, dtype)
    given = draw(1, dtype, prefix="d")
    make(ref).step(given)
    given["dWax"][0, :] = np.nan, np.inf, np.finfo(dtype).max
    optimizer = make(comp)
    with np.errstate(all="raise"):
        optimizer.step(given)
        optimizer.step(dict.fromkeys(given, np.float64(1e300)) | given)
    assert np.isnan(comp["Wax"][0, 0])
    optimizer = make(comp := draw(0, dtype))
    optimizer.step(given)
    comp["Wax"][0] = ref["Wax"][0]
    assert_same(comp, ref)


@makers
@dtypes
def test_resumed_training_is_the_same_to_the_bit(make, dtype, tmp_path):
    ref, gradients = draw(0, dtype), draw_gradients(6, dtype)
    del gradients[1]["dby"]
    optimizer = make(ref)
    for given in gradients[:3]:
        optimizer.step(given)
    optimizer.learning_rate = 0.013
    comp = copy.deepcopy(ref)
    np.savez(tmp_path / "state.npz", **optimizer.state_dict())

    resumed = MAKERS["adam"](comp) if isinstance(optimizer, Adam) else SGD(comp, 1.0)
    with np.load(tmp_path / "state.npz") as state:
        resumed.load_state_dict(state)
    for given in gradients[3:]:
        optimizer.step(given)
        resumed.step(given)
    assert_same(comp, ref)
    assert_same(resumed.state_dict(), optimizer.state_dict())


@makers
def test_deep_copy_trains_on_by_itself(make):
    parameters = draw(0)
    optimizer = make(parameters)
    twin = copy.deepcopy(optimizer)
    ref = copy.deepcopy(parameters)
    twin.step(draw(1, prefix="d"))
    assert_same(parameters, ref)
    assert_same(optimizer.state_dict(), make(draw(0)).state_dict())


@makers
def test_state_is_copied_both_ways(make):
    optimizer = make(draw(0))
    optimizer.step(draw(1, prefix="d"))
    ref = copy.deepcopy(optimizer.state_dict())
    assert all(type(array) is np.ndarray for array in ref.values())

    handed_out = optimizer.state_dict()
    for array in handed_out.values():
        array[...] = 7
    assert_same(optimizer.state_dict(), ref)

    loaded = copy.deepcopy(ref)
    optimizer.load_state_dict(loaded)
    for array in loaded.values():
        array[...] = 7
    assert_same(optimizer.state_dict(), ref)


@makers
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda g: g.update(dWxx=g["dWax"]), ValueError, "keys of dWax, .*, got 'dWxx'"),
        (lambda g: g.update(Wax=g["dWax"]), ValueError, "got 'Wax'"),
        (lambda g: g.update(loss=0.5), ValueError, "got 'loss'"),
        (lambda g: g.update({3: 0.5}), TypeError, "got the key 3 of type int"),
        (lambda g: g.update(dby=g["dWax"]), ValueError, r"\['dby'\] must have shape \(2, 1\)"),
        (lambda g: g.update(dby=g["dby"].ravel()), ValueError, r"\['dby'\].* got \(2,\)"),
        (lambda g: g.update(dby=g["dby"] * 1j), TypeError, r"\['dby'\] must be an array"),
        (lambda g: g.update(dby=g["dby"].astype(str)), TypeError, r"\['dby'\] must be an array"),
        (lambda g: g.update(dby=None), TypeError, r"\['dby'\] must be an array"),
        (lambda g: g.update(dby=np.ma.array(g["dby"])), TypeError, "got a masked array"),
    ],
)
def test_bad_gradients_change_nothing(make, change, error, message):
    parameters = draw(0)
    optimizer = make(parameters)
    optimizer.step(draw(1, prefix="d"))
    ref, state = copy.deepcopy(parameters), optimizer.state_dict()
    given = draw(2, prefix="d")
    change(given)
    with pytest.raises(error, match=message):
        optimizer.step(given)
    assert_same(parameters, ref)
    assert_same(optimizer.state_dict(), state)


@makers
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p, o: p["by"].setflags(write=False), ValueError, r"\['by'\] must be writeable"),
        (lambda p, o: p.update(by=p["ba"]), ValueError, r"\['by'\] must be float64 of shape"),
        (lambda p, o: p.update(by=p["by"].astype("f4")), ValueError, "as before, got float32"),
        (
            lambda p, o: p.pop("by"),
            ValueError,
            "must have the keys of before, got no 'by'",
        ),
        (lambda p, o: setattr(o, "learning_rate", -1), ValueError, "learning_rate must be a fin"),
        (lambda p, o: setattr(o, "learning_rate", math.nan), ValueError, "learning_rate must be"),
        (lambda p, o: setattr(o, "learning_rate", "1"), TypeError, "learning_rate must be a real"),
    ],
)
def test_step_refuses_what_was_broken_since(make, change, error, message):
    parameters = draw(0)
    optimizer = make(parameters)
    change(parameters, optimizer)
    ref = copy.deepcopy(parameters)
    with pytest.raises(error, match=message):
        optimizer.step(draw(1, prefix="d"))
    assert_same(parameters, ref)


@makers
@pytest.mark.parametrize("gradients", [None, [("dWax", 0)], "dWax"])
def test_gradients_must_be_a_mapping(make, gradients):
    with pytest.raises(TypeError, match="gradients must be a mapping"):
        make(draw(0)).step(gradients)
    with pytest.raises(TypeError, match="gradients must be a mapping"):
        clip_gradients(gradients, 1.0)


@makers
@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ([1.0], TypeError, "parameters must be a mapping of names to arrays, got .* list"),
        ({"W": np.zeros(3, int)}, TypeError, r"parameters\['W'\] must be an array .* int64"),
        ({"W": np.zeros(3, np.float16)}, TypeError, "float32 or float64, got .* float16"),
        ({"W": np.zeros(3, complex)}, TypeError, "float32 or float64, got .* complex128"),
        ({"W": np.zeros(2, ">f4")}, TypeError, "float32 or float64, got .* >f4"),
        ({"W": [[0.0], [1.0, 2.0]]}, TypeError, "float32 or float64, got an object of type list"),
        ({"W": [0.0]}, TypeError, "float32 or float64, got an object of type list"),
        ({"W": np.ma.zeros(3)}, TypeError, "got a masked array"),
        ({"W": np.broadcast_to(1.0, 3)}, ValueError, "must be writeable, got a read-only array"),
    ],
)
def test_parameters_that_cannot_be_trained(make, parameters, error, message):
    with pytest.raises(error, match=message):
        make(parameters)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: SGD(p, -0.1), ValueError, "learning_rate must be a finite number of 0 or more"),
        (lambda p: SGD(p, math.inf), ValueError, "learning_rate must be .*, got inf"),
        (lambda p: SGD(p, None), TypeError, "learning_rate must be a real number, got .*None"),
        (lambda p: SGD(p, 0.1, momentum=1.0), ValueError, "momentum must be at least 0 and below"),
        (lambda p: SGD(p, 0.1, momentum=True), TypeError, "momentum must be a real number"),
        (lambda p: Adam(p, math.nan), ValueError, "learning_rate must be .*, got nan"),
        (lambda p: Adam(p, beta1=-0.1), ValueError, "beta1 must be at least 0 and below 1, got -0"),
        (lambda p: Adam(p, beta2=1), ValueError, "beta2 must be at least 0 and below 1, got 1"),
        (lambda p: Adam(p, epsilon=0), ValueError, "epsilon must be a finite number above 0"),
    ],
)
def test_bad_hyper_parameter(make, error, message):
    with pytest.raises(error, match=message):
        make(draw(0))


@makers
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("learning_rate"), ValueError, "got no learning_rate"),
        (lambda s: s.update(other=np.zeros(2)), ValueError, "got 'other'"),
        (lambda s: s.update(learning_rate=np.array(-1.0)), ValueError, "learning_rate must be"),
        (lambda s: s.update(learning_rate=np.ones(1)), ValueError, r"must have shape \(\)"),
        (lambda s: s.update(learning_rate=np.array(1)), TypeError, "must be float64, got .*int64"),
        (lambda s: s.update({last(s): np.zeros(9)}), (TypeError, ValueError), "none"),
        (lambda s: s.update({last(s): np.zeros((0, 3), "f4")}), TypeError, "none"),
        (lambda s: s.update({last(s): np.ma.zeros((0, 3))}), TypeError, "got a masked array"),
    ],
)
def test_bad_state_changes_nothing(make, change, error, message):
    optimizer = make(draw(0))
    optimizer.step(draw(1, prefix="d"))
    ref = optimizer.state_dict()
    state = {key: array + 1 for key, array in ref.items() if key.startswith("W")}
    state = ref | state
    change(state)
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(state)
    assert_same(optimizer.state_dict(), ref)


def last(state):
    return list(state)[-1]


def test_a_count_of_steps_stays_in_its_range():
    optimizer = Adam({"W": np.zeros(2)})
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"state\['W.steps'\] must be 0 or more and below"):
        optimizer.load_state_dict(state | {"W.steps": np.array(2**62)})
    optimizer.load_state_dict(state | {"W.steps": np.array(2**62 - 1)})


def test_state_of_another_kind():
    optimizer = Adam(draw(0))
    ref = optimizer.state_dict()
    with pytest.raises(TypeError, match="state must be a mapping"):
        optimizer.load_state_dict(list(ref))
    with pytest.raises(ValueError, match=r"got no beta1, .*'momentum'"):
        optimizer.load_state_dict(SGD(draw(0), 0.1).state_dict())
    with pytest.raises(ValueError, match=r"state\['Wax.steps'\] must be 0 or more .*, got -1"):
        optimizer.load_state_dict(ref | {"Wax.steps": np.array(-1)})
    with pytest.raises(ValueError, match=r"state\['Wax.mean_square'\] must be 0 or more"):
        optimizer.load_state_dict(ref | {"Wax.mean_square": ref["Wax.mean_square"] - 1})
    assert_same(optimizer.state_dict(), ref)


@makers
def test_an_initial_state_can_be_a_parameter(make):
    parameters = {"a0": np.zeros((2, 3)), "W": np.zeros(2)}
    make(parameters).step({"da0": np.ones((2, 3)), "dW": np.ones(2), "da": np.ones(4)})
    assert (parameters["a0"] == parameters["W"][0]).all()
    assert (parameters["a0"] < 0).all()


@makers
def test_a_gradient_may_be_another_parameter(make):
    ref = {"v": np.ones(3), "w": np.arange(3.0)}
    comp = copy.deepcopy(ref)
    make(ref).step({"dw": np.ones(3), "dv": ref["w"].copy()})
    make(comp).step({"dw": np.ones(3), "dv": comp["w"]})
    assert_same(comp, ref)


@makers
def test_a_gradient_may_be_part_of_another_parameter(make):
    ref = {"u": np.ones(2), "w": np.arange(6.0), "v": np.ones(3)}
    comp = copy.deepcopy(ref)
    gradients = {"dw": np.ones(6), "du": np.ones(2)}
    make(ref).step(gradients | {"dv": ref["w"][::2].copy()})
    make(comp).step(gradients | {"dv": comp["w"][::2]})
    assert_same(comp, ref)


@dtypes
@pytest.mark.parametrize("max_norm", [0.5, 3, 1e-3, 1e9, math.inf])
def test_clipping_is_that_of_the_paper(dtype, max_norm):
    comp = draw(0, dtype, prefix="d")
    comp["dnone"] = np.zeros((0, 3), dtype)
    before = copy.deepcopy(comp)
    counted = [key for key in comp if key[:2] in ("dW", "db")]
    together = np.concatenate([before[key].ravel() for key in counted]).astype(np.float64)
    ref_norm = np.sqrt(np.sum(together**2))

    comp_norm = clip_gradients(comp, max_norm)
    assert type(comp_norm) is float
    assert_allclose(comp_norm, ref_norm, rtol=1e-14)
    scale = min(1, max_norm / ref_norm)
    for key in counted:
        assert comp[key].dtype == dtype
        rtol = 2 * np.finfo(dtype).eps
        assert_allclose(comp[key], scale * before[key].astype(np.float64), rtol=rtol)
        if scale == 1:
            assert_array_equal(comp[key], before[key])


def test_clipping_spares_gradients_of_no_parameter():
    comp = {key: np.full((2, 2), 1e3) for key in ("da", "dx", "da0", "dxt", "da_prev")}
    comp["da"] = "not even an array"
    ref = copy.deepcopy(comp)
    assert clip_gradients(comp, 1.0) == 0.0
    assert clip_gradients({}, 1.0) == 0.0
    comp |= {"dWax": np.array([3.0]), "dba": np.array([4.0])}
    assert clip_gradients(comp, 1.0) == 5.0
    assert_allclose([comp.pop("dWax").item(), comp.pop("dba").item()], [0.6, 0.8], rtol=1e-15)
    assert_same(comp, ref)


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_clipping_in_any_layout(order):
    array = rng(0).standard_normal((6, 4))
    comp = array[::-2, ::2] if order == "strided" else array.copy(order=order)
    ref = comp / np.linalg.norm(comp)
    clip_gradients({"dWax": comp}, 1.0)
    assert_allclose(comp, ref, rtol=1e-15)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(np.float32, 3e38), (np.float32, 1e-44), (np.float64, 1e300), (np.float64, 1e-320)],
)
@pytest.mark.parametrize("max_norm", [1e-322, 2.0])
def test_clipping_at_the_ends_of_the_range(dtype, size, max_norm):
    comp = {"dWax": np.full((100, 100), size, dtype), "dba": np.zeros((3, 1), dtype)}
    held = float(comp["dWax"][0, 0])
    with np.errstate(all="raise"):
        norm = clip_gradients(comp, max_norm)
    assert_allclose(norm, 100 * held, rtol=1e-12)
    ref = min(held, max_norm / 100)
    smallest = float(np.finfo(dtype).smallest_subnormal)
    assert_allclose(comp["dWax"], ref, rtol=1e-6, atol=smallest)
    assert not comp["dba"].any()


def test_one_array_under_two_names_is_scaled_once():
    array = np.array([3.0, 4.0])
    comp = {"dWaa": array, "dU": array}
    assert clip_gradients(comp, 1.0) == 5.0
    assert_allclose(array, [0.6, 0.8], rtol=1e-15)


def test_a_matrix_is_clipped_in_place():
    array = np.array([[3.0, 4.0]])
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.asmatrix(array)
    assert clip_gradients({"dW": matrix}, 1.0) == 5.0
    assert_allclose(array, [[0.6, 0.8]], rtol=1e-15)


def test_the_norm_of_mixed_dtypes_is_that_of_float64():
    comp = {"dW": np.full(4, 1e-320), "db": np.zeros(2, np.float32)}
    assert_allclose(clip_gradients(comp, 1.0), 2e-320, rtol=1e-3)


def test_norm_of_float32_is_summed_in_float64():
    # In float32 the sum of so many squares would stall.
    comp = {"dWax": np.full((3000, 3000), 0.1, np.float32)}
    ref = 3000 * float(np.float32(0.1))
    assert_allclose(clip_gradients(comp, math.inf), ref, rtol=1e-10)


@dtypes
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["dWax", "dby"])
def test_a_norm_that_is_not_finite_scales_nothing(dtype, value, place):
    comp = draw(0, dtype, prefix="d")
    comp[place][1, 0] = value
    ref = copy.deepcopy(comp)
    with np.errstate(all="raise"):
        norm = clip_gradients(comp, 1e-3)
    assert type(norm) is float
    assert_array_equal(norm, abs(value))
    assert_same(comp, ref)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dby": np.broadcast_to(1.0, 3)}, ValueError, r"gradients\['dby'\] must be writeable"),
        ({"dby": np.ones(3, int)}, TypeError, r"gradients\['dby'\] must be an array of float32"),
        ({"dby": [1.0]}, TypeError, r"gradients\['dby'\] must be an array of float32"),
        ({"dby": np.ma.ones(3)}, TypeError, "got a masked array"),
    ],
)
def test_bad_gradients_are_not_clipped(change, error, message):
    comp = draw(0, prefix="d") | change
    ref = copy.deepcopy(comp)
    with pytest.raises(error, match=message):
        clip_gradients(comp, 1e-3)
    assert_same(comp, ref)


@pytest.mark.parametrize(
    ("max_norm", "error"),
    [(0, ValueError), (-1.0, ValueError), (math.nan, ValueError), ("1", TypeError)],
)
def test_bad_limit(max_norm, error):
    comp = draw(0, prefix="d")
    with pytest.raises(error, match="max_norm must be"):
        clip_gradients(comp, max_norm)
    assert_same(comp, draw(0, prefix="d"))
