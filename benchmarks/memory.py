"""Memory at its peak."""

from __future__ import annotations

from benchmarks._cases import IMPLEMENTATIONS, SHAPE_NAME, SHAPES, TIMEOUT, Batch, prepare


class Memory:
    """Of the whole process; what a call takes is its figure less that of `reference`."""

    params = (IMPLEMENTATIONS, SHAPES)
    param_names = ("implementation", SHAPE_NAME)
    timeout = TIMEOUT

    def setup_cache(self) -> None:
        """Compile in a process of its own, or the compiler's memory would be the peak."""
        prepare("both", "fastrnn", SHAPES[0])

    def setup(self, implementation: str, shape: str) -> None:
        """Make the data, and no call."""
        self.batch = Batch(implementation, shape, "float32", "ragged")

    def peakmem_reference(self, *case: str) -> None:
        """Python, NumPy, Numba and the data."""

    def peakmem_both(self, *case: str) -> None:
        """All steps forward, then back."""
        self.batch.both()
