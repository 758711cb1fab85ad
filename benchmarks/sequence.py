"""All steps of a batch of sequences: forward, backward, and both."""

from __future__ import annotations

from benchmarks._cases import LENGTHS, SHAPE_NAME, SHAPES, TIMEOUT, prepare
from benchmarks._clock import seconds_per_call


class _Sequence:
    """`call` names what a subclass times. `SampleStep` and `ratio.py` have the smallest shape."""

    # The reference in float64 is nobody's baseline, and takes the longest.
    params = (
        ["fastrnn float32", "fastrnn float64", "reference float32"],
        SHAPES[1:],
        LENGTHS,
    )
    param_names = ("implementation and dtype", SHAPE_NAME, "lengths")
    timeout = TIMEOUT
    repeat = (3, 50, 0.3)
    call = ""

    def setup(self, subject: str, shape: str, lengths: str) -> None:
        """Compile it."""
        implementation, dtype = subject.split()
        self.batch = prepare(self.call, implementation, shape, dtype, lengths)


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
