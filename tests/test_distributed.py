"""Training on several ranks: as threads of this process, and as processes under mpirun.

The second need the extra ``mpi``, or mpi4py and an MPI that was there before.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mpi_training
import numpy as np
import pytest
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal
from thread_ranks import on_ranks

from fastrnn import distributed
from fastrnn.distributed import OutOfSyncError, Ranks, Reduced

TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


@dtypes
@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_number_of_ranks_trains_alike(size, dtype):
    ref = mpi_training.train(Ranks(), dtype)
    for comp in on_ranks(size, lambda ranks: mpi_training.train(ranks, dtype)):
        for name in ref:
            assert comp[name].dtype == dtype
            assert_allclose(comp[name], ref[name], rtol=0, atol=TOLERANCE[dtype], err_msg=name)


def test_reduce_weighs_ranks_by_their_labelled_steps():
    counts, sums = [3, 0, 5], rng(0).standard_normal((3, 4, 2))

    def reduce(ranks):
        gradients = {"dWya": np.asfortranarray(sums[ranks.rank]), "da0": np.array([ranks.rank])}
        found = ranks.reduce(gradients, 10.0 * ranks.rank, counts[ranks.rank])
        return found, gradients

    for rank, (found, gradients) in enumerate(on_ranks(3, reduce)):
        assert found == Reduced(loss=30 / 8, labelled=8, stop=False)
        assert_allclose(gradients["dWya"], sums.sum(axis=0) / 8, rtol=1e-15)
        assert_array_equal(gradients["da0"], [rank])


def test_reduce_gives_each_gradient_its_own():
    gradients = {"dW": np.arange(2.0), "dU": np.arange(6.0).reshape(2, 3), "dV": np.arange(4.0)}
    ref = {key: array.copy() for key, array in gradients.items()}
    Ranks().reduce(gradients, 0.0, 1)
    for key, array in ref.items():
        assert_array_equal(gradients[key], array, err_msg=key)


def test_the_order_of_keys_is_free():
    def keep_in_sync(ranks):
        arrays = {"dWax": np.full(2, 1.0), "dWaa": np.full(2, 5.0)}
        if ranks.rank:
            arrays = dict(reversed(arrays.items()))
        ranks.check_in_sync(arrays)
        ranks.broadcast(arrays)
        ranks.reduce(arrays, 0.0, 1)
        return arrays["dWax"][0], arrays["dWaa"][0]

    assert on_ranks(2, keep_in_sync) == [(1.0, 5.0)] * 2


def test_reduce_leaves_numbers_that_leave_their_range_without_a_word():
    gradients = {"dW": np.full(3, 1e-38, np.float32), "dU": np.full(3, 3e38, np.float32)}
    with np.errstate(all="raise"):
        found = on_ranks(2, lambda ranks: ranks.reduce(dict(gradients), 1e300, 7))
    assert [reduced.labelled for reduced in found] == [14, 14]


def test_reduce_without_any_label_gives_zero():
    gradients = {"dba": np.zeros((2, 1), np.float32)}
    assert Ranks().reduce(gradients, 0.0, 0) == Reduced(0.0, 0, False)
    assert_array_equal(gradients["dba"], 0)


def test_reduce_counts_beyond_what_float32_holds():
    counts = [2**24 + 1, 2**35 + 2**12 - 1]
    gradients = {"dba": np.zeros(1, np.float32)}
    found = on_ranks(2, lambda ranks: ranks.reduce(dict(gradients), 0.0, counts[ranks.rank]))
    assert all(type(reduced.labelled) is int for reduced in found)
    assert [reduced.labelled - sum(counts) for reduced in found] == [0, 0]


@pytest.mark.parametrize(
    ("gradients", "loss_sum", "count", "error", "match"),
    [
        ([1.0], 0.0, 1, TypeError, "gradients must be a mapping"),
        ({"dWax": [1.0]}, 0.0, 1, TypeError, r"gradients\['dWax'\] must be an array of float32"),
        ({"dWax": np.ones(2, int)}, 0.0, 1, TypeError, r"gradients\['dWax'\].*dtype int64"),
        (
            {1: np.ones(2), "dW": np.ones(2)},
            0.0,
            1,
            TypeError,
            "gradients must .* got the key 1 of",
        ),
        ({}, None, 1, TypeError, "loss_sum must be a real number"),
        ({}, 0.0, -3, ValueError, "count must be 0 or more, got -3"),
        ({}, 0.0, 1.5, TypeError, "count must be an integer"),
        ({}, 0.0, 2**36, ValueError, r"count must be below 2\*\*36, got 68719476736"),
    ],
)
def test_reduce_refuses_what_it_cannot_sum(gradients, loss_sum, count, error, match):
    with pytest.raises(error, match=match):
        Ranks().reduce(gradients, loss_sum, count)


def test_reduce_changes_nothing_if_one_gradient_is_read_only():
    gradients = {"dWaa": np.ones(2), "dWax": np.ones(2)}
    gradients["dWax"].flags.writeable = False
    with pytest.raises(ValueError, match=r"gradients\['dWax'\] must be writeable"):
        Ranks().reduce(gradients, 0.0, 2)
    assert_array_equal(gradients["dWaa"], 1)


def test_all_ranks_stop_if_one_wants_to():
    def reduce(ranks, who):
        return ranks.reduce({"dba": np.zeros(1)}, 0.0, 1, stop=ranks.rank == who).stop

    assert on_ranks(3, lambda ranks: reduce(ranks, 1)) == [True] * 3
    assert on_ranks(3, lambda ranks: reduce(ranks, None)) == [False] * 3


def test_broadcast_takes_any_layout():
    def broadcast(ranks):
        whole = np.full((4, 6), ranks.rank, np.float32)
        arrays = {"every second": whole[:, ::2], "F": np.full((2, 3), ranks.rank, order="F")}
        ranks.broadcast(arrays | {"number": (number := np.array(ranks.rank))})
        return whole, arrays["F"], number

    for rank, (whole, fortran, number) in enumerate(on_ranks(3, broadcast)):
        assert_array_equal(whole, np.tile([0, rank], (4, 3)))
        assert_array_equal(fortran, 0)
        assert number == 0


def test_broadcast_changes_nothing_if_one_array_cannot_be_overwritten():
    def broadcast(ranks):
        arrays = {"W": np.full(2, ranks.rank), "b": np.broadcast_to(1.0, 2)}
        with pytest.raises(ValueError, match=r"arrays\['b'\] must be writeable"):
            ranks.broadcast(arrays)
        with pytest.raises(
            TypeError, match=r"arrays\['b'\] must be an array of numbers, got .* list"
        ):
            ranks.broadcast(arrays | {"b": [1.0]})
        return arrays["W"].tolist()

    assert on_ranks(2, broadcast) == [[0, 0], [1, 1]]


def test_shares_are_even_and_complete():
    shares = on_ranks(3, lambda ranks: ranks.share(np.arange(7)).tolist())
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_difference_of_one_bit_stops_all_ranks():
    def check(ranks, who):
        arrays = {"Wax": np.ones((2, 2)), "ba": np.zeros(2, np.float32)}
        arrays["Wax"][1, 1] += np.spacing(1.0) * (ranks.rank == who)
        try:
            ranks.check_in_sync(arrays)
        except OutOfSyncError as error:
            return str(error)

    assert on_ranks(4, lambda ranks: check(ranks, None)) == [None] * 4
    for who in (1, 2):
        for message in on_ranks(4, lambda ranks, who=who: check(ranks, who)):
            assert message.startswith(f"the parameters of rank {who} differ from those of rank 0")


@pytest.mark.parametrize(
    "others",
    [{"U": np.zeros(4)}, {"W": np.zeros((2, 2))}, {"W": np.zeros(4, int)}, {"W": np.zeros(3)}],
)
def test_parameters_of_other_names_shapes_and_dtypes_are_out_of_sync(others):
    def check(ranks):
        with pytest.raises(OutOfSyncError):
            ranks.check_in_sync(others if ranks.rank else {"W": np.zeros(4)})

    on_ranks(2, check)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        (3, "arrays must be a mapping of names to arrays, got 3 of type int"),
        ({3: np.ones(2)}, "arrays must be a mapping of names to arrays, got the key 3 of type int"),
        ({"W": [1.0]}, r"arrays\['W'\] must be an array of numbers, got an object of type list"),
        ({"W": np.array(["a"])}, r"arrays\['W'\] must be an array of numbers, got .* dtype <U1"),
        (
            {"W": np.array([None])},
            r"arrays\['W'\] must be an array of numbers, got .* dtype object",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(arrays, match, size):
    def check(ranks):
        with pytest.raises(TypeError, match=match):
            ranks.check_in_sync(arrays)

    on_ranks(size, check)


def test_read_only_parameters_can_be_compared():
    on_ranks(2, lambda ranks: ranks.check_in_sync({"W": np.broadcast_to(1.0, 3)}))


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"])
def test_launched_goes_by_the_environment(variable, monkeypatch):
    for name in distributed._SIZE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not distributed.launched()
    monkeypatch.setenv(variable, "2")
    assert distributed.launched()


needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or shutil.which("mpirun") is None,
    reason="needs mpi4py and mpirun",
)


def mpirun(size, *arguments):
    """Run the training script, on a machine with any number of processors and as any user."""
    environment = os.environ | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "NUMBA_NUM_THREADS": "1",
    }
    command = [
        "mpirun",
        "-n",
        str(size),
        sys.executable,
        mpi_training.__file__,
        *map(str, arguments),
    ]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@needs_mpi
@dtypes
@pytest.mark.parametrize("size", [2, 4])
def test_processes_train_as_one(tmp_path, dtype, size):
    ref = mpi_training.train(Ranks(), dtype)
    run = mpirun(size, "train", dtype, tmp_path / "a.npz")
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "a.npz") as comp:
        for name in ref:
            assert_allclose(comp[name], ref[name], rtol=0, atol=TOLERANCE[dtype], err_msg=name)


@needs_mpi
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("raise", "ArithmeticError: nobody catches this\nrank 1 failed: aborting all ranks"),
        ("die", "rank 1"),
        ("differ", "OutOfSyncError: the parameters of rank 1 differ"),
    ],
)
def test_a_failing_rank_ends_the_job_with_a_message(tmp_path, what, message):
    run = mpirun(2, what, "float32", tmp_path / "a.npz")
    assert run.returncode != 0
    assert message in run.stdout + run.stderr
    assert not Path(tmp_path / "a.npz").exists()
