"""Data for the tests: makers of seeded batches, and hypothesis strategies over their properties.

Dimension letters are those of the package: ``n_x`` features, ``n_a`` hidden units, ``n_y`` classes,
``m`` samples, ``T`` steps, ``L[i]`` true lengths. A maker draws in float64 and converts at the end,
so that one seed gives the same batch in float32 and float64, but for the rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]
Lengths: TypeAlias = NDArray[np.int64]


class Shape(NamedTuple):
    """The five sizes of a batch."""

    n_x: int
    n_a: int
    n_y: int
    m: int
    T: int


class Batch(NamedTuple):
    """The arguments of `rnn_forward`, in its order."""

    x: Array
    a0: Array
    parameters: dict[str, Array]
    seq_lengths: Any

    @property
    def shape(self) -> Shape:
        """Sizes of the arrays."""
        n_y, n_a = self.parameters["Wya"].shape
        n_x, m, T = self.x.shape
        return Shape(n_x, n_a, n_y, m, T)

    @property
    def arrays(self) -> dict[str, Array]:
        """Every array but the lengths, by name."""
        return {"x": self.x, "a0": self.a0, **self.parameters}

    def replaced(self, **arrays: Array) -> Batch:
        """Put other arrays in place of those of these names."""
        parameters = {**self.arrays, **arrays}
        return Batch(parameters.pop("x"), parameters.pop("a0"), parameters, self.seq_lengths)

    def map(self, function: Callable[[Array], Array]) -> Batch:
        """Apply a function to every array but the lengths."""
        return self.replaced(**{name: function(array) for name, array in self.arrays.items()})

    def astype(self, dtype: DTypeLike) -> Batch:
        """Convert every array but the lengths."""
        return self.map(lambda array: array.astype(dtype))

    def in_order(self, order: str) -> Batch:
        """Lay every array but the lengths out in one of `MEMORY_ORDERS`."""
        return self.map(MEMORY_ORDERS[order])


LENGTH_KINDS: dict[str, Callable[[np.random.Generator, int, int], Lengths]] = {
    "zero": lambda rng, m, T: np.zeros(m, np.int64),
    "one": lambda rng, m, T: np.full(m, min(1, T)),
    "full": lambda rng, m, T: np.full(m, T),
    "equal": lambda rng, m, T: np.full(m, T // 2),
    "one_long": lambda rng, m, T: np.where(np.arange(m) == m // 2, T, min(1, T)),
    "ragged": lambda rng, m, T: rng.integers(min(1, T), T + 1, m),
    "short": lambda rng, m, T: rng.integers(min(1, T // 2), T // 2 + 1, m),
    "some_zero": lambda rng, m, T: rng.integers(0, T + 1, m) * (np.arange(m) % 3 != 1),
}
"""How the lengths of a batch can be distributed: `T` exceeds them all in `equal` and `short`."""

LENGTH_FORMS: dict[str, Callable[[Lengths], Any]] = {
    "list": lambda lengths: lengths.tolist(),
    "tuple": lambda lengths: tuple(lengths.tolist()),
    "int32": lambda lengths: lengths.astype(np.int32),
    "int64": lambda lengths: lengths,
    "uint8": lambda lengths: lengths.astype(np.uint8),
}
"""The types in which a caller can pass lengths."""


def _view_of(base_shape: Sequence[int], part: slice, array: Array) -> Array:
    filler = np.nan if array.dtype.kind == "f" else 1
    view = np.full(base_shape, filler, array.dtype)[(part,) * array.ndim]
    view[...] = array
    return view


def _read_only(array: Array) -> Array:
    array = array.copy(order="K")
    array.flags.writeable = False
    return array


MEMORY_ORDERS: dict[str, Callable[[Array], Array]] = {
    "C": lambda array: array.copy(order="C"),
    "F": lambda array: array.copy(order="F"),
    "features_last": lambda array: np.moveaxis(np.moveaxis(array, 0, -1).copy(order="C"), -1, 0),
    "negative": lambda array: np.flip(np.flip(array).copy()),
    "sliced": lambda array: _view_of([n + 2 for n in array.shape], slice(1, -1), array),
    "strided": lambda array: _view_of([2 * n for n in array.shape], slice(None, None, 2), array),
    "read_only": _read_only,
}
"""Copies of an array in other layouts; what lies between the elements of a view is NaN."""


def make_lengths(rng: np.random.Generator, m: int, T: int, kind: str = "ragged") -> Lengths:
    """Draw `m` lengths up to `T`, distributed as one of `LENGTH_KINDS`."""
    return LENGTH_KINDS[kind](rng, m, T)


def make_parameters(
    rng: np.random.Generator, n_x: int, n_a: int, n_y: int, dtype: DTypeLike = np.float64
) -> dict[str, Array]:
    """Draw parameters of a recurrence that does not expand: the 2-norm of Waa is 0.95."""
    Waa = rng.standard_normal((n_a, n_a))
    parameters = {
        "Wax": rng.standard_normal((n_a, n_x)) / np.sqrt(n_x),
        "Waa": 0.95 * Waa / (np.linalg.norm(Waa, 2) if n_a else 1),  # some NumPy wants an element
        "Wya": rng.standard_normal((n_y, n_a)) / np.sqrt(n_a),
        "ba": rng.standard_normal((n_a, 1)) / 10,
        "by": rng.standard_normal((n_y, 1)) / 10,
    }
    return {key: value.astype(dtype) for key, value in parameters.items()}


def make_batch(
    rng: np.random.Generator,
    n_x: int,
    n_a: int,
    n_y: int,
    m: int,
    T: int,
    dtype: DTypeLike = np.float64,
    lengths: str | Sequence[int] | Lengths = "ragged",
) -> Batch:
    """Draw a batch, random in the padding too; `lengths` are given, or one of `LENGTH_KINDS`."""
    x = rng.standard_normal((n_x, m, T)).astype(dtype)
    a0 = np.tanh(rng.standard_normal((n_a, m))).astype(dtype)
    parameters = make_parameters(rng, n_x, n_a, n_y, dtype)
    if isinstance(lengths, str):
        lengths = make_lengths(rng, m, T, lengths)
    return Batch(x, a0, parameters, lengths)


def make_cotangent(rng: np.random.Generator, batch: Batch) -> Array:
    """Draw a gradient `da` of the loss for a batch, random in the padding too."""
    _, n_a, _, m, T = batch.shape
    return rng.standard_normal((n_a, m, T)).astype(batch.x.dtype)


def make_labels(rng: np.random.Generator, n_y: int, shape: tuple[int, ...]) -> Lengths:
    """Draw classes of shape (m, T) or (m,); about a quarter of them is -1, which is no label."""
    return np.where(rng.random(shape) < 0.25, -1, rng.integers(0, n_y, shape))


def make_sequences(
    rng: np.random.Generator, n_x: int, lengths: ArrayLike, dtype: DTypeLike = np.float64
) -> list[Array]:
    """Draw one array (n_x, T_i) for each length, as `pad_sequences` takes them."""
    return [rng.standard_normal((n_x, n)).astype(dtype) for n in np.asarray(lengths, dtype=int)]


def padding_mask(seq_lengths: ArrayLike, T: int) -> NDArray[np.bool_]:
    """Mark the padded steps, ``t >= L[i]``, in an array (m, T)."""
    return np.arange(T) >= np.asarray(seq_lengths, dtype=np.int64)[:, np.newaxis]


def poison_padding(array: Array, seq_lengths: ArrayLike, value: float = np.nan) -> Array:
    """Copy an array (n, m, T) with `value` at every padded step."""
    poisoned = array.copy(order="K")
    poisoned[:, padding_mask(seq_lengths, array.shape[2])] = value
    return poisoned


@st.composite
def shapes(draw: st.DrawFn, *, largest: int = 9, empty: bool = True) -> Shape:
    """Sizes from 1 to `largest`; `m` and `T` can be 0 as well unless `empty` is false."""
    size = st.integers(1, largest)
    count = st.integers(0 if empty else 1, largest)
    return Shape(draw(size), draw(size), draw(size), draw(count), draw(count))


def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    """Either dtype that fastrnn computes in."""
    return st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)])


def memory_orders() -> st.SearchStrategy[str]:
    """Names of `MEMORY_ORDERS`."""
    return st.sampled_from(sorted(MEMORY_ORDERS))


def length_forms() -> st.SearchStrategy[str]:
    """Names of `LENGTH_FORMS`."""
    return st.sampled_from(sorted(LENGTH_FORMS))


def seeds() -> st.SearchStrategy[int]:
    """Seeds of the makers' generators."""
    return st.integers(0, 2**32 - 1)


@st.composite
def seq_lengths(draw: st.DrawFn, m: int, T: int) -> Lengths:
    """Any lengths up to `T`, often those of one of `LENGTH_KINDS`."""
    kind = draw(st.sampled_from([*sorted(LENGTH_KINDS), "any"]))
    if kind == "any":
        return np.array(draw(st.lists(st.integers(0, T), min_size=m, max_size=m)), np.int64)
    return make_lengths(np.random.default_rng(draw(seeds())), m, T, kind)


@st.composite
def batches(
    draw: st.DrawFn,
    *,
    shape: st.SearchStrategy[Shape] | None = None,
    dtype: st.SearchStrategy[np.dtype[Any]] | None = None,
) -> Batch:
    """Batches of any shape, dtype, memory order, distribution and form of the lengths."""
    size = draw(shapes() if shape is None else shape)
    lengths = draw(seq_lengths(size.m, size.T))
    rng = np.random.default_rng(draw(seeds()))
    batch = make_batch(rng, *size, draw(dtypes() if dtype is None else dtype), lengths)
    batch = batch.in_order(draw(memory_orders()))
    return batch._replace(seq_lengths=LENGTH_FORMS[draw(length_forms())](lengths))
