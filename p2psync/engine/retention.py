"""How long the history keeps what: everything for a while, then the last version of each day, then the last one of each month.

Time is not the clock's here. A version's author may have a clock that is ten years wrong, and this machine's may jump; nobody's work may
go because of that. So a version is as old as the days that *this machine* has counted since it had it (store/calendar), days that cannot
pass faster than a clock runs which nobody can set. The order of the journal of this machine decides which of two versions is the later.

Kept beyond all spans, whatever their age: the current versions, every side of a conflict that there ever was (the one that was not chosen
is in nobody's later version), and what the disk of this machine holds or is about to be brought to.

What is decided once stays decided: as time passes less is kept and never something else, and each day or month that had a version
keeps its last one for as long as its span lasts. Only contents go, and only from this machine; what the journal says is never dropped.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from p2psync.values.digest import Digest
from p2psync.values.errors import UserError
from p2psync.values.names import escaped

MONTH = 30
"""Days of a month, for the last span: slots of a fixed length, so that what is kept depends on no calendar."""
_UNITS = {"d": 1, "w": 7, "m": MONTH, "y": 365}
_NAMES = {365: "year", MONTH: "month", 1: "day"}
_LONGEST = 1000 * 365


class BadPolicy(UserError):
    """“{text}” does not say how long old versions are kept. Write “all”, or three spans such as 30d,1y,10y: everything for 30 days, then
    the last version of each day for a year, then the last one of each month for ten years.
    """


class Aged(NamedTuple):
    """One version of a path that has a content: on which counted day it came, and whether it is kept beyond all spans."""

    day: int
    content: Digest
    pinned: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """Three spans in days, one after the other: everything, one version a day, one a month. None for the first: all of it, for ever."""

    everything: int | None = 30
    daily: int = 365
    monthly: int = 3650

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """``30d,1y,10y`` (units d, w, m, y) or ``all``. Raises: BadPolicy."""
        if text.strip().lower() == "all":
            return cls(None, 0, 0)
        spans = [re.fullmatch(r"\s*([0-9]{1,6})([dwmy])\s*", part.lower()) for part in text.split(",")]
        days = [int(span[1]) * _UNITS[span[2]] for span in spans if span]
        if len(spans) != 3 or len(days) != 3 or days[0] < 1 or sum(days) > _LONGEST:
            raise BadPolicy(text=escaped(text))
        return cls(*days)

    def __str__(self) -> str:
        if self.everything is None:
            return "everything, for ever"
        said = [f"everything for {_span(self.everything)}"]
        said += [f"then the last version of each day for {_span(self.daily)}"] if self.daily else []
        said += [f"then the last one of each month for {_span(self.monthly)}"] if self.monthly else []
        return ", ".join(said)


DEFAULT = Policy()


def needed(paths: Iterable[Sequence[Aged]], today: int, policy: Policy) -> set[Digest]:
    """The contents that are to be kept, of these paths with their versions in the order in which they came (so that days never fall)."""
    return {version.content for versions in paths for version in _kept(versions, today, policy)}


def _kept(versions: Sequence[Aged], today: int, policy: Policy) -> Iterable[Aged]:
    later = None
    for version in reversed(versions):
        if version.pinned or _stays(version.day, later, today, policy):
            yield version
        later = version.day


def _stays(day: int, later: int | None, today: int, policy: Policy) -> bool:
    """Whether a version of this ``day`` stays for its age; ``later`` is the day of the next version of the path, if there is one."""
    age = today - day
    if policy.everything is None or age <= policy.everything:
        return True
    if age <= policy.everything + policy.daily:
        return later is None or later > day
    if age <= policy.everything + policy.daily + policy.monthly:
        return later is None or later // MONTH > day // MONTH
    return False


def _span(days: int) -> str:
    size, name = next((size, name) for size, name in _NAMES.items() if (days % size == 0 and days != MONTH) or size == 1)
    return f"{days // size} {name}{'' if days == size else 's'}"
