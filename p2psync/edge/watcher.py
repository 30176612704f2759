"""Be told within milliseconds that a file changed: a hint, while the scan is the truth.

A *doubt* is a root that must be scanned because something was missed: events were lost, the thread that hears them ended, or the
folder went away or came back. A single attached file is watched through its parent, so that replacing it does not end that.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import trio

from p2psync.edge.bridge import Bridge
from p2psync.edge.observer import Doubt, Heard, LimitReached, Note, Observer, Place, Root, Setting, place_of
from p2psync.values.errors import UserError

_MOST_WAITING = 50_000
"""Paths that may wait to be taken; beyond it, scanning everything is cheaper."""

_CHECK_S = 5.0
_PATIENCE_S = 3.0


class WatchLimit(UserError):
    """This machine lets programs watch only {limit} {what}, and p2psync needs more, so that changes in some folders are noticed late.
    Raise the limit: sudo sysctl fs.inotify.{setting}={better}
    """


@dataclass(frozen=True)
class Changes:
    """What may have changed. A path is in ``closed`` or in ``touched``, according to what was heard of it last.

    ``closed``: closed after it was open for writing, or moved to this name as a whole: it can be read at once. Of a folder that was moved,
    all below it counts.
    ``touched``: created, written, deleted, renamed away; who reads it now may read half of it. Of a folder, all below it counts.
    ``doubt``: watched folders of which something was missed, or which are not watched any more: scan them, and see ``Watch.fault``.
    ``refused``: the system does not let everything be watched, see ``Watcher.problem``.
    """

    touched: frozenset[Path] = frozenset()
    closed: frozenset[Path] = frozenset()
    doubt: frozenset[Path] = frozenset()
    refused: bool = False


@dataclass(eq=False)
class Watch:
    """One wish to be told of changes in ``folder``: of all below it (``recursive``), or of the names in it that are in ``only``.

    ``fault`` says why it is not watched at the moment, or is None.
    """

    folder: Path
    recursive: bool
    only: frozenset[str] | None
    fault: str | None


class Watcher:
    """Watches folders; made in trio, served by ``run``.

    ``problem`` is what a person should mend, or None; ``changes`` also returns when one appears.
    """

    def __init__(self) -> None:
        self.problem: UserError | None = None
        self._bridge: Bridge[Note] = Bridge(_MOST_WAITING)
        self._roots: dict[tuple[Path, bool], _Kept] = {}
        self._observer: Observer | None = None
        self._limit_then = 0
        self._busy = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what is watched watched, until cancelled; leaves no thread behind."""
        try:
            await self._check()
            task_status.started()
            while True:
                await trio.sleep(_CHECK_S)
                await self._check()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _PATIENCE_S):
                await trio.to_thread.run_sync(self._close, abandon_on_cancel=True)

    async def watch(self, folder: Path, *, recursive: bool, only: Collection[str] | None = None) -> Watch:
        """Be told of changes in ``folder``; scan it after this has returned, since nothing is told of what happened before.

        A folder that does not exist, or cannot be watched, is no error: ``Watch.fault`` says so, and it is tried again every few seconds.
        """
        if recursive and only is not None:
            raise ValueError("names are chosen in one folder, not in a tree")
        wish = Watch(folder, recursive, None if only is None else frozenset(only), "it is not watched yet")
        places = await trio.to_thread.run_sync(_look, [folder], abandon_on_cancel=True)
        async with self._busy:
            kept = self._roots.setdefault((folder, recursive), _Kept(Root(folder, recursive, self._bridge), []))
            kept.wishes.append(wish)
            kept.choose_names()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._place, kept, places[folder])
        return wish

    async def unwatch(self, watch: Watch) -> None:
        """Take a wish back; twice does no harm."""
        async with self._busy:
            kept = self._roots.get((watch.folder, watch.recursive))
            if kept is None or watch not in kept.wishes:
                return
            kept.wishes.remove(watch)
            kept.choose_names()
            if not kept.wishes:
                del self._roots[watch.folder, watch.recursive]
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._place, kept, "it is not watched any more")

    async def changes(self) -> Changes:
        """What was heard since the last time; waits until there is something. For one task; cancelling it loses nothing."""
        taken = await self._bridge.drain()
        kinds: dict[Path, str] = {}
        doubt, refused = self._folders() if taken.lost else set(), False
        for note in taken.items:
            match note:
                case Heard(_, path, "attributes"):
                    kinds.setdefault(Path(path), "touched")  # a copy is given its date and mode after it was closed
                case Heard(_, path, kind):
                    kinds[Path(path)] = kind
                case Doubt(folder):
                    doubt |= {folder} if folder else self._folders()
                case LimitReached(setting):
                    self._limit_reached(setting)
                    refused = True
        closed = frozenset(path for path, kind in kinds.items() if kind == "closed")
        return Changes(frozenset(kinds) - closed, closed, frozenset(doubt), refused)

    def _folders(self) -> set[Path]:
        return {folder for folder, _ in self._roots}

    def _limit_reached(self, setting: Setting) -> None:
        limit = self._limit_then = _limit(setting)
        what, enough = ("folders at once", 524_288) if setting == "max_user_watches" else ("sets of folders at once", 1024)
        self.problem = WatchLimit(limit=limit, what=what, setting=setting, better=max(enough, 2 * limit))

    async def _check(self) -> None:
        """Bring back what has stopped being watched."""
        # RACE: a network drive that hangs holds this up; what stops being watched meanwhile is left to the regular scan.
        places = await trio.to_thread.run_sync(_look, self._folders(), abandon_on_cancel=True)
        async with self._busy:
            await trio.to_thread.run_sync(self._mend, places)

    # What follows runs in worker threads, one at a time, while self._busy is held.

    def _mend(self, places: dict[Path, Place | str]) -> None:
        raised = isinstance(self.problem, WatchLimit) and _limit(str(self.problem.facts["setting"])) > self._limit_then
        if self._observer is None or raised or not self._observer.alive:
            self._restart()
        for kept in self._roots.values():
            before = kept.place, kept.fault
            if kept.root.folder in places and self._place(kept, places[kept.root.folder]) | ((kept.place, kept.fault) != before):
                self._bridge.put(Doubt(kept.root.folder))

    def _restart(self) -> None:
        self._close()
        self.problem = None
        try:
            self._observer = Observer(self._bridge)
        except OSError:
            pass  # the bridge has it; tried again with the next check

    def _place(self, kept: "_Kept", place: Place | str) -> bool:
        """Have a root watched where it is, or not at all when ``place`` is the reason; True when it was not watched so before."""
        if self._observer is None:
            kept.say("nothing can be watched at the moment")
            return False
        if place == kept.place and self._observer.hears(kept.root):
            kept.say(None)
            return False
        kept.place = place
        self._observer.remove(kept.root)
        if isinstance(place, str):
            kept.say(place)
            return False
        try:
            self._observer.add(kept.root, place)
        except OSError as e:
            kept.say(e.strerror or str(e))
            return False
        kept.say(None)
        return True

    def _close(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.close()


@dataclass(eq=False)
class _Kept:
    """A root, the wishes that it is watched for, and where it was when it was last looked for."""

    root: Root
    wishes: list[Watch]
    place: Place | str = ""

    def choose_names(self) -> None:
        named = [wish.only for wish in self.wishes if wish.only is not None]
        self.root.names = frozenset().union(*named) if len(named) == len(self.wishes) else None

    @property
    def fault(self) -> str | None:
        return next((wish.fault for wish in self.wishes), None)

    def say(self, fault: str | None) -> None:
        for wish in self.wishes:
            wish.fault = fault


def _look(folders: Iterable[Path]) -> dict[Path, Place | str]:
    return {folder: place_of(folder) for folder in folders}


def _limit(setting: str) -> int:
    """The limit in force (inotify(7)); 0 where it cannot be read."""
    try:
        return int(Path("/proc/sys/fs/inotify", setting).read_text())
    except (OSError, ValueError):
        return 0
