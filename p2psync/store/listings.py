"""The chunk lists of contents, and where in which content a chunk is found."""

import sqlite3
from collections import Counter
from collections.abc import Sequence

from p2psync.values.content import Chunk, Content, Listing
from p2psync.values.digest import Digest

_AT_ONCE = 500
"""Chunks that are looked up together."""


def get(db: sqlite3.Connection, content: Content) -> Listing | None:
    """The listing of ``content``: it follows from the content itself, or is kept, or is not known here (None)."""
    if content.listing == content.digest:
        return Listing.single(content)
    packed = packed_listing(db, content.listing)
    return None if packed is None else Listing(packed)


def packed_listing(db: sqlite3.Connection, listing: Digest) -> bytes | None:
    """The packed bytes of a listing by its own digest, or None."""
    row = db.execute("SELECT packed FROM listings WHERE digest = ?", (listing,)).fetchone()
    return None if row is None else bytes(row[0])


def chunks_of(db: sqlite3.Connection, content: Digest) -> set[Digest]:
    """The chunks that make up the content with this digest, as far as is known here: without a list it may be one chunk itself."""
    row = db.execute("SELECT packed FROM listings WHERE content = ?", (content,)).fetchone()
    return {content} if row is None else {chunk.digest for chunk in Listing(row[0])}


def put(db: sqlite3.Connection, content: Content, listing: Listing) -> None:
    """Keep the listing of ``content``, and where its chunks are in it. Does nothing for a content of one chunk, or a known one."""
    if content.listing == content.digest:
        return
    known = db.execute("SELECT 1 FROM listings WHERE digest = ?", (content.listing,)).fetchone()
    if known:
        return
    db.execute("INSERT INTO listings VALUES (?,?,?)", (content.listing, content.digest, listing.packed))
    db.executemany("INSERT OR IGNORE INTO chunks VALUES (?,?,?,?)", ((c.digest, content.digest, c.offset, c.size) for c in listing))


def containing(db: sqlite3.Connection, chunk: Digest) -> list[tuple[Digest, int, int]]:
    """The contents that contain ``chunk``: (digest of the content, offset, size). A content of one chunk is not listed."""
    rows = db.execute("SELECT content, at, size FROM chunks WHERE chunk = ? LIMIT 16", (chunk,))
    return [(Digest(content), at, size) for content, at, size in rows]


def standing(db: sqlite3.Connection, chunks: Sequence[Digest]) -> dict[Digest, tuple[Digest, Chunk]]:
    """Those of these chunks that are in a content which some path here was seen to hold: that content, and the chunk in it.

    Where there are several such contents, the same one is named for all chunks that it has. At most some hundred chunks.
    """
    marks = ",".join("?" * len(chunks))
    rows = db.execute(
        f"SELECT chunk, min(content), at, size FROM chunks WHERE chunk IN ({marks})"
        " AND content IN (SELECT digest FROM paths WHERE digest = content) GROUP BY chunk",
        chunks,
    )
    return {Digest(chunk): (Digest(content), Chunk(Digest(chunk), at, size)) for chunk, content, at, size in rows}


def having(db: sqlite3.Connection, chunks: Sequence[Digest]) -> list[Digest]:
    """The contents that some path here was seen to hold and that have any of these chunks, those with the most of them first."""
    found: Counter[Digest] = Counter()
    for at in range(0, len(chunks), _AT_ONCE):
        some = chunks[at : at + _AT_ONCE]
        rows = db.execute(
            f"SELECT content, count(*) FROM chunks WHERE chunk IN ({','.join('?' * len(some))})"
            " AND content IN (SELECT digest FROM paths WHERE digest = content) GROUP BY content",
            some,
        )
        found.update({Digest(content): count for content, count in rows})
    return [content for content, _ in found.most_common()]
