"""Where on this machine the bytes of a chunk are: in the vault, or in some file of the mandate that was seen to hold them.

Whatever is read is compared with its digest before it counts, so that a file which changed since simply does not have it.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from p2psync.store import listings, space
from p2psync.store.books import Books
from p2psync.store.keptfiles import kept_with
from p2psync.store.ledger import in_lots, marks
from p2psync.store.locations import Location
from p2psync.store.reading import AT_ONCE, files_with, good, in_runs, together
from p2psync.store.root import Root
from p2psync.values.content import CHUNK_MAX, Chunk, Content, Listing
from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import P2psyncError

VAULTED = 64 * 1024 * 1024
"""Contents up to this size are kept in the vault as they are recorded or received; larger ones when they are superseded."""
_AT_ONCE = 250
"""Chunks that are looked up together."""


class Sources:
    """The chunks of one mandate that this machine has. ``outstanding``: a replaced file is kept until the vault has the rest of it."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.outstanding = False

    def chunk(self, digest: Digest) -> bytes | None:
        """The bytes of a chunk, or None when this machine does not have them (any more)."""
        data = self._books.vault.get(digest)
        if data is not None:
            return data
        return next(self._from_files(digest), None)

    def pieces(self, ids: Sequence[Digest]) -> Iterator[list[tuple[Digest, bytes | None]]]:
        """These chunks, some hundred at most, about ``AT_ONCE`` bytes at a time; None for what this machine does not have (any more)."""
        piece: list[tuple[Digest, bytes | None]] = []
        for run in in_runs(self._books, ids):
            vaulted = self._books.vault.get_all([digest for digest, data in run if data is None])
            for digest, data in run:
                found = vaulted.get(digest) if data is None else data
                piece.append((digest, next(self._from_files(digest), None) if found is None else found))
            if 2 * sum(len(data or b"") for _, data in piece) >= AT_ONCE:
                yield piece
                piece = []
        if piece:
            yield piece

    def lacking(self, listing: Listing, besides: Listing | None = None) -> list[Chunk]:
        """The chunks of ``listing`` that are not in the vault, each once; without those that are in ``besides``."""
        wanted = {chunk.digest: chunk for chunk in listing}
        for chunk in besides or ():
            wanted.pop(chunk.digest, None)
        held = self._books.vault.has(wanted)
        return [chunk for digest, chunk in wanted.items() if digest not in held]

    def gather(self, listing: Listing) -> list[Chunk]:
        """Copy into the vault what files of the mandate have of ``listing``; returns the chunks that are nowhere here."""
        return self.take(self.lacking(listing))

    def elsewhere(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those of these chunks that some file of the mandate was seen to hold, or a conflict copy."""
        db, found = self._books.ledger.read(), set[Digest]()
        for some in in_lots(digests):
            for column, table in (("digest", "paths"), ("digest", "copies"), ("chunk", "chunks")):
                rows = db.execute(f"SELECT {column} FROM {table} WHERE {column} IN ({marks(some)})", some)
                found.update(Digest(row[0]) for row in rows)
        return found

    def take(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Copy these chunks into the vault; returns those that are nowhere here."""
        lacking = {chunk.digest: chunk for chunk in chunks}
        ids = list(lacking)
        with self._books.vault.keeping() as keep:
            for at in range(0, len(ids), _AT_ONCE):
                for digest, data in chain.from_iterable(self.pieces(ids[at : at + _AT_ONCE])):
                    if data is not None:
                        keep(lacking.pop(digest), data)
        return list(lacking.values())

    def keep(self, content: Content, fd: int, replaced_by: Content | None = None) -> None:
        """Put into the vault what it lacks of the content of an open file, before that file is replaced.

        What it shares with ``replaced_by``, which takes its place while the file itself is kept (store/keptfiles), is left for
        store/sharing. Raises: LookupError.
        """
        db = self._books.ledger.read()
        listing = listings.get(db, content)
        if listing is None:
            raise LookupError("the chunk list of a recorded content is not in the ledger")
        besides = None if replaced_by is None else listings.get(db, replaced_by)
        self.outstanding = self.outstanding or besides is not None
        with self._books.vault.keeping() as keep:
            for run in together(self.lacking(listing, besides)):
                found = dict(good(fd, run))
                for chunk in run:
                    if chunk.digest not in found:
                        raise LookupError("the file does not hold what it was seen to hold")
                    keep(chunk, found[chunk.digest])

    def complete(self, content: Content) -> bool:
        """Whether all of ``content`` can be had from the vault or from files of this machine."""
        listing = listings.get(self._books.ledger.read(), content)
        return listing is not None and (any(self._whole(content.digest)) or self._stand(self.lacking(listing)))

    def _whole(self, content: Digest) -> Iterator[tuple[Location, tuple[str, ...]]]:
        """The files that were seen to hold a content, and the one that is kept of it."""
        return chain(files_with(self._books, content), kept_with(self._books, content))

    def _stand(self, chunks: list[Chunk]) -> bool:
        db = self._books.ledger.read()
        parts = ([chunk.digest for chunk in chunks[at : at + _AT_ONCE]] for at in range(0, len(chunks), _AT_ONCE))
        return all(len(listings.standing(db, part)) == len(part) for part in parts)

    def _from_files(self, digest: Digest) -> Iterator[bytes]:
        # A content of one chunk is that chunk; whatever is longer has another digest.
        for content, offset, size in [(digest, 0, CHUNK_MAX + 1), *listings.containing(self._books.ledger.read(), digest)]:
            for location, parts in self._whole(content):
                data = read_at(Root(location.root), parts, offset, size)
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


def read_at(root: Root, parts: tuple[str, ...], offset: int, size: int) -> bytes | None:
    """So many bytes of a file from there on, fewer where it ends; None when it cannot be read."""
    try:
        fd = root.open_read(parts)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)
    except (OSError, P2psyncError):
        return None
