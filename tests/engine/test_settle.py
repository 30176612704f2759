"""When a burst of events is over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.settle import AFTER_CLOSE, LONGEST, QUIET, Settling


def test_a_closed_file_is_due_at_once() -> None:
    settling: Settling[str] = Settling()
    settling.touched("a", 10.0, closed=True)
    assert settling.take_due(10.0) == set()
    assert settling.next_due() == 10.0 + AFTER_CLOSE
    assert settling.take_due(10.0 + AFTER_CLOSE) == {"a"}
    assert settling.next_due() is None and len(settling) == 0


def test_a_file_that_stays_open_is_due_after_a_quiet_moment() -> None:
    settling: Settling[str] = Settling()
    settling.touched("a", 10.0, closed=False)
    settling.touched("a", 10.5, closed=False)
    assert settling.take_due(10.5 + QUIET - 0.01) == set()
    assert settling.take_due(10.5 + QUIET) == {"a"}


def test_a_program_that_never_pauses_still_gets_its_saves_out() -> None:
    settling: Settling[str] = Settling()
    now, taken = 0.0, set[str]()
    while not taken:
        settling.touched("a", now, closed=False)
        taken = settling.take_due(now)
        now += 0.1
    assert LONGEST - 0.2 <= now <= LONGEST + 0.2


def test_a_close_in_the_middle_of_a_burst_ends_it() -> None:
    settling: Settling[str] = Settling()
    settling.touched("a", 0.0, closed=False)
    settling.touched("a", 0.1, closed=True)
    assert settling.next_due() == 0.1 + AFTER_CLOSE
    settling.touched("a", 0.102, closed=False)  # written on after all
    assert settling.next_due() == 0.102 + QUIET


def test_what_is_to_be_looked_at_again_is_due_then_or_earlier_when_something_happens_to_it() -> None:
    settling: Settling[str] = Settling()
    settling.later("a", 30.0)
    assert settling.next_due() == 30.0
    settling.touched("a", 10.0, closed=True)
    assert settling.take_due(10.0 + AFTER_CLOSE) == {"a"}
    assert settling.take_due(40.0) == set()


def test_a_burst_in_progress_is_not_cut_short_by_a_look_that_was_planned() -> None:
    settling: Settling[str] = Settling()
    settling.touched("a", 10.0, closed=False)
    settling.later("a", 10.2)
    assert settling.next_due() == 10.0 + QUIET


events = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3), st.booleans(), st.booleans()), max_size=40)


@given(events)
def test_nothing_that_was_touched_is_forgotten_or_waits_too_long(happened: list[tuple[str, float, bool, bool]]) -> None:
    settling: Settling[str] = Settling()
    now = 0.0
    since: dict[str, float] = {}
    for thing, pause, closed, take in happened:
        now += pause
        settling.touched(thing, now, closed=closed)
        since.setdefault(thing, now)
        assert len(settling) == len(since)
        if take:
            due = settling.take_due(now)
            assert all(now - since[t] <= LONGEST or t in due for t in since)
            for t in due:
                del since[t]
    due_at = settling.next_due()
    assert (due_at is None) == (not since)
    assert settling.take_due(now + LONGEST) == set(since)


def test_what_was_looked_at_meanwhile_need_not_be_looked_at_later() -> None:
    settling: Settling[str] = Settling()
    settling.later("tried again", 40.0)
    settling.later("saved since", 40.0)
    settling.touched("saved since", 10.0, closed=True)
    settling.touched("being written", 10.0, closed=False)
    settling.seen(["tried again", "saved since", "being written", "never heard of"])
    assert settling.take_due(11.0) == {"saved since", "being written"}
    assert len(settling) == 0
