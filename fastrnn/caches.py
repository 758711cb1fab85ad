"""What a forward pass leaves for the backward pass: the notebook's caches, built when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from fastrnn import _check
from fastrnn._conform import KEYS
from fastrnn._plan import Ragged, ragged

Array = NDArray[np.floating[Any]]
CellCache = tuple[Array, Array, Array, Mapping[str, Any]]


class StepCaches(Sequence[tuple[CellCache, NDArray[np.bool_]]]):
    """One entry for each step that ran: ``((a_next, a_prev, xt, parameters), active_batch)``.

    An entry holds the columns of the samples that are active at its step, and is made when it is
    asked for. Nothing is copied before that: the object holds views of the arrays of the forward
    pass that nobody else has, so that their shapes and dtypes stay what they were even if somebody
    sets those of the arrays.
    """

    def __init__(
        self,
        x: Array,  # (n_x, m, T), as are the next two nobody else's
        a0: Array,  # (n_a, m)
        a: Array,  # (n_a, m, T)
        parameters: Mapping[str, Any],  # as they were passed
        plan: Ragged,
        passed: tuple[Any, Any],  # x and seq_lengths as they were passed
        n_y: int,
    ) -> None:
        self._x = x
        self._a0 = a0
        self._a = a
        self._parameters = parameters
        self._plan = plan
        self._passed = passed
        self._n_y = n_y

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters as they were passed, or arrays of them if they were nested lists.

        One that has been removed since is missing here too: a backward pass says so.
        """
        passed = self._parameters
        present = [name for name in KEYS if name in passed]
        if all(isinstance(passed[name], np.ndarray) for name in present):
            return passed
        return {name: np.asarray(passed[name]) for name in present}

    def __len__(self) -> int:
        """Steps that ran: the largest length."""
        return self._plan.steps

    @overload
    def __getitem__(self, t: int) -> tuple[CellCache, NDArray[np.bool_]]: ...
    @overload
    def __getitem__(self, t: slice) -> list[tuple[CellCache, NDArray[np.bool_]]]: ...
    def __getitem__(self, t: Any) -> Any:
        """Entry of step ``t``."""
        turns = range(len(self))[t]
        if isinstance(turns, range):
            return [self[turn] for turn in turns]
        active = self._plan.lengths > turns
        before = self._a[:, active, turns - 1] if turns else self._a0[:, active]
        cell = self._a[:, active, turns], before, self._x[:, active, turns], self.parameters
        return cell, active


class Pass(NamedTuple):
    """A forward pass, as the backward passes need it."""

    x: Array  #: (n_x, m, T)
    a0: Array  #: (n_a, m)
    a: Array  #: (n_a, m, T)
    weights: tuple[Array, Array, Array, Array, Array]
    plan: Ragged


def forward_pass_of(caches: Any) -> Pass:
    """The forward pass behind ``caches``, those of `fastrnn` or plain ones.

    Raises an error where they are not caches, or the weights no longer fit.
    """
    steps, x, seq_lengths = _check.caches_tuple(caches)
    if not isinstance(steps, StepCaches):
        return _from_plain(steps, x, seq_lengths)
    if x is not steps._passed[0] or seq_lengths is not steps._passed[1]:
        return _from_plain(steps, x, seq_lengths)  # put together by hand: look at every entry
    x, a0, a, plan = steps._x, steps._a0, steps._a, steps._plan
    weights = _check.parameter_arrays(steps._parameters, len(x), len(a), steps._n_y, a.dtype)
    return Pass(x, a0, a, weights, plan)


def _from_plain(steps: Any, x: Any, seq_lengths: Any) -> Pass:
    entries, x, lengths, total = _check.plain_caches(steps, x, seq_lengths)
    _, m, T = x.shape
    plan = ragged(lengths, total, T)
    if not entries:
        weights = _check.weights_without_steps(steps, len(x), x.dtype)
        n_a = len(weights[0])
        return Pass(x, np.zeros((n_a, m), x.dtype), np.zeros((n_a, m, T), x.dtype), weights, plan)
    n_a = len(entries[0].a_next)
    a0 = np.zeros((n_a, m), x.dtype, order="F")
    a = np.zeros((n_a, m, T), x.dtype, order="F")
    x = np.array(x, order="F")
    a0[:, entries[0].active_batch] = entries[0].a_prev
    for t, entry in enumerate(entries):
        a[:, entry.active_batch, t] = entry.a_next
        x[:, entry.active_batch, t] = entry.xt
    return Pass(x, a0, a, entries[0].weights, plan)
