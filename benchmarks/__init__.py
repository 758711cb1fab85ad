"""Benchmarks that asv runs, and the comparison with other libraries in `peers.py`."""
