"""The watches on the places that one mandate's attachments have on this machine."""

from collections.abc import Mapping
from pathlib import Path

import trio

from p2psync.edge.watcher import Changes, Watch, Watcher
from p2psync.engine.ignore import halves_of
from p2psync.store.locations import Location
from p2psync.values.names import RelPath

CLOSING_S = 3.0
"""Seconds that the watches may take to end."""


class Watching:
    """One watch for each place; what it hears goes to whoever runs the ``watcher``."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._watches: dict[RelPath, tuple[Path, Watch]] = {}

    @property
    def deaf(self) -> bool:
        """Whether the watcher cannot hear everything of ours, so that only a survey finds what was saved."""
        return self._watcher.problem is not None or any(watch.fault for watch in self.all())

    def all(self) -> list[Watch]:
        """The watches."""
        return [watch for _, watch in self._watches.values()]

    async def keep(self, places: Mapping[RelPath, Location]) -> set[RelPath]:
        """Have a watch on each of these places and on nothing else; returns those that are watched only from now on."""
        for name in [name for name in self._watches if name not in places or self._watches[name][0] != places[name].path]:
            await self._watcher.unwatch(self._watches.pop(name)[1])
        fresh = set()
        for name, location in places.items():
            if name not in self._watches:
                only = {location.path.name, *halves_of(location.path.name)} if location.single else None
                watch = await self._watcher.watch(location.root, recursive=not location.single, only=only)
                self._watches[name] = (location.path, watch)
                fresh.add(name)
        return fresh

    async def end(self) -> None:
        """Watch nothing any more; not kept from it by a cancellation."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING_S):
            while self._watches:
                await self._watcher.unwatch(self._watches.popitem()[1][1])


def doubted(changes: Changes, places: Mapping[RelPath, Location]) -> set[RelPath]:
    """The attachments of which something may have gone unheard."""
    return {name for name, location in places.items() if location.root in changes.doubt}
