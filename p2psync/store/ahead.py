"""Small new contents that travel ahead of the record that announces them, so that nobody has to ask for them."""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from p2psync.store import listings, versions
from p2psync.store.books import Books
from p2psync.values.content import Chunk, Content
from p2psync.values.digest import Digest
from p2psync.values.entry import Entry
from p2psync.values.listingchange import ListingChange

MOST_AHEAD = 256 * 1024
"""Bytes of the contents of one round that are sent unasked; when there is more, none is: then it is asked for, by whoever lacks it."""

MOST_CHANGES = 8
"""Contents of one round whose chunk lists are told by what changed in them."""


@dataclass
class Ahead:
    """Chunks with their bytes, chunk lists as they are packed, and what has changed in long ones, by their digests."""

    chunks: dict[Digest, bytes] = field(default_factory=dict)
    lists: dict[Digest, bytes] = field(default_factory=dict)
    changes: dict[Digest, ListingChange] = field(default_factory=dict)

    def take(self, more: "Ahead") -> None:
        """Take these as well."""
        self.chunks |= more.chunks
        self.lists |= more.lists
        self.changes |= more.changes


def ahead_of(books: Books, entries: Iterable[Entry]) -> Ahead:
    """What members cannot have yet of the contents that these entries, which were just recorded, brought into the mandate.

    Raises:
        DiskFull, CannotWrite, DiskFailing, DatabaseDamaged.
    """
    db = books.ledger.read()
    entries = list(entries)
    contents = {entry.content for entry in entries if entry.content is not None}
    if sum(content.size for content in contents) > MOST_AHEAD:
        return Ahead(changes=dict(_changes(db, entries)))
    found = Ahead()
    for content in contents:
        if not _was_known(db, content):
            _add(books, db, content, found)
    return found


def _changes(db: sqlite3.Connection, entries: list[Entry]) -> Iterator[tuple[Digest, ListingChange]]:
    """What changed in the chunk lists of a few large contents, against the versions that they were made from."""
    large = [entry for entry in entries if entry.content is not None and entry.content.size > MOST_AHEAD]
    for entry in large if len(large) <= MOST_CHANGES else ():
        assert entry.content is not None
        listing = listings.get(db, entry.content)
        for parent in entry.parents:
            was = versions.entry(db, parent)
            old = listings.get(db, was.content) if was is not None and was.content is not None else None
            change = ListingChange.of(listing, old) if listing is not None and old is not None else None
            if change is not None:
                yield entry.content.listing, change
                break


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
