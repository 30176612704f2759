"""The vault: the chunks of superseded versions and of small current ones, each once, compressed, in one SQLite file.

Promises: what ``keep`` returned from is on the disk; what ``get`` returns has the digest that was asked for. A chunk that does not is
marked as damaged and reported, counts as absent from then on, and is mended by the next ``keep`` of it. Only ``remove`` removes
anything, and nothing that was given to ``keep`` since the last but one call of ``collecting``, whether it was there before or not: its
reference may not be written down yet.

May be used from several threads: one writer at a time, each reader with a connection of its own for as long as it needs it (borrowed
from a few, since threads come and go). On disk: docs/on-disk.md; compression is zstandard (RFC 8878), level 1.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import zstandard

from p2psync.store import memory, space
from p2psync.store.faults import DatabaseDamaged, DiskFull, database, writing
from p2psync.values.content import CHUNK_MAX, Chunk
from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import UserError

_FORMAT = 1
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS chunk (
        digest BLOB PRIMARY KEY,          -- BLAKE3 of the bytes
        size INTEGER NOT NULL,            -- of the bytes, not of what is stored
        packed INTEGER NOT NULL,          -- 0: stored as it is, 1: zstandard
        damaged INTEGER NOT NULL DEFAULT 0,
        stored BLOB NOT NULL
    )"""
_KEEP = """
    INSERT INTO chunk (digest, size, packed, stored) VALUES (?, ?, ?, ?)
    ON CONFLICT (digest) DO UPDATE SET size = excluded.size, packed = excluded.packed, damaged = 0, stored = excluded.stored"""
_SETTINGS = (
    "PRAGMA page_size = 16384",  # chunks are large: 65 MB in 1,000 of them take 0.24 s, against 0.31 s with pages of 4 KiB
    "PRAGMA auto_vacuum = INCREMENTAL",  # as page_size, which must come first, for a new file; an older one uses free pages again
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # means something on macOS only
    "PRAGMA journal_size_limit = 16777216",
)
_AT_ONCE = 256
"""Chunks that are looked up together: well below the number of parameters that one statement may have."""
_PENDING = 16 * 1024 * 1024
"""Bytes that ``Keeping`` holds in memory before it commits them."""
_YOUNG = 500_000
"""Digests that are remembered between two collections: 50 MB of them; after more than that nothing is removed once."""

_log = logging.getLogger(__name__)


class HistoryTooNew(UserError):
    """“{path}” was written by a newer p2psync. Update this one; it touches nothing until then."""


