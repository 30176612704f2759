"""What there is to do in one mandate, and when: spots to look at, attachments to survey, paths to decide about.

Times are seconds of trio's clock, given by the caller.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from heapq import nsmallest
from pathlib import Path
from typing import NamedTuple

from p2psync.engine.settle import Settling
from p2psync.store.slices import AT_ONCE
from p2psync.store.spots import Spot
from p2psync.values.errors import BadPath
from p2psync.values.names import RelPath

SURVEY_S = 600.0
"""Everything is surveyed so often, whatever the watcher says."""
TRIES_S = 5.0
"""What is looked at again after so long or longer cannot be read at the moment, which was said: nobody is busy with it meanwhile."""


class Due(NamedTuple):
    """What one round takes on: attachments to survey, spots to look at, names that no path can have, and paths to decide about."""

    surveys: set[RelPath]
    spots: set[Spot]
    unfit: dict[Path, BadPath]
    paths: set[RelPath]


class Agenda:
    """The work that waits; begins with a survey of everything."""

    def __init__(self) -> None:
        self._settling: Settling[Spot] = Settling()
        self._later: Settling[RelPath] = Settling()
        self._tries: Settling[Spot] = Settling()
        self._paths: set[RelPath] = set()
        self._whole: set[RelPath] = set()
        self._surveys: set[RelPath] = set()
        self._unfit: dict[Path, BadPath] = {}
        self._next_survey = -math.inf

    # ---- what is to be done

    def touched(self, spot: Spot, now: float, *, closed: bool) -> None:
        """Something happened there: look at it when it has settled (engine/settle)."""
        self._settling.touched(spot, now, closed=closed)

    def unfit(self, where: Path, fault: BadPath) -> None:
        """Something happened to what has a name that no path can have."""
        self._unfit[where] = fault

    def look_at(self, spot: Spot, due: float) -> None:
        """Look at a spot at the time ``due``."""
        self._settling.later(spot, due)

    def looked(self, spots: Iterable[Spot], again: Mapping[Spot, float], now: float) -> None:
        """These were looked at; some are to be looked at ``again``, after so many seconds."""
        self._settling.seen(spot for spot in spots if spot not in again)
        for spot, wait in again.items():
            (self._tries if wait >= TRIES_S else self._settling).later(spot, now + wait)

    def survey(self, names: Iterable[RelPath]) -> None:
        """Survey these attachments."""
        self._surveys |= set(names)

    def survey_all(self, due: float = -math.inf) -> None:
        """Survey everything at the time ``due``, at the latest."""
        self._next_survey = min(self._next_survey, due)

    def decide(self, paths: Iterable[RelPath]) -> None:
        """Decide about these paths."""
        self._paths |= set(paths)

    def decide_later(self, path: RelPath, due: float) -> None:
        """Decide about a path at the time ``due``."""
        self._later.later(path, due)

    def complete(self, paths: set[RelPath]) -> None:
        """All that these paths wanted is here: decide about them, but those come first whose contents may still have to be asked for."""
        self._whole |= paths
        self.decide(paths)

    # ---- what is due

    def next_due(self) -> float:
        """When there is something to do; in the past when there is already."""
        if self._paths or self._surveys or self._unfit:
            return -math.inf
        dues = (self._settling.next_due(), self._tries.next_due(), self._later.next_due(), self._next_survey)
        return min(due for due in dues if due is not None)

    def take(self, now: float, everything: Collection[RelPath]) -> Due:
        """What is due, as much of it as one round takes on, of all attachments that there are; it is forgotten here."""
        if self._next_survey <= now:
            self._next_survey = now + SURVEY_S
            self.survey(everything)
        surveys, self._surveys = self._surveys, set()
        paths = self._paths | self._later.take_due(now)
        chosen = self._choose(paths)
        self._paths = paths - chosen
        self._whole &= self._paths
        spots = self._settling.take_due(now) | self._tries.take_due(now)
        unfit, self._unfit = self._unfit, {}
        return Due(surveys, spots, unfit, chosen)

    def _choose(self, paths: set[RelPath]) -> set[RelPath]:
        """What one round takes on of these. Of many those first whose contents may not be here: they come while others are written."""
        undecided = paths - self._whole
        return first(undecided if 2 * len(undecided) > AT_ONCE else paths)

    # ---- how much there is

    def is_clear(self, now: float) -> bool:
        """Whether nothing waits to be looked at or worked on; what is to be tried again later does not count."""
        return not (self._paths or self._surveys or self._unfit or len(self._settling) or self._next_survey <= now)

    @property
    def is_open(self) -> bool:
        """Whether it is still to be decided about some path, or everything is still to be surveyed."""
        return bool(self._paths) or self._next_survey == -math.inf


def first(paths: set[RelPath]) -> set[RelPath]:
    """As many of these paths as one round takes on, folders before what is in them."""
    return set(nsmallest(AT_ONCE, paths, key=lambda path: path.text)) if len(paths) > AT_ONCE else paths
