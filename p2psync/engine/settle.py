"""When a burst of events is over: a file is read at once when it was closed or moved in, after a quiet moment otherwise, and no
later than a maximum wait, so that a program which never pauses still gets its saves out.

Times are seconds of one monotonic clock, given by the caller.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

AFTER_CLOSE = 0.004
"""Programs that close and reopen do so within this time."""
QUIET = 0.8
"""For writes without a close: mmap, a file kept open, a file system without close events."""
LONGEST = 10.0

T = TypeVar("T")


@dataclass
class _Burst:
    began: float
    due: float


@dataclass
class Settling(Generic[T]):
    """Which of the touched things are due to be looked at."""

    _bursts: dict[T, _Burst] = field(default_factory=dict)

    def touched(self, thing: T, now: float, *, closed: bool) -> None:
        """Something happened to ``thing``: ``closed`` says that whoever wrote it is done."""
        burst = self._bursts.setdefault(thing, _Burst(now, now))
        burst.due = min(now + (AFTER_CLOSE if closed else QUIET), burst.began + LONGEST)

    def later(self, thing: T, due: float) -> None:
        """Look at ``thing`` again at the time ``due``, unless something happens to it before."""
        self._bursts.setdefault(thing, _Burst(due, due))

    def seen(self, things: Iterable[T]) -> None:
        """These were looked at just now: what was to be looked at ``later``, and did not change since, need not be."""
        for thing in things:
            burst = self._bursts.get(thing)
            if burst is not None and burst.began == burst.due:
                del self._bursts[thing]

    def take_due(self, now: float) -> set[T]:
        """The things that are due, which are forgotten here."""
        due = {thing for thing, burst in self._bursts.items() if burst.due <= now}
        for thing in due:
            del self._bursts[thing]
        return due

    def next_due(self) -> float | None:
        """When the next one will be due, or None when all is quiet."""
        return min((burst.due for burst in self._bursts.values()), default=None)

    def __len__(self) -> int:
        return len(self._bursts)
