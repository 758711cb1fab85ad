"""Benchmarks: the comparison with other libraries in `peers.py`."""
