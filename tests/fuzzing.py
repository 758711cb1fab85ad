"""A machine that calls the public functions in any order with any arguments.

It knows of every call whether it is a right one. A right one must give the numbers of
`fastrnn.reference`, in float64, on what the arguments hold at that time; a wrong one must raise a
`ValueError` or `TypeError`, and leave its arguments as they were. All else is a failure.
"""

from __future__ import annotations

import types
from collections import OrderedDict, UserDict, defaultdict
from typing import Any

import numpy as np
from fuzz_oracle import (
    KEYS,
    Pass,
    Refused,
    assert_near,
    assert_refused,
    call,
    common_dtype,
    loss_of,
    wide,
)
from hostile import BAD_ARRAYS, BAD_LENGTHS, DTYPES, FORMS, LENGTHS, cast
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from strategies import (
    LENGTH_KINDS,
    Batch,
    Shape,
    make_batch,
    make_labels,
    make_lengths,
    padding_mask,
    seeds,
)

import fastrnn
from fastrnn import reference

Array = NDArray[Any]
MAPPINGS: tuple[Any, ...] = (dict, OrderedDict, UserDict, types.MappingProxyType)


def pick(rng: Generator, options: Any) -> Any:
    """One of some options; of a mapping, a value."""
    options = list(options.values()) if isinstance(options, dict) else options
    return options[rng.integers(len(options))]


def draw_sizes(rng: Generator, smallest: int = 0) -> Shape:
    """Small shapes; now and then enough samples for blocks, or units for several tiles."""
    n_x, n_a, m, T = rng.integers(smallest, 7, 4).tolist()
    if rng.random() < 0.2:
        m = int(rng.integers(32, 100))
    if rng.random() < 0.2:
        n_a = int(rng.integers(15, 80))
    return Shape(n_x, n_a, int(rng.integers(1, 7)), m, T)


def draw_lengths(rng: Generator, m: int, T: int) -> list[int]:
    lengths: list[int] = make_lengths(rng, m, T, pick(rng, sorted(LENGTH_KINDS))).tolist()
    return lengths


def in_form(rng: Generator, array: Array) -> Any:
    """An array in any dtype and any layout, or often only in any dtype."""
    cast_array = cast(array, pick(rng, DTYPES))
    return cast_array if rng.random() < 0.4 else pick(rng, FORMS)(cast_array)


def right(value: Any, array: Array) -> bool:
    """Whether a form kept the shape: nested lists cannot tell that of an array without elements."""
    return np.shape(value) == array.shape


has_passes = precondition(lambda self: self.passes)


