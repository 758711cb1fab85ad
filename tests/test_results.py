"""Results whose memory is used again: never while anybody can see it, and never as it was left."""

import gc
import sys
import threading

import numpy as np
import pytest
from accuracy import run
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose
from strategies import make_batch, make_cotangent

import fastrnn
from fastrnn import _results, _threads, reference

keeps = pytest.mark.skipif(_results._madvise is None, reason="nothing is kept")
MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_idle():
    gc.collect()
    _results.release()
    yield
    _results.release()


def idle():
    """How many mappings are idle."""
    _results._collect()
    return len(_results._idle)


def result(mebibytes, columns=4):
    """One large result; whether it has to be cleared; whether it goes past the caches."""
    steps = mebibytes * MIB // 4 // columns
    (array,), clear, past = _results.results((columns,), 1, steps, np.dtype(np.float32))
    assert array.shape == (columns, 1, steps)
    assert array.flags.f_contiguous
    assert array.ctypes.data % 128 == 0
    return array, clear, past


def test_small_results_are_plain_arrays():
    (array,), clear, past = _results.results((3,), 5, 2, np.dtype(np.float64))
    assert (clear, past) == (1, 0)
    assert array.base is None
    assert array.flags.f_contiguous


def test_fresh_memory_is_zero():
    array, clear, past = result(40)
    assert (clear, past) == (0, 1)
    assert not array.any()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may have no MADV_FREE")
def test_memory_is_kept_on_linux():
    with_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert (_results._madvise is not None) == with_gil


