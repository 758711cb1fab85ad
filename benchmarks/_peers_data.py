"""The data that `peers.py` compares on, and a few numbers that tell whether results agree.

Every process makes the same data from the same counter, arrays of all steps in the order
``(T, m, n)``: the memory of a Fortran-ordered ``(n, m, T)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STREAMS = ("x", "a0", "Wax", "Waa", "Wya", "ba", "by", "cotangent", "lengths")


def scramble(stream: str, size: int) -> NDArray[np.uint32]:
    """Hash a counter to uniform 32-bit numbers (a xorshift-multiply mix, as in MurmurHash3)."""
    offset = (STREAMS.index(stream) + 1) * 0x9E3779B9 % 2**32
    h = np.arange(size, dtype=np.uint32)
    h += np.uint32(offset)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return h


class Problem(NamedTuple):
    """Data of one comparison; `x` and `cotangent` have the order (T, m, n)."""

    x: Array
    a0: Array  #: (m, n_a)
    Wax: Array
    Waa: Array
    Wya: Array
    ba: Array
    by: Array
    cotangent: Array  #: gradient with respect to `a`, 0 at padded steps
    lengths: NDArray[np.int64]

    @property
    def parameters(self) -> dict[str, Array]:
        """Parameters as fastrnn takes them."""
        return {
            "Wax": self.Wax,
            "Waa": self.Waa,
            "Wya": self.Wya,
            "ba": self.ba[:, None],
            "by": self.by[:, None],
        }


def make_problem(
    n_x: int, n_a: int, n_y: int, m: int, T: int, full: bool, dtype: np.dtype[Any]
) -> Problem:
    """Uniform data; weights small enough that the recurrence does not expand."""

    def uniform(stream: str, shape: tuple[int, ...], scale: float = 1.0) -> Array:
        values = (scramble(stream, int(np.prod(shape))) >> np.uint32(8)).astype(dtype)
        values *= dtype.type(2.0**-23)
        values -= dtype.type(1)
        if scale != 1:
            values *= dtype.type(scale)
        return values.reshape(shape)

    shortest = max(1, T // 4)
    lengths = shortest + scramble("lengths", m).astype(np.int64) % (T - shortest + 1)
    if full:
        lengths[:] = T
    cotangent = uniform("cotangent", (T, m, n_a))
    cotangent[np.arange(T)[:, None] >= lengths] = 0
    return Problem(
        x=uniform("x", (T, m, n_x)),
        a0=uniform("a0", (m, n_a)),
        Wax=uniform("Wax", (n_a, n_x), 1 / n_x**0.5),
        Waa=uniform("Waa", (n_a, n_a), 0.75 / n_a**0.5),
        Wya=uniform("Wya", (n_y, n_a), 1 / n_a**0.5),
        ba=uniform("ba", (n_a,), 0.5),
        by=uniform("by", (n_y,), 0.5),
        cotangent=cotangent,
        lengths=lengths,
    )


def fingerprint(problem: Problem, results: dict[str, Array]) -> Iterator[str]:
    """Project every result on data of its shape: name, product, and the scale of an error.

    A relative error of size e in random directions moves the product by e times that scale.
    """
    last = problem.lengths - 1
    for name, result in results.items():
        if name == "y":
            result = result[last, np.arange(len(last))]
            weight = np.broadcast_to(problem.by, result.shape)
        else:
            weight = problem.cotangent if name == "a" else getattr(problem, name[1:])
            if name == "a":
                result = np.where(weight == 0, 0, result)
        flat, weights = (np.ravel(array).astype(np.float64) for array in (result, weight))
        scale = np.linalg.norm(flat) * np.linalg.norm(weights) / flat.size**0.5
        yield f"{name} {flat @ weights:.17g} {scale:.17g}"
