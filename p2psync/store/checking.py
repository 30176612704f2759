"""Checking what this machine keeps of a mandate against what its journal says, piece by piece: records, chunks of the vault, files.

Nothing is changed by looking, but that a chunk which turns out to be damaged is marked in the vault. A file whose bytes are not those that
it was seen to hold, although its stamp says that nobody wrote to it, is damaged: it is noted in ``damaged``, for as long as that stamp
stands, and neither sent to anybody nor taken for a save.
"""

import os
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from p2psync.store import copies, listings, paths, versions
from p2psync.store.books import Books
from p2psync.store.chunking import describe
from p2psync.store.copies import Copy
from p2psync.store.faults import database
from p2psync.store.paths import PathView
from p2psync.store.root import Root, stamp_of
from p2psync.store.scan import Fresh
from p2psync.values.content import Chunk, Content, File, Observed
from p2psync.values.digest import Digest
from p2psync.values.entry import Ref, entries_of
from p2psync.values.errors import Malformed, P2psyncError
from p2psync.values.names import DeviceId, RecordId, RelPath
from p2psync.values.packing import fields, pack, unpack
from p2psync.values.record import Kind, Record


class Stopped(Exception):
    """Somebody wants the reading to end."""


class Checked(NamedTuple):
    """Records that were checked: how many, what is wrong with them, and where to go on (None: at the end)."""

    number: int
    faults: list[str]
    after: int | None


def records(books: Books, after: int, most: int) -> Checked:
    """Check the records behind the row ``after``: signature, place in their log, what they stand on, and the index made of them."""
    db = books.ledger.read()
    query = (
        "SELECT n, CAST(id AS BLOB), CAST(device AS BLOB), CAST(incarnation AS BLOB), seq, kind, CAST(raw AS BLOB)"
        " FROM records WHERE n > ? ORDER BY n LIMIT ?"  # cast, because damage may make it look like text
    )
    with database(books.ledger.path):
        rows = db.execute(query, (after, most)).fetchall()
        faults = [f"record {row[0]} of the journal {why}" for row in rows if (why := _record_fault(books, db, *row))]
    return Checked(len(rows), faults, rows[-1][0] if len(rows) == most else None)


def _record_fault(
    books: Books, db: sqlite3.Connection, n: int, id_: bytes, device: bytes, incarnation: bytes, seq: int, kind: int, raw: bytes
) -> str | None:
    try:
        record = Record.parse(raw)
    except Malformed as e:
        return f"is not what its author signed ({str(e).rstrip('.')})"
    if (record.id, *record.log, record.seq, record.kind) != (id_, DeviceId(device), incarnation, seq, kind):
        return "is kept under another name than its own"
    if (record.founds if record.kind == Kind.GENESIS else record.mandate) != books.mandate:
        return "belongs to another mandate"
    query = "SELECT id, n FROM records WHERE device = ? AND incarnation = ? AND seq = ?"
    before = db.execute(query, (device, incarnation, seq - 1)).fetchone() or (None, 0)
    if before[0] != record.prev or before[1] >= n:
        return "does not follow the one before it in its log: one was removed, or put in"
    for dep in record.deps:
        stands = db.execute("SELECT n FROM records WHERE id = ?", (dep,)).fetchone()
        if stands is None or stands[0] >= n:
            return "stands on one that is not there"
    return "is not what the index of versions says" if record.kind == Kind.CHANGE and not _is_indexed(db, record) else None


def _is_indexed(db: sqlite3.Connection, record: Record) -> bool:
    entries = [(index, entry) for index, entry in enumerate(entries_of(record.body)) if entry is not None]
    said = [(index, e.path.text, int(e.op), e.content.digest if e.content else None) for index, e in entries]
    return said == db.execute("SELECT idx, path, op, digest FROM entries WHERE record = ? ORDER BY idx", (record.id,)).fetchall()


class Pieces(NamedTuple):
    """Chunks of the vault that were read: their number, of how many bytes, which are damaged, and where to go on (None: at the end)."""

    number: int
    size: int
    damaged: list[Digest]
    after: Digest | None


def chunks(books: Books, after: Digest | None, most: int) -> Pieces:
    """Read the next chunks of the vault behind ``after``, each against its digest."""
    digests = books.vault.digests(after, most)
    found = [(digest, books.vault.get(digest)) for digest in digests]
    bad = [digest for digest, data in found if data is None and books.vault.digests(_before(digest), 1) == [digest]]
    return Pieces(len(digests), sum(len(data) for _, data in found if data), bad, digests[-1] if len(digests) == most else None)


def _before(digest: Digest) -> Digest:
    """The digest just before this one, to ask whether it is still there: it may have been collected meanwhile."""
    number = int.from_bytes(digest, "big")
    return Digest(max(number - 1, 0).to_bytes(len(digest), "big"))


class Holder(NamedTuple):
    """A content that a chunk is in, and the latest version with it."""

    content: Content
    version: versions.Version


def holders(books: Books, chunk: Digest) -> list[Holder]:
    """The contents that need a chunk, each with the latest version that has it."""
    db = books.ledger.read()
    contents = {chunk, *(Digest(row[0]) for row in db.execute("SELECT DISTINCT content FROM chunks WHERE chunk = ?", (chunk,)))}
    found = []
    for content in contents:
        row = db.execute("SELECT record, idx FROM entries WHERE digest = ? AND attaches = 0 ORDER BY n DESC LIMIT 1", (content,)).fetchone()
        if row is not None:
            version = versions.version_of(db, Ref(RecordId(row[0]), row[1]))
            assert version.entry.content is not None
            found.append(Holder(version.entry.content, version))
    return found