@keeps
@pytest.mark.parametrize("used", [0, 1])
def test_one_used_array_among_fresh_ones_has_to_be_cleared(used):
    rows = 40, 80
    _results.results((rows[used],), 1, MIB // 4, np.dtype(np.float32))
    _, clear, _ = _results.results(rows, 1, MIB // 4, np.dtype(np.float32))
    assert clear == 1


@keeps
def test_a_lease_that_ended_before_it_began(monkeypatch):
    def no_memory(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(_results, "partial", no_memory)
        with pytest.raises(MemoryError):
            result(80)
    gc.collect()
    assert [result(40)[0].any() for _ in range(2)] == [False, False]


@keeps
def test_memory_is_used_again_once_nobody_sees_it():
    array, _, _ = result(40)
    address = array.ctypes.data
    array[:] = 7
    part = array[1:, 0, ::3].T  # a view of a view keeps it
    del array
    other, clear, _ = result(40)
    assert clear == 0
    assert other.ctypes.data != address
    other[:] = 1
    assert (part == 7).all()
    del part
    again, clear, _ = result(40)
    assert clear == 1
    assert again.ctypes.data == address


@keeps
def test_a_result_takes_memory_of_up_to_a_half_more():
    address = result(90)[0].ctypes.data
    assert result(59)[1] == 0
    assert result(91)[1] == 0
    array, clear, _ = result(61)
    assert clear == 1
    assert array.ctypes.data == address


@keeps
def test_not_many_bytes_are_kept():
    largest, most = _results._LARGEST // MIB, _results._MOST // MIB
    for count, size, kept in [(3, 33, 3), (7, largest, most // largest), (1, largest + 1, 0)]:
        arrays = [result(size)[0] for _ in range(count)]
        assert all(array.flags.writeable for array in arrays)
        del arrays
        assert idle() == kept
    result(largest)
    result(largest // 2)  # no idle mapping is so small; one of the others makes room
    assert sum(map(len, _results._idle)) <= _results._MOST


@keeps
def test_an_empty_array_may_have_used_memory():
    first = _results.empty((3, 1 << 20), np.dtype(np.float32), "C")
    address = first.ctypes.data
    first.fill(7)
    del first
    again = _results.empty((1 << 10, 3, 1 << 9), np.dtype(np.float64), "F")
    assert again.flags.f_contiguous
    assert again.ctypes.data == address
    assert _results.empty((2, 3), np.dtype(np.float64), "C").base is None


@keeps
def test_a_small_result_beside_a_large_one_is_not_kept():
    arrays, clear, past = _results.results((80, 1), 1, MIB // 8, np.dtype(np.float32))
    assert [array.shape for array in arrays] == [(80, 1, MIB // 8), (1, 1, MIB // 8)]
    assert (clear, past) == (0, 1)
    arrays.clear()
    assert idle() == 1


@keeps
def test_memory_that_cannot_be_mapped(monkeypatch):
    """What is idle goes, and NumPy's allocation comes instead."""
    result(40)
    assert idle() == 1

    def no_memory(*arguments, **options):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(_results, "_Mapping", no_memory)
    array, clear, _ = result(90)
    assert clear == 0
    assert not array.any()
    assert idle() == 0


@keeps
def test_idle_memory_makes_room_for_a_workspace():
    """Once: there is no third try, and without any no second one."""
    calls = []

    def kernel(*arguments):
        calls.append(arguments)
        if len(calls) != 2:
            result(40)  # so that there is something idle again
            raise MemoryError

    result(40)
    _threads.call(kernel, np.dtype(np.float32), 1, ("an argument",))
    assert calls[0] == calls[1]
    assert idle() == 0
    with pytest.raises(MemoryError):
        _threads.call(kernel, np.dtype(np.float32), 1, ("an argument",))
    assert len(calls) == 4


@keeps
def test_a_large_workspace_is_kept():
    """That of the pass back, for packed weights, beside the gradient of these."""
    batch = make_batch(rng(0), 2, 2100, 3, 2, 10, np.float64, "full")
    da = make_cotangent(rng(1), batch)
    ref = run(reference, batch, da)
    counts = []
    for _ in range(4):
        comp = run(fastrnn, batch, da)
        for name in ref:
            assert_allclose(comp[name], ref[name], rtol=1e-9, atol=1e-9, err_msg=name)
        del comp
        counts.append(idle())
    assert 1 < counts[-2] == counts[-1] < 4


@keeps
@pytest.mark.parametrize("size", [40, 80], ids=["lasting", "advised"])
def test_no_bytecode_runs_where_a_result_ends(size):
    """The exception of a signal that comes there would be lost."""
    array, _, _ = result(size)
    entered = []
    sys.setprofile(lambda frame, event, argument: entered.append(event))
    del array
    sys.setprofile(None)
    assert "call" not in entered
    assert idle() == 1


@keeps
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_system_may_take_idle_memory():
    """All but some of it, whatever its order, and nothing that is in use."""

    def takeable():
        with open("/proc/self/smaps_rollup") as file:
            return next(int(line.split()[1]) >> 10 for line in file if line.startswith("LazyFree:"))

    before = takeable()
    for _ in range(2):
        arrays = [result(size)[0] for size in (30, 50, 90)]
        for array in arrays:
            array.fill(1)
        assert takeable() - before < 10
        del array, arrays
        assert 130 <= takeable() - before <= 150  # the first of them stays


@keeps
def test_threads_never_share_memory():
    failures = []

    def work(number):
        for turn in range(40):
            array, _, _ = result(33)
            marks = array[:, 0, :: 1 << 18]
            marks[:] = mark = 1000 * number + turn
            if not (marks == mark).all():
                failures.append(mark)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert 1 <= idle() <= 6


@keeps
@pytest.mark.parametrize("n", [16, 21])  # rows that start cache lines, and that do not
@pytest.mark.parametrize("lengths", ["full", "some_zero"])
def test_a_pass_into_used_memory_has_the_same_bits(monkeypatch, n, lengths):
    batch = make_batch(rng(0), n, n, 5, 300, 9, "float32", lengths)
    da = make_cotangent(rng(1), batch)

    def run():
        a, y_pred, caches = fastrnn.rnn_forward(*batch)
        return {"a": a, "y_pred": y_pred, **fastrnn.rnn_backward(da, caches)}

    expected = {key: value.copy() for key, value in run().items()}
    monkeypatch.setattr(_results, "_LARGE_BYTES", 1)
    monkeypatch.setattr(_results, "_SMALLEST", 1)
    monkeypatch.setattr(_results, "_PAGE", 1)
    for turn in range(3):
        assert idle() == (6 if turn else 0)
        got = run()
        for key in expected:
            assert got[key].tobytes() == expected[key].tobytes(), key
            got[key].fill(np.nan)  # which the next turn finds there
        del got
