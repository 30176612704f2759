"""Small new contents that travel ahead of the record that announces them, so that nobody has to ask for them."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from p2psync.store import listings
from p2psync.store.books import Books
from p2psync.values.content import Chunk, Content
from p2psync.values.digest import Digest
from p2psync.values.entry import Entry

MOST_AHEAD = 256 * 1024
"""Bytes of the contents of one round that are sent unasked; when there is more, none is: then it is asked for, by whoever lacks it."""


@dataclass
class Ahead:
    """Chunks with their bytes, and chunk lists as they are packed, by their digests."""

    chunks: dict[Digest, bytes] = field(default_factory=dict)
    lists: dict[Digest, bytes] = field(default_factory=dict)

    def take(self, more: "Ahead") -> None:
        """Take these as well."""
        self.chunks |= more.chunks
        self.lists |= more.lists


def ahead_of(books: Books, entries: Iterable[Entry]) -> Ahead:
    """What members cannot have yet of the contents that these entries, which were just recorded, brought into the mandate.

    Raises:
        DiskFull, CannotWrite, DiskFailing, DatabaseDamaged.
    """
    db = books.ledger.read()
    contents = {entry.content for entry in entries if entry.content is not None}
    if sum(content.size for content in contents) > MOST_AHEAD:
        return Ahead()
    found = Ahead()
    for content in contents:
        if not _was_known(db, content):
            _add(books, db, content, found)
    return found


def _was_known(db: sqlite3.Connection, content: Content) -> bool:
    """Whether another entry brought it before, so that whoever lacks it may have it under another name."""
    rows = db.execute("SELECT 1 FROM entries WHERE digest = ? LIMIT 2", (content.digest,)).fetchall()
    return len(rows) > 1


def _add(books: Books, db: sqlite3.Connection, content: Content, found: Ahead) -> None:
    listing = listings.get(db, content)
    if listing is None:
        return
    if content.listing != content.digest:
        found.lists[content.listing] = listing.packed
    for chunk in listing:
        if not _is_elsewhere(db, chunk, content) and (data := books.vault.get(chunk.digest)) is not None:
            found.chunks[chunk.digest] = data


def _is_elsewhere(db: sqlite3.Connection, chunk: Chunk, content: Content) -> bool:
    """Whether it is a part of another content too, as when little was changed in a file."""
    return any(other != content.digest for other, _, _ in listings.containing(db, chunk.digest))
