"""No kernel reads or writes outside of its arrays.

Array indices are checked by Numba, in a process of its own: it compiles all kernels anew. What goes
by raw pointers is checked by unreadable pages around every array, those of the workspace included.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="mprotect is POSIX")

CALLS = """if True:
    import numpy as np
    from numba import config
    from numpy.random import default_rng as rng
    from numpy.testing import assert_allclose
    from strategies import make_batch, make_cotangent, make_labels

    import fastrnn
    from fastrnn import reference
    from fastrnn.embedding import embedding_backward

    def run(module, batch, da, labels):
        a, y_pred, caches = module.rnn_forward(*batch)
        loss, output = module.output_backward(y_pred, labels, caches)
        return {"a": a, "y_pred": y_pred, "loss": loss, **module.rnn_backward(da, caches), **output}

    def call_all(shapes, kinds, dtypes):
        for dtype in dtypes:
            for shape in shapes:
                for kind in kinds:
                    batch = make_batch(rng(0), *shape, dtype, kind)
                    if shape[1] == 270:
                        batch = batch.in_order("F")
                    da = make_cotangent(rng(1), batch)
                    labels = make_labels(rng(2), shape[2], (shape[3], shape[4]))
                    comp = run(fastrnn, batch, da, labels)
                    ref = run(reference, batch.astype(float), da.astype(float), labels)
                    for key in ref:
                        limit = 1e-4 * max(1, np.abs(ref[key]).max(initial=0))
                        assert_allclose(comp[key], ref[key], rtol=0, atol=limit, err_msg=key)
                    assert_allclose(fastrnn.softmax(batch.x), reference.softmax(batch.x), rtol=1e-4)
                    symbols = rng(3).integers(0, 9, batch.x.shape[1:])
                    table = np.einsum("xmt,mts->xs", batch.x, np.eye(9)[symbols])
                    assert_allclose(embedding_backward(batch.x, symbols, 9), table, atol=1e-3)

    # One column, whole tiles, one more; blocks of samples; several chunks; few samples, many units;
    # weights used as they lie, or copied column by column; no steps.
    SHAPES = [
        (1, 1, 1, 1, 3), (3, 7, 2, 5, 6), (16, 16, 16, 6, 5), (33, 17, 5, 7, 4),
        (12, 32, 9, 100, 9), (5, 65, 3, 40, 30), (40, 250, 9, 15, 18), (32, 64, 32, 20, 5),
        (7, 271, 3, 3, 10), (43, 131, 5, 2, 1), (7, 270, 3, 3, 10), (43, 270, 5, 2, 1),
        (5, 40, 3, 2, 1), (7, 65, 3, 2, 3), (21, 140, 3, 70, 1), (7, 270, 3, 70, 1),
        (4, 5, 3, 3, 0),
    ]
    LARGE = (24, 64, 17, 200, 40), (20, 300, 9, 70, 12)  # shared by two threads
"""


def run_python(code, *arguments, **environment):
    """Run code in a process of its own, the tests' modules at hand."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path, "NUMBA_NUM_THREADS": "2", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_array_indices():
    code = f"""{CALLS}
    from fastrnn.kernels import backward, embedding, forward, output, softmax, stages
    import re

    from fastrnn.kernels._jit import Kernel, array_in, entry
    from numba import from_dtype, types

    last = entry(lambda dtype: dtype(array_in(dtype, 1), types.intp))(lambda array, i: array[i])
    try:
        last(np.dtype(float), np.zeros(3), 3)
    except IndexError:
        pass
    else:
        raise AssertionError("nothing is checked")

    config.BOUNDSCHECK = 1
    call_all([*SHAPES, *LARGE], ["full", "some_zero"], ["float32", "float64"])
    modules = backward, embedding, forward, output, softmax, stages
    kernels = [k for module in modules for k in vars(module).values() if isinstance(k, Kernel)]
    assert kernels and all(len(kernel.compiled) > 0 for kernel in kernels)

    # All are compiled here, so that what they refer to can be read. An unknown symbol ends the
    # process that compiles the kernel, unless another kernel has made it known before.
    pending = [*kernels, *(kernel.worker for kernel in kernels if hasattr(kernel, "worker"))]
    seen = []
    while pending:
        kernel = pending.pop()
        if kernel in seen:
            continue
        seen.append(kernel)
        pending += kernel.needs
        for dtype, dispatcher in kernel.compiled.items():
            (result,) = dispatcher.overloads.values()
            code = result.library.get_llvm_str()
            declared = set(re.findall(r'declare [^@]*@"?(fastrnn[.][^"(]+)', code))
            known = [each.symbols(from_dtype(dtype)) for each in kernel.needs]
            assert declared <= set().union(*known), kernel.function
            assert all(declared & symbols for symbols in known), kernel.function
    assert len(seen) > 20
    """
    # A cache does not tell code that checks from code that does not.
    with tempfile.TemporaryDirectory() as cache:
        run = run_python(code, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=cache)
    assert run.returncode == 0, run.stderr


GUARDED = f"""if True:
    import sys
    import guard_pages
    from cutting import as_if_large

    at_end = sys.argv[1] == "after"
    guards = guard_pages.install(at_end)
{CALLS.removeprefix("if True:")}
    serial, parallel = guards.calls, int(sys.argv[2])
    call_all(SHAPES + [*LARGE] * parallel, ["full", "some_zero"], ["float32", "float64"])
    fastrnn._results._LARGE_BYTES = 0  # results past the caches, fresh and used
    with as_if_large():
        call_all(SHAPES, ["full", "some_zero"], ["float32", "float64"])
    fastrnn._results._SMALLEST = fastrnn._results._PAGE = 1
    call_all(SHAPES, ["full", "some_zero"], ["float32", "float64"])
    assert fastrnn._results.release() == (fastrnn._results._madvise is not None)
    print(guards.calls, guards.workspaces)
"""


@posix
@pytest.mark.parametrize("side", ["before", "after"])
def test_unreadable_pages_around_every_array(side):
    run = run_python(GUARDED, side, "1")
    assert run.returncode == 0, run.stderr
    calls, workspaces = map(int, run.stdout.split())
    assert calls > 100
    assert workspaces > 100


@posix
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("write", [False, True])
def test_the_pages_are_unreadable(side, write):
    code = """if True:
        import sys, guard_pages, numpy as np
        from numpy.lib.stride_tricks import as_strided

        array = guard_pages.guarded(np.arange(5.0), sys.argv[1] == "after")
        wider = np.lib.stride_tricks.as_strided(array, (7,), (8,))
        print(array.sum(), flush=True)
        start = array[::-1] if sys.argv[1] == "before" else array
        beyond = as_strided(start, (6,), start.strides)
        if sys.argv[2] == "write":
            beyond[5] = 0.0
        else:
            print(beyond[5])
    """
    run = run_python(code, side, "write" if write else "read")
    assert run.stdout.split() == ["10.0"]
    assert run.returncode < 0
