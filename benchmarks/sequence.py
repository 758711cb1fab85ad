"""All steps of a batch of sequences: forward, backward, and both."""

from __future__ import annotations

from benchmarks._cases import (
    DTYPES,
    IMPLEMENTATIONS,
    LENGTHS,
    SHAPE_NAME,
    SHAPES,
    TIMEOUT,
    prepare,
)
from benchmarks._clock import seconds_per_call


class _Sequence:
    """`call` names what a subclass times. `SampleStep` and `ratio.py` have the smallest shape."""

    params = (IMPLEMENTATIONS, SHAPES[1:], DTYPES, LENGTHS)
    param_names = ("implementation", SHAPE_NAME, "dtype", "lengths")
    timeout = TIMEOUT
    repeat = (3, 50, 0.3)
    call = ""

    def setup(self, *case: str) -> None:
        """Compile it."""
        self.batch = prepare(self.call, *case)


class Forward(_Sequence):
    """`rnn_forward`."""

    call = "forward"

    def time_forward(self, *case: str) -> None:
        """All steps."""
        self.batch.forward()


class Backward(_Sequence):
    """`rnn_backward`."""

    call = "backward"

    def time_backward(self, *case: str) -> None:
        """All steps back."""
        self.batch.backward()


class Both(_Sequence):
    """`rnn_forward` and `rnn_backward`."""

    call = "both"

    def time_both(self, *case: str) -> None:
        """All steps forward, then back."""
        self.batch.both()


class SampleStep:
    """What one step of one sample costs fastrnn: padding that is not skipped would show in it."""

    params = (SHAPES, LENGTHS)
    param_names = (SHAPE_NAME, "lengths")
    timeout = TIMEOUT
    unit = "us / sample-step"

    def setup(self, shape: str, lengths: str) -> None:
        """Compile both."""
        self.batch = prepare("both", "fastrnn", shape, "float32", lengths)

    def track_both(self, shape: str, lengths: str) -> float:
        """Forward and backward in float32, over the sum of the true lengths."""
        return 1e6 * seconds_per_call(self.batch.both) / sum(self.batch.lengths)
