"""The output layer."""

from __future__ import annotations

from benchmarks._cases import IMPLEMENTATIONS, SHAPE_NAME, SHAPES, TIMEOUT, prepare


class Softmax:
    """`softmax` of 999 columns."""

    params = (IMPLEMENTATIONS, SHAPES)
    param_names = ("implementation", SHAPE_NAME)
    timeout = TIMEOUT
    repeat = (3, 50, 0.2)

    def setup(self, *case: str) -> None:
        """Compile it."""
        self.batch = prepare("softmax", *case)

    def time_softmax(self, *case: str) -> None:
        """Logits of n_y classes."""
        self.batch.softmax()


class OutputBackward:
    """`output_backward` with a label at every step."""

    params = (IMPLEMENTATIONS, SHAPES)
    param_names = ("implementation", SHAPE_NAME)
    timeout = TIMEOUT
    repeat = (3, 50, 0.2)

    def setup(self, *case: str) -> None:
        """Run the forward pass; compile."""
        self.batch = prepare("output_backward", *case)

    def time_output_backward(self, *case: str) -> None:
        """Loss, and gradients of the states and the layer."""
        self.batch.output_backward()
