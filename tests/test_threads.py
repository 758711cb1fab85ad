"""Threads and forks, on each threading layer that this machine has, in processes of their own."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from fastrnn import _threads

#: A batch that is worth several threads, and a digest of all that is computed from it.
WORK = """
import hashlib, os, sys, threading
import numba, numpy as np
import fastrnn

# Even this little batch is shared by threads.
fastrnn._threads.SERIAL_WORK = fastrnn._plan._SERIAL_STEP = 0

def digest(seed):
    rng = np.random.default_rng(seed)
    n_x, n_a, n_y, m, T = 8, 64, 4, 64, 20
    parameters = fastrnn.initialize_parameters(n_x, n_a, n_y, seed=seed)
    x = rng.standard_normal((n_x, m, T), np.float32)
    lengths = rng.integers(0, T + 1, m)
    labels = rng.integers(0, n_y, (m, T))
    a, y_pred, caches = fastrnn.rnn_forward(x, np.zeros((n_a, m)), parameters, lengths)
    loss, gradients = fastrnn.output_backward(y_pred, labels, caches)
    gradients |= fastrnn.rnn_backward(gradients["da"], caches)
    arrays = [a, y_pred, np.float64(loss), *gradients.values()]
    return hashlib.sha256(b"".join(np.ascontiguousarray(v).tobytes() for v in arrays)).hexdigest()

def alone(seeds):
    numba.set_num_threads(1)
    expected = [digest(seed) for seed in seeds]
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert numba.get_num_threads() == 2
    return expected
"""

THREADS = """
expected = alone(range(8))
found = [[] for _ in expected]
barrier = threading.Barrier(8)

def run(seed):
    barrier.wait()
    for _ in range(64):
        found[seed].append(digest(seed))

callers = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
assert all(results == [right] * 64 for right, results in zip(expected, found))
print(numba.threading_layer())
"""

PROCESSES = """
import concurrent.futures, multiprocessing

if __name__ == "__main__":
    expected = alone(range(8))
    assert digest(0) == expected[0]  # in threads, which are there when the process is forked
    assert numba.threading_layer()
    for method in sys.argv[1:]:
        with concurrent.futures.ProcessPoolExecutor(
            4, mp_context=multiprocessing.get_context(method)
        ) as pool:
            assert list(pool.map(digest, range(8))) == expected, method
        assert digest(0) == expected[0]
    print(numba.threading_layer(), flush=True)
    # On one processor TBB never ends a process that has been forked, fastrnn or not.
    os._exit(0)
"""


def run(script, layer, *arguments):
    """Standard output of a script that runs on a threading layer with two threads."""
    # Where pip puts the library of TBB.
    libraries = os.pathsep.join([f"{sys.prefix}/lib", os.environ.get("LD_LIBRARY_PATH", "")])
    environment = os.environ | {
        "NUMBA_NUM_THREADS": "2",
        "NUMBA_THREADING_LAYER": layer,
        "LD_LIBRARY_PATH": libraries,
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module", params=["omp", "tbb", "workqueue"])
def layer(request, tmp_path_factory):
    script = tmp_path_factory.mktemp("layer") / "script.py"
    script.write_text(WORK + "digest(0)\nprint(numba.threading_layer())\n")
    started = run(script, request.param)
    if "No threading layer could be loaded" in started.stderr:
        pytest.skip(f"{request.param} is not installed")
    assert started.stdout.strip() == request.param, started.stderr
    return request.param


def test_workqueue_is_always_there(tmp_path):
    # Otherwise every test of a layer could be skipped.
    script = tmp_path / "script.py"
    script.write_text(WORK + "digest(0)\nprint(numba.threading_layer())\n")
    assert run(script, "workqueue").stdout.strip() == "workqueue"


def test_threads_that_call_at_once_get_the_results_of_one(layer, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WORK + THREADS)
    result = run(script, layer)
    assert (result.returncode, result.stdout.strip()) == (0, layer), result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_computes(layer, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WORK + PROCESSES)
    result = run(script, layer, "fork")
    assert (result.returncode, result.stdout.strip()) == (0, layer), result.stderr


def test_processes_that_are_not_forked_compute(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WORK + PROCESSES)
    methods = ["spawn", "forkserver"] if hasattr(os, "fork") else ["spawn"]
    result = run(script, "default", *methods)
    assert result.returncode == 0, result.stderr


def test_calls_get_all_threads_unless_they_are_alone():
    seen, threads = [], numba.get_num_threads()

    def kernel(dtype, workers, launch, work):
        seen.append((workers, launch != 0))
        return 0

    for alone in (False, False, True):
        _threads.call(kernel, np.dtype(np.float32), 0, (), alone)
    assert seen == [(threads, threads > 1)] * 2 + [(1, False)]


def test_a_failed_call_gives_the_threads_of_workqueue_back(monkeypatch):
    def kernel(*arguments):
        assert _threads._one_caller.locked()
        raise MemoryError

    monkeypatch.setattr(_threads, "_started", lambda: "workqueue")
    with pytest.raises(MemoryError):
        _threads.call(kernel, np.dtype(np.float32), 2, ())
    assert not _threads._one_caller.locked()
