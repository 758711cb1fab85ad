"""Anything may be passed to any function: the right numbers, a `ValueError` or a `TypeError`."""

import contextlib
import time

import pytest
from cutting import as_if_large
from fuzz_oracle import calls
from fuzzing import Machine
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

SETTINGS = settings(
    stateful_step_count=30, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
CALLS, SECONDS = 100_000, 600


@pytest.mark.parametrize("cut", [contextlib.nullcontext, as_if_large])
def test_some_calls(cut):
    # A failure is not made smaller here: that takes minutes.
    only = settings(SETTINGS, max_examples=60, phases=[Phase.explicit, Phase.generate])
    before = calls.total()
    with cut():
        run_state_machine_as_test(Machine, settings=only)
    assert calls.total() - before > 600


@pytest.mark.slow
def test_very_many_calls():
    """Other calls in every run; the report of a failure says how to repeat it."""
    other = settings(SETTINGS, max_examples=100, derandomize=False, print_blob=True)
    begin, before = time.monotonic(), calls.total()
    while calls.total() - before < CALLS and time.monotonic() - begin < SECONDS:
        for cut in (contextlib.nullcontext, as_if_large):
            with cut():
                run_state_machine_as_test(Machine, settings=other)
