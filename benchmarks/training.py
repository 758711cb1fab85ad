"""One step of training, and the optimizer's part of it."""

from __future__ import annotations

from benchmarks._cases import IMPLEMENTATIONS, SHAPE_NAME, SHAPES, TIMEOUT, prepare


class Optimizer:
    """`Adam`, of which there is no reference."""

    params = SHAPES
    param_names = (SHAPE_NAME,)
    timeout = TIMEOUT
    repeat = (3, 50, 0.2)

    def setup(self, shape: str) -> None:
        """Run a batch for its gradients."""
        self.batch = prepare("optimizer_step", "fastrnn", shape)

    def time_adam_step(self, shape: str) -> None:
        """All parameters."""
        self.batch.optimizer_step()


class Training:
    """Forward, loss, backward, clipping, and Adam."""

    params = (IMPLEMENTATIONS, SHAPES)
    param_names = ("implementation", SHAPE_NAME)
    timeout = TIMEOUT
    repeat = (3, 50, 0.3)

    def setup(self, *case: str) -> None:
        """Compile all of it."""
        self.batch = prepare("training_step", *case)

    def time_step(self, *case: str) -> None:
        """One batch, ragged, one label for each sequence."""
        self.batch.training_step()
