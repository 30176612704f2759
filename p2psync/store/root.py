"""The last door: every file of the user is opened below its root here, component by component, following no link.

The root is opened anew for each access (or each batch, see ``Folders``), never held: an open folder would keep a USB stick from being
unmounted. What then stands at the path must be the very folder it was when the ``Root`` was made, so that an unmounted disk shows
as ``RootGone`` and never as an empty folder. ``parts`` are names as they stand on disk (NFC or not), outermost first.

Linux and macOS, by file descriptors of folders (``openat`` and its family). Windows has none: there each component would be opened
with ``FILE_FLAG_OPEN_REPARSE_POINT`` and without ``FILE_SHARE_DELETE``, and held while the next one is opened.
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from p2psync.store.faults import read_fault, reading
from p2psync.values.content import Stamp
from p2psync.values.errors import BadPath, MandateError, UserError
from p2psync.values.names import escaped

Parts: TypeAlias = tuple[str, ...]
"""The names that lead from a root to what is below it; none for the root itself."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Non-blocking, so that neither a FIFO nor somebody else's lease holds us up; it means nothing for the reads that follow."""

_OPEN_FOLDERS = 64
"""Folders that one batch keeps open, out of the 1,024 descriptors that a process usually may have."""

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN}


class RootGone(MandateError):
    """The folder “{path}” is not there: {why}. Connect its disk or put the folder back; nothing is deleted anywhere meanwhile."""


class FolderGone(MandateError):
    """The folder “{path}” is not there any more. It is looked at again."""


class NameTaken(MandateError):
    """Something else stands at “{path}” already. It is looked at again."""


class LinkInTheWay(UserError):
    """“{path}” is a link, and p2psync follows no links inside a shared folder. Put the real folder or file in its place."""