class Machine(RuleBasedStateMachine):
    """Passes that were run, and rules that use, change and mistreat them."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[Pass] = []

    @rule(seed=seeds())
    def forward(self, seed: int) -> None:
        rng = default_rng(seed)
        # Often of the shape of another, so that what belongs to one can be taken for the other's.
        alike = self.passes and rng.random() < 0.4
        shape = pick(rng, self.passes).shape if alike else draw_sizes(rng)
        lengths = draw_lengths(rng, shape.m, shape.T)
        batch = make_batch(rng, *shape, lengths=lengths)
        passed = {key: in_form(rng, array) for key, array in batch.arrays.items()}
        kept = all(right(passed[key], array) for key, array in batch.arrays.items())
        x, a0 = passed.pop("x"), passed.pop("a0")
        parameters = pick(rng, MAPPINGS)({**passed, "note": object()})
        spelled = pick(rng, LENGTHS)(lengths)
        if not kept:
            assert_refused("rnn_forward", x, a0, parameters, spelled)
            return
        self.passes.append(Pass(Batch(x, a0, parameters, spelled), lengths))
        del self.passes[:-4]

    @has_passes
    @rule(seed=seeds())
    def backward(self, seed: int) -> None:
        rng = default_rng(seed)
        run = pick(rng, self.passes)
        array = rng.standard_normal(run.a.shape)
        da = in_form(rng, array)
        if not (run.fits() and right(da, array)):
            assert_refused("rnn_backward", da, run.caches)
            return
        comp = call("rnn_backward", da, run.caches)
        assert not isinstance(comp, Refused), comp
        ref = reference.rnn_backward(wide(da, run.dtype), run.reference_caches())
        assert_near(comp, ref, run.dtype)

    @has_passes
    @rule(seed=seeds())
    def output(self, seed: int) -> None:
        rng = default_rng(seed)
        run = pick(rng, self.passes)
        n_y, m, T = run.y_pred.shape
        by_step, mean = rng.random(2) < 0.5
        labels = make_labels(rng, n_y, (m, T) if by_step else (m,))
        passed = np.where(padding_mask(run.lengths, T), 99, labels) if by_step else labels
        layout = pick(rng, sorted(FORMS.keys() - {"repeated", "sliding"}))  # no 0 is predicted
        y_pred = FORMS[layout](run.predicted.astype(pick(rng, ("f4", "f8", ">f8"))))
        arguments = y_pred, passed.astype(pick(rng, ("i1", "i8", ">i4"))), run.caches
        options = {"reduction": "mean" if mean else "sum"}
        if not (run.fits() and right(y_pred, run.predicted)):
            assert_refused("output_backward", *arguments, **options)
            return
        result = call("output_backward", *arguments, **options)
        assert not isinstance(result, Refused), result
        given = wide(y_pred, run.dtype)
        _, ref = reference.output_backward(given, labels, run.reference_caches(), **options)
        assert_near(result[1], ref, run.dtype)
        assert_near({"loss": result[0]}, {"loss": loss_of(given, labels, run, mean)}, run.dtype)

    @has_passes
    @rule(seed=seeds())
    def change_contents(self, seed: int) -> None:
        rng = default_rng(seed)
        run = pick(rng, self.passes)
        array = pick(rng, [run.batch.x, run.batch.a0, run.a, *run.batch.parameters.values()])
        if isinstance(array, np.ndarray) and array.flags.writeable and array.dtype.kind == "f":
            array *= 0.5

    @has_passes
    @rule(seed=seeds())
    def replace_parameter(self, seed: int) -> None:
        rng = default_rng(seed)
        parameters, key = pick(rng, self.passes).batch.parameters, pick(rng, KEYS)
        if isinstance(parameters, types.MappingProxyType):
            return
        array = -np.array(parameters.get(key, np.ones((3, 3))), np.float64)
        how = rng.random()
        if how < 0.1:
            parameters.pop(key, None)
        else:
            parameters[key] = in_form(rng, np.atleast_2d(array)[:, :-1] if how < 0.2 else array)

    @has_passes
    @rule(seed=seeds())
    def caches_of_another_batch(self, seed: int) -> None:
        rng = default_rng(seed)
        run, other = pick(rng, self.passes), pick(rng, self.passes)
        if run is other or not (run.fits() and other.fits()):
            return
        da = rng.standard_normal(other.a.shape)
        mixed = run.caches[0], other.caches[1], other.caches[2]
        if da.shape != run.a.shape:
            assert_refused("rnn_backward", da, run.caches)
        if not np.array_equal(run.lengths, other.lengths) or run.shape.n_x != other.shape.n_x:
            if run.lengths.any() or other.lengths.any():
                assert_refused("rnn_backward", da, mixed)

    @rule(seed=seeds())
    def cell(self, seed: int) -> None:
        rng = default_rng(seed)
        shape = draw_sizes(rng)._replace(T=1)
        batch = make_batch(rng, *shape)
        arrays = {"xt": batch.x[..., 0], "a_prev": batch.a0, **batch.parameters}
        passed = {key: in_form(rng, array) for key, array in arrays.items()}
        kept = all(right(passed[key], array) for key, array in arrays.items())
        xt, a_prev = passed.pop("xt"), passed.pop("a_prev")
        if not kept:
            assert_refused("rnnCell_forward", xt, a_prev, passed)
            return
        dtype = common_dtype(xt, a_prev, *passed.values())
        weights = {key: wide(passed[key], dtype) for key in KEYS}
        result = call("rnnCell_forward", xt, a_prev, passed)
        assert not isinstance(result, Refused), result
        ref = reference.rnnCell_forward(wide(xt, dtype), wide(a_prev, dtype), weights)
        assert_near({"a": result[0], "y": result[1]}, {"a": ref[0], "y": ref[1]}, dtype)
        for _ in range(2):
            da = rng.standard_normal((shape.n_a, shape.m))
            comp = call("rnn_cell_backward", da, result[2])
            assert not isinstance(comp, Refused), comp
            cache = (wide(result[0], dtype), *ref[2][1:])
            assert_near(comp, reference.rnnCell_backward(wide(da, dtype), cache), dtype)

    @rule(seed=seeds())
    def wrong_array(self, seed: int) -> None:
        rng = default_rng(seed)
        batch = make_batch(rng, *draw_sizes(rng, smallest=1), lengths="full")
        kind = pick(rng, sorted(BAD_ARRAYS))
        make = BAD_ARRAYS[kind]
        name = pick(rng, (*batch.arrays, "da", "y_pred", "cell"))
        if name in ("da", "y_pred"):
            a, y_pred, caches = fastrnn.rnn_forward(*batch)
            if name == "da":
                assert_refused("rnn_backward", make(a), caches)
            else:
                assert_refused("output_backward", make(y_pred), [0] * batch.shape.m, caches)
        elif name == "cell":
            da = rng.standard_normal(batch.a0.shape)
            cache = fastrnn.rnnCell_forward(batch.x[..., 0], batch.a0, batch.parameters)[2]
            assert_refused("rnnCell_backward", make(da), cache)
            assert_refused("rnnCell_backward", da, (make(da), *cache[1:]))
        elif (name, kind) != ("x", "wider"):  # more steps than the longest sequence are no error
            wrong = batch.replaced(**{name: make(batch.arrays[name])})
            assert_refused("rnn_forward", *wrong)

    @rule(seed=seeds())
    def wrong_lengths(self, seed: int) -> None:
        rng = default_rng(seed)
        batch = make_batch(rng, *draw_sizes(rng, smallest=1), lengths="full")
        wrong = pick(rng, BAD_LENGTHS)(batch.seq_lengths.tolist(), batch.shape.T)
        assert_refused("rnn_forward", *batch._replace(seq_lengths=wrong))
        assert_refused("final_states", np.ones((2, *batch.shape[3:])), wrong)

    @has_passes
    @rule(seed=seeds())
    def wrong_caches(self, seed: int) -> None:
        rng = default_rng(seed)
        run = pick(rng, self.passes)
        if not run.fits() or not run.lengths.any():
            return
        steps, x, lengths = run.caches
        *most, last = entries = list(steps)
        cell, active = last
        wrong = [
            None, (), steps, (steps,), (steps, x), (x, steps, lengths), "abc", {0: steps},
            (None, x, lengths), (most, x, lengths), ([*entries, last], x, lengths),
            (entries, None, lengths), (entries, x, None), (entries, x, [*lengths, 1]),
            *(
                ([*most, entry], x, lengths)
                for entry in (
                    None, (cell, ~active), (cell[:3], active), (cell, active + 0),
                    ((None, *cell[1:]), active), ((*cell[:3], None), active),
                    ((*cell[:3], defaultdict(list)), active),
                )
            ),
        ]  # fmt: skip
        assert_refused("rnn_backward", np.ones(run.a.shape), pick(rng, wrong))
        assert_refused("output_backward", run.y_pred, [0] * run.shape.m, pick(rng, wrong))

    @rule(seed=seeds())
    def softmax(self, seed: int) -> None:
        rng = default_rng(seed)
        array = rng.standard_normal(rng.integers(0, 6, rng.integers(4)))
        x = in_form(rng, array) if array.ndim > 1 else array
        found = np.shape(x)
        if not found or not found[0]:
            assert_refused("softmax", x)
            return
        comp = call("softmax", x)
        assert not isinstance(comp, Refused), comp
        dtype = common_dtype(x)
        assert_near({"y": comp}, {"y": reference.softmax(wide(x, dtype))}, dtype)

    @rule(seed=seeds())
    def embedding(self, seed: int) -> None:
        rng = default_rng(seed)
        n_x, n_symbols, m, T = rng.integers(0, 6, 4).tolist()
        symbols = rng.integers(0, max(n_symbols, 1), (m, T))
        if symbols.size and rng.random() < 0.2:
            symbols.flat[rng.integers(symbols.size)] = pick(rng, (-1, n_symbols, 99))
        fits = not symbols.size or 0 <= symbols.min() <= symbols.max() < n_symbols
        passed = np.asarray(symbols, pick(rng, ("i1", "u1", "i8", ">i4")), order=pick(rng, "CF"))
        table, dx = rng.standard_normal((n_x, n_symbols)), rng.standard_normal((n_x, m, T))
        columns, gradient = in_form(rng, table), in_form(rng, dx)
        if fits and right(columns, table):
            comp = call("embedding_forward", passed, columns)
            dtype = common_dtype(columns)
            assert not isinstance(comp, Refused), comp
            assert_near({"x": comp}, {"x": wide(columns, dtype)[:, symbols]}, dtype)
        else:
            assert_refused("embedding_forward", passed, columns)
        if fits and right(gradient, dx):
            comp = call("embedding_backward", gradient, passed, n_symbols)
            dtype = common_dtype(gradient)
            assert not isinstance(comp, Refused), comp
            ref = np.einsum("xmt,mts->xs", wide(gradient, dtype), np.eye(n_symbols)[symbols])
            assert_near({"table": comp}, {"table": ref}, dtype)
        else:
            assert_refused("embedding_backward", gradient, passed, n_symbols)

    @rule(seed=seeds())
    def final_states(self, seed: int) -> None:
        rng = default_rng(seed)
        n_a, m, T = rng.integers(0, 6, 3).tolist()
        array = rng.standard_normal((n_a, m, T))
        a, lengths = in_form(rng, array), draw_lengths(rng, m, T)
        spelled = pick(rng, LENGTHS)(lengths)
        if not right(a, array):
            assert_refused("final_states", a, spelled)
            return
        comp = call("final_states", a, spelled)
        assert not isinstance(comp, Refused), comp
        dtype = common_dtype(a)
        assert_near({"a": comp}, {"a": reference.final_states(wide(a, dtype), lengths)}, dtype)

    @rule(seed=seeds())
    def pad_sequences(self, seed: int) -> None:
        rng = default_rng(seed)
        n_x, count = rng.integers(0, 5, 2).tolist()
        arrays = [rng.standard_normal((n_x, rng.integers(7))) for _ in range(count)]
        sequences = [in_form(rng, array) for array in arrays]
        longest = max((array.shape[1] for array in arrays), default=0)
        integer = pick(rng, (int, np.int8, np.uint8, np.uint64))
        max_len = pick(rng, (None, integer(longest), integer(longest + 2), longest - 1))
        value = pick(rng, (0, -1, 1.5, np.float32(2), np.inf))
        kept = all(right(value, array) for value, array in zip(sequences, arrays, strict=True))
        if not arrays or not kept or max_len == longest - 1:
            assert_refused("pad_sequences", sequences, max_len, value)
            return
        result = call("pad_sequences", iter(sequences), max_len, value)
        assert not isinstance(result, Refused), result
        steps = None if max_len is None else int(max_len)
        ref = reference.pad_sequences(list(map(np.asarray, sequences)), steps, value)
        assert result[1] == ref[1]
        assert result[0].dtype == common_dtype(*sequences)
        np.testing.assert_array_equal(result[0], ref[0].astype(result[0].dtype))
