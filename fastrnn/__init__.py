"""Recurrent networks on batches of variable-length sequences, compiled with Numba."""

__version__ = "0.1.0"
