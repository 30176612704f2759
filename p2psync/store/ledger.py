"""The ledger of one mandate: a SQLite file (WAL, synchronous=FULL) that holds its journal and what this disk was seen to hold.

What is persisted are observations and acts, never a list of work to do: the work is derived. One writer at a time, in short
transactions; any number of threads read beside it.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sized
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

from p2psync.store import memory
from p2psync.store.faults import DiskFailing, DiskFull, database, database_fault
from p2psync.values.errors import MandateError, UserError

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, device BLOB NOT NULL, incarnation BLOB NOT NULL, seq INTEGER NOT NULL,
    kind INTEGER NOT NULL, time_ms INTEGER NOT NULL, past BLOB NOT NULL, raw BLOB NOT NULL, UNIQUE (device, incarnation, seq));
CREATE INDEX records_by_kind ON records (kind);
CREATE TABLE entries (
    n INTEGER PRIMARY KEY, record BLOB NOT NULL, idx INTEGER NOT NULL, attaches INTEGER NOT NULL, path TEXT NOT NULL, fold TEXT NOT NULL,
    op INTEGER NOT NULL, digest BLOB, size INTEGER, listing BLOB, executable INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    act INTEGER NOT NULL, by TEXT NOT NULL, head INTEGER NOT NULL, UNIQUE (record, idx));
CREATE INDEX entries_by_path ON entries (path, attaches);
CREATE INDEX entries_by_fold ON entries (fold) WHERE head = 1;
CREATE INDEX entries_by_digest ON entries (digest) WHERE digest IS NOT NULL;
CREATE INDEX heads_by_path ON entries (path) WHERE head = 1 AND attaches = 0;
CREATE INDEX attachments ON entries (path) WHERE head = 1 AND attaches = 1;
CREATE TABLE places (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, location TEXT NOT NULL, device INTEGER, inode INTEGER, halted TEXT) WITHOUT ROWID;
CREATE TABLE paths (
    path TEXT PRIMARY KEY, disk TEXT NOT NULL,
    kind TEXT, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, runs INTEGER, fresh INTEGER,
    digest BLOB, listing BLOB, executable INTEGER,
    agreed_op INTEGER, agreed_digest BLOB, agreed_size INTEGER, agreed_listing BLOB, agreed_executable INTEGER, refs BLOB, seen BLOB)
    WITHOUT ROWID;
CREATE INDEX paths_by_digest ON paths (digest) WHERE digest IS NOT NULL;
CREATE TABLE copies (
    record BLOB NOT NULL, idx INTEGER NOT NULL, path TEXT NOT NULL, disk TEXT NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (record, idx))
    WITHOUT ROWID;
CREATE INDEX copies_by_path ON copies (path);
CREATE TABLE listings (digest BLOB PRIMARY KEY, content BLOB NOT NULL, packed BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX listings_by_content ON listings (content);
CREATE TABLE chunks (
    chunk BLOB NOT NULL, content BLOB NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (chunk, content, at))
    WITHOUT ROWID;
CREATE TABLE addresses (
    device BLOB NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL, seen_ms INTEGER NOT NULL, PRIMARY KEY (device, host, port))
    WITHOUT ROWID;
CREATE TABLE days (day INTEGER PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE dropped (digest BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE damaged (path TEXT PRIMARY KEY, digest BLOB NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE met (device BLOB PRIMARY KEY, seen_ms INTEGER NOT NULL) WITHOUT ROWID;
"""
_ADDED = """
CREATE TABLE IF NOT EXISTS days (day INTEGER PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS dropped (digest BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS damaged (
    path TEXT PRIMARY KEY, digest BLOB NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL) WITHOUT ROWID;
"""
"""What ledgers made by the first versions lack; those versions do not mind that it is there."""
_VERSION = 1


class LedgerTooNew(UserError):
    """The ledger {path} was written by a newer p2psync. Install that version again; nothing was changed."""


class LedgerClosed(MandateError):
    """The ledger is closed, because p2psync stops."""


