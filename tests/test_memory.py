"""Memory: none left, very much of it, and none lost. In processes of their own."""

import os
import sys

import pytest
from test_bounds import run_python

glibc = pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}),
    reason="other C libraries keep memory in other ways",
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

COMMON = """if True:
    import resource
    import numpy as np
    from numpy.random import default_rng as rng
    from strategies import make_batch, make_cotangent

    import fastrnn

    def pages(field):
        with open("/proc/self/statm") as file:
            return int(file.read().split()[field]) * resource.getpagesize()

    def run(batch, da):
        a, y_pred, caches = fastrnn.rnn_forward(*batch)
        loss, output = fastrnn.output_backward(y_pred, [0] * len(batch.seq_lengths), caches)
        return {"a": a, "y_pred": y_pred, **fastrnn.rnn_backward(da, caches), **output}
"""


@linux
@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_allocation_that_fails_is_a_memory_error(threads):
    """NumPy's arrays, and a workspace that compiled code asks for."""
    code = f"""{COMMON}
    small = make_batch(rng(0), 12, 32, 9, 100, 40, "float32")
    ref = run(small, np.ones_like(fastrnn.rnn_forward(*small)[0]))
    many_units = make_batch(rng(0), 2, 8, 3, 2, 4, "float32", "full")
    # Weights that are one element, repeated: only their packed copy takes memory.
    n_a = 20_000
    weights = {{"Wax": (n_a, 2), "Waa": (n_a, n_a), "Wya": (3, n_a), "ba": (n_a, 1), "by": (3, 1)}}
    parameters = {{
        key: np.broadcast_to(np.float32(0), shape) for key, shape in weights.items()
    }}
    units = many_units.x, np.zeros((n_a, 2), np.float32), parameters, [4, 4]
    caches = fastrnn.rnn_forward(*small)[2]
    room = pages(0) + 2**28
    resource.setrlimit(resource.RLIMIT_AS, (room, room))

    def assert_fails(function, *arguments):
        try:
            function(*arguments)
        except MemoryError:
            return
        raise AssertionError("there was memory")

    steps = 10**6
    long = np.broadcast_to(np.float32(0), (12, 100, steps))
    for _ in range(3):
        assert_fails(fastrnn.rnn_forward, long, small.a0, small.parameters, small.seq_lengths)
        assert_fails(fastrnn.rnn_forward, *units)
        assert_fails(fastrnn.pad_sequences, [np.ones((12, 3))], 10**8)
        assert_fails(fastrnn.softmax, long[0])
        comp = run(small, np.ones_like(ref["a"]))
        assert all(comp[key].tobytes() == ref[key].tobytes() for key in ref)
    print("lives")
    """
    process = run_python(code, NUMBA_NUM_THREADS=threads)
    assert process.stdout.split() == ["lives"], process.stderr


@linux
def test_a_workspace_that_compiled_code_makes_is_a_memory_error():
    """One of 25 MB, for weights that are one element, repeated."""
    code = f"""{COMMON}
    run(make_batch(rng(0), 2, 8, 3, 2, 4, "float32"), np.zeros((8, 2, 4), np.float32))
    n_a = 2500
    shapes = {{"Wax": (n_a, 2), "Waa": (n_a, n_a), "Wya": (3, n_a), "ba": (n_a, 1), "by": (3, 1)}}
    parameters = {{name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}}
    arguments = np.zeros((2, 2, 4), np.float32), np.ones((n_a, 2), np.float32), parameters, [4, 4]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages(0) + 2**23, limits[1]))
    try:
        fastrnn.rnn_forward(*arguments)
    except MemoryError:
        print("MemoryError")
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert not fastrnn.rnn_forward(*arguments)[0].any()
    print("lives")
    """
    process = run_python(code)
    assert process.stdout.split() == ["MemoryError", "lives"], process.stderr


