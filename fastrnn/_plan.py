"""How a ragged batch is cut up: which samples go through their steps together, and in what order.

All of it follows from shapes and lengths, but for the number of threads, which changes no result.
Who plans a pass also has the C library expect the memory that it takes.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn import _results, _threads
from fastrnn._conform import INT64
from fastrnn.kernels.stages import MOST_GROUPS, sort_by_length


class _Cutting(NamedTuple):
    """How samples are cut into blocks."""

    least: int  #: samples of a block: if they were fewer, there are fewer blocks
    most: int
    rows: int  #: of a chunk, `most` at least: its buffers share the second cache level with weights
    apart: bool  #: blocks lie apart in memory, of whatever lengths; if not, lengths are alike


#: Hidden units up to which threads that write to neighbouring samples would hand cache lines to
#: and fro.
_FEW_UNITS = 128
_FEW = _Cutting(16, 72, 192, True)
#: Bytes of the weights of the recurrence up to which each core reads all of them at every step of
#: its own blocks. Beyond, cores share a block, each with columns of its own, and hand each other
#: their parts of the states.
_NEAR_WEIGHTS = 1 << 21
#: Samples of one length end together, and the weights go through the cache for many rows.
_NEAR = _Cutting(16, 48, 128, False)
_FAR = _Cutting(128, 128, 128, False)
#: Blocks into which samples are cut at least: fewer are not shared out evenly. Up to the last
#: number of units two are worth it.
_BLOCKS, _TWO_BLOCKS_UNITS = 4, 64
#: Bytes of all sums of weight gradients, if they are more than a few.
_GROUP_BYTES = 1 << 26
#: Rows below which there is one block. Forward, in blocks of `_NEAR`, because each core reads all
#: weights for blocks of its own: a row for so many of those of the recurrence. Backward, because
#: each group of blocks has sums of weight gradients to make: in each group so many, and one for so
#: many hidden units.
_WEIGHTS_PER_ROW = 768
_GROUP_ROWS, _UNITS_PER_GROUP_ROW = 32, 4
#: Rows of a chunk, if there is one block.
_CHUNK = 256
#: Samples up to which there is one block if one thread does all anyway: with more, a chunk of all
#: leaves the caches.
_LIGHT_SAMPLES = 1 << 14
#: Multiply-adds of a step below which one thread is faster than several.
_SERIAL_STEP = 60_000
#: Bytes of weights from which several are faster even for fewer multiply-adds than
#: `_threads.SERIAL_WORK`: to read them is what takes time then.
_SHARED_WEIGHTS = 1 << 21
#: Cuts that a plan keeps for those who ask for the same again, such as a cell step by step.
_CUTS_KEPT = 8
#: Samples times steps, and one more of each, of a full batch up to which its plan is kept.
_SIZE_KEPT = 1 << 16


@functools.lru_cache(maxsize=128)
def _sizes(
    m: int, total: int, n_x: int, n_a: int, n_y: int, itemsize: int
) -> tuple[int, int, int, bool, bool]:
    """Blocks, groups of them, rows of a chunk, whether blocks lie apart, and whether to be alone.

    Remembered for those who call for the same again with another plan.
    """
    near = _NEAR if n_a * n_a * itemsize <= _NEAR_WEIGHTS else _FAR
    cutting = _FEW if n_a <= _FEW_UNITS else near
    blocks = max(min(_BLOCKS, m // cutting.least), -(-m // cutting.most))
    weights = n_a * (n_x + n_a)
    groups = max(_GROUP_BYTES // max(weights * itemsize, 1), _BLOCKS)
    groups = min(blocks, groups, MOST_GROUPS)
    if n_y:
        few = cutting is _NEAR and total * _WEIGHTS_PER_ROW < n_a * n_a
    else:
        few = total < groups * max(_GROUP_ROWS, n_a // _UNITS_PER_GROUP_ROW)
    light = total * (weights + n_a * n_y) < _threads.SERIAL_WORK
    few = few or (light and m <= _LIGHT_SAMPLES)
    alone = light and weights * itemsize < _SHARED_WEIGHTS
    if few or blocks < (2 if n_a <= _TWO_BLOCKS_UNITS else _BLOCKS):
        small = m * n_a * n_a < _SERIAL_STEP
        return 1, 1, max(m, min(_CHUNK, total), 1), False, alone or small
    return blocks, groups, cutting.rows, cutting.apart, alone


class Cut(NamedTuple):
    """What a kernel needs to know of how a batch is cut up."""

    sizes: tuple[int, ...]  #: the `Sizes` of kernels
    alone: bool  #: whether one thread is faster than several
    order: NDArray[np.int64]  #: (m,), the samples of each block, longest first
    active: NDArray[np.int64]  #: (blocks * (T + 1),), those of a block that have each step; then 0


class Ragged:
    """The plan of a ragged batch."""

    def __init__(self, lengths: NDArray[np.int64], total: int, T: int) -> None:
        """Plan samples of these lengths, which nobody changes later, in a batch of ``T`` steps."""
        self.lengths = lengths  #: (m,)
        self.total = total  #: steps of all samples
        self.T = T
        self._orders: dict[tuple[int, bool], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._cuts: dict[tuple[int, ...], Cut] = {}

    @property
    def steps(self) -> int:
        """Steps in which any sample is active: the largest length."""
        return int(self.lengths.max(initial=0))

    def cut(self, n_x: int, n_a: int, n_y: int, clear: int, past: int, itemsize: int) -> Cut:
        """Cut the batch up for a pass; one without an output layer, ``n_y`` = 0, is the one back.

        ``clear`` is 1 if padded steps, where there are any, may hold anything; ``past`` is 1 if
        the results are large.
        """
        key = n_x, n_a, n_y, clear, past, itemsize
        cut = self._cuts.get(key)
        if cut is None:
            if len(self._cuts) >= _CUTS_KEPT:
                self._cuts.clear()
            cut = self._cuts[key] = self._cut(*key)
        return cut

    def _cut(self, n_x: int, n_a: int, n_y: int, clear: int, past: int, itemsize: int) -> Cut:
        m, total = len(self.lengths), self.total
        blocks, groups, rows, apart, alone = _sizes(m, total, n_x, n_a, n_y, itemsize)
        cells, weights = m * self.T * (n_x + n_a + n_y), n_a * (n_x + n_a)
        _results.expect((cells + 2 * weights) * itemsize)  # copies of weights, or sums, as well
        if total == m * self.T:
            clear = 0  # nothing is padded
        sizes = blocks, groups, rows, clear, past, int(apart)
        return Cut(sizes, alone, *self._sorted(blocks, apart))

    def _sorted(self, blocks: int, apart: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Order and numbers of active samples; both passes mostly need the same."""
        arrays = self._orders.get((blocks, apart))
        if arrays is None:
            active = np.empty((blocks, self.T + 1), INT64)
            arrays = np.empty(len(self.lengths), INT64), active.ravel()
            sort_by_length(INT64, self.lengths, apart, arrays[0], active)
            self._orders[blocks, apart] = arrays
        return arrays


def ragged(lengths: NDArray[np.int64], total: int, T: int) -> Ragged:
    """The plan of samples of these lengths, of which this is the sum, in a batch of ``T`` steps."""
    m = len(lengths)
    return full(m, T) if total == m * T else Ragged(lengths, total, T)


def full(m: int, T: int) -> Ragged:
    """The plan of ``m`` samples that all have ``T`` steps; small ones are kept."""
    return (_kept if (m + 1) * (T + 1) <= _SIZE_KEPT else _full)(m, T)


def _full(m: int, T: int) -> Ragged:
    return Ragged(np.full(m, T, INT64), m * T, T)


_kept = functools.lru_cache(maxsize=8)(_full)
