"""How a batch is cut up, against what follows from the lengths alone; and kernels by themselves."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from cutting import as_if_large

from fastrnn._plan import full, ragged
from fastrnn.kernels.stages import MOST_GROUPS

#: How results are, of which nothing here depends.
KIND = {"clear": 1, "past": 0, "itemsize": 4}
LENGTHS = {
    "random": np.random.default_rng(0).integers(0, 12, 300),
    "one length": np.full(270, 5),
    "many": np.random.default_rng(1).integers(0, 12, 600),
    "none": np.zeros(90, np.int64),
    "first block empty": np.r_[np.zeros(100, np.int64), np.arange(200) % 11],
    "few": np.array([3, 0, 7]),
    "no sample": np.zeros(0, np.int64),
}


def planned(lengths, T):
    return ragged(lengths, int(lengths.sum()), T)


@pytest.mark.parametrize("n_a", [1, 64, 128, 129, 724, 725])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_blocks_hold_every_sample_longest_first(lengths, n_a):
    T = 13
    (blocks, groups, rows, *_), _, order, active = planned(lengths, T).cut(3, n_a, 2, **KIND)
    m = len(lengths)
    assert sorted(order) == list(range(m))
    assert 1 <= groups <= blocks
    for block, counts in enumerate(active.reshape(blocks, T + 1)):
        samples = order[m * block // blocks : m * (block + 1) // blocks]
        assert list(counts) == [np.sum(lengths[samples] > t) for t in range(T)] + [0]
        assert list(samples) == sorted(samples, key=lambda i: (-lengths[i], i))
        assert len(samples) <= rows


@pytest.mark.parametrize("n_a", [64, 128, 5000])
@pytest.mark.parametrize("n_y", [0, 2])
def test_groups_are_few(n_a, n_y):
    lengths = np.random.default_rng(1).integers(0, 12, 2000)
    blocks, groups, *_ = planned(lengths, 13).cut(3, n_a, n_y, **KIND).sizes
    assert 1 <= groups <= min(blocks, MOST_GROUPS)


def test_nothing_is_cleared_where_nothing_is_padded():
    assert [planned(np.full(3, T), 5).cut(3, 4, 2, **KIND).sizes[3] for T in (4, 5)] == [1, 0]


def test_blocks_are_apart_in_memory_or_of_like_lengths():
    lengths = LENGTHS["random"]
    few, many = (planned(lengths, 12).cut(3, n_a, 2, **KIND) for n_a in (64, 256))
    assert few.sizes[0] > 1
    assert many.sizes[0] > 1
    bounds = [len(lengths) * b // few.sizes[0] for b in range(few.sizes[0] + 1)]
    for lo, hi in itertools.pairwise(bounds):
        assert sorted(few.order[lo:hi]) == list(range(lo, hi))
    assert np.all(np.diff(lengths[many.order]) <= 0)


def test_samples_share_a_block_where_their_rows_do_not_pay_for_several():
    def blocks(T: int, n_a: int, n_y: int) -> int:
        return planned(np.full(64, T), T).cut(3, n_a, n_y, **KIND).sizes[0]

    forward, backward = ([blocks(T, 512, n_y) for T in (5, 6, 8)] for n_y in (10, 0))
    assert forward == [1, 4, 4]
    assert backward == [1, 1, 4]
    assert blocks(5, 256, 10) == 4


def test_several_threads_are_for_much_work():
    few, many = planned(np.full(4, 5), 5), planned(np.full(300, 5), 5)
    assert few.cut(3, 32, 2, **KIND).alone
    assert planned(np.ones(1, np.int64), 1).cut(300, 300, 2, **KIND).alone
    assert not planned(np.ones(1, np.int64), 1).cut(700, 700, 2, **KIND).alone  # much to read
    assert not many.cut(3, 128, 2, **KIND).alone
    assert many.cut(3, 32, 2, **KIND).sizes[0] == 1  # blocks are for several threads
    with as_if_large():
        few, many = (planned(plan.lengths, 5).cut(3, 32, 2, **KIND) for plan in (few, many))
    assert not few.alone
    assert many.sizes[0] > 1


def test_plans_of_small_full_batches_are_kept():
    lengths = np.full(7, 5)
    plan = planned(lengths, 5)
    assert planned(lengths.copy(), 5) is plan
    assert full(7, 5) is plan
    lengths[:] = 0  # what a caller does to its own array
    assert list(plan.lengths) == [5] * 7
    for other in (planned(np.full(7, 5), 6), planned(np.full(6, 5), 5), planned(np.full(5, 7), 7)):
        assert other is not plan
    for m, T in [(1 << 17, 1), (1 << 17, 0), (0, 1 << 17)]:  # those that take memory are not
        assert full(m, T) is not full(m, T)


def test_a_plan_keeps_few_cuts():
    plan = planned(LENGTHS["few"], 12)
    first = plan.cut(3, 1, 2, **KIND)
    assert plan.cut(3, 1, 2, **KIND) is first
    for n_a in range(2, 40):
        assert (
            plan.cut(3, n_a, 2, **KIND).sizes
            == planned(plan.lengths, 12).cut(3, n_a, 2, **KIND).sizes
        )
        assert len(plan._cuts) <= 8


def test_what_a_cut_depends_on():
    """What a plan has cut before changes nothing."""
    changes = [
        {}, {"itemsize": 8}, {"clear": 0}, {"past": 1}, {"n_a": 64}, {"n_y": 0},
    ]  # fmt: skip
    shape = {"n_x": 3, "n_a": 600, "n_y": 2, **KIND}
    lengths = np.minimum(np.arange(64) + 1, 9)
    plan = planned(lengths, 9)
    cuts = [plan.cut(**{**shape, **change}) for change in changes]
    for change, cut in zip(changes, cuts, strict=True):
        alone = planned(lengths, 9).cut(**{**shape, **change})
        assert (cut.sizes, cut.alone) == (alone.sizes, alone.alone), change
    assert all(cut.sizes != cuts[0].sizes for cut in cuts[1:])


def test_a_cut_depends_on_the_features():
    plan = full(300, 1)
    assert plan.cut(3, 32, 2, **KIND).sizes[0] == 1
    assert plan.cut(1000, 32, 2, **KIND).sizes[0] > 1


def test_many_samples_of_little_work_are_cut_up():
    plan = full(1 << 15, 1)
    blocks, _, rows, *_ = plan.cut(1, 2, 2, **KIND).sizes
    assert blocks > 1
    assert rows < 1000
    assert plan.cut(1, 2, 2, **KIND).alone


def test_both_passes_share_an_order():
    plan = planned(LENGTHS["random"], 12)
    assert plan.cut(3, 32, 2, **KIND).order is plan.cut(3, 32, 0, **KIND).order


ALONE = {
    "forward": "fastrnn.rnn_forward(x, a0, p, [4, 2])",
    "backward": "fastrnn.rnn_backward(np.ones_like(a), plain)",
    "output": "fastrnn.output_backward(y, [0, 1], plain)",
}


@pytest.mark.parametrize("call", ALONE.values(), ids=ALONE)
def test_a_process_may_begin_with_any_kernel(call):
    # A kernel calls its pieces by symbols. A piece that is not named beside it would be missing in
    # a process that has not loaded it for another.
    script = f"""
import numpy as np
import fastrnn
p = fastrnn.initialize_parameters(n_x=3, n_a=4, n_y=2, seed=0)
x, a0 = np.ones((3, 2, 4)), np.zeros((4, 2))
a, y, plain = fastrnn.reference.rnn_forward(x, a0, p, [4, 2])
{call}
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
