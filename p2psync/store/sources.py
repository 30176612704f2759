"""Where on this machine the bytes of a chunk are: in the vault, or in some file of the mandate that was seen to hold them.

Whatever is read is compared with its digest before it counts, so that a file which changed since simply does not have it.
"""

import os
from collections.abc import Iterator

from p2psync.store import copies, listings, paths, space
from p2psync.store.books import Books
from p2psync.store.locations import Location
from p2psync.store.root import Root
from p2psync.values.content import CHUNK_MAX, Chunk, Content, Listing
from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import P2psyncError
from p2psync.values.names import RelPath

VAULTED = 64 * 1024 * 1024
"""Contents up to this size are kept in the vault as they are recorded or received; larger ones when they are superseded."""


class Sources:
    """The chunks of one mandate that this machine has."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def chunk(self, digest: Digest) -> bytes | None:
        """The bytes of a chunk, or None when this machine does not have them (any more)."""
        data = self._books.vault.get(digest)
        if data is not None:
            return data
        return next(self._from_files(digest), None)

    def lacking(self, listing: Listing) -> list[Chunk]:
        """The chunks of ``listing`` that are not in the vault, each once."""
        wanted = {chunk.digest: chunk for chunk in listing}
        held = self._books.vault.has(wanted)
        return [chunk for digest, chunk in wanted.items() if digest not in held]

    def gather(self, listing: Listing) -> list[Chunk]:
        """Copy into the vault what files of the mandate have of ``listing``; returns the chunks that are nowhere here."""
        still: list[Chunk] = []
        with self._books.vault.keeping() as keep:
            for chunk in self.lacking(listing):
                data = next(self._from_files(chunk.digest), None)
                if data is None:
                    still.append(chunk)
                else:
                    keep(chunk, data)
        return still

    def keep(self, content: Content, fd: int) -> None:
        """Put into the vault what it lacks of the content of an open file, before that file is replaced."""
        listing = listings.get(self._books.ledger.read(), content)
        if listing is None:
            raise LookupError("the chunk list of a recorded content is not in the ledger")
        with self._books.vault.keeping() as keep:
            for chunk in self.lacking(listing):
                data = os.pread(fd, chunk.size, chunk.offset)
                if content_digest(data) != chunk.digest:
                    raise LookupError("the file does not hold what it was seen to hold")
                keep(chunk, data)

    def complete(self, content: Content) -> bool:
        """Whether all of ``content`` can be had from the vault or from a file of this machine."""
        db = self._books.ledger.read()
        listing = listings.get(db, content)
        return listing is not None and (not self.lacking(listing) or any(files_with(self._books, content.digest)))

    def _from_files(self, digest: Digest) -> Iterator[bytes]:
        # A content of one chunk is that chunk; whatever is longer has another digest.
        for content, offset, size in [(digest, 0, CHUNK_MAX + 1), *listings.containing(self._books.ledger.read(), digest)]:
            for location, parts in files_with(self._books, content):
                data = _read(location, parts, offset, size)
                if data is not None and content_digest(data) == digest:
                    yield data


def catch_up(books: Books, sources: Sources) -> int:
    """Copy into the vault what it lacks of the contents that it keeps and that files here hold, while there is room; how many it took.

    Raises:
        DiskFull, CannotWrite, DiskFailing: what was copied before stays.
    """
    db = books.ledger.read()
    rows = db.execute("SELECT DISTINCT digest, size, listing FROM paths WHERE digest IS NOT NULL AND size <= ?", (VAULTED,)).fetchall()
    copied = 0
    for digest, size, listed in rows:
        listing = listings.get(db, Content(Digest(digest), size, Digest(listed)))
        if space.of(books.state).tight:
            break
        if listing is not None and sources.lacking(listing):
            sources.gather(listing)
            copied += 1
    return copied


def files_with(books: Books, content: Digest) -> Iterator[tuple[Location, tuple[str, ...]]]:
    """The files that were seen to hold a content, and the conflict copies of it: each as an attachment and names below its root."""
    db, placed = books.ledger.read(), books.locations()
    for view in paths.holding(db, content):
        location = placed.get(RelPath(view.path.top))
        if location is not None:
            yield location, location.parts(view.disk)
    for copy in copies.holding(db, content):
        location = placed.get(RelPath(copy.path.top))
        if location is not None:
            yield location, copy.disk


def _read(location: Location, parts: tuple[str, ...], offset: int, size: int) -> bytes | None:
    try:
        fd = Root(location.root).open_read(parts)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)
    except (OSError, P2psyncError):
        return None
