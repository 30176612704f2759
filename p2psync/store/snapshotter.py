"""A program of its own, run by store/snapshots: it lets SQLite read a database that other programs work on.

``backup DATABASE TARGET`` writes what the database holds at one moment to TARGET, through SQLite's backup API, without writing into
DATABASE and without making a file beside it. ``recover DATABASE`` opens a database that nobody has open and lets SQLite finish what a
program that died left half done. It says nothing; it ends with 0 (done), 3 (others leave no moment for it), or, with SQLite's reason on
standard error, 4, and 5 when it is no database, or a damaged one.

A process of its own, because POSIX drops a process's locks on a file as soon as any part of that process closes the file, as those parts
of the daemon do that serve it to peers; and because it can be ended. Only the standard library: it starts in 20 ms.
"""

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

DONE, BUSY, FAILED, NO_DATABASE = 0, 3, 4, 5

STEPS = ((200, 0.5), (1_000, 0.5), (4_000, 1.0), (32_000, 3.0))
"""Pages copied under one lock, and seconds that such steps are tried: a program that writes in between makes the copy begin again. Where
there is no write-ahead log its writes wait for the lock, about a millisecond for 200 pages, so the steps grow only when they must.
"""
_BREATH_S = 0.002
"""Between two steps, so that others get at their lock."""
_LOCKED_S = 0.5
"""So long does somebody hold the lock who is only writing down a small transaction; whoever holds it longer is waited for elsewhere."""

_NEWEST = (slice(24, 28), slice(40, 44), slice(92, 100))
"""What a backup writes anew into the header: the change counter, the schema cookie, the counter and the version of SQLite again
(https://www.sqlite.org/fileformat2.html, 1.3)."""


class _Late(Exception):
    """Others wrote all the time."""


class _Locked(Exception):
    """Somebody keeps others from reading."""


def main(words: list[str]) -> int:
    """Do what the words say; returns the exit code."""
    os.umask(0o077)
    try:
        if words[0] == "backup":
            _backup(words[1], words[2])
        else:
            _recover(words[1])
    except (_Late, _Locked):
        return BUSY
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return BUSY
        sys.stderr.write(str(error))
        return NO_DATABASE if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT) else FAILED
    return DONE


def _backup(path: str, target: str) -> None:
    source = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, timeout=1.0)
    logged = source.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    if logged:  # what is read from here on is what was there now, and nobody waits for us
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
    _in_steps(source, target)
    _restore_header(path, target)
    source.close()


def _in_steps(source: sqlite3.Connection, target: str) -> None:
    for pages, patience in STEPS:
        copy = sqlite3.connect(target, isolation_level=None)
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        try:
            source.backup(copy, pages=pages, progress=_Breathing(patience), sleep=0.01)
            return
        except _Late:
            os.unlink(target)  # half a copy, which nothing can be added to
        finally:
            copy.close()
    raise _Late


class _Breathing:
    """Is called between two steps, and ends the copy when it takes more than ``patience`` seconds."""

    def __init__(self, patience: float) -> None:
        self._deadline = time.monotonic() + patience
        self._free = time.monotonic()

    def __call__(self, status: int, remaining: int, _total: int) -> None:
        now = time.monotonic()
        if status not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self._free = now
        elif now > self._free + _LOCKED_S:
            raise _Locked
        if status == sqlite3.SQLITE_OK and now > self._deadline:
            raise _Late
        time.sleep(_BREATH_S)


def _restore_header(path: str, target: str) -> None:
    """Give the copy the header that the database itself will have, once its log is written back: the two are then equal byte for byte."""
    with open(target, "r+b") as copy:
        ours = copy.read(65536)
        size = int.from_bytes(ours[16:18], "big")
        size = 65536 if size == 1 else size
        meant = None
        for page in _first_pages(path, size):
            if _masked(page) == _masked(ours[:size]):
                meant = page
        if meant is not None:
            copy.seek(0)
            copy.write(meant[:100])


def _first_pages(path: str, size: int) -> Iterator[bytes]:
    """The first page as it is in the database, and then each later one in its log."""
    with open(path, "rb") as database:
        yield database.read(size)
    try:
        log = open(path + "-wal", "rb")  # noqa: SIM115 closed below
    except FileNotFoundError:
        return
    with log:
        head = log.read(32)
        while len(frame := log.read(24 + size)) == 24 + size:
            if frame[8:16] != head[16:24]:
                return  # left over from before the log was begun anew
            if frame[:4] == b"\0\0\0\1":
                yield frame[24:]


def _masked(page: bytes) -> bytes:
    masked = bytearray(page)
    for newest in _NEWEST:
        masked[newest] = bytes(newest.stop - newest.start)
    return bytes(masked)


def _recover(path: str) -> None:
    database = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None, timeout=1.0)
    database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    busy, _frames, _done = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    database.close()
    if busy:
        raise _Late


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
