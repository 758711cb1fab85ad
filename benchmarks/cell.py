"""One step of the network."""

from __future__ import annotations

from benchmarks._cases import IMPLEMENTATIONS, SHAPE_NAME, SHAPES, TIMEOUT, prepare


class Cell:
    """`rnn_cell_forward` and `rnn_cell_backward`."""

    params = (IMPLEMENTATIONS, SHAPES)
    param_names = ("implementation", SHAPE_NAME)
    timeout = TIMEOUT
    repeat = (3, 50, 0.2)

    def setup(self, *case: str) -> None:
        """Compile both."""
        self.batch = prepare("cell_backward", *case)

    def time_forward(self, *case: str) -> None:
        """One step."""
        self.batch.cell_forward()

    def time_backward(self, *case: str) -> None:
        """One step back."""
        self.batch.cell_backward()
