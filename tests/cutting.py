"""Small batches that are cut up and shared out as only large ones are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from fastrnn import _plan


def _forget() -> None:
    _plan._sizes.cache_clear()
    _plan._kept.cache_clear()


@contextlib.contextmanager
def as_if_large() -> Iterator[None]:
    """Cut batches into blocks and run them in several threads, however little work they are."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_threads.SERIAL_WORK", "_plan._SERIAL_STEP"):
            patch.setattr(f"fastrnn.{name}", 0)
        _forget()
        yield
    _forget()
