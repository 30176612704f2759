"""What a refusal of the operating system means to a person: one sentence each, with what to do next.

Promise: no ``OSError`` of a disk and no error of SQLite leaves this floor by itself. Whoever touches the disk does it inside ``reading``
or ``writing``, and a database inside ``database``.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from p2psync.values.errors import UserError
from p2psync.values.names import escaped


class DiskFull(UserError):
    """The disk that holds “{path}” is full. Make room on it, and p2psync goes on by itself."""


class CannotWrite(UserError):
    """“{path}” cannot be written: {why}. {action}"""


class CannotRead(UserError):
    """“{path}” cannot be read: {why}. {action}"""


class DiskFailing(UserError):
    """The disk reports an error at “{path}” ({why}). Check the disk and how it is connected, and copy what matters from it soon."""


class DatabaseDamaged(UserError):
    """“{path}” is damaged ({why}). Stop p2psync and put it back from a backup, or move it away; the files you work on are not touched."""


_FULL = {errno.ENOSPC, errno.EDQUOT}
_FAILING = {
    getattr(errno, name, None) for name in ("EIO", "ENODEV", "ENXIO", "ESTALE", "ENOTCONN", "EHOSTDOWN", "EREMOTEIO", "EUCLEAN")
} - {None}
_DENIED = {
    errno.EACCES: "the permissions do not allow it",
    errno.EPERM: "the system does not allow it",
}
_WHY = {
    errno.ENOENT: ("a folder above it is not there", "Make that folder, or mount its disk."),
    errno.ENOTDIR: ("something above it is a file", "Choose another place."),
    errno.EEXIST: ("something else stands there", "Choose another place."),
    errno.EISDIR: ("a folder stands there", "Choose another place."),
    errno.ELOOP: ("a link stands there", "Choose another place."),
    errno.EROFS: ("the disk is mounted read-only", "Mount it for writing."),
    errno.ENAMETOOLONG: ("the name is too long for this disk", "Choose a shorter name."),
    errno.EILSEQ: ("this disk cannot store the name", "Rename it on the machine it comes from."),
    errno.EINVAL: ("this disk cannot store the name", "Rename it on the machine it comes from."),
    errno.EFBIG: ("it is too large for this disk", "Move the folder to a disk that takes larger files."),
    errno.EMFILE: ("p2psync has too many files open", "It tries again by itself."),
    errno.ENFILE: ("this machine has too many files open", "It tries again by itself."),
    errno.ETXTBSY: ("the program is running", "Close it."),
}


def write_fault(error: OSError, path: object) -> UserError:
    """What ``error`` means for somebody who wanted ``path`` to be written."""
    return _fault(error, path, CannotWrite, "Give p2psync's account the right to write there.")


def read_fault(error: OSError, path: object) -> UserError:
    """What ``error`` means for somebody who wanted ``path`` to be read."""
    return _fault(error, path, CannotRead, "Give p2psync's account the right to read it.")


def _fault(error: OSError, path: object, kind: type[UserError], permit: str) -> UserError:
    shown = escaped(os.fspath(path) if isinstance(path, os.PathLike) else str(path))
    if error.errno in _FULL:
        return DiskFull(path=shown)
    if error.errno in _FAILING:
        return DiskFailing(path=shown, why=error.strerror)
    if error.errno in _DENIED:
        return kind(path=shown, why=_DENIED[error.errno], action=permit)
    why, action = _WHY.get(error.errno or 0, (error.strerror or "unknown reason", "p2psync tries again later."))
    return kind(path=shown, why=why, action=action)


@contextmanager
def writing(path: object) -> Iterator[None]:
    """Turns every ``OSError`` inside into the ``UserError`` that a person can act on."""
    try:
        yield
    except OSError as error:
        raise write_fault(error, path) from error


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Turns every ``OSError`` inside into the ``UserError`` that a person can act on."""
    try:
        yield
    except OSError as error:
        raise read_fault(error, path) from error


@contextmanager
def database(path: object) -> Iterator[None]:
    """Turns every error of SQLite inside into the ``UserError`` that a person can act on."""
    try:
        yield
    except sqlite3.Error as error:
        fault = database_fault(error, path)
        if fault is None:  # a bug of ours: a wrong statement, say
            raise
        raise fault from error


_FORBIDDEN = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def database_fault(error: sqlite3.Error, path: object) -> UserError | None:
    """What an error of SQLite means for somebody who works on ``path``; None: a mistake of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(path=path)
    if code == sqlite3.SQLITE_IOERR:
        return DiskFailing(path=path, why=error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DatabaseDamaged(path=path, why=error)
    if code in _FORBIDDEN:
        return CannotWrite(path=path, why=error, action="Give p2psync's account the right to write there, and to no other program.")
    return None
