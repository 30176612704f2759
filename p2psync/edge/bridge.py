"""The one door for foreign threads: what they have to say is kept in order, without repetition, until trio's side takes it.

Libraries that run threads of their own (watchdog, zeroconf) call ``put``, which cannot fail and never waits: an exception inside
``TrioToken.run_sync_soon`` would end the whole run, so what crosses is one ``Event.set``, and at most one is on its way.
"""

import contextlib
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Taken(Generic[T]):
    """What came over a bridge since the last time: each item once, in the order in which it was last put.

    ``lost``: there was more than the bridge holds, and the oldest items were dropped.
    """

    items: tuple[T, ...]
    lost: bool


class Bridge(Generic[T]):
    """Items from any thread to one trio task; made on trio's side. It holds at most ``limit`` different items."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._token = trio.lowlevel.current_trio_token()
        self._arrived = trio.Event()
        self._lock = threading.Lock()
        self._items: dict[T, None] = {}
        self._lost = False

    def put(self, item: T) -> None:
        """Hand ``item`` over, from any thread, at any time, even when trio has ended."""
        with self._lock:
            self._items.pop(item, None)
            self._items[item] = None
            if len(self._items) > self._limit:
                del self._items[next(iter(self._items))]
                self._lost = True
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._wake, idempotent=True)

    async def drain(self) -> Taken[T]:
        """Everything put since the last time; waits until there is something. Only one task may wait; cancelling it loses nothing."""
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()  # before the items are taken: one put in between wakes the next call for nothing
            with self._lock:
                items, self._items = tuple(self._items), {}
                lost, self._lost = self._lost, False
            if items:
                return Taken(items, lost)

    def _wake(self) -> None:
        self._arrived.set()
