"""watchdog, made to speak up: the only file that knows the library. Its calls block, and are made from one thread at a time.

What watchdog only logs, or swallows, comes over the bridge like everything else: a queue of the kernel that ran over, a folder below a
root for which there was no watch left. What it tells nobody can be asked: whether its threads still live.
"""

import errno
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from watchdog import events as wd
from watchdog import observers
from watchdog.observers.api import BaseObserver, ObservedWatch

from p2psync.edge.bridge import Bridge
from p2psync.store.smallfile import OWN_END
from p2psync.values.names import PREFIX

if sys.platform == "linux":
    from watchdog.observers.inotify import InotifyFullEmitter
    from watchdog.observers.inotify_c import (
        DEFAULT_EVENT_BUFFER_SIZE,
        CallbackId,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchCallback,
        WatchDescriptor,
    )

Kind: TypeAlias = Literal["closed", "touched", "attributes"]

Setting: TypeAlias = Literal["max_user_watches", "max_user_instances"]
"""A limit of the kernel, as it is called below ``fs.inotify`` (inotify(7))."""

_WANTED: list[type[wd.FileSystemEvent]] = [
    *(wd.FileClosedEvent, wd.FileModifiedEvent, wd.FileAttribEvent, wd.FileCreatedEvent, wd.FileDeletedEvent, wd.FileMovedEvent),
    *(wd.DirCreatedEvent, wd.DirDeletedEvent, wd.DirMovedEvent),
]
"""Never the default, which also reports opening and closing: scanning a large tree then feeds on its own events."""

_PATIENCE_S = 3.0
_MOST_SHUT = 1000
"""Folders that may not be read, and are asked every few seconds whether they may; more than that is no oversight."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Something happened to ``path``, below the root ``folder`` (as the root was named)."""

    folder: Path
    path: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something was missed below ``folder``; None: below every root."""

    folder: Path | None


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The kernel refused to watch something because of a limit."""

    setting: Setting


Note: TypeAlias = Heard | Doubt | LimitReached


@dataclass(frozen=True, slots=True)
class Place:
    """Where a folder really is, through links, and which one it is: a mount or a rename puts another one in its place."""

    path: str
    device: int
    inode: int


def place_of(folder: Path) -> Place | str:
    """The place of ``folder``, or why it cannot be watched."""
    try:
        path = os.path.realpath(folder)
        found = os.stat(path)
    except OSError as e:
        return e.strerror or str(e)
    if not os.path.isdir(path):
        return "it is not a folder"
    if not os.access(path, os.R_OK):  # watchdog would say nothing and hear nothing
        return "it may not be read"
    return Place(path, found.st_dev, found.st_ino)


class Root(wd.FileSystemEventHandler):
    """One folder to be heard of: all below it, or only these ``names`` in it."""

    def __init__(self, folder: Path, recursive: bool, bridge: Bridge[Note]) -> None:
        self.folder = folder
        self.recursive = recursive
        self.names: frozenset[str] | None = None
        self._bridge = bridge
        self._real = ""
        self._scheduled: ObservedWatch | None = None

    def dispatch(self, event: wd.FileSystemEvent) -> None:
        """Called by watchdog's thread, which an exception would end.

        What is in a folder that was moved here as a whole was not heard of, but listed by watchdog: the folder says it all.
        """
        if event.is_synthetic:
            return
        for path, kind in _meaning(event):
            if path == self._real:
                self._bridge.put(Doubt(self.folder))
                continue
            name = path[path.rfind("/") + 1 :]
            if name and not name.startswith(PREFIX) and (self.names is None or name in self.names):
                self._bridge.put(Heard(self.folder, str(self.folder) + path[len(self._real) :], kind))


class Observer:
    """The threads that hear: one that reads from the kernel, one that tells, one for each root.

    Raises:
        OSError: from the constructor and ``add``: the system does not let us.
    """

    def __init__(self, bridge: Bridge[Note]) -> None:
        self._bridge = bridge
        try:
            self._threads = _observer(bridge)
            self._threads.start()
        except OSError as e:
            self._refused(e, "max_user_instances")
            raise

    @property
    def alive(self) -> bool:
        """Are the threads that all roots share still running?"""
        return self._threads.is_alive() and (sys.platform != "linux" or _reader_lives(self._threads))

    def hears(self, root: Root) -> bool:
        """Is ``root`` being watched, and its thread alive?"""
        return any(emitter.watch is root._scheduled and emitter.is_alive() for emitter in self._threads.emitters) and not self._opened(root)

    def add(self, root: Root, place: Place) -> None:
        """Watch ``root``, which is at this place; walks the whole tree when it is recursive."""
        self.remove(root)  # a dead thread would otherwise be taken for a live one
        root._real = place.path
        try:
            root._scheduled = self._threads.schedule(root, place.path, recursive=root.recursive, event_filter=_WANTED)
        except OSError as e:
            self._refused(e, "max_user_watches")
            raise

    def remove(self, root: Root) -> None:
        """Stop watching ``root``, if it is watched."""
        scheduled, root._scheduled = root._scheduled, None
        if any(emitter.watch is scheduled for emitter in self._threads.emitters) and scheduled is not None:
            self._threads.unschedule(scheduled)

    def close(self) -> None:
        """End all threads."""
        self._threads.stop()
        self._threads.join(_PATIENCE_S)

    def _opened(self, root: Root) -> bool:
        """Has a folder below ``root``, which could not be watched because of its permissions, been made readable?"""
        return root.recursive and sys.platform == "linux" and _opened_below(self._threads, os.fsencode(root._real))

    def _refused(self, error: OSError, setting: Setting) -> None:
        if error.errno in (errno.ENOSPC, errno.EMFILE):
            self._bridge.put(LimitReached(setting))


