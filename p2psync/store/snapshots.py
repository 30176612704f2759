"""Versions of databases that are being worked on: what SQLite says they hold, never a copy of their files.

Promises: a snapshot is what one moment's reader of the database would have seen, whole, with every row that its log holds, byte for byte
what the database will be once its log is written back. Making it writes nothing into the database, leaves no file beside it that was
not there, and holds up the programs that work on it for milliseconds at most (store/snapshotter). What a program that died left half done
is finished in a copy of ours.

A snapshot is only ``Fresh``: that the database has the same stamp proves nothing while its log grows. In which state of all its files the
last snapshot was made is remembered here, in memory; after a start one more snapshot is made, and it has the same bytes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from p2psync.engine.ignore import halves_of
from p2psync.store import snapshotter, sqlitefile
from p2psync.store.chunking import Sink, describe
from p2psync.store.faults import read_fault
from p2psync.store.openfiles import Lease, held, open_in
from p2psync.store.root import FolderGone, Folders, Root, open_at, stamp_at
from p2psync.store.scan import Changing, Fresh, Unreadable
from p2psync.store.sqlitefile import Halves
from p2psync.store.swap import BusyFile, ChangedMeanwhile
from p2psync.values.content import Content, File, Observed, Stamp
from p2psync.values.errors import P2psyncError, UserError

_PREFIX = "snapshot-"
_PATIENCE_S = 120.0
"""After which a snapshot is given up: a disk that hangs, or a database that is larger than this machine copies in that time."""
_SHARE = 5
"""So many times as long as a snapshot took lies between it and the next one: a large database is not copied all the time."""
_PAUSE_NS = 800_000_000
"""Two files that others may write are copied together only when both have been at rest for so long."""


class HalfDone(UserError):
    """“{path}” is a database that a program left in the middle of its work, and that cannot be finished here: {why}. Open it once in that
    program.
    """


class _NoDatabase(Unreadable):
    """It begins like a database, and is none, or a damaged one."""


class Snapshots:
    """Makes snapshots below the directory ``state``; used by one thread at a time."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._under: dict[tuple[str, tuple[str, ...]], Halves] = {}
        self._rests: dict[tuple[str, tuple[str, ...]], float] = {}
        with suppress(OSError):  # what an earlier run left is cleared away another time
            for left in list(state.glob(f"{_PREFIX}*")):
                shutil.rmtree(left, ignore_errors=True)

    def observe(
        self, folders: Folders, parts: tuple[str, ...], known: Observed | None, sink: Sink
    ) -> Observed | Changing | Unreadable | None:
        """What the database at ``parts`` holds; None when it is none, or one whose file says everything, and can be read like any other.

        ``known`` and ``sink`` as in ``scan.observe``; ``folders`` are those of the batch.

        Raises:
            RootGone, LinkInTheWay, CannotRead, DiskFailing, and what ``sink`` raises.
        """
        root = folders.root
        try:
            if not sqlitefile.is_database(folders(parts[:-1]), parts[-1]):
                return None
        except (OSError, P2psyncError):
            return None  # whoever reads it like any other file meets the same, and says so
        try:
            with root.dir_fd(parts[:-1]) as folder:
                found = sqlitefile.look(folder, parts[-1])
                if found is None or not _needs_sqlite(folder, parts[-1], found):
                    return None
                return self._observe(root, parts, folder, found, known, sink)
        except (FileNotFoundError, BlockingIOError, FolderGone):
            return Changing()
        except OSError as error:
            return Unreadable(str(read_fault(error, root.shown(parts))))

    def _observe(
        self, root: Root, parts: tuple[str, ...], folder: int, found: Halves, known: Observed | None, sink: Sink
    ) -> Observed | Changing | Unreadable | None:
        key = str(root.path), parts
        same = known is not None and isinstance(known.state, File) and known.stamp == _stamp(found, known.state.content)
        if same and (self._under.get(key) == found or not (found.hot or isinstance(known, Fresh))):
            assert known is not None
            return known
        self._under.pop(key, None)
        began = time.monotonic()
        if began < self._rests.get(key, 0.0):
            return Changing(unread=True)
        with self._copy(root, parts, folder, found) as copy:
            if not isinstance(copy, Path):
                return None if isinstance(copy, _NoDatabase) and not found.hot else copy
            content = _content(copy, sink)
        ended = time.monotonic()
        self._rests[key] = ended + _SHARE * (ended - began)
        stamp = stamp_at(folder, parts[-1])
        if stamp is None or stamp.inode != found.database.inode:
            return Changing()
        self._under[key] = found
        return Fresh(_stamp(found, content), File(content, found.database.executable))

    def finish(self, root: Root, parts: tuple[str, ...], content: Content) -> bool:
        """Have SQLite finish what a program that died left half done with the database at ``parts``, as the next program to open it
        would: after that its file says everything. False when there is nothing to finish.

        ``content`` is what it was seen, and kept, to hold.

        Raises:
            BusyFile: it is open. ChangedMeanwhile: it holds something else by now. HalfDone: it cannot be done.
            RootGone, FolderGone, LinkInTheWay, CannotRead, DiskFailing, OSError.
        """
        with root.dir_fd(parts[:-1]) as folder:
            half = sqlitefile.hot_half(folder, parts[-1])
            if half is None:
                return False
            if by := open_in(folder, parts[-1]):
                raise BusyFile(path=root.shown(parts), by=by)
            found = sqlitefile.look(folder, parts[-1])
            if found is None:
                raise HalfDone(path=root.shown(parts), why=f"{half} stands beside it, which belongs to another database")
            with self._recovered(root, parts, folder, found) as copy:
                if not isinstance(copy, Path) or _content(copy, None) != content:
                    raise ChangedMeanwhile(path=root.shown(parts))
            code, why = _sqlite("recover", root.path.joinpath(*parts))
            if code != snapshotter.DONE or sqlitefile.hot_half(folder, parts[-1]) is not None:
                raise HalfDone(path=root.shown(parts), why=why or "another program keeps it")
        return True

    @contextmanager
    def _copy(self, root: Root, parts: tuple[str, ...], folder: int, found: Halves) -> Iterator[Path | Changing | Unreadable]:
        if not _read_beside_others(folder, parts[-1], found):
            with self._recovered(root, parts, folder, found) as copy:
                yield copy
            return
        with self._room() as room:
            copy = room / "database"
            code, _why = _sqlite("backup", root.path.joinpath(*parts), copy)
            if code in (snapshotter.DONE, snapshotter.BUSY):
                yield copy if code == snapshotter.DONE else Changing()
                return
        with self._recovered(root, parts, folder, found) as recovered:  # a journal that is left over, locks that this disk does not have
            yield recovered

    @contextmanager
    def _recovered(self, root: Root, parts: tuple[str, ...], folder: int, found: Halves) -> Iterator[Path | Changing | Unreadable]:
        """A copy of the files as they are, in which SQLite finished what was half done."""
        if not _untouched(folder, parts[-1]) and abs(time.time_ns() - found.newest_ns) < _PAUSE_NS:
            yield Changing()
            return
        with self._room() as room:
            copy = room / "database"
            names = zip((parts[-1], *halves_of(parts[-1])), (copy.name, *halves_of(copy.name)), strict=True)
            for name, kept in names:
                with suppress(FileNotFoundError):
                    _copy_file(folder, name, room / kept)
            if sqlitefile.look(folder, parts[-1]) != found:
                yield Changing()
                return
            code, why = _sqlite("recover", copy)
            if code == snapshotter.DONE:
                yield copy
            else:
                kind = _NoDatabase if code == snapshotter.NO_DATABASE else Unreadable
                yield kind(str(HalfDone(path=root.shown(parts), why=why or "another program keeps it")))

    @contextmanager
    def _room(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._state, prefix=_PREFIX) as room:
            yield Path(room)