class NoPlainFile(UserError):
    """“{path}” is neither a file nor a folder (a link, for instance), so it is not shared. Put the file itself there, or move it away."""


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp that ``status`` (of ``lstat`` or ``fstat``) amounts to."""
    kind: Literal["file", "folder", "other"] = "other"
    if stat.S_ISREG(status.st_mode):
        kind = "file"
    elif stat.S_ISDIR(status.st_mode):
        kind = "folder"
    executable = kind == "file" and bool(status.st_mode & stat.S_IXUSR)
    return Stamp(kind, status.st_size, _kept(status.st_mtime_ns), _kept(status.st_ctime_ns), status.st_ino, executable)


_EARLIEST, _LATEST = -(1 << 63), (1 << 63) - 1


def _kept(time_ns: int) -> int:
    """A time that the ledger can keep: some programs leave dates behind that lie beyond the year 2262, or before 1677."""
    return time_ns if _EARLIEST <= time_ns <= _LATEST else max(_EARLIEST, min(time_ns, _LATEST))


def stamp_at(folder: int, name: str) -> Stamp | None:
    """The stamp of ``name`` in the open ``folder``, or None when nothing stands there.

    Raises:
        OSError: it cannot be told.
    """
    try:
        return stamp_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None


def open_at(folder: int, name: str) -> int:
    """A descriptor of the file ``name`` in the open ``folder``, for reading.

    Raises:
        NoPlainFile, BlockingIOError (a lease is on it: somebody works on it), OSError.
    """
    fd = os.open(name, _FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NoPlainFile(path=escaped(name))
    return fd


def name_fault(name: str) -> bool:
    """Whether ``name`` is no single component that could stand in a folder."""
    return name in ("", ".", "..") or "/" in name or "\0" in name


class Root:
    """A folder of the user's, below which a mandate may read and write, and nowhere else.

    Raises:
        RootGone: on construction and at every access, when no folder stands there, or another one than before.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._name = str(self.path).rstrip(os.sep)
        self.identity: tuple[int, int] | None = None
        fd = self._open()
        status = os.fstat(fd)
        os.close(fd)
        self.identity = (status.st_dev, status.st_ino)

    def shown(self, parts: Parts) -> str:
        """The whole path of ``parts`` as an error or a status shows it."""
        path = os.sep.join((self._name, *parts)) if parts else str(self.path)
        return path if path.isascii() and path.isprintable() else escaped(path)

    def stamp(self, parts: Parts) -> Stamp | None:
        """What stands at ``parts``, by ``lstat``; None when nothing does.

        Raises:
            RootGone, LinkInTheWay, CannotRead, DiskFailing.
        """
        try:
            with reading(self.shown(parts)), self.dir_fd(parts[:-1]) as folder:
                return stamp_at(folder, parts[-1]) if parts else stamp_of(os.fstat(folder))
        except FolderGone:
            return None

    def open_read(self, parts: Parts) -> int:
        """A descriptor of the file at ``parts``, for reading; the caller closes it.

        Raises:
            FileNotFoundError: nothing stands there.
            BlockingIOError: somebody holds a lease on it (a Samba client, for instance) and works on it.
            RootGone, FolderGone, LinkInTheWay, NoPlainFile, CannotRead, DiskFailing.
        """
        with self.dir_fd(parts[:-1]) as folder:
            return self.open_in(folder, parts)

    def open_in(self, folder: int, parts: Parts) -> int:
        """As ``open_read``, with the ``folder`` that the file is in already open."""
        try:
            return open_at(folder, parts[-1])
        except (FileNotFoundError, BlockingIOError):
            raise
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise LinkInTheWay(path=self.shown(parts)) from None
            if error.errno == errno.ENXIO:  # a socket
                raise NoPlainFile(path=self.shown(parts)) from None
            raise read_fault(error, self.shown(parts)) from error

    def names(self, parts: Parts) -> list[str]:
        """The names in the folder at ``parts``, in no order.

        Raises:
            RootGone, FolderGone, LinkInTheWay, CannotRead, DiskFailing.
        """
        with self.dir_fd(parts) as folder, reading(self.shown(parts)):
            return os.listdir(folder)

    def list(self, parts: Parts) -> "list[tuple[str, Stamp]]":
        """The names in the folder at ``parts`` with their stamps, sorted; what vanishes meanwhile is left out.

        Raises:
            RootGone, FolderGone, LinkInTheWay, CannotRead, DiskFailing.
        """
        with self.dir_fd(parts) as folder, reading(self.shown(parts)):
            return list_at(folder)

    def space(self, parts: Parts = ()) -> tuple[int, int]:
        """Bytes that may still be written on the disk of the folder at ``parts``, and bytes that it has in all.

        Raises:
            RootGone, FolderGone, LinkInTheWay, CannotRead, DiskFailing.
        """
        with self.dir_fd(parts) as folder, reading(self.shown(parts)):
            status = os.fstatvfs(folder)
            return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize

    @contextmanager
    def dir_fd(self, parts: Parts) -> Iterator[int]:
        """The folder at ``parts``, open for reading, closed afterwards.

        Raises:
            RootGone, FolderGone, LinkInTheWay, CannotRead, DiskFailing.
        """
        fd = self._walk(parts)
        try:
            yield fd
        finally:
            os.close(fd)

    def folders(self) -> "Folders":
        """Folders that stay open during one batch."""
        return Folders(self)

    def _open(self) -> int:
        try:
            fd = os.open(self.path, _FOLDER)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise RootGone(path=escaped(str(self.path)), why=error.strerror) from None
            raise read_fault(error, self.path) from error
        status = os.fstat(fd)
        if self.identity not in (None, (status.st_dev, status.st_ino)):
            os.close(fd)
            raise RootGone(path=escaped(str(self.path)), why="another folder stands in its place")
        return fd

    def _walk(self, parts: Parts) -> int:
        if any(map(name_fault, parts)):
            raise BadPath(path=escaped("/".join(parts)), why="it leads out of its folder")
        fd = self._open()
        for depth, part in enumerate(parts, 1):
            try:
                below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
            except OSError as error:
                raise self._no_way(error, fd, parts[:depth]) from None
            finally:
                os.close(fd)
            fd = below
        return fd

    def _no_way(self, error: OSError, folder: int, parts: Parts) -> Exception:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            with reading(self.shown(parts)):
                found = stamp_at(folder, parts[-1])
            if found and found.kind == "other":
                return LinkInTheWay(path=self.shown(parts))
            return FolderGone(path=self.shown(parts))
        return FolderGone(path=self.shown(parts)) if error.errno == errno.ENOENT else read_fault(error, self.shown(parts))


def list_at(folder: int) -> list[tuple[str, Stamp]]:
    """The names in the open ``folder`` with their stamps, sorted.

    Raises:
        OSError: they cannot be told; what merely vanishes meanwhile is left out.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found.append((entry.name, stamp_of(entry.stat(follow_symlinks=False))))
            except FileNotFoundError:
                continue
    return sorted(found, key=lambda pair: pair[0])


class Folders:
    """The folders that one batch needs again and again, each opened once and few at a time; a context manager that closes them."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._open: OrderedDict[Parts, int] = OrderedDict()

    def __call__(self, parts: Parts) -> int:
        """The descriptor of the folder at ``parts``, good until the next call.

        Raises:
            RootGone, FolderGone, LinkInTheWay, CannotRead, DiskFailing.
        """
        if parts in self._open:
            self._open.move_to_end(parts)
        else:
            self._open[parts] = self.root._walk(parts)
            if len(self._open) > _OPEN_FOLDERS:
                os.close(self._open.popitem(last=False)[1])
        return self._open[parts]

    def __enter__(self) -> "Folders":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
