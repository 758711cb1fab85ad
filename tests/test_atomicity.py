"""An error leaves nothing half done: what was there before the call is there after it.

Errors on arguments are held to this in `test_errors` and `test_optimizers`. Here memory runs out in
the middle of a call, the state is hostile, or a compilation fails.
"""

import numpy as np
import pytest
from numpy.random import default_rng as rng
from numpy.testing import assert_equal
from refusals import FUNCTIONS, freeze, good_arguments

import fastrnn
from fastrnn import _check_training, optimizers
from fastrnn.kernels._jit import Kernel, entry
from fastrnn.kernels.launch import TeamKernel

OPTIMIZERS = [
    lambda parameters: fastrnn.SGD(parameters, 0.1),
    lambda parameters: fastrnn.SGD(parameters, 0.1, momentum=0.9),
    lambda parameters: fastrnn.Adam(parameters),
]
optimizers_of = pytest.mark.parametrize("make", OPTIMIZERS, ids=["sgd", "momentum", "adam"])


class Failing:
    """NumPy, except that the allocations of some functions fail from some call on."""

    def __init__(self, after):
        self.left = after

    def __getattr__(self, name):
        function = getattr(np, name)
        if name not in ("empty", "empty_like", "zeros", "zeros_like", "multiply", "array"):
            return function

        def allocate(*arguments, **options):
            if options.get("out") is None:
                if self.left == 0:
                    raise MemoryError
                self.left -= 1
            return function(*arguments, **options)

        return allocate


def trained(make):
    """An optimizer on its way, its parameters and the next gradients."""
    parameters = {key: rng(1).standard_normal((3, n)) for key, n in (("Wax", 2), ("Waa", 3))}
    optimizer = make(parameters)
    gradients = {f"d{key}": rng(2).standard_normal(parameters[key].shape) for key in parameters}
    optimizer.step(gradients)
    return optimizer, parameters, gradients


@optimizers_of
def test_a_step_that_runs_out_of_memory(make, monkeypatch):
    failures = 0
    for after in range(8):
        optimizer, parameters, gradients = trained(make)
        before = freeze([parameters, gradients, optimizer.state_dict()])
        with monkeypatch.context() as patch:
            patch.setattr(optimizers, "np", Failing(after))
            try:
                optimizer.step(gradients)
            except MemoryError:
                failures += 1
            else:
                break
        assert freeze([parameters, gradients, optimizer.state_dict()]) == before
    assert failures >= 1


@optimizers_of
def test_a_gradient_that_cannot_be_converted(make, monkeypatch):
    optimizer, parameters, gradients = trained(make)
    before = freeze([parameters, gradients, optimizer.state_dict()])
    plain, seen = _check_training.floating, []

    def floating(*arguments):
        seen.append(arguments)
        if len(seen) == 2:
            raise MemoryError
        return plain(*arguments)

    monkeypatch.setattr(_check_training, "floating", floating)
    with pytest.raises(MemoryError):
        optimizer.step(gradients)
    assert freeze([parameters, gradients, optimizer.state_dict()]) == before


def test_a_count_of_steps_that_cannot_be_raised_is_refused():
    optimizer, parameters, gradients = trained(fastrnn.Adam)
    before = freeze([parameters, optimizer.state_dict()])
    state = optimizer.state_dict()
    state["Waa.steps"] = np.array(np.iinfo(np.int64).max)
    with pytest.raises(ValueError, match=r"state\['Waa.steps'\] must be"):
        optimizer.load_state_dict(state)
    assert freeze([parameters, optimizer.state_dict()]) == before
    optimizer.step(gradients)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_kernel_that_fails(function, monkeypatch):
    """The error comes through, the arguments stay, and the next call is right."""
    arguments = good_arguments(function, fastrnn)
    ref = getattr(fastrnn, function)(**arguments)
    before = freeze(arguments)

    def failing(plain):
        def fail(kernel, *rest):
            plain(kernel, *rest)
            raise MemoryError

        return fail

    with monkeypatch.context() as patch:
        for kind in (Kernel, TeamKernel):
            patch.setattr(kind, "__call__", failing(kind.__call__))
        if function not in ("final_states", "pad_sequences"):  # these call none
            with pytest.raises(MemoryError):
                getattr(fastrnn, function)(**arguments)
    assert freeze(arguments) == before
    assert_equal(freeze(getattr(fastrnn, function)(**arguments)), freeze(ref))


def test_a_compilation_that_fails_is_tried_again():
    attempts = []

    def signature(dtype):
        attempts.append(dtype)
        if len(attempts) == 1:
            raise KeyboardInterrupt
        return dtype(dtype)

    kernel = entry(signature)(lambda x: x + x)
    dtype = np.dtype(np.float64)
    with pytest.raises(KeyboardInterrupt):
        kernel(dtype, 2.0)
    assert kernel(dtype, 2.0) == kernel(dtype, 2.0) == 4.0
    assert len(attempts) == 2
