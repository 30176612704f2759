"""What this disk was seen to hold at each path, and what was agreed there: the two views that are this machine's own."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from p2psync.engine.reconcile import Agreed
from p2psync.store.scan import Fresh
from p2psync.values.content import Content, File, Folder, Gone, Observed, Stamp, State
from p2psync.values.digest import Digest
from p2psync.values.entry import Op, Ref
from p2psync.values.names import RecordId, RelPath
from p2psync.values.packing import pack, unpack

_LIMIT = 1 << 20
_COLUMNS = (
    "disk, kind, size, mtime_ns, ctime_ns, inode, executable, fresh, digest, listing,"
    " agreed_op, agreed_digest, agreed_size, agreed_listing, agreed_executable, refs, seen"
)


@dataclass(frozen=True, slots=True)
class PathView:
    """This machine's two views of one path.

    ``disk`` are the names by which the path is found below the place of its attachment, as the disk spells them (empty for the place
    itself); ``observed`` is None when nothing stood there.
    """

    path: RelPath
    disk: tuple[str, ...]
    observed: Observed | None = None
    agreed: Agreed | None = None


def get(db: sqlite3.Connection, path: RelPath) -> PathView | None:
    """The views of ``path``, or None when this machine never met it."""
    row = db.execute(f"SELECT {_COLUMNS} FROM paths WHERE path = ?", (path.text,)).fetchone()
    return None if row is None else _view(path, row)


def put(db: sqlite3.Connection, view: PathView) -> None:
    """Keep the views of a path."""
    o, a = view.observed, view.agreed
    stamp: tuple[object, ...] = (None,) * 7
    content: tuple[object, ...] = (None, None)
    agreed: tuple[object, ...] = (None,) * 7
    if o is not None:
        s = o.stamp
        stamp = (s.kind, s.size, s.mtime_ns, s.ctime_ns, s.inode, s.executable, isinstance(o, Fresh))
        if isinstance(o.state, File):
            content = (o.state.content.digest, o.state.content.listing)
    if a is not None:
        agreed = (*_pack_state(a.state), _pack_refs(a.refs), _pack_refs(a.seen))
    db.execute(
        f"INSERT OR REPLACE INTO paths (path, {_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (view.path.text, "/".join(view.disk), *stamp, *content, *agreed),
    )


def forget(db: sqlite3.Connection, name: RelPath) -> None:
    """Drop the views of ``name`` and all below it: the attachment is no longer looked at here."""
    db.execute("DELETE FROM paths WHERE path = ? OR (path > ? AND path < ?)", (name.text, name.text + "/", name.text + "0"))


def below(db: sqlite3.Connection, name: RelPath) -> Iterator[PathView]:
    """The views at or below ``name``."""
    rows = db.execute(
        f"SELECT path, {_COLUMNS} FROM paths WHERE path = ? OR (path > ? AND path < ?) ORDER BY path",
        (name.text, name.text + "/", name.text + "0"),
    )
    return (_view(RelPath(row[0]), row[1:]) for row in rows)


def holding(db: sqlite3.Connection, digest: Digest) -> list[PathView]:
    """The views of paths that were seen to hold this content."""
    rows = db.execute(f"SELECT path, {_COLUMNS} FROM paths WHERE digest = ?", (digest,)).fetchall()
    return [_view(RelPath(row[0]), row[1:]) for row in rows]


def _view(path: RelPath, row: tuple[object, ...]) -> PathView:
    disk, kind, size, mtime, ctime, inode, executable, fresh, digest, listing = row[:10]
    observed = None
    if kind is not None:
        stamp = Stamp(kind, size, mtime, ctime, inode, bool(executable))  # type: ignore[arg-type]
        state: File | Folder = Folder()
        if kind == "file":
            state = File(Content(Digest(digest), size, Digest(listing)), bool(executable))  # type: ignore[arg-type]
        observed = (Fresh if fresh else Observed)(stamp, state)
    agreed = None
    if row[10] is not None:
        agreed = Agreed(_unpack_state(row[10:15]), _unpack_refs(row[15]), _unpack_refs(row[16]))
    return PathView(path, tuple(str(disk).split("/")) if disk else (), observed, agreed)


def _pack_state(state: State) -> tuple[object, ...]:
    if isinstance(state, File):
        c = state.content
        return int(Op.FILE), c.digest, c.size, c.listing, state.executable
    return int(Op.FOLDER if isinstance(state, Folder) else Op.GONE), None, None, None, None


def _unpack_state(row: tuple[object, ...]) -> State:
    op, digest, size, listing, executable = row
    if op == Op.FILE:
        return File(Content(Digest(digest), size, Digest(listing)), bool(executable))  # type: ignore[arg-type]
    return Folder() if op == Op.FOLDER else Gone()


def _pack_refs(refs: frozenset[Ref]) -> bytes:
    return pack([[ref.record, ref.index] for ref in sorted(refs)])


def _unpack_refs(data: object) -> frozenset[Ref]:
    return frozenset(Ref(RecordId(record), index) for record, index in unpack(data, _LIMIT))  # type: ignore[arg-type]
