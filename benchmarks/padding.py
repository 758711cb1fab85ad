"""Sequences laid side by side in one array."""

from __future__ import annotations

from benchmarks._cases import IMPLEMENTATIONS, SHAPE_NAME, SHAPES, prepare


class Padding:
    """`pad_sequences` of ragged lengths."""

    params = (IMPLEMENTATIONS, SHAPES)
    param_names = ("implementation", SHAPE_NAME)
    repeat = (3, 50, 0.2)

    def setup(self, *case: str) -> None:
        """Make the sequences."""
        self.batch = prepare("pad_sequences", *case)

    def time_pad_sequences(self, *case: str) -> None:
        """All sequences of a batch."""
        self.batch.pad_sequences()
