"""Is a file an SQLite database, and what belongs to it? The one place that knows what such a database looks like on disk.

While a program works on a database, what it saved is in two files: the database and its write-ahead log (``-wal``), or the database and
its rollback journal (``-journal``), which takes back what was only half done. Neither is worth anything without the other, and a log or
journal beside another database than its own destroys that one. So these, and the index of the log (``-shm``), are never files of
their own (https://www.sqlite.org/fileformat2.html, sections 3 and 4; https://www.sqlite.org/howtocorrupt.html).

The name alone does not tell: ``NAME-wal`` belongs to ``NAME`` when that is an SQLite database, or is still empty, as one is in which the
first transaction runs; and when there is no ``NAME``, as after somebody deleted it, its own beginning tells.
"""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass

from p2psync.engine.ignore import database_of, halves_of
from p2psync.store.root import NoPlainFile, open_at, stamp_at
from p2psync.values.content import Stamp

_HEADER = b"SQLite format 3\0"
_LOG = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_INDEX = b"\x18\xe2\x2d\x00", b"\x00\x2d\xe2\x18"
"""The version 3007000 of the index, in the byte order of the machine."""
_BEGINNING, _INDEX_HEADER = 100, 48
"""Bytes of the header of a database, and of that of the index (https://www.sqlite.org/walformat.html, 2.1)."""


@dataclass(frozen=True, slots=True)
class Halves:
    """A database as the disk shows it: its stamp, those of its log and its journal, and whether it is kept with a log.

    ``hot``: log or journal hold something that the database itself does not say. ``state``: what SQLite itself tells two states of one
    database apart by, however soon they follow one another: the change counter in its header, and the header of the index of its log.
    """

    database: Stamp
    log: Stamp | None
    journal: Stamp | None
    logged: bool
    hot: bool
    state: bytes

    @property
    def newest_ns(self) -> int:
        """When something in it was last written, in nanoseconds since 1970."""
        return max(stamp.mtime_ns for stamp in (self.database, self.log, self.journal) if stamp)


def is_database(folder: int, name: str) -> bool:
    """Whether ``name`` in the open ``folder`` begins like an SQLite database.

    Raises:
        OSError, NoPlainFile: it cannot be told.
    """
    return _beginning(folder, name, _BEGINNING).startswith(_HEADER)


def begins(fd: int) -> bool:
    """Whether the open file begins like an SQLite database. Raises: OSError."""
    return os.pread(fd, len(_HEADER), 0) == _HEADER


def look(folder: int, name: str) -> Halves | None:
    """The database ``name`` in the open ``folder`` with what belongs to it, or None when that is no SQLite database.

    Raises:
        OSError, NoPlainFile: it cannot be told.
    """
    head = _beginning(folder, name, _BEGINNING)
    stamp = stamp_at(folder, name)
    if not head.startswith(_HEADER) or stamp is None:
        return None
    log, journal = (_stamp(folder, half) for half in halves_of(name))
    state = head[24:28]
    with suppress(PermissionError, NoPlainFile):
        state += _beginning(folder, f"{name}-shm", _INDEX_HEADER)
    return Halves(stamp, log, journal, head[18:19] == b"\2", hot_half(folder, name) is not None, state)


def hot_half(folder: int, name: str) -> str | None:
    """The name of a log or journal beside ``name`` that SQLite would apply to whatever database stood there, or None.

    Raises:
        OSError: it cannot be told.
    """
    for half, magic in zip(halves_of(name), (_LOG, (_JOURNAL,)), strict=True):
        stamp = _stamp(folder, half)
        if stamp and stamp.kind == "file" and stamp.size and _beginning(folder, half, 8).startswith(magic):
            return half
    return None


def belongs(folder: int, name: str) -> bool:
    """Whether ``name`` in the open ``folder`` is a part of some database, and no file of its own; what cannot be read is one."""
    database = database_of(name)
    if database is None:
        return False
    try:
        stamp = stamp_at(folder, database)
        if stamp is not None:
            return stamp.kind == "file" and (not stamp.size or _beginning(folder, database, _BEGINNING).startswith(_HEADER))
        return _beginning(folder, name, 8).startswith((*_LOG, _JOURNAL, *_INDEX))
    except (OSError, NoPlainFile):
        return False


def _stamp(folder: int, name: str) -> Stamp | None:
    try:
        return stamp_at(folder, name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # then no program can have made it
            return None
        raise


def _beginning(folder: int, name: str, size: int) -> bytes:
    try:
        fd = open_at(folder, name)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)
