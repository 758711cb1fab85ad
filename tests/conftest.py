"""Settings that every test module relies on."""

import os

from hypothesis import settings

# Two threads on one processor show as much about bits as on two.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))

# The first example of a test may compile a kernel, which takes seconds: no deadline. The examples
# are the same in every run, so that a failure is there again when it is looked for.
settings.register_profile("fastrnn", deadline=None, derandomize=True)
settings.load_profile("fastrnn")