# ---- files


def files(books: Books) -> list[PathView]:
    """The files that were seen on this disk."""
    db = books.ledger.read()
    return [
        view
        for name in books.locations()
        for view in paths.below(db, name)
        if view.observed is not None and isinstance(view.observed.state, File)
    ]


def is_damaged(books: Books, view: PathView, stopped: Callable[[], bool]) -> bool | None:
    """Whether a file does not hold what it was seen to hold.

    None when that cannot be said: it changed, cannot be read, or is gone, which a look at it will tell.

    Raises:
        Stopped: ``stopped`` said so while it was read.
    """
    location = books.locations().get(RelPath(view.path.top))
    if location is None or view.observed is None or not isinstance(view.observed.state, File):
        return None

    def look_up(_: Chunk, __: memoryview) -> None:
        if stopped():
            raise Stopped

    try:
        fd = Root(location.root).open_read(location.parts(view.disk))
    except (OSError, P2psyncError):
        return None
    try:
        if stamp_of(os.fstat(fd)) != view.observed.stamp:
            return None
        content, _ = describe(fd, view.observed.state.content.size, look_up)
        if content == view.observed.state.content:
            return False
        if isinstance(view.observed, Fresh):  # read so soon after it was written that it may have been written to once more
            return None
        return True if stamp_of(os.fstat(fd)) == view.observed.stamp and paths.get(books.ledger.read(), view.path) == view else None
    except OSError:
        return None
    finally:
        os.close(fd)


def beside(books: Books) -> list[Copy]:
    """The conflict copies on this disk."""
    return copies.everything(books.ledger.read())


def is_another(books: Books, copy: Copy, stopped: Callable[[], bool]) -> bool | None:
    """Whether a conflict copy holds something else than its version.

    None when that cannot be said: it cannot be read, or is gone, and then it is made anew.

    Raises:
        Stopped: ``stopped`` said so while it was read.
    """
    location = books.locations().get(RelPath(copy.path.top))
    entry = versions.entry(books.ledger.read(), copy.ref)
    if location is None or entry is None or entry.content is None:
        return None

    def look_up(_: Chunk, __: memoryview) -> None:
        if stopped():
            raise Stopped

    try:
        fd = Root(location.root).open_read(copy.disk)
    except (OSError, P2psyncError):
        return None
    try:
        return describe(fd, entry.content.size, look_up)[0] != entry.content
    except OSError:
        return None
    finally:
        os.close(fd)


def note_damaged(books: Books, view: PathView) -> None:
    """Write down that a file is damaged."""
    assert view.observed is not None and isinstance(view.observed.state, File)
    stamp = view.observed.stamp
    with books.writing() as db:
        row = (view.path.text, view.observed.state.content.digest, stamp.mtime_ns, stamp.ctime_ns)
        db.execute("INSERT OR REPLACE INTO damaged VALUES (?, ?, ?, ?)", row)


def damaged(books: Books) -> set[RelPath]:
    """The files that are known to be damaged and stand there as they were found. Costs nothing for those that are not."""
    rows = books.ledger.read().execute(
        "SELECT d.path FROM damaged d CROSS JOIN paths p ON p.path = d.path"  # in this order: the damaged ones are few
        " WHERE p.digest = d.digest AND p.mtime_ns = d.mtime_ns AND p.ctime_ns = d.ctime_ns"
    )
    return {RelPath(row[0]) for row in rows}


def is_known_damage(books: Books, view: PathView, seen: Observed) -> bool:
    """Whether what was ``seen`` at a path is what ``verify`` found damaged there: nobody has written to it, as its mtime and size tell,
    though a permission, a name or an owner may have changed. Then it is nobody's save.
    """
    known = view.observed
    if known is None or seen.state == known.state or (seen.stamp.mtime_ns, seen.stamp.size) != (known.stamp.mtime_ns, known.stamp.size):
        return False
    return view.path in damaged(books)


def as_it_is(books: Books, view: PathView) -> PathView:
    """What really stands at a damaged file, read again, so that the good version can take its place. Nothing is noted."""
    location = books.locations().get(RelPath(view.path.top))
    if location is None or view.observed is None or not isinstance(view.observed.state, File):
        return view
    fd = Root(location.root).open_read(location.parts(view.disk))
    try:
        content, listing = describe(fd, view.observed.state.content.size)
        stamp = stamp_of(os.fstat(fd))
    finally:
        os.close(fd)
    with books.writing() as db:
        listings.put(db, content, listing)
    return PathView(view.path, view.disk, type(view.observed)(stamp, File(content, view.observed.state.executable)), view.agreed)


def note_verified(books: Books, found: int) -> None:
    """Write down that everything was checked now, and how much is left for a person."""
    books.ledger.put("verified", pack([books.now_ms(), found]))


def verified(books: Books) -> tuple[int, int] | None:
    """When everything was last checked (ms since 1970), and how much was left for a person; None when it never was."""
    kept = books.ledger.get("verified")
    if kept is None:
        return None
    when_ms, found = fields(unpack(kept, 64), int, int)
    return when_ms, found
