"""What an old version of a large file shares with the one that took its place, copied into the vault a little at a time.

When a large file is replaced, only what the new version does not have goes into the vault at once (``Sources.keep``): the rest stands in
the new version, and in the old file, which is kept so long (store/keptfiles). It is copied as soon as there is time. What is to be copied
is derived from the ledger, so that a crash leaves nothing to be repaired.
"""

from collections.abc import Iterator
from contextlib import suppress

from p2psync.store import keptfiles, listings, space
from p2psync.store.books import Books
from p2psync.store.sources import VAULTED, Sources
from p2psync.values.content import Content
from p2psync.values.digest import Digest
from p2psync.values.errors import UserError

PIECE = 4 * 1024 * 1024
"""Bytes that are copied in one go, while the rounds of the mandate wait."""


def outstanding(books: Books) -> list[Content]:
    """The large versions that stand nowhere any more, are kept, and may not be in the vault as a whole."""
    rows = books.ledger.read().execute(
        "SELECT DISTINCT digest, size, listing FROM entries WHERE size > ? AND digest NOT IN (SELECT digest FROM dropped)"
        " AND digest NOT IN (SELECT digest FROM paths WHERE digest IS NOT NULL UNION SELECT digest FROM copies)",
        (VAULTED,),
    )
    return [Content(Digest(digest), size, Digest(listing)) for digest, size, listing in rows]


def kept_of(books: Books) -> set[Digest]:
    """The contents of old files that are still needed."""
    return {content.digest for content in outstanding(books)}


def finish(books: Books, sources: Sources) -> None:
    """Copy all of it now, since its attachment is about to leave this disk; what cannot be copied stays where it is."""
    with suppress(UserError):
        for content in outstanding(books):
            for _ in copy(books, sources, content):
                pass


def copy(books: Books, sources: Sources, content: Content) -> Iterator[None]:
    """Copy into the vault what files here have of an old version, and let go of the kept file; each step is one piece of the work.

    Raises:
        DiskFull, CannotWrite, DiskFailing: what was copied before stays.
    """
    listing = listings.get(books.ledger.read(), content)
    if listing is None:  # it never was on this machine
        return
    lacking = sources.lacking(listing)
    piece, size = [], 0
    for chunk in lacking:
        piece.append(chunk)
        size += chunk.size
        if size >= PIECE or chunk is lacking[-1]:
            if space.of(books.state).tight:
                return
            sources.take(piece)
            piece, size = [], 0
            yield
    if not lacking or not sources.lacking(listing):
        keptfiles.let_go(books, content)
