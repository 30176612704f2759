"""What the disk holds: one path observed, many observed in one go, a whole folder walked.

Promise: an ``Observed`` is a content that stood at the path as a whole. The stamp is taken before and after reading; a file that
changed meanwhile is ``Changing``, never a mixture. What cannot be seen is ``Unreadable`` or ``Skipped``, never ``Nothing``.

Equal stamps (nanoseconds, ctime and inode included) mean equal bytes, with one exception, known from git as “racily clean”: disks
count time in steps (4 ms on Linux, up to 2 s on a USB stick), so a file hashed within a step of its last change may change once more
and keep its stamp. Such an observation is ``Fresh`` and is not believed but read again, until it was read late enough. Only the mtime
decides this: whoever changes a file later and sets its mtime back still moves its ctime.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from p2psync.engine.ignore import database_of, is_by_work
from p2psync.store import sqlitefile
from p2psync.store.chunking import Sink, describe
from p2psync.store.durable import start_writing
from p2psync.store.faults import CannotRead, DiskFailing, read_fault
from p2psync.store.openfiles import written
from p2psync.store.root import FolderGone, Folders, LinkInTheWay, NoPlainFile, Parts, Root, list_at, stamp_at, stamp_of
from p2psync.values.content import Content, File, Folder, Listing, Observed, Stamp
from p2psync.values.errors import BadPath
from p2psync.values.names import RelPath

Listed: TypeAlias = Callable[[Content, Listing], None]
"""Takes the content of a file that was read and did not change meanwhile, with the list of its chunks."""

Ready: TypeAlias = Callable[[Stamp, bool], bool]
"""Whether a file with this stamp, which a program has open for writing or not, may be taken for what its program meant to save."""

LARGE = 16 * 1024 * 1024
"""A file of this size goes to the disk while it is read: before it is recorded it will be waited for (store/lasting)."""

FRESH_NS = 2_000_000_000
"""The coarsest step in which a disk counts time: FAT's two seconds."""


@dataclass(frozen=True, slots=True)
class Fresh(Observed):
    """Observed so soon after its last change that an equal stamp proves nothing yet: it is read again next time."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing stands at the path, in a folder that could be looked into."""


@dataclass(frozen=True, slots=True)
class Changing:
    """The path changed while it was looked at, or somebody holds it so that it cannot be: look again in a moment.

    ``unread``: it was not read at all, because it was not ready.
    """

    unread: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something may stand at the path, but it cannot be seen; ``reason`` is a sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class Database:
    """An SQLite database stands at the path, which was not read: its file alone may be less than what it holds (store/snapshots)."""


@dataclass(frozen=True, slots=True)
class Later:
    """A large file that somebody else reads; what it holds is told when it has been read."""


@dataclass(frozen=True, slots=True)
class Read:
    """What somebody else has read in a file, beginning at ``at_ns``."""

    content: Content
    listing: Listing
    at_ns: int


Result: TypeAlias = Observed | Nothing | Changing | Unreadable | Later

Elsewhere: TypeAlias = Callable[[Stamp], Read | Later | Changing | Unreadable | None]
"""What somebody else found, or will find, in a file with this stamp; None: it is to be read here and now."""


