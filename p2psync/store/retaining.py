"""What this machine keeps of one mandate's history, and letting go of the rest: the policy of engine/retention, carried out.

The vault may forget a chunk when every content that it is in may go. What may go is derived each time from the journal, the views and the
days counted, never from a list made earlier, so that a crash at any moment leaves nothing to be repaired; and a slice that collects
is one transaction of the vault. It runs between two rounds of the mandate: nothing that has just been put into the vault waits there
to be written into the ledger. That a content was let go, and when, is written down before its first chunk goes: people are told.
"""

import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from p2psync.engine.retention import Aged, Policy, needed
from p2psync.store import calendar
from p2psync.store.books import Books
from p2psync.store.listings import chunks_of
from p2psync.values.digest import Digest
from p2psync.values.entry import Act, entries_of
from p2psync.values.record import Record

SLICE = 128
"""Chunks that are judged in one go, while the rounds of the mandate wait: some ten milliseconds."""
_AT_ONCE = 1000
"""Contents that are noted in one transaction."""


class Removed(NamedTuple):
    """What one slice came to: chunks and bytes (as they were stored) that went, and where the next one goes on (None: at the end)."""

    chunks: int
    size: int
    after: Digest | None


@dataclass(frozen=True)
class Kept:
    """The contents to keep and those that the journal names and that may go, as of a journal with this ``view`` on the day ``today``."""

    view: bytes
    today: int
    needed: frozenset[Digest]
    unneeded: frozenset[Digest]


def derive(books: Books, policy: Policy) -> Kept:
    """What the policy says at this moment; reads every entry of the journal."""
    view = books.journal.view()
    db = books.ledger.read()
    counted = calendar.days(books)
    pinned = _held(db) | set(_sides(db))
    paths: dict[str, list[Aged]] = {}
    for n, path, digest, head in db.execute(
        "SELECT n, path, digest, head FROM entries WHERE digest IS NOT NULL AND attaches = 0 ORDER BY n"
    ):
        paths.setdefault(path, []).append(Aged(counted.of(n), Digest(digest), bool(head) or digest in pinned))
    keep = needed(paths.values(), counted.today, policy)
    named = {version.content for versions in paths.values() for version in versions}
    return Kept(view, counted.today, frozenset(keep | pinned), frozenset(named - keep - pinned))


def let_go(books: Books, kept: Kept) -> int:
    """Write down which contents this machine no longer keeps, with the time, and which it keeps again; how many are new among them."""
    db = books.ledger.read()
    known = {Digest(row[0]) for row in db.execute("SELECT digest FROM dropped")}
    new = [digest for digest in kept.unneeded - known if books.vault.has(chunks_of(db, digest))]
    back = list(known & kept.needed)
    now = books.now_ms()
    for at in range(0, max(len(new), len(back)), _AT_ONCE):
        with books.writing() as db:
            db.executemany("INSERT OR REPLACE INTO dropped VALUES (?, ?)", ((digest, now) for digest in new[at : at + _AT_ONCE]))
            db.executemany("DELETE FROM dropped WHERE digest = ?", ((digest,) for digest in back[at : at + _AT_ONCE]))
    return len(new)


def dropped(db: sqlite3.Connection, content: Digest) -> int | None:
    """When this machine let a content go by its policy (ms since 1970), or None."""
    row = db.execute("SELECT at_ms FROM dropped WHERE digest = ?", (content,)).fetchone()
    return None if row is None else int(row[0])


def collect(books: Books, kept: Kept, spared: Collection[Digest], after: Digest | None, slice_of: int) -> Removed:
    """Remove from the vault what is needed by nothing, among the next chunks behind ``after`` in the order of their digests.

    ``spared`` are contents that somebody is reading or fetching at the moment, whatever the policy says.
    """
    if kept.view != books.journal.view():
        raise LookupError("the journal has moved on since that was decided")
    db = books.ledger.read()
    found = books.vault.digests(after, slice_of)
    still = {*kept.needed, *spared}
    unneeded = [digest for digest in found if not any(content in still or _stands(db, content) for content in _containing(db, digest))]
    chunks, size = books.vault.remove(unneeded)
    return Removed(chunks, size, found[-1] if len(found) == slice_of else None)


def _held(db: sqlite3.Connection) -> set[Digest]:
    """What stands on the disk here, or was agreed there, in its place or beside it."""
    rows = db.execute(
        "SELECT digest FROM paths WHERE digest IS NOT NULL UNION SELECT agreed_digest FROM paths WHERE agreed_digest IS NOT NULL"
        " UNION SELECT digest FROM copies"
    )
    return {Digest(row[0]) for row in rows}


def _stands(db: sqlite3.Connection, content: Digest) -> bool:
    """Whether some file was seen to hold this since the decision, which moves no journal."""
    return db.execute("SELECT 1 FROM paths WHERE digest = ?", (content,)).fetchone() is not None


def _sides(db: sqlite3.Connection) -> Iterator[Digest]:
    """The contents between which somebody has chosen: what a resolution, or a version brought back in a conflict, superseded together."""
    rows = db.execute(
        "SELECT DISTINCT r.raw FROM entries e JOIN records r ON r.id = e.record WHERE e.act IN (?, ?)", (int(Act.RESOLVE), int(Act.RESTORE))
    )
    for (raw,) in rows:
        for entry in entries_of(Record.parse(raw).body):
            if entry is None or len(entry.parents) < 2:
                continue
            for parent in entry.parents:
                row = db.execute("SELECT digest FROM entries WHERE record = ? AND idx = ?", (parent.record, parent.index)).fetchone()
                if row is not None and row[0] is not None:
                    yield Digest(row[0])


def _containing(db: sqlite3.Connection, chunk: Digest) -> set[Digest]:
    """All contents that a chunk is in; a content of one chunk is that chunk."""
    return {chunk, *(Digest(row[0]) for row in db.execute("SELECT content FROM chunks WHERE chunk = ?", (chunk,)))}
