"""Waiting longer after each failure, and not in step with others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(first=1.0, longest=10.0)
    assert [backoff.failed(1.0) for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_success_begins_anew() -> None:
    backoff = Backoff(first=1.0, longest=10.0)
    backoff.failed(1.0)
    backoff.failed(1.0)
    backoff.succeeded()
    assert backoff.failed(1.0) == 1.0


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 100_000), st.floats(0.01, 10), st.floats(1, 1000))
def test_each_wait_is_between_half_and_all_of_its_span(chance: float, failures: int, first: float, times: float) -> None:
    backoff = Backoff(first, first * times, failures)
    span = min(first * 2.0 ** min(failures, 30), first * times)
    assert span / 2 <= backoff.failed(chance) <= span


def test_years_of_failures_do_not_overflow() -> None:
    backoff = Backoff(failures=10**9)
    assert backoff.failed(0.5) == 450.0