@dataclass(frozen=True, slots=True)
class Found:
    """Something in a folder that was walked: a file, a folder, or (kind “other”) a link or a device, which is never shared.

    ``more``: it is a database beside which stands what it is not complete without, so that its stamp alone says nothing.
    """

    parts: Parts
    path: RelPath
    stamp: Stamp
    more: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A place in a folder that was walked of which nothing is known, nor of anything below it; ``reason`` is a sentence.

    ``by_name``: its name is what keeps it from being shared.
    """

    parts: Parts
    reason: str
    by_name: bool = False


def observe(
    root: Root,
    parts: Parts,
    known: Observed | None,
    now_ns: int,
    sink: Sink | None = None,
    *,
    listed: Listed | None = None,
    ready: Ready | None = None,
    elsewhere: Elsewhere | None = None,
) -> Result:
    """What stands at ``parts``; ``known``, unread, when its stamp still says so.

    ``now_ns`` is the time in nanoseconds since 1970. Of a file that is read, ``sink`` gets every chunk as it comes, even if the file then
    turns out to be ``Changing``, and ``listed`` gets the content and its chunk list once it is sure that the file did not change.
    ``ready`` is asked before a file is read, and after it. What a program has open for writing is ``Fresh`` however old it seems: writes
    through a mapping move the stamp late or never. ``elsewhere`` is asked whether somebody else reads a file that is ready.

    Raises:
        RootGone: the root itself is not there, so nothing can be said.
    """
    with root.folders() as folders:
        return _read_alike(_Eye(folders, now_ns, sink, listed, ready, elsewhere=elsewhere).observe(parts, known))


def observe_in(
    folders: Folders, parts: Parts, known: Observed | None, now_ns: int, sink: Sink, ready: Ready, elsewhere: Elsewhere
) -> Result | Database:
    """As ``observe`` with the folders of a batch; of a database that would have to be read, only that it is one.

    What is ``known`` and unchanged may be one all the same.
    """
    return _Eye(folders, now_ns, sink, None, ready, databases=False, elsewhere=elsewhere).observe(parts, known)


def observe_many(
    root: Root,
    wanted: Iterable[tuple[Parts, Observed | None]],
    now_ns: int,
    sink: Sink | None = None,
    *,
    listed: Listed | None = None,
) -> Iterator[tuple[Parts, Result]]:
    """As ``observe`` for many paths; fastest when those of one folder come together.

    Raises:
        RootGone: the root itself is not there any more.
    """
    with root.folders() as folders:
        eye = _Eye(folders, now_ns, sink, listed)
        for parts, known in wanted:
            yield parts, _read_alike(eye.observe(parts, known))


def _read_alike(result: Result | Database) -> Result:
    assert not isinstance(result, Database)  # databases were to be read like other files
    return result


def seen(stamp: Stamp, state: File | Folder, now_ns: int) -> Observed:
    """What reading ``state`` under this ``stamp`` at ``now_ns`` is worth: ``Observed``, or only ``Fresh``."""
    return Fresh(stamp, state) if isinstance(state, File) and _is_fresh(stamp, now_ns) else Observed(stamp, state)


def _is_fresh(stamp: Stamp, now_ns: int) -> bool:
    return abs(now_ns - stamp.mtime_ns) < FRESH_NS


def is_unchanged(known: Observed | None, stamp: Stamp) -> bool:
    """Whether what has this ``stamp`` surely is what was seen: the same stamp, and old enough to tell."""
    return known is not None and known.stamp == stamp and not isinstance(known, Fresh)


def walk(root: Root, parts: Parts, ignore: Callable[[str], bool] = is_by_work) -> Iterator[Found | Skipped]:
    """Everything below the folder at ``parts``, without reading any file: a folder before what is in it, names sorted.

    Names that ``ignore`` knows are left out silently, and so are the parts of a database beside it; links are not followed;
    several names may amount to one ``RelPath.fold``.

    Raises:
        RootGone: the root itself is not there.
        FolderGone, LinkInTheWay, CannotRead, DiskFailing: there is no folder at ``parts``, or it cannot be looked into.
    """
    with root.folders() as folders:
        waiting = _look_into(folders, parts, ignore)
        waiting.reverse()
        while waiting:
            found = waiting.pop()
            yield found
            if isinstance(found, Found) and found.stamp.kind == "folder":
                try:
                    below = _look_into(folders, found.parts, ignore)
                except (FolderGone, LinkInTheWay, CannotRead, DiskFailing) as error:
                    below = [Skipped(found.parts, str(error))]
                waiting.extend(reversed(below))


def _look_into(folders: Folders, parts: Parts, ignore: Callable[[str], bool]) -> list[Found | Skipped]:
    try:
        names = list_at(folders(parts))
    except OSError as error:
        raise read_fault(error, folders.root.shown(parts)) from error
    belonging = {name for name, _ in names if database_of(name) and sqlitefile.belongs(folders(parts), name)}
    more = {database_of(name) for name in belonging if not name.endswith("-shm")}
    return [_found((*parts, name), stamp, name in more) for name, stamp in names if not ignore(name) and name not in belonging]


def _found(parts: Parts, stamp: Stamp, more: bool) -> Found | Skipped:
    try:
        return Found(parts, RelPath.from_disk(*parts), stamp, more)
    except BadPath as error:
        return Skipped(parts, str(error), by_name=True)


@dataclass(frozen=True, slots=True)
class _Eye:
    folders: Folders
    now_ns: int
    sink: Sink | None
    listed: Listed | None
    ready: Ready | None = None
    databases: bool = True
    elsewhere: Elsewhere | None = None

    def observe(self, parts: Parts, known: Observed | None) -> Result | Database:
        try:
            return self._look(parts, known)
        except FolderGone:
            return Nothing()
        except (BlockingIOError, FileNotFoundError):
            return Changing()
        except (LinkInTheWay, NoPlainFile, CannotRead, DiskFailing) as error:
            return Unreadable(str(error))
        except OSError as error:
            return Unreadable(str(read_fault(error, self.folders.root.shown(parts))))

    def _look(self, parts: Parts, known: Observed | None) -> Result | Database:
        folder = self.folders(parts[:-1])
        stamp = stamp_at(folder, parts[-1])
        if stamp is None:
            # The folder was opened a while ago in this batch: absence is believed only of the one that stands there now.
            return Nothing() if self.folders.root.stamp(parts) is None else Changing()
        if stamp.kind == "other":
            raise NoPlainFile(path=self.folders.root.shown(parts))
        if is_unchanged(known, stamp):
            return known  # type: ignore[return-value]
        return seen(stamp, Folder(), self.now_ns) if stamp.kind == "folder" else self._read(folder, parts)

    def _read(self, folder: int, parts: Parts) -> Result | Database:
        fd = self.folders.root.open_in(folder, parts)
        try:
            if not self.databases and sqlitefile.begins(fd):
                return Database()
            before = stamp_of(os.fstat(fd))
            fresh = abs(self.now_ns - before.mtime_ns) < 2 * FRESH_NS  # the last write may have come a whole step of time after its stamp
            if not self._is_ready(before, written(fd, parts[-1], fresh=fresh)):
                return Changing(unread=True)
            read = self.elsewhere(before) if self.elsewhere else None
            if isinstance(read, (Later, Changing, Unreadable)):
                return read
            content, listing, at_ns = (read.content, read.listing, read.at_ns) if read else self._describe(fd, before)
            after = stamp_of(os.fstat(fd))
            open_still = written(fd, parts[-1], fresh=fresh)
        finally:
            os.close(fd)
        if before != after or content.size != after.size or stamp_at(folder, parts[-1]) != after:
            return Changing()
        if not self._is_ready(after, open_still):
            return Changing(unread=True)
        if self.listed is not None:
            self.listed(content, listing)
        state = File(content, after.executable)
        return Fresh(after, state) if open_still else seen(after, state, at_ns)

    def _describe(self, fd: int, stamp: Stamp) -> tuple[Content, Listing, int]:
        if stamp.size >= LARGE:
            start_writing(fd)
        return *describe(fd, stamp.size, self.sink), self.now_ns

    def _is_ready(self, stamp: Stamp, is_written: bool) -> bool:
        return self.ready is None or self.ready(stamp, is_written)
