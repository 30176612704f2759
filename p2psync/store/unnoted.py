"""What this machine put in its place, and was killed or failed before it could note so, is no save of anybody's here.

Where the version that stands there is still the current one, it is simply adopted. Where others have gone on from it meanwhile, theirs is
the newer one, and there is nothing to choose between.
"""

from collections.abc import Iterable

from p2psync.store.books import Books
from p2psync.store.journal import past_of
from p2psync.values.content import Content
from p2psync.values.entry import Ref
from p2psync.values.names import DeviceId, RecordId, RelPath


def put_here(books: Books, path: RelPath, content: Content, since: Iterable[Ref]) -> Ref | None:
    """The version of ``path`` with this content that something supersedes and that came after all of ``since`` was known here, or None.

    Not one that was known before: to make that again is an act of today.
    """
    db = books.ledger.read()
    rows = db.execute(
        "SELECT e.record, e.idx, r.device, r.incarnation, r.seq FROM entries e JOIN records r ON r.id = e.record"
        " WHERE e.path = ? AND e.digest = ? AND e.head = 0 AND e.attaches = 0 ORDER BY e.n DESC",
        (path.text, content.digest),
    ).fetchall()
    known = [past_of(db, ref.record) for ref in since if rows and books.knows(ref.record)]
    for record, index, device, incarnation, seq in rows:
        log = DeviceId(device), incarnation
        if all(max(past.get(log, 0), number if own == log else 0) < seq for own, number, past in known):
            return Ref(RecordId(record), index)
    return None
