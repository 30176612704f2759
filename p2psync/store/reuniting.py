"""What this machine forgot with its old log, and finds on its disk again, is no new version.

A ledger older than the disk takes what it once recorded itself for a save made now. Where the others have gone on from that version
meanwhile, their version is the newer one, and there is nothing to choose between.
"""

from collections.abc import Iterable

from p2psync.engine.heads import Head
from p2psync.store import versions
from p2psync.store.books import Books
from p2psync.store.journal import past_of
from p2psync.values.content import Content, File
from p2psync.values.entry import Act, Entry, Ref, entry_for
from p2psync.values.names import DeviceId, RelPath
from p2psync.values.record import Kind, Record


def has_forgotten(books: Books) -> bool:
    """Whether this machine has left a log."""
    return sum(device == books.keys.device for device, _ in books.journal.ends) > 1


def forgotten(books: Books, path: RelPath, content: Content, since: Iterable[Ref]) -> Ref | None:
    """The version of ``path`` with this content that this machine recorded in a log it has left, and did not know of when it left it.

    Not one that was known to the authors of the versions in ``since``: to make that again is an act of today.
    """
    db = books.ledger.read()
    first = books.journal.at(books.own_log, 1)
    begun = None if first is None else books.journal.get(first)
    if begun is None or begun.kind != Kind.RESUME:
        return None
    pasts = [past_of(db, begun.id)[2], *(past_of(db, ref.record)[2] for ref in since if books.knows(ref.record))]
    rows = db.execute(
        "SELECT e.record, e.idx, r.incarnation, r.seq FROM entries e JOIN records r ON r.id = e.record WHERE e.path = ? AND e.digest = ?"
        " AND e.attaches = 0 AND r.device = ? AND r.incarnation != ? ORDER BY e.n DESC",
        (path.text, content.digest, *books.own_log),
    )
    for record, index, incarnation, seq in rows.fetchall():
        if all(past.get((DeviceId(books.keys.device), incarnation), 0) < seq for past in pasts):
            return Ref(record, index)
    return None


def reunite(books: Books, paths: Iterable[RelPath]) -> tuple[list[Record], set[RelPath]]:
    """Supersede what the new log only said again, where the others have gone on from the first time that it was said.

    Returns the records, and the paths that they are about.
    """
    with books.writing():
        entries = [entry for path in paths if (entry := _reunited(books, path)) is not None]
        return [record for record, _ in books.record(entries)], {entry.path for entry in entries}


def _reunited(books: Books, path: RelPath) -> Entry | None:
    db = books.ledger.read()
    heads = versions.heads(db, path)
    if not heads.others or not books.may_write:
        return None
    going_on = [head for head in heads.all if not _is_said_again(books, path, head)]
    if len(going_on) != 1 or len(heads.all) == 1:
        return None
    known = versions.entry(db, going_on[0].ref)
    mtime = known.mtime_ns if known else 0
    return entry_for(path, going_on[0].state, mtime_ns=mtime, parents=tuple(sorted(heads.refs)), act=Act.RESOLVE)


def _is_said_again(books: Books, path: RelPath, head: Head) -> bool:
    version = versions.version_of(books.ledger.read(), head.ref)
    log, _, _ = past_of(books.ledger.read(), head.ref.record)
    if version.device != books.keys.device or log != books.own_log or not isinstance(head.state, File):
        return False
    first = forgotten(books, path, head.state.content, (head.ref,))
    return first is not None and not versions.version_of(books.ledger.read(), first).head
