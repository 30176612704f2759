"""A file is read when it has settled, and one that never does is read between two writes, or not at all."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.pauses import AT_REST, HALF_THERE, TORN_LONGEST, Pauses
from p2psync.engine.settle import LONGEST, QUIET

Look = tuple[float, object, float]


def first_ready(looks: Iterable[Look]) -> float | None:
    """When a file that is open for writing is read first, looked at as it is asked for; each look: the time, the stamp, its age."""
    pauses: Pauses[str] = Pauses()
    for now, stamp, age in looks:
        if pauses.wait("a", now) <= 0 and pauses.ready("a", stamp, age, now, written=True, shrunk=False):
            return now
    return None


def test_what_nobody_writes_is_ready() -> None:
    assert Pauses[str]().ready("a", 1, 0.0, 100.0, written=False, shrunk=False)


def test_what_is_being_written_is_ready_when_it_pauses() -> None:
    pauses: Pauses[str] = Pauses()
    assert not pauses.ready("a", 1, 0.1, 100.0, written=True, shrunk=False)
    wait = pauses.wait("a", 100.0)
    assert QUIET - 0.1 < wait < QUIET
    assert pauses.ready("a", 1, 0.1 + wait, 100.0 + wait, written=True, shrunk=False)


def test_what_never_pauses_is_read_between_two_writes_in_the_end() -> None:
    writes = [n / 10 for n in range(300)]  # ten times a second, for half a minute
    looks = [(100.0 + t, n, age) for n, t in enumerate(writes) for age in (0.0, 0.05)]
    ready = first_ready((now + age, stamp, age) for now, stamp, age in looks)
    assert ready is not None
    assert 100.0 + LONGEST <= ready < 100.0 + LONGEST + 1


def test_what_was_written_this_very_moment_is_not_read_even_then() -> None:
    looks = [(100.0 + n * 0.005, n, 0.0) for n in range(6000)]
    assert first_ready(looks) is None


def test_a_disk_with_another_clock_is_judged_by_what_changes() -> None:
    looks = [(100.0 + n * 0.05, 1, -3600.0) for n in range(100)]
    ready = first_ready(looks)
    assert ready is not None
    assert QUIET <= ready - 100.0 < QUIET + 0.2


def test_a_file_that_became_empty_is_given_a_moment() -> None:
    pauses: Pauses[str] = Pauses()
    assert not pauses.ready("a", 1, 0.01, 100.0, written=False, shrunk=True)
    wait = pauses.wait("a", 100.0)
    assert 0 < wait <= HALF_THERE
    assert pauses.ready("a", 1, 0.01 + wait, 100.0 + wait, written=False, shrunk=True)
    assert pauses.ready("a", 1, -5.0, 100.0, written=False, shrunk=True), "a clock that says nothing holds nothing up"


@given(st.lists(st.floats(0.001, 20.0), min_size=1, max_size=20))
def test_reading_in_vain_is_tried_for_ever_and_ever_more_seldom(took: list[float]) -> None:
    pauses: Pauses[str] = Pauses()
    now, before = 100.0, 0.0
    for number, duration in enumerate(took, 1):
        pauses.torn("a", duration, now)
        wait = pauses.wait("a", now)
        assert 0 < wait <= TORN_LONGEST + 1e-9
        if len(set(took)) == 1:
            assert wait >= before - 1e-9
            before = wait
        assert pauses.times_torn("a") == number
        now += wait
    assert pauses.waited("a", now) >= now - 100.0
    pauses.settled("a")
    assert (pauses.wait("a", now), pauses.waited("a", now), pauses.times_torn("a")) == (0.0, 0.0, 0)


def test_rest_is_shorter_than_a_pause() -> None:
    assert AT_REST < HALF_THERE < QUIET < LONGEST