def _stamp(found: Halves, content: Content) -> Stamp:
    """That of the database, but for the size, which is that of what it holds: where the two differ, nothing is replaced by this stamp."""
    return replace(found.database, size=content.size)


def _needs_sqlite(folder: int, name: str, found: Halves) -> bool:
    """Whether the file of the database alone may be less than what the database holds, or change while it is read."""
    if found.hot:
        return True
    return not found.logged and not _untouched(folder, name)  # one kept with a log is only written to while there is something in the log


def _untouched(folder: int, name: str) -> bool:
    """Whether surely nobody has it open."""
    fd = open_at(folder, name)
    try:
        with held(fd) as lease:
            return lease is Lease.GRANTED
    finally:
        os.close(fd)


def _read_beside_others(folder: int, name: str, found: Halves) -> bool:
    """Whether SQLite can read it where it is without making a file: without the index of a log, it would make one."""
    if _untouched(folder, name):
        return False
    return not found.logged or stamp_at(folder, f"{name}-shm") is not None


def _content(copy: Path, sink: Sink | None) -> Content:
    fd = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return describe(fd, os.fstat(fd).st_size, sink)[0]
    finally:
        os.close(fd)


def _copy_file(folder: int, name: str, target: Path) -> None:
    with open(open_at(folder, name), "rb") as source, open(target, "xb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)


def _sqlite(*words: str | Path) -> tuple[int, str]:
    """Runs store/snapshotter; its exit code and what it said."""
    command = [sys.executable, "-I", "-S", snapshotter.__file__, *map(str, words)]
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return snapshotter.BUSY, ""
    return ended.returncode, ended.stderr.decode(errors="replace").strip()[-300:]
