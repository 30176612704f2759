"""The caretaker of a machine: it counts the days, watches the room on the disks, and lets the history go where its policy says so.

Everything is done in small pieces, between the rounds of a mandate and preferably when it has nothing to do; nothing that a person waits
for waits for it. What is to be done is derived each time anew, so that it may be stopped at any moment.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio

from p2psync.daemon.resting import Resting
from p2psync.daemon.verifying import show_damaged
from p2psync.store import calendar, retaining, sharing, space
from p2psync.store.sources import catch_up
from p2psync.store.space import Reserve, Space
from p2psync.values.digest import Digest
from p2psync.values.errors import P2psyncError, UserError
from p2psync.values.names import MandateId, escaped

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

T = TypeVar("T")

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks at the disks: the reserve is given up within this time, which a ledger that cannot be written outlasts."""
COUNT_S = 3600.0
"""Between two times that the days are counted on; so much at most is forgotten by a kill."""
FIRST_S = 600.0
"""The history is first looked through so long after the start, when the morning's work has been brought together."""
DAILY_S = 86400.0
PAUSE_S = 0.02
"""Between two pieces of work: the rounds have the mandate to themselves for most of the time."""
PATIENCE_S = 60.0
"""So long a mandate that is busy is waited for before a piece of work is done all the same."""
_GIVEN_BACK = 4 * 1024 * 1024
"""Bytes that the vault gives back to the disk in one go."""


class OnlyOnDisk(UserError):
    """The disk with p2psync's state is nearly full ({free} left), so that what is saved in “{mandate}” is recorded and sent, but not copied
    into the history: until there is room again, the file itself is the only copy on this machine. Make room on the disk of “{place}”.
    """


class Caretaker:
    """Looks after the disks and the histories of one machine."""

    def __init__(self, office: "Office") -> None:
        self._office = office
        self._reserve = Reserve(office.home.path)
        self._resting = Resting(office)
        self._counted: dict[MandateId, float] = {}
        self._collected: dict[MandateId, float] = {}
        self._due = math.inf

    async def run(self) -> None:
        """Look after everything until cancelled; a history that takes its time keeps nobody from looking at the disks."""
        await self._office.ready.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_room)
            nursery.start_soon(self._keep_histories)

    async def _watch_room(self) -> None:
        while True:
            was_short = self._is_short()
            await self._look_at_disks()
            if self._is_short() and not was_short:
                self._collected.clear()
                self._due = -math.inf
            for mandate in list(self._office.mandates.values()):
                with self._trying_again(mandate):
                    await self._copy_late(mandate)
                    if mandate.sources.outstanding:
                        await self._copy_shared(mandate)
                    show_damaged(mandate)
            await self._resting.look()
            await trio.sleep(LOOK_S)

    async def _keep_histories(self) -> None:
        self._due = trio.current_time() + FIRST_S
        while True:
            for mandate in list(self._office.mandates.values()):
                with self._trying_again(mandate):
                    await self._count(mandate)
                    if trio.current_time() >= max(self._due, self._collected.get(mandate.id, -math.inf) + DAILY_S):
                        self._collected[mandate.id] = trio.current_time()
                        await self.collect(mandate)
            await trio.sleep(LOOK_S)

    @contextmanager
    def _trying_again(self, mandate: "Mandate") -> Iterator[None]:
        """A disk that is full or failing is told by whatever needs it; here it is tried again a while later."""
        try:
            yield
        except P2psyncError as trouble:
            log.info("the history of %s could not be looked after: %s", mandate.id.hex()[:8], trouble)

    # ---- room

    async def _look_at_disks(self) -> None:
        places = {location.root for mandate in self._office.mandates.values() for location in mandate.books.locations().values()}
        home = self._office.home.path
        try:
            await trio.to_thread.run_sync(self._reserve.keep_up)
            self._office.problems.pop("reserve", None)
        except UserError as e:
            self._office.problems["reserve"] = e
        before = self._office.disks
        self._office.disks = await trio.to_thread.run_sync(space.disks, [home, *sorted(places)])
        for place, disk in self._office.disks.items():
            self._tell(place, disk)
        for place in before.keys() - self._office.disks.keys():
            self._office.problems.pop(f"space {place}", None)

    def _tell(self, place: Path, disk: Space) -> None:
        try:
            disk.check(place)
            told = self._office.problems.pop(f"space {place}", None) is not None
        except space.SpaceShort as short:
            told = f"space {place}" not in self._office.problems
            self._office.problems[f"space {place}"] = short
        if told:
            self._office.changed(None)

    def _is_short(self) -> bool:
        disk = self._office.disks.get(self._office.home.path)
        return disk is not None and disk.free < disk.floor

    # ---- one mandate

    async def _count(self, mandate: "Mandate") -> None:
        now = trio.current_time()
        last = self._counted.get(mandate.id)
        if last is None or now - last >= COUNT_S:
            await mandate.in_thread(partial(calendar.count, mandate.books, None if last is None else now - last))
            self._counted[mandate.id] = now

    async def _copy_late(self, mandate: "Mandate") -> None:
        """Copy into the vault what it could not take when it was saved, once there is room; say so until then."""
        if not mandate.look.seeing.uncopied:
            mandate.well("history")
            return
        disk = self._office.disks.get(self._office.home.path)
        if disk is not None and not disk.tight:
            mandate.look.seeing.uncopied = False
            try:
                await mandate.in_thread(partial(catch_up, mandate.books, mandate.sources))
            except BaseException:
                mandate.look.seeing.uncopied = True
                raise
            mandate.well("history")
        elif "history" not in mandate.troubles:
            free = space.said(disk.free if disk else 0)
            mandate.troubled("history", OnlyOnDisk(free=free, mandate=escaped(mandate.books.name), place=self._office.home.path))

    async def _copy_shared(self, mandate: "Mandate") -> None:
        """Copy into the vault what old versions of large files share with the present ones."""
        mandate.sources.outstanding = False
        for content in await mandate.in_thread(partial(sharing.outstanding, mandate.books)):
            steps = sharing.copy(mandate.books, mandate.sources, content)
            while await self._piece(mandate, partial(next, steps, self)) is None:
                pass

    async def collect(self, mandate: "Mandate") -> None:
        """Let go of what the policy lets go, and give the room back."""
        books = mandate.books
        derive = partial(retaining.derive, books, self._office.config.keep)
        kept = await mandate.in_thread(derive)
        await mandate.in_thread(partial(catch_up, books, mandate.sources))
        await self._copy_shared(mandate)
        await mandate.in_thread(partial(retaining.let_go, books, kept))
        books.vault.collecting()
        after: Digest | None = None
        while True:
            try:
                removed = await self._piece(mandate, partial(retaining.collect, books, kept, self._spared(mandate), after, retaining.SLICE))
            except LookupError:
                kept = await mandate.in_thread(derive)
                continue
            after = removed.after
            if after is None:
                break
        while await self._piece(mandate, partial(books.vault.shrink, _GIVEN_BACK)):
            pass
        self._office.changed(mandate.id)

    def _spared(self, mandate: "Mandate") -> set[Digest]:
        """What somebody has asked for out of the history."""
        now = trio.current_time()
        mandate.recalled = {content: until for content, until in mandate.recalled.items() if until > now}
        return set(mandate.recalled)

    async def _piece(self, mandate: "Mandate", work: "partial[T]") -> T:
        until = trio.current_time() + PATIENCE_S
        while not mandate.idle and trio.current_time() < until:
            await trio.sleep(10 * PAUSE_S)
        result = await mandate.between_rounds(work)
        await trio.sleep(PAUSE_S)
        return result