def _meaning(event: wd.FileSystemEvent) -> Iterator[tuple[str, Kind]]:
    """What an event says about one path or two. A side of a move that is not watched is empty."""
    kind: Kind = "closed" if isinstance(event, wd.FileClosedEvent) else "touched"
    yield os.fsdecode(event.src_path), "attributes" if isinstance(event, wd.FileAttribEvent) else kind
    yield os.fsdecode(event.dest_path), "closed" if isinstance(event, (wd.FileMovedEvent, wd.DirMovedEvent)) else "touched"


if sys.platform == "linux":
    _OURS, _OWN_END = os.fsencode(PREFIX), os.fsencode(OWN_END)
    _MOST_PUT = 1000
    """Renames of which the second half has not been heard; of most it follows at once, and of none may it be missing for long."""
    _LULL_S = 0.004
    """Seconds to wait for more after nothing was heard but our own writing: waking up for each piece of it slows it down."""
    _REFUSED = WatchDescriptor(-1)
    """What watchdog takes for the number of a watch when a folder may not be read, and files under it."""

    class _Reader(InotifyFD):
        """watchdog's thread that reads from the kernel."""

        def __init__(self, bridge: Bridge[Note]) -> None:
            super().__init__()
            self._bridge = bridge
            self.shut: set[bytes] = set()
            """Folders that may not be read."""
            self._put: dict[int, None] = {}
            self._lull = False

        def read_events(self, *, event_buffer_size: int = DEFAULT_EVENT_BUFFER_SIZE) -> list[InotifyEvent]:
            """Wait for events."""
            if self._lull:
                time.sleep(_LULL_S)
            self._lull = True
            return super().read_events(event_buffer_size=event_buffer_size)

        def handle_event(self, event: InotifyEvent) -> None:
            """Handle one event. An overflow is doubt about everything, once the folders are watched anew.

            What happens to our own files beside the user's is nobody's news, and there is much of it; nor is that this process puts a new
            file in its place. Only that something moves to such a name is heard, because of the name from where.
            """
            if event.name.startswith(_OURS) and not event.is_directory and not event.is_moved_to:
                if event.is_moved_from and event.name.endswith(_OWN_END):
                    self._put[event.cookie] = None
                return
            if event.is_moved_to and event.cookie in self._put:
                del self._put[event.cookie]
                return
            self._lull = False
            while len(self._put) > _MOST_PUT:
                del self._put[next(iter(self._put))]
            super().handle_event(event)
            if event.is_queue_overflow:
                self._bridge.put(Doubt(None))

        def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
            """Watch one folder; who calls this below a root ignores that it fails."""
            try:
                watch = super().add_callback(path, mask, callback, id_)
            except OSError as e:
                if e.errno == errno.ENOSPC:
                    self._bridge.put(LimitReached("max_user_watches"))
                raise
            if watch == _REFUSED:
                self._note_shut(path)
            return watch

        def _note_shut(self, path: bytes) -> None:
            with self._lock:
                self._watch_for_wd.pop(_REFUSED, None)
            if len(self.shut) < _MOST_SHUT:
                self.shut.add(path)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    class _LinuxThreads(BaseObserver):
        """One inotify instance for all roots. “Full” emitters tell a file that was moved in from one that was only created."""

        def __init__(self, bridge: Bridge[Note]) -> None:
            self.reader = _Reader(bridge)
            super().__init__(InotifyFullEmitter, inotify_fd=self.reader)

        def on_thread_start(self) -> None:
            self.reader.start()
            super().on_thread_start()

        def on_thread_stop(self) -> None:
            super().on_thread_stop()
            self.reader.stop()
            if self.reader.is_alive():
                self.reader.join(_PATIENCE_S)

    def _opened_below(threads: BaseObserver, folder: bytes) -> bool:
        """Whether a folder that was shut is not any more; it is forgotten then, since it is watched anew, and when it is gone."""
        if not isinstance(threads, _LinuxThreads):
            return False
        shut = threads.reader.shut
        changed = {path for path in shut.copy() if os.access(path, os.R_OK) or not os.path.lexists(path)}
        opened = {path for path in changed if path.startswith(folder + b"/") and os.path.lexists(path)}
        shut -= opened | {path for path in changed if not os.path.lexists(path)}
        return bool(opened)

    def _reader_lives(threads: BaseObserver) -> bool:
        return isinstance(threads, _LinuxThreads) and threads.reader.is_alive()


def _observer(bridge: Bridge[Note]) -> BaseObserver:
    return _LinuxThreads(bridge) if sys.platform == "linux" else observers.Observer()