class Vault:
    """The vault in the file ``path``; ``damaged`` is told each chunk that turns out to be damaged, from whichever thread found it.

    Raises:
        DiskFull, CannotWrite, DiskFailing, DatabaseDamaged: at every use. HistoryTooNew: on construction.
    """

    def __init__(self, path: Path, damaged: Callable[[Digest], None] | None = None) -> None:
        self.path = path
        self._report = damaged
        self._idle: list[sqlite3.Connection] = []
        self._turn = threading.Lock()
        self._closed = False
        self._young: list[set[Digest]] = [set(), set()]
        self._crowded = [False, False]
        with writing(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with database(path):
            self._writer = self._connect()
            try:
                self._prepare()
            except BaseException:
                self._writer.close()
                raise
        self._pack = zstandard.ZstdCompressor(level=1)

    def keep(self, chunks: Iterable[tuple[Digest, bytes]]) -> int:
        """Stores these chunks in one commit, durable on return; the number that were not there before.

        Raises:
            ValueError: a chunk has not the digest it is given under. Nothing of this call is stored then, nor after any other error.
            DiskFull: also when what is left of the disk is for the ledgers. A log that has grown does not shrink when its writer fails.
        """
        kept = 0
        disk = space.of(self.path)
        room = disk.free
        source = iter(chunks)
        with self._turn, database(self.path), self._transaction() as connection:
            while batch := dict(islice(source, _AT_ONCE)):
                self._note_young(batch)
                present = _present(connection, batch)
                missing = [self._row(digest, data) for digest, data in batch.items() if digest not in present]
                room -= sum(len(stored) for _, _, _, stored in missing)
                if missing and room < disk.reserve:
                    raise DiskFull(path=self.path)
                connection.executemany(_KEEP, missing)
                kept += len(missing)
        return kept

    def keeping(self) -> "Keeping":
        """A sink that keeps every chunk it is given, for ``describe`` and ``observe``."""
        return Keeping(self)

    def has(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those of ``digests`` that are here and not known to be damaged."""
        found: set[Digest] = set()
        source = iter(digests)
        with database(self.path), self._reader() as connection:
            while batch := list(islice(source, _AT_ONCE)):
                found |= _present(connection, batch)
        return found

    def get(self, digest: Digest) -> bytes | None:
        """The bytes with this ``digest``, checked; None when they are not here, or damaged."""
        try:
            with database(self.path), self._reader() as connection:
                row = connection.execute("SELECT size, packed, stored FROM chunk WHERE digest = ? AND NOT damaged", (digest,)).fetchone()
            data = _unpacked(row[0], row[1], row[2], zstandard.ZstdDecompressor()) if row else None
        except DatabaseDamaged:
            row, data = True, None
        if row and (data is None or content_digest(data) != digest):
            self._damaged(digest)
            return None
        return data

    def get_all(self, digests: Iterable[Digest]) -> dict[Digest, bytes]:
        """As ``get`` for many, of which those that are not here are left out."""
        found: dict[Digest, bytes] = {}
        source, unpack = iter(digests), zstandard.ZstdDecompressor()
        while batch := list(islice(source, _AT_ONCE)):
            query = f"SELECT digest, size, packed, stored FROM chunk WHERE digest IN ({','.join('?' * len(batch))}) AND NOT damaged"
            try:
                with database(self.path), self._reader() as connection:
                    rows = connection.execute(query, batch).fetchall()
            except DatabaseDamaged:  # which of them are is to be found out one by one
                found |= {digest: data for digest in batch if (data := self.get(digest)) is not None}
                continue
            for digest, size, packed, stored in rows:
                data = _unpacked(size, packed, stored, unpack)
                if data is not None and content_digest(data) == digest:
                    found[Digest(digest)] = data
                else:
                    self._damaged(Digest(digest))
        return found

    def damaged(self) -> set[Digest]:
        """The chunks that were found damaged and have not been kept again since."""
        with database(self.path), self._reader() as connection:
            return {Digest(row[0]) for row in connection.execute("SELECT digest FROM chunk WHERE damaged")}

    @property
    def size(self) -> int:
        """Bytes that the vault takes on the disk, without its write-ahead log."""
        return self._pages("page_count")

    @property
    def used(self) -> int:
        """Bytes of ``size`` that hold something; the rest is used again before the file grows."""
        return self._pages("page_count") - self._pages("freelist_count")

    def _pages(self, which: str) -> int:
        with database(self.path), self._reader() as connection:
            (pages,) = connection.execute(f"PRAGMA {which}").fetchone()
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            return int(pages) * int(page)

    # ---- looking through and letting go

    def collecting(self) -> None:
        """A collection begins: what is kept from now on is young for it and for the next one."""
        with self._turn:
            self._young = [set(), self._young[0]]
            self._crowded = [False, self._crowded[0]]

    def digests(self, after: Digest | None, most: int) -> list[Digest]:
        """The chunks here, damaged ones included, in the order of their digests: at most ``most`` of those behind ``after``."""
        with database(self.path), self._reader() as connection:
            rows = connection.execute("SELECT digest FROM chunk WHERE digest > ? ORDER BY digest LIMIT ?", (after or b"", most))
            return [Digest(row[0]) for row in rows]

    def remove(self, digests: Iterable[Digest]) -> tuple[int, int]:
        """Removes these chunks in one commit, but for the young ones; how many, and how many bytes they took."""
        count = size = 0
        with self._turn, database(self.path), self._transaction() as connection:
            if any(self._crowded):
                return 0, 0
            for digest in digests:
                if not any(digest in young for young in self._young):
                    row = connection.execute("DELETE FROM chunk WHERE digest = ? RETURNING length(stored)", (digest,)).fetchone()
                    count, size = (count + 1, size + row[0]) if row else (count, size)
        return count, size

    def shrink(self, most: int) -> bool:
        """Gives up to ``most`` bytes that hold nothing back to the disk; whether there may be more."""
        with self._turn, database(self.path):
            (page,) = self._writer.execute("PRAGMA page_size").fetchone()
            (before,) = self._writer.execute("PRAGMA freelist_count").fetchone()
            self._writer.executescript(f"PRAGMA incremental_vacuum({max(most // page, 1)})")  # ``execute`` would give back one page
            (free,) = self._writer.execute("PRAGMA freelist_count").fetchone()
            return bool(0 < free < before)

    def _note_young(self, digests: Iterable[Digest]) -> None:
        if len(self._young[0]) < _YOUNG:
            self._young[0].update(digests)
        else:
            self._crowded[0] = True

    def rest(self) -> None:
        """Lets go of the connections that nobody reads over, and of the pages that they keep."""
        with self._turn, database(self.path):
            memory.let_go(self._idle, None if self._closed else self._writer)

    def close(self) -> None:
        """Closes the file; harmless when done twice. Whoever still reads closes its own connection at the end."""
        with self._turn:
            self._closed = True
            memory.let_go(self._idle)
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.text_factory = bytes  # there is no text; where damage makes it look so, it is not to be decoded
        for setting in _SETTINGS:
            connection.execute(setting)
        return connection

    def _prepare(self) -> None:
        (found,) = self._writer.execute("PRAGMA user_version").fetchone()
        if found > _FORMAT:
            raise HistoryTooNew(path=self.path)
        with self._transaction() as connection:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_FORMAT}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:  # some errors, a full disk among them, roll back by themselves
                self._writer.execute("ROLLBACK")
            raise

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.pop()
        except IndexError:
            if self._closed:
                raise sqlite3.ProgrammingError("the vault is closed") from None
            connection = self._connect()
        try:
            yield connection
        finally:
            self._idle.append(connection)
            if self._closed:
                self.close()

    def _row(self, digest: Digest, data: bytes) -> tuple[Digest, int, int, bytes]:
        if content_digest(data) != digest or len(data) > CHUNK_MAX:
            raise ValueError("a chunk that has not the digest it is given under")
        packed = self._pack.compress(data)
        if len(packed) > len(data) * 15 // 16:
            return digest, len(data), 0, data
        return digest, len(data), 1, packed

    def _damaged(self, digest: Digest) -> None:
        _log.warning("chunk %s in %s is damaged", digest.hex(), self.path)
        # The database itself may be damaged there, so that even the mark fails; the next reader finds the same.
        with suppress(UserError), self._turn, database(self.path), self._transaction() as connection:
            connection.execute("UPDATE chunk SET damaged = 1 WHERE digest = ?", (digest,))
        if self._report is not None:
            self._report(digest)


class Keeping:
    """Collects chunks for the vault and commits them a few MiB at a time; the rest when the ``with`` block ends without an error."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._pending: list[tuple[Digest, bytes]] = []
        self._bytes = 0

    def __call__(self, chunk: Chunk, data: bytes | memoryview) -> None:
        """Takes one chunk; it is durable after the next ``commit``."""
        self._pending.append((chunk.digest, bytes(data)))
        self._bytes += len(data)
        if self._bytes >= _PENDING:
            self.commit()

    def commit(self) -> None:
        """Makes durable what was taken so far."""
        if self._pending:
            self._vault.keep(self._pending)
        self.discard()

    def discard(self) -> None:
        """Forgets what was taken since the last commit."""
        self._pending, self._bytes = [], 0

    def __enter__(self) -> "Keeping":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()


def _present(connection: sqlite3.Connection, digests: Iterable[Digest]) -> set[Digest]:
    wanted = list(digests)
    places = ",".join("?" * len(wanted))
    rows = connection.execute(f"SELECT digest FROM chunk WHERE digest IN ({places}) AND NOT damaged", wanted)
    return {Digest(row[0]) for row in rows}


def _unpacked(size: object, packed: object, stored: object, unpack: zstandard.ZstdDecompressor) -> bytes | None:
    if not isinstance(stored, bytes) or not isinstance(size, int):
        return None
    if not packed:
        return stored
    try:
        # What the frame says of its own size is believed only when it is small: a damaged one may claim anything.
        if zstandard.get_frame_parameters(stored).content_size != size or size > CHUNK_MAX:
            return None
        return unpack.decompress(stored)
    except zstandard.ZstdError:
        return None
