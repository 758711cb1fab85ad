"""Until the first result, in processes of their own."""

from __future__ import annotations

from benchmarks._cases import DTYPES, TIMEOUT, prepare

_BATCH = """
import numpy as np
import fastrnn
x, a0 = np.zeros((3, 2, 4), "{dtype}"), np.zeros((5, 2), "{dtype}")
parameters = {{
    name: np.zeros(shape, "{dtype}")
    for name, shape in dict(Wax=(5, 3), Waa=(5, 5), Wya=(2, 5), ba=(5, 1), by=(2, 1)).items()
}}
"""
_CALL = "fastrnn.rnn_forward(x, a0, parameters, [4, 2])"
_EMPTY_CACHE = """
import os, tempfile
folder = tempfile.TemporaryDirectory()
os.environ["NUMBA_CACHE_DIR"] = folder.name
"""


class Import:
    """`import fastrnn`, which includes Numba's."""

    repeat = 5

    def timeraw_fastrnn(self) -> str:
        """With compiled bytecode."""
        return "import fastrnn"

    def timeraw_numba(self) -> str:
        """Numba's part of it."""
        return "import numba"


class ColdCall:
    """The first `rnn_forward` on a machine: it compiles."""

    timeout = TIMEOUT
    rounds = repeat = 1
    warmup_time = 0

    def timeraw_forward(self) -> tuple[str, str]:
        """With an empty compilation cache, in float32."""
        return _CALL, _EMPTY_CACHE + _BATCH.format(dtype="float32")


class WarmCall:
    """The first `rnn_forward` in a process: it loads what was compiled."""

    params = DTYPES
    param_names = ("dtype",)
    timeout = TIMEOUT
    repeat = 5

    def setup(self, dtype: str) -> None:
        """Fill the compilation cache."""
        prepare("forward", "fastrnn", "3,5,2,2,4", dtype)

    def timeraw_forward(self, dtype: str) -> tuple[str, str]:
        """With a full compilation cache."""
        return _CALL, _BATCH.format(dtype=dtype)
