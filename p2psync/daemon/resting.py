"""What a machine does when it comes to rest: it gives back the memory that a burst of work has taken."""

from typing import TYPE_CHECKING

import trio

from p2psync.store import memory

if TYPE_CHECKING:
    from p2psync.daemon.office import Office

GROWN = 4 * 1024 * 1024
"""Bytes by which the process has to have grown since it last gave something back."""


class Resting:
    """Watches whether a machine rests; asked every few seconds."""

    def __init__(self, office: "Office") -> None:
        self._office = office
        self._rested = False
        self._resident = 0

    async def look(self) -> None:
        """Give memory back, if nothing was going on now and the last time, and there is more of it than after it was last given back."""
        mandates = list(self._office.mandates.values())
        rested, self._rested = self._rested, all(mandate.idle and not mandate.fetcher.paths for mandate in mandates)
        if not (rested and self._rested and memory.resident() > self._resident + GROWN):
            return
        for mandate in mandates:
            await trio.to_thread.run_sync(mandate.books.rest)
        await trio.to_thread.run_sync(memory.give_back)
        self._resident = memory.resident()
