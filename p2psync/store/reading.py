"""Chunks that somebody asked for, read many at a time: those that follow each other in one file come with one read.

Each is compared with its digest before it counts, so that a file which changed meanwhile simply does not have it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from p2psync.store import listings
from p2psync.store.books import Books
from p2psync.store.root import Root
from p2psync.store.sources import Sources, files_with
from p2psync.values.content import Chunk
from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import P2psyncError

AT_ONCE = 1024 * 1024
"""Bytes that are read in one go, about: what is asked for meanwhile on other links waits for no more."""
_LOOKED_UP = 64
"""Chunks that are looked up together."""


def some(books: Books, sources: Sources, ids: Sequence[Digest]) -> list[tuple[Digest, bytes | None]]:
    """The first of these chunks, at least one, about ``AT_ONCE`` bytes of them; None for what this machine does not have."""
    asked = ids[:_LOOKED_UP]
    held = books.vault.has(asked)
    places = listings.standing(books.ledger.read(), [digest for digest in asked if digest not in held])
    found: list[tuple[Digest, bytes | None]] = []
    size = 0
    for run in _runs(asked, places):
        read = _read(books, *run) if isinstance(run, tuple) else {}
        for digest in [chunk.digest for chunk in run[1]] if isinstance(run, tuple) else [run]:
            found.append((digest, read.get(digest) or sources.chunk(digest)))
            size += len(found[-1][1] or b"")
        if 2 * size >= AT_ONCE:
            break
    return found


def _runs(ids: Sequence[Digest], places: dict[Digest, tuple[Digest, Chunk]]) -> Iterator[Digest | tuple[Digest, list[Chunk]]]:
    """These chunks in their order: alone, or together, with their content, where they follow each other in it."""
    run: tuple[Digest, list[Chunk]] | None = None
    for digest in ids:
        content, chunk = places.get(digest, (None, None))
        if run and (content != run[0] or chunk is None or not _follows(run[1], chunk)):
            yield run
            run = None
        if content is None or chunk is None:
            yield digest
        elif run is None:
            run = content, [chunk]
        else:
            run[1].append(chunk)
    if run:
        yield run


def _follows(run: list[Chunk], chunk: Chunk) -> bool:
    end = run[-1].offset + run[-1].size
    return chunk.offset == end and end + chunk.size - run[0].offset <= AT_ONCE


def _read(books: Books, content: Digest, run: list[Chunk]) -> dict[Digest, bytes]:
    """What a file that was seen to hold this content has of these chunks."""
    begin, end = run[0].offset, run[-1].offset + run[-1].size
    for location, parts in files_with(books, content):
        with suppress(OSError, P2psyncError):
            fd = Root(location.root).open_read(parts)
            try:
                data = os.pread(fd, end - begin, begin)
            finally:
                os.close(fd)
            pieces = ((chunk.digest, data[chunk.offset - begin : chunk.offset - begin + chunk.size]) for chunk in run)
            if found := {digest: piece for digest, piece in pieces if content_digest(piece) == digest}:
                return found
    return {}