class LedgerDamaged(UserError):
    """The ledger {path} cannot be read ({why}). Nothing was changed. Restore it from a backup, or move its folder away and subscribe
    again.
    """


class Ledger:
    """The SQLite file at ``path``, made when there is none.

    Raises:
        LedgerTooNew: a later version wrote it.
        LedgerDamaged: it is no database, or broken.
        DiskFull, DiskFailing: it cannot be opened at the moment.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._closed = False
        self._own = threading.local()
        self._idle: list[sqlite3.Connection] = []
        with ExitStack() as opened:
            try:
                self._writer = opened.enter_context(closing(self._connect()))
                self._prepare()
                self._front = opened.enter_context(closing(self._connect_reader()))
                self._back = opened.enter_context(closing(self._connect_reader()))
            except sqlite3.DatabaseError as e:
                fault = database_fault(e, path)
                if isinstance(fault, DiskFull | DiskFailing):
                    raise fault from e
                raise LedgerDamaged(path=path, why=e) from e
            opened.pop_all()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30, cached_statements=256)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        return db

    def _prepare(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise LedgerTooNew(path=self.path)
        if version == 0:
            self._writer.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
            self.path.chmod(0o600)
        else:
            self._writer.executescript(_ADDED)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, durable when the block ends; nested blocks belong to the outermost. An exception undoes all of it.

        Raises:
            DiskFull, CannotWrite, DiskFailing, DatabaseDamaged: nothing was written.
        """
        with self._lock:
            if self._closed:
                raise LedgerClosed()
            if self._writer.in_transaction:
                yield self._writer
                return
            with database(self.path):
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    self._writer.rollback()  # does nothing where the error, a full disk for instance, has done so already
                    raise

    def read(self) -> sqlite3.Connection:
        """The connection for reading, of this thread within :meth:`reading`, shared by several outside; it sees what was committed.

        On a shared one a statement of another thread that is still being read keeps everybody at what was committed before it. The main
        thread, which must not wait for others, has one to itself.
        """
        own: sqlite3.Connection | None = getattr(self._own, "connection", None)
        return own or (self._front if threading.current_thread() is threading.main_thread() else self._back)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """For the length of the block, this thread reads over a connection of its own, and sees at once what was committed.

        Raises:
            DiskFull, CannotWrite, DiskFailing, DatabaseDamaged: there is none yet, and none can be made at the moment.
        """
        before = getattr(self._own, "connection", None)
        if before is None:
            try:
                self._own.connection = self._idle.pop()
            except IndexError:
                with database(self.path):
                    self._own.connection = self._connect_reader()
        try:
            yield
        finally:
            if before is None:
                self._idle.append(self._own.connection)
                self._own.connection = None

    def _connect_reader(self) -> sqlite3.Connection:
        reader = self._connect()
        reader.execute("PRAGMA query_only=1")
        return reader

    def rest(self) -> None:
        """Let go of the connections that nobody reads over, and of the pages and statements that they keep."""
        with self._lock, database(self.path):
            memory.let_go(self._idle, None if self._closed else self._writer)

    def close(self) -> None:
        """Close all connections. No thread may use the ledger any more."""
        with self._lock:
            self._closed = True
            for reader in (self._front, self._back, *self._idle):
                reader.close()
            self._idle.clear()
            self._writer.close()

    def get(self, key: str) -> bytes | None:
        """The value kept under ``key``, or None."""
        row = self.read().execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, key: str, value: bytes) -> None:
        """Keep ``value`` under ``key``, durably."""
        with self.write() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


LOT = 256
"""Values that one question names: well below the number of parameters that a statement may have."""


def in_lots(values: Iterable[T]) -> Iterator[list[T]]:
    """``values``, so many at a time as one question may name."""
    source = iter(values)
    while lot := list(islice(source, LOT)):
        yield lot


def marks(lot: Sized) -> str:
    """The places of so many values in a statement: ``?,?,?``."""
    return ",".join("?" * len(lot))
