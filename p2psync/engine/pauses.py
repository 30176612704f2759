"""Has a file settled, so that what it holds may be taken for what its program meant to save?

A file that nobody has open for writing has, when it was closed; except that programs empty a file, close it, and write it anew a moment
later, so that one which is suddenly empty, or less than half of what it was, is given that moment. One that a program keeps open for
writing has settled when nothing was written to it for ``QUIET`` seconds; after ``LONGEST`` it is read all the same, unless something was
written this very moment. One that changes whenever it is read is read at growing intervals.

Ages and times are in seconds; ``now`` is of one monotonic clock, given by the caller. An age is by the clock of the disk, and is not
believed when it is negative.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from p2psync.engine.settle import LONGEST, QUIET

HALF_THERE = 0.3
"""For a file that became much smaller: what truncates it first and writes afterwards does so within this time."""
AT_REST = 0.03
"""Even at the end of all patience, a file is not read while it is being written: some clock steps after the last write."""
TORN_AGAIN, TORN_LONGEST = 0.25, 30.0
"""Seconds until a file that changed while it was read is read again, at first, and in the end."""
_SHARE = 10
"""So many times as long as a reading takes lies between two in vain at most, and a second at least: small files wait less."""

T = TypeVar("T")


@dataclass
class _Waiting:
    """Something that has not settled: since when, with which stamp since when, how often it was read in vain; when it is worth a look
    again, and until when it is not to be read whatever a look would say.
    """

    since: float
    stamp: Hashable = None
    unchanged_since: float = 0.0
    torn: int = 0
    due: float = 0.0
    rests_until: float = 0.0


@dataclass
class Pauses(Generic[T]):
    """Which things have not settled yet. Those that have are forgotten by ``settled``."""

    _waiting: dict[T, _Waiting] = field(default_factory=dict)

    def ready(self, thing: T, stamp: Hashable, age: float, now: float, *, written: bool, shrunk: bool) -> bool:
        """Whether ``thing`` may be read: it was last written ``age`` ago, some program has it open for writing (``written``) or not, and it
        is much smaller than it was (``shrunk``) or not.
        """
        if shrunk and not written and 0 <= age < HALF_THERE:
            self._waiting.setdefault(thing, _Waiting(now)).due = now + HALF_THERE - age + 0.01
            return False
        if not written:
            return True
        state = self._waiting.setdefault(thing, _Waiting(now))
        if state.stamp != stamp:
            state.stamp, state.unchanged_since = stamp, now
        if age >= QUIET or now - state.unchanged_since >= QUIET:
            return True
        if now - state.since >= LONGEST and age >= AT_REST:
            return True
        state.due = now + (AT_REST if now - state.since >= LONGEST else min(QUIET - max(age, 0.0), state.since + LONGEST - now) + 0.01)
        return False

    def torn(self, thing: T, took: float, now: float) -> None:
        """``thing`` changed while it was read, which ``took`` so long."""
        state = self._waiting.setdefault(thing, _Waiting(now - took))
        state.torn += 1
        wait = min(TORN_AGAIN * 2 ** min(state.torn - 1, 10), TORN_LONGEST, max(1.0, _SHARE * took))
        state.rests_until = now + wait

    def rests(self, thing: T, now: float) -> float:
        """How long ``thing`` is not to be read, since it was read in vain; 0 or less: it may be."""
        return self._waiting[thing].rests_until - now if thing in self._waiting else 0.0

    def wait(self, thing: T, now: float) -> float:
        """In how many seconds ``thing`` is worth another look."""
        return max(self._waiting[thing].due - now, self.rests(thing, now)) if thing in self._waiting else 0.0

    def waited(self, thing: T, now: float) -> float:
        """For how long ``thing`` has not settled."""
        return now - self._waiting[thing].since if thing in self._waiting else 0.0

    def times_torn(self, thing: T) -> int:
        """How often ``thing`` was read in vain since it last settled."""
        return self._waiting[thing].torn if thing in self._waiting else 0

    def settled(self, thing: T) -> None:
        """``thing`` was read as a whole, or is gone."""
        self._waiting.pop(thing, None)
