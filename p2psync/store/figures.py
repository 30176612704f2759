"""The figures of one mandate that the status shows: how large each attachment is, how far the journal goes, what is in conflict.

They cost a look at every entry, so they are counted beside the work, in a thread, and only when the journal has moved on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from p2psync.store import versions
from p2psync.store.books import Books
from p2psync.values.content import File
from p2psync.values.entry import Op
from p2psync.values.names import RelPath


@dataclass(frozen=True, slots=True)
class Figure:
    """One attachment: its version, when it is a file; bytes and number of files; and after how many entries it was last changed."""

    version: str | None = None
    size: int = 0
    files: int = 0
    newest: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """All attachments, the number of paths in conflict and of versions with a content, for the journal with this ``view``."""

    view: bytes = b""
    attachments: Mapping[RelPath, Op] = field(default_factory=dict)
    conflicts: int = 0
    versions: int = 0
    of: Mapping[RelPath, Figure] = field(default_factory=dict)


def counted(books: Books) -> Figures:
    """Count. What the journal takes meanwhile may be counted or not; then the view is not its view any more, and one counts again."""
    view = books.journal.view()
    attachments = books.attachments()
    conflicts = len(versions.conflicted(books.ledger.read()))
    (count,) = books.ledger.read().execute("SELECT count(*) FROM entries WHERE digest IS NOT NULL AND attaches = 0").fetchone()
    return Figures(view, attachments, conflicts, count, {name: _figure(books, name) for name in attachments})


def _figure(books: Books, name: RelPath) -> Figure:
    db = books.ledger.read()
    below = (name.text, name.text + "/", name.text + "0")
    (newest,) = db.execute("SELECT coalesce(max(n), 0) FROM entries WHERE path = ? OR (path > ? AND path < ?)", below).fetchone()
    heads = versions.heads(db, name)
    if heads.all and isinstance(heads.winner.state, File):
        return Figure(versions.version_name(heads.winner.ref), heads.winner.state.content.size, 1, newest)
    size, files = db.execute(
        "SELECT coalesce(sum(size), 0), count(DISTINCT path) FROM entries WHERE head = 1 AND op = ? AND path > ? AND path < ?",
        (int(Op.FILE), *below[1:]),
    ).fetchone()
    return Figure(None, int(size), int(files), newest)
