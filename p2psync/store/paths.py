"""What this disk was seen to hold at each path, and what was agreed there: the two views that are this machine's own."""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from p2psync.engine.reconcile import Agreed
from p2psync.store.ledger import in_lots, marks
from p2psync.store.scan import Fresh
from p2psync.values.content import Content, File, Folder, Gone, Observed, Stamp, State
from p2psync.values.digest import Digest
from p2psync.values.entry import Op, Ref
from p2psync.values.names import RecordId, RelPath
from p2psync.values.packing import pack, unpack

_LIMIT = 1 << 20
_COLUMNS = (
    "disk, kind, size, mtime_ns, ctime_ns, inode, runs, fresh, digest, listing, executable,"
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


def get_all(db: sqlite3.Connection, wanted: Iterable[RelPath]) -> dict[RelPath, PathView]:
    """The views of those of these paths that this machine ever met, with few questions."""
    known = {path.text: path for path in wanted}
    found: dict[RelPath, PathView] = {}
    for some in in_lots(known):
        for text, *row in db.execute(f"SELECT path, {_COLUMNS} FROM paths WHERE path IN ({marks(some)})", some):
            path = known[text]
            found[path] = _view(path, tuple(row))
    return found


def put(db: sqlite3.Connection, view: PathView) -> None:
    """Keep the views of a path."""
    db.execute(_PUT, _row(view))


def put_all(db: sqlite3.Connection, views: Iterable[PathView]) -> None:
    """Keep the views of these paths."""
    db.executemany(_PUT, map(_row, views))


_PUT = f"INSERT OR REPLACE INTO paths (path, {_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"


def _row(view: PathView) -> tuple[object, ...]:
    o, a = view.observed, view.agreed
    stamp: tuple[object, ...] = (None,) * 7
    content: tuple[object, ...] = (None, None, None)
    agreed: tuple[object, ...] = (None,) * 7
    if o is not None:
        s = o.stamp
        stamp = (s.kind, s.size, s.mtime_ns, s.ctime_ns, signed(s.inode), s.executable, isinstance(o, Fresh))
        if isinstance(o.state, File):
            content = (o.state.content.digest, o.state.content.listing, o.state.executable)
    if a is not None:
        agreed = (*_pack_state(a.state), _pack_refs(a.refs), _pack_refs(a.seen))
    return (view.path.text, "/".join(view.disk), *stamp, *content, *agreed)


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


def stamps_below(db: sqlite3.Connection, name: RelPath, *, fresh: bool = False) -> Iterator[tuple[str, Stamp | None]]:
    """What was seen at or below ``name``: its names on disk, separated by slashes, and its stamp; None where that proves nothing yet, if
    ``fresh`` ones are not wanted too.
    """
    rows = db.execute(
        "SELECT disk, kind, size, mtime_ns, ctime_ns, inode, runs, fresh FROM paths"
        " WHERE kind IS NOT NULL AND (path = ? OR (path > ? AND path < ?))",
        (name.text, name.text + "/", name.text + "0"),
    )
    for disk, kind, size, mtime, ctime, inode, runs, doubtful in rows:
        yield disk, None if doubtful and not fresh else Stamp(kind, size, mtime, ctime, unsigned(inode), bool(runs))


def folders_below(db: sqlite3.Connection, name: RelPath) -> list[tuple[str, ...]]:
    """The folders that were seen below ``name``: their names on disk."""
    rows = db.execute("SELECT disk FROM paths WHERE kind = 'folder' AND path > ? AND path < ?", (name.text + "/", name.text + "0"))
    return [tuple(disk.split("/")) for (disk,) in rows]


def count_files(db: sqlite3.Connection, name: RelPath) -> int:
    """How many files were seen at or below ``name``."""
    values = (name.text, name.text + "/", name.text + "0")
    row = db.execute("SELECT count(*) FROM paths WHERE kind = 'file' AND (path = ? OR (path > ? AND path < ?))", values).fetchone()
    return int(row[0])


def holding(db: sqlite3.Connection, digest: Digest) -> list[PathView]:
    """The views of paths that were seen to hold this content."""
    rows = db.execute(f"SELECT path, {_COLUMNS} FROM paths WHERE digest = ?", (digest,)).fetchall()
    return [_view(RelPath(row[0]), row[1:]) for row in rows]


def unsettled(db: sqlite3.Connection, name: RelPath | None = None) -> set[RelPath]:
    """The paths (at or below ``name``) about which there is something to decide: a head that was not known when anything was agreed
    there, several heads, or a disk that was seen to hold something else than what was agreed.
    """
    within, names = "", tuple[str, ...]()
    if name is not None:
        within, names = " AND (path = ? OR (path > ? AND path < ?))", (name.text, name.text + "/", name.text + "0")
    rows = db.execute(
        "SELECT path FROM entries LEFT JOIN (SELECT path AS known, seen FROM paths) ON known = path"
        f" WHERE head = 1 AND attaches = 0 AND (seen IS NULL OR instr(seen, record) = 0){within}"
        f" UNION SELECT path FROM entries WHERE head = 1 AND attaches = 0{within} GROUP BY path HAVING count(*) > 1"
        f" UNION SELECT path FROM paths WHERE ({_DIFFERS}){within}",
        names * 3,
    )
    return {RelPath(row[0]) for row in rows}


_DIFFERS = (
    f"coalesce(kind, '') != CASE agreed_op WHEN {int(Op.FILE)} THEN 'file' WHEN {int(Op.FOLDER)} THEN 'folder' ELSE '' END"
    " OR digest IS NOT agreed_digest OR executable IS NOT agreed_executable"
)


def unrecorded(db: sqlite3.Connection) -> list[RelPath]:
    """The paths at which something was seen that was never recorded, as while another name stands in its way."""
    return [RelPath(row[0]) for row in db.execute("SELECT path FROM paths WHERE kind IS NOT NULL AND agreed_op IS NULL")]


def signed(number: int) -> int:
    """An unsigned number of 64 bits, such as the inodes of some network disks, as SQLite can keep it."""
    return number - (1 << 64) if number >= 1 << 63 else number


def unsigned(number: int) -> int:
    """The number that ``signed`` kept."""
    return number + (1 << 64) if number < 0 else number


def _view(path: RelPath, row: tuple[Any, ...]) -> PathView:
    disk, kind, size, mtime, ctime, inode, runs, fresh, digest, listing, executable = row[:11]
    observed = None
    if kind is not None:
        stamp = Stamp(kind, size, mtime, ctime, unsigned(inode), bool(runs))
        state: File | Folder = Folder()
        if kind == "file":
            state = File(Content(Digest(digest), size, Digest(listing)), bool(executable))
        observed = (Fresh if fresh else Observed)(stamp, state)
    agreed = None
    if row[11] is not None:
        agreed = Agreed(_unpack_state(row[11:16]), _unpack_refs(row[16]), _unpack_refs(row[17]))
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
    if len(refs) == 1:
        (ref,) = refs
        if ref.index < 128:
            return _ONE_REF + ref.record + ref.index.to_bytes(1, "big")
    return pack([[ref.record, ref.index] for ref in sorted(refs)])


def _unpack_refs(data: bytes) -> frozenset[Ref]:
    if (
        len(data) == len(_ONE_REF) + 33 and data.startswith(_ONE_REF) and data[-1] < 128
    ):  # nearly always, and the rest takes ten times as long
        return frozenset((Ref(RecordId(data[4:36]), data[36]),))
    return frozenset(Ref(RecordId(record), index) for record, index in unpack(data, _LIMIT, canonical=False))


_ONE_REF = b"\x91\x92\xc4\x20"
"""How one entry begins in msgpack: an array of one array of two, of which the first is 32 bytes."""
