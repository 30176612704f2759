"""Days pass no faster than a clock runs that nobody can set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from p2psync.store import calendar
from p2psync.store.calendar import DAY_S
from tests.lan.desks import NOW, Desk, fast_place

YEAR_MS = 365 * DAY_S * 1000


@pytest.fixture
def desk() -> Iterator[Desk]:
    with fast_place() as place:
        anna = Desk(place / "anna", "Anna").found()
        yield anna
        anna.arrivals.close()
        anna.books.close()


def test_days_pass_while_it_runs_whatever_the_clock_says(desk: Desk) -> None:
    assert calendar.count(desk.books, None) == 0
    desk.clock = NOW + 10 * YEAR_MS
    assert calendar.count(desk.books, 3600) == 0
    desk.clock = 0
    assert calendar.count(desk.books, DAY_S) == 1
    assert calendar.count(desk.books, 2 * DAY_S) == 3


@pytest.mark.parametrize(
    ("away_ms", "day"), [(DAY_S * 500, 0), (DAY_S * 1000, 1), (90 * DAY_S * 1000, 1), (-10 * YEAR_MS, 0), (10 * YEAR_MS, 1)]
)
def test_the_time_between_two_runs_counts_for_a_day_at_most(desk: Desk, away_ms: int, day: int) -> None:
    calendar.count(desk.books, None)
    desk.restart()
    desk.clock = max(NOW + away_ms, 0)
    assert calendar.count(desk.books, None) == day


def test_an_entry_is_never_older_than_it_is(desk: Desk) -> None:
    """What comes on one day counts from the beginning of the next: a day is counted late rather than early."""
    desk.folder.mkdir()
    file = desk.folder / "a"
    file.write_text("0")
    desk.attach(file)
    calendar.count(desk.books, None)
    for day in range(1, 6):
        file.write_text(str(day))
        desk.settle()
        calendar.count(desk.books, DAY_S)
    file.write_text("last")
    desk.settle()
    (last,) = desk.books.ledger.read().execute("SELECT max(n) FROM entries").fetchone()
    found = calendar.days(desk.books)
    assert [found.of(n) for n in range(1, last + 1)] == [0, 0, 1, 2, 3, 4, 5, 5]
    calendar.count(desk.books, 10 * DAY_S)
    assert calendar.days(desk.books).of(last) == 15
