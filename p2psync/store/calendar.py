"""The days that this machine has counted for a mandate, which no clock can make pass faster, and on which of them each version came.

While p2psync runs, time is what a clock says that nobody can set. For the time between two runs there is only the clock on the wall,
which may have jumped: it counts for one day at most, and never backwards. So days are counted too slowly on a machine that is often off,
and then more is kept; they are never counted too fast, whatever the clocks do.

A row of ``days`` says how many entries the journal had when a day began. An entry is as old as the first row that knows of it.
"""

import bisect
from typing import NamedTuple

from p2psync.store.books import Books
from p2psync.values.errors import Malformed
from p2psync.values.packing import fields, pack, unpack

DAY_S = 86400
AWAY_S = DAY_S
"""So much counts at most of the time in which p2psync did not run."""


class Days(NamedTuple):
    """The rows, in order, and the day that it is."""

    begins: list[int]
    numbers: list[int]
    today: int

    def of(self, n: int) -> int:
        """The day of the entry ``n``: never an earlier one than it came on."""
        at = bisect.bisect_left(self.begins, n)
        return self.numbers[at] if at < len(self.numbers) else self.today


def count(books: Books, ran_s: float | None) -> int:
    """Count on, and return the day that it is: ``ran_s`` are the seconds since the last call in this run, None for the first one."""
    seconds, clock_ms = _counted(books)
    now_ms = books.now_ms()
    if ran_s is None:
        away_s = (now_ms - clock_ms) / 1000 if clock_ms is not None else 0
        ran_s = min(max(away_s, 0), AWAY_S)
    seconds += ran_s
    today = int(seconds // DAY_S)
    with books.writing() as db:
        books.ledger.put("counted", pack([int(seconds * 1000), max(now_ms, 0)]))
        (last,) = db.execute("SELECT coalesce(max(day), -1) FROM days").fetchone()
        if last < today:
            db.execute("INSERT INTO days SELECT ?, coalesce(max(n), 0) FROM entries", (today,))
    return today


def days(books: Books) -> Days:
    """What was counted so far."""
    rows = books.ledger.read().execute("SELECT n, day FROM days ORDER BY day").fetchall()
    return Days([n for n, _ in rows], [day for _, day in rows], int(_counted(books)[0] // DAY_S))


def _counted(books: Books) -> tuple[float, int | None]:
    """Seconds counted so far, and what the clock on the wall said then (ms since 1970)."""
    kept = books.ledger.get("counted")
    if kept is None:
        return 0.0, None
    try:
        counted_ms, clock_ms = fields(unpack(kept, 64), int, int)
    except Malformed:
        return 0.0, None
    return counted_ms / 1000, clock_ms
