"""Processor time of fastrnn over that of the reference, in one thread of one process, in turns.

This holds still where times do not, so it is what tells a regression of a commit: see
CONTRIBUTING.md for the factor. Below 1, fastrnn is faster.
"""

from __future__ import annotations

from benchmarks._cases import IMPLEMENTATIONS, SHAPE_NAME, SHAPES, TIMEOUT, prepare
from benchmarks._clock import COMPUTED, ratio

CALLS = [
    "forward",
    "backward",
    "cell_forward",
    "cell_backward",
    "pad_sequences",
    "softmax",
    "output_backward",
    "training_step",
]


class Ratio:
    """fastrnn over reference, ragged lengths."""

    params = (CALLS, SHAPES)
    param_names = ("call", SHAPE_NAME)
    timeout = TIMEOUT
    unit = "fastrnn / reference"
    dtype = "float32"

    def setup(self, call: str, shape: str) -> None:
        """Compile it."""
        self.fast, self.slow = (
            getattr(prepare(call, implementation, shape, self.dtype), call)
            for implementation in IMPLEMENTATIONS
        )

    def track_ratio(self, call: str, shape: str) -> float:
        """Median over turns of some milliseconds."""
        return ratio(self.fast, self.slow, COMPUTED)


class Float64(Ratio):
    """The same in float64, whose kernels are compiled from the same source."""

    params = (["training_step"], SHAPES)
    dtype = "float64"