@linux
def test_more_than_two_to_the_31_elements():
    """One long sequence among empty ones: the padding is never touched."""
    code = f"""{COMMON}
    n_x, n_a, n_y, m, T = 2, 4, 3, 2**21, 300
    assert n_a * m * T > 2**31
    row = m - 2
    lengths = np.zeros(m, np.int64)
    lengths[row] = T
    one = make_batch(rng(0), n_x, n_a, n_y, 1, T, "float32", "full")
    x = np.broadcast_to(one.x, (n_x, m, T))
    a0 = np.broadcast_to(one.a0, (n_a, m))
    da = np.broadcast_to(make_cotangent(rng(1), one), (n_a, m, T))
    batch = one._replace(seq_lengths=lengths, x=x, a0=a0)
    comp = run(batch, da)
    ref = run(one, da[:, :1])
    for key in ("a", "y_pred", "dx", "da0", "da"):
        assert comp[key].shape[1] == m
        assert not comp[key][:, [0, 1, m - 1]].any(), key
        np.testing.assert_allclose(comp[key][:, row], ref[key][:, 0], rtol=1e-4, atol=1e-5)
    for key in ("dWax", "dWaa", "dba", "dWya", "dby"):
        np.testing.assert_allclose(comp[key], ref[key], rtol=1e-4, atol=1e-4)
    final = fastrnn.final_states(comp["a"], lengths)
    assert final[:, row].tobytes() == comp["a"][:, row, -1].tobytes()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
    """
    # Else the system backs a step's few bytes by a page of 2 MiB.
    process = run_python(code, NUMPY_MADVISE_HUGEPAGE="0")
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 1500  # MiB, of 25 GiB


@linux
def test_ten_thousand_calls_leak_nothing():
    code = f"""{COMMON}
    batches = [
        make_batch(rng(0), 3, 19, 5, 7, 6, dtype, "some_zero") for dtype in ("float32", "float64")
    ]
    large = make_batch(rng(0), 12, 32, 9, 100, 40, "float32")  # shared by two threads
    da = {{n: np.ones((19, 7, 6), n) for n in ("float32", "float64")}}
    optimizer = fastrnn.Adam(batches[0].parameters)

    def calls(count):
        for i in range(count // 4):
            batch = batches[i % 2]
            gradients = run(batch, da[batch.x.dtype.name])
            fastrnn.rnn_forward(batch.x, batch.a0, batch.parameters, batch.seq_lengths)[2][0][1]
            if i % 50 == 0:
                run(large, np.ones((32, 100, 40)))
            try:
                fastrnn.rnn_forward(batch.x, batch.a0, {{}}, batch.seq_lengths)
            except ValueError:
                pass
            optimizer.step({{key: gradients[key] for key in ("dWax", "dWya", "dby")}})

    calls(2000)
    before = pages(1)
    calls(10_000)
    print(pages(1) / before)
    """
    process = run_python(code)
    assert process.returncode == 0, process.stderr
    assert float(process.stdout) < 1.01


@glibc
@pytest.mark.parametrize("shape", [(39, 48, 10, 333, 7), (39, 48, 10, 200, 12)])
def test_training_steps_take_no_fresh_pages(shape):
    """The heap keeps what they take and give back, though they take it in several arrays."""
    code = """if True:
    import resource, sys
    import numpy as np
    import fastrnn

    n_x, n_a, n_y, m, T = map(int, sys.argv[1:])
    parameters = fastrnn.initialize_parameters(n_x, n_a, n_y, seed=0)
    x, a0 = np.ones((n_x, m, T), np.float32, "F"), np.zeros((n_a, m), np.float32)
    lengths = np.random.default_rng(0).integers(T // 4, T + 1, m)
    for step in range(30):
        if step == 20:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        a, y_pred, caches = fastrnn.rnn_forward(x, a0, parameters, lengths)
        gradients = fastrnn.rnn_backward(a, caches)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
    """
    run = run_python(code, *map(str, shape))
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 50
