"""Chunks read many at a time from the files that were seen to hold them: those that follow each other in one file come with one read.

Each is compared with its digest before it counts, so that a file which changed meanwhile simply does not have it.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from p2psync.store import copies, listings, paths
from p2psync.store.books import Books
from p2psync.store.locations import Location
from p2psync.store.root import Root
from p2psync.values.content import Chunk
from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import P2psyncError
from p2psync.values.names import RelPath

AT_ONCE = 1024 * 1024
"""Bytes that are read in one go, about: what is asked for meanwhile on other links waits for no more."""
_APART = 16
"""Chunks that stand in no file and come together: a megabyte where they are large, four at most."""


def in_runs(books: Books, ids: Sequence[Digest]) -> Iterator[list[tuple[Digest, bytes | None]]]:
    """These chunks in their order, as they stand in files of the mandate that are seen to hold them; None for those that do not.

    Those come together that come with one read, or few that stand in no file. They are looked up when the first is asked for; some hundred
    at most.
    """
    for run in _runs(ids, listings.standing(books.ledger.read(), ids)):
        if isinstance(run, tuple):
            found = _read(books, *run)
            yield [(chunk.digest, found.get(chunk.digest)) for chunk in run[1]]
        else:
            yield [(digest, None) for digest in run]


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


def good(fd: int, run: Sequence[Chunk]) -> Iterator[tuple[Digest, bytes]]:
    """Those of these chunks, which follow each other, that the open file really has. Raises: OSError."""
    begin = run[0].offset
    data = os.pread(fd, run[-1].offset + run[-1].size - begin, begin)
    for chunk in run:
        piece = data[chunk.offset - begin : chunk.offset - begin + chunk.size]
        if content_digest(piece) == chunk.digest:
            yield chunk.digest, piece


def together(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """These chunks in their order, those together that follow each other, ``AT_ONCE`` bytes at most."""
    run: list[Chunk] = []
    for chunk in chunks:
        if run and not _follows(run, chunk):
            yield run
            run = []
        run.append(chunk)
    if run:
        yield run


def _runs(ids: Sequence[Digest], places: dict[Digest, tuple[Digest, Chunk]]) -> Iterator[list[Digest] | tuple[Digest, list[Chunk]]]:
    """These chunks in their order: a few that stand in no file, or with their content those that follow each other in it."""
    run: list[Digest] | tuple[Digest, list[Chunk]] = []
    for digest in ids:
        content, chunk = places.get(digest, (None, None))
        if content is None or chunk is None:
            if run and (isinstance(run, tuple) or len(run) >= _APART):
                yield run
                run = []
            assert isinstance(run, list)
            run.append(digest)
        elif isinstance(run, tuple) and content == run[0] and _follows(run[1], chunk):
            run[1].append(chunk)
        else:
            if run:
                yield run
            run = content, [chunk]
    if run:
        yield run


def _follows(run: list[Chunk], chunk: Chunk) -> bool:
    end = run[-1].offset + run[-1].size
    return chunk.offset == end and end + chunk.size - run[0].offset <= AT_ONCE


def _read(books: Books, content: Digest, run: list[Chunk]) -> dict[Digest, bytes]:
    """What a file that was seen to hold this content has of these chunks."""
    for location, parts in files_with(books, content):
        with suppress(OSError, P2psyncError):
            fd = Root(location.root).open_read(parts)
            try:
                if found := dict(good(fd, run)):
                    return found
            finally:
                os.close(fd)
    return {}
