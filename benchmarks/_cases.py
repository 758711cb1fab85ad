"""What the benchmarks share: shapes, seeded data, and calls that are compiled before the timing.

A new process times each combination of parameters, and asv calls `setup` again before every timed
call, so `prepare` makes the data and compiles once in a process and hands out the same object.
"""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

#: "n_x, n_a, n_y, m, T"; the larger ones take seconds a call and run where it is asked for.
SHAPES = ["3,5,2,10,4", "12,32,9,270,29", "64,128,10,256,100"]
if os.environ.get("FASTRNN_BENCH_SLOW"):
    SHAPES += ["128,128,32,4096,50", "512,512,32,64,50", "1760,1760,32,64,50"]
SHAPE_NAME = "n_x,n_a,n_y,m,T"
DTYPES = ["float32", "float64"]
LENGTHS = ["full", "ragged", "one long"]
MODULES = {"fastrnn": "fastrnn", "reference": "fastrnn.reference"}
IMPLEMENTATIONS = list(MODULES)

#: Seconds until asv gives a benchmark up: the first process of a run compiles, on a slow machine
#: for more than the minute that asv allows.
TIMEOUT = 600


def true_lengths(kind: str, m: int, T: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Lengths of `m` samples, the longest of them T."""
    lengths = np.full(m, max(1, T // 8))
    if kind == "full":
        lengths[:] = T
    elif kind == "ragged":
        lengths = rng.integers(max(1, T // 4), T + 1, m)
    lengths[0] = T
    return lengths


class Batch:
    """Data of one combination of parameters, and a method for each call that is measured."""

    def __init__(self, implementation: str, shape: str, dtype: str, lengths: str) -> None:
        # Several threads would wait for whatever else keeps their processors busy.
        numba.set_num_threads(1)
        # Not at the top: commits are measured in which the package lacks some of its modules.
        self.rnn = importlib.import_module(MODULES[implementation])
        rng = np.random.default_rng(0)
        n_x, n_a, n_y, m, T = map(int, shape.split(","))
        # The order that each implementation's own results have.
        order: Any = "F" if implementation == "fastrnn" else "C"

        def normal(*size: int, scale: float = 1.0) -> NDArray[Any]:
            return np.asarray(scale * rng.standard_normal(size), dtype, order=order)

        self.sequences = [normal(n_x, int(L)) for L in true_lengths(lengths, m, T, rng)]
        self.x, self.lengths = self.rnn.pad_sequences(self.sequences)
        self.a0, self.da, self.logits = (
            normal(n_a, m),
            normal(n_a, m, T),
            normal(n_y, 999),
        )
        self.labels, self.step_labels = rng.integers(0, n_y, m), rng.integers(0, n_y, (m, T))
        self.parameters = {
            "Wax": normal(n_a, n_x, scale=0.5 * n_x**-0.5),
            "Waa": normal(n_a, n_a, scale=0.5 * n_a**-0.5),
            "Wya": normal(n_y, n_a, scale=n_a**-0.5),
            "ba": normal(n_a, 1, scale=0.1),
            "by": normal(n_y, 1, scale=0.1),
        }

    @functools.cached_property
    def passed(self) -> tuple[NDArray[Any], NDArray[Any], Any]:
        """Results of one forward pass, for what follows it."""
        return self.forward()

    @functools.cached_property
    def cell(self) -> tuple[NDArray[Any], NDArray[Any], Any]:
        """Results of one step."""
        return self.cell_forward()

    @functools.cached_property
    def optimizer(self) -> Any:
        """Adam at a rate of 0, so that every step finds the parameters of the one before."""
        return importlib.import_module("fastrnn").Adam(self.parameters, learning_rate=0)

    @functools.cached_property
    def gradients(self) -> dict[str, NDArray[Any]]:
        """Gradients of all parameters."""
        _, y_pred, caches = self.passed
        gradients = self.rnn.output_backward(y_pred, self.labels, caches)[1]
        return gradients | self.rnn.rnn_backward(gradients["da"], caches)

    def forward(self) -> Any:
        """All steps."""
        return self.rnn.rnn_forward(self.x, self.a0, self.parameters, self.lengths)

    def backward(self) -> Any:
        """All steps back."""
        return self.rnn.rnn_backward(self.da, self.passed[2])

    def both(self) -> Any:
        """All steps forward, then back."""
        return self.rnn.rnn_backward(self.da, self.forward()[2])

    def cell_forward(self) -> Any:
        """One step."""
        return self.rnn.rnn_cell_forward(self.x[:, :, 0], self.a0, self.parameters)

    def cell_backward(self) -> Any:
        """One step back."""
        return self.rnn.rnn_cell_backward(self.da[:, :, 0], self.cell[2])

    def pad_sequences(self) -> Any:
        """Lay the sequences side by side."""
        return self.rnn.pad_sequences(self.sequences)

    def softmax(self) -> Any:
        """Softmax of 999 columns of logits."""
        return self.rnn.softmax(self.logits)

    def output_backward(self) -> Any:
        """Loss and gradients of the output layer, with a label at every step."""
        _, y_pred, caches = self.passed
        return self.rnn.output_backward(y_pred, self.step_labels, caches)

    def optimizer_step(self) -> Any:
        """One step of Adam."""
        self.optimizer.step(self.gradients)

    def training_step(self) -> Any:
        """Forward, loss, backward, clipping and one step of Adam, which is fastrnn's for both."""
        _, y_pred, caches = self.forward()
        _, gradients = self.rnn.output_backward(y_pred, self.labels, caches)
        gradients |= self.rnn.rnn_backward(gradients["da"], caches)
        importlib.import_module("fastrnn").clip_gradients(gradients, max_norm=1.0)
        self.optimizer.step(gradients)


@functools.cache
def prepare(
    call: str, implementation: str, shape: str, dtype: str = "float32", lengths: str = "ragged"
) -> Batch:
    """Make a batch and make the call once, which compiles it or loads what was compiled."""
    batch = Batch(implementation, shape, dtype, lengths)
    getattr(batch, call)()
    return batch
