"""The versions of every path, indexed from the journal's CHANGE records: heads, attachments, history."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from p2psync.engine.heads import Head, Heads
from p2psync.store import journal
from p2psync.store.ledger import in_lots, marks
from p2psync.values.content import Content, File, Folder, Gone, State
from p2psync.values.digest import Digest
from p2psync.values.entry import Act, Entry, Op, Ref, entries_of
from p2psync.values.names import DeviceId, RecordId, RelPath
from p2psync.values.record import Kind, Record

_HEAD = "record, idx, op, digest, size, listing, executable, mtime_ns"
_ATTACHED = (Op.ATTACH_FOLDER, Op.ATTACH_FILE, Op.DETACH)
_COLUMNS = "e.record, e.idx, e.path, e.op, e.digest, e.size, e.listing, e.executable, e.mtime_ns, e.act, e.by"


class Version(NamedTuple):
    """One entry with who made it and when (their clock, for people)."""

    ref: Ref
    entry: Entry
    device: DeviceId
    time_ms: int
    head: bool

    @property
    def short(self) -> str:
        """The name of this version as people type it: ten hex digits."""
        return version_name(self.ref)


def version_name(ref: Ref) -> str:
    """Ten hex digits that name one entry."""
    return (int.from_bytes(ref.record[:5], "big") ^ ref.index).to_bytes(5, "big").hex()


def insert(db: sqlite3.Connection, record: Record, past: journal.Past, entries: Sequence[Entry | None]) -> set[RelPath]:
    """Index the entries of an accepted record, whose causal past is ``past``; returns the paths whose heads changed.

    A version that an entry supersedes without its record standing on it is not superseded: the heads depend on no order of arrival.
    """
    rows: list[tuple[object, ...]] = []
    named = {parent.record for entry in entries if entry is not None for parent in entry.parents}
    known = {one for one in named if _is_in(db, one, past)}
    for index, entry in enumerate(entries):
        if entry is None:
            continue
        for parent in [parent for parent in entry.parents if parent.record in known]:
            db.execute(
                "UPDATE entries SET head = 0 WHERE record = ? AND idx = ? AND path = ? AND attaches = ?",
                (parent.record, parent.index, entry.path.text, entry.attaches),
            )
        c = entry.content
        content = (c.digest, c.size, c.listing) if c else (None, None, None)
        rows.append(
            (record.id, index, entry.attaches, entry.path.text, entry.path.fold, entry.op, *content, entry.executable,
             min(entry.mtime_ns, 2**63 - 1), entry.act, entry.by)
        )  # fmt: skip
    db.executemany(
        "INSERT INTO entries (record, idx, attaches, path, fold, op, digest, size, listing, executable, mtime_ns, act, by, head)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,1)",
        rows,
    )
    return {entry.path for entry in entries if entry is not None}


def take_back(db: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Undo ``insert`` for records on which nothing stands: what they superseded, and nothing else does, is a head again."""
    said = [entry for record in records if record.kind == Kind.CHANGE for entry in entries_of(record.body) if entry is not None]
    for record in records:
        db.execute("DELETE FROM entries WHERE record = ?", (record.id,))
    for entry in said:
        still = _superseded_by_others(db, entry.path)
        for parent in set(entry.parents) - still:
            db.execute("UPDATE entries SET head = 1 WHERE record = ? AND idx = ?", (parent.record, parent.index))


def _superseded_by_others(db: sqlite3.Connection, path: RelPath) -> set[Ref]:
    rows = db.execute("SELECT DISTINCT r.raw, r.past FROM entries e JOIN records r ON r.id = e.record WHERE e.path = ?", (path.text,))
    found = set()
    for raw, past in rows.fetchall():
        for entry in entries_of(Record.parse(raw).body):
            if entry is not None and entry.path == path:
                found |= {parent for parent in entry.parents if _is_in(db, parent.record, journal.unpack_past(past))}
    return found


def _is_in(db: sqlite3.Connection, record: RecordId, past: journal.Past) -> bool:
    row = db.execute("SELECT device, incarnation, seq FROM records WHERE id = ?", (record,)).fetchone()
    return row is not None and past.get((DeviceId(row[0]), row[1]), 0) >= row[2]


def heads(db: sqlite3.Connection, path: RelPath) -> Heads:
    """The heads of what ``path`` holds."""
    rows = db.execute(f"SELECT {_HEAD} FROM entries WHERE path = ? AND attaches = 0 AND head = 1", (path.text,))
    return _heads(db, [_head(row) for row in rows])


def heads_of(db: sqlite3.Connection, paths: Iterable[RelPath]) -> dict[RelPath, Heads]:
    """The heads of each of these paths, with few questions."""
    known = {path.text: path for path in paths}
    found: dict[RelPath, list[Head]] = {path: [] for path in known.values()}
    for some in in_lots(known):
        query = f"SELECT {_HEAD}, path FROM entries WHERE path IN ({marks(some)}) AND attaches = 0 AND head = 1"
        for row in db.execute(query, some):
            found[known[row[8]]].append(_head(row))
    return {path: _heads(db, heads) for path, heads in found.items()}


def _heads(db: sqlite3.Connection, found: list[Head]) -> Heads:
    return Heads.of(_with_knowledge(db, found)) if len(found) > 1 else Heads(tuple(found))


def _with_knowledge(db: sqlite3.Connection, heads: list[Head]) -> list[Head]:
    """The heads of a conflict, with which of them the authors of others knew of."""
    knew = {head.ref.record: journal.past_of(db, head.ref.record) for head in heads}
    places = {record: (log, seq) for record, (log, seq, _) in knew.items()}

    def known_to(head: Head, other: Head) -> bool:
        log, seq = places[head.ref.record]
        return other.ref.record != head.ref.record and knew[other.ref.record][2].get(log, 0) >= seq

    return [replace(head, passed_over=any(known_to(head, other) for other in heads)) for head in heads]


def is_gone(db: sqlite3.Connection, path: RelPath) -> bool:
    """Whether the journal says that nothing is at ``path`` any more."""
    found = heads(db, path)
    return bool(found.all) and isinstance(found.winner.state, Gone)


def is_live(db: sqlite3.Connection, path: RelPath) -> bool:
    """Whether the journal says that something is at ``path``."""
    found = heads(db, path)
    return bool(found.all) and not isinstance(found.winner.state, Gone)


def entry(db: sqlite3.Connection, ref: Ref) -> Entry | None:
    """One entry, without its parents, or None."""
    row = db.execute(f"SELECT {_COLUMNS} FROM entries e WHERE e.record = ? AND e.idx = ?", (ref.record, ref.index)).fetchone()
    return None if row is None else _entry(row)[1]


def superseded(db: sqlite3.Connection, path: RelPath, content: Content) -> Ref | None:
    """The latest version of ``path`` with this content that something supersedes, or None."""
    row = db.execute(
        "SELECT record, idx FROM entries WHERE path = ? AND digest = ? AND head = 0 AND attaches = 0 ORDER BY n DESC LIMIT 1",
        (path.text, content.digest),
    ).fetchone()
    return None if row is None else Ref(RecordId(row[0]), row[1])


def attachment_heads(db: sqlite3.Connection, name: RelPath) -> list[tuple[Ref, Entry]]:
    """The current entries about the attachment itself, in the order that decides: a folder, a file, a detach; the first one counts."""
    rows = db.execute(f"SELECT {_COLUMNS} FROM entries e WHERE e.path = ? AND e.attaches = 1 AND e.head = 1", (name.text,))
    return sorted(map(_entry, rows), key=lambda pair: (_ATTACHED.index(pair[1].op), pair[0]))


def attachments(db: sqlite3.Connection) -> dict[RelPath, Op]:
    """What is attached now: name → ATTACH_FILE or ATTACH_FOLDER. An attachment outlives a detach that did not know of it."""
    names = [RelPath(row[0]) for row in db.execute("SELECT DISTINCT path FROM entries WHERE head = 1 AND attaches = 1")]
    found = {name: attachment_heads(db, name)[0][1].op for name in names}
    return {name: op for name, op in found.items() if op != Op.DETACH}


def live_paths(db: sqlite3.Connection, name: RelPath) -> Iterator[RelPath]:
    """The paths at or below ``name`` that a head says hold a file or a folder."""
    rows = db.execute(
        "SELECT DISTINCT path FROM entries WHERE head = 1 AND attaches = 0 AND op != ? AND (path = ? OR (path > ? AND path < ?))",
        (Op.GONE, name.text, name.text + "/", name.text + "0"),
    )
    return (RelPath(row[0]) for row in rows)


def conflicted(db: sqlite3.Connection) -> dict[RelPath, Heads]:
    """The paths that have more than one version, each with its heads."""
    rows = db.execute("SELECT path FROM entries WHERE head = 1 AND attaches = 0 GROUP BY path HAVING count(*) > 1").fetchall()
    found = {RelPath(row[0]): heads(db, RelPath(row[0])) for row in rows}
    return {path: found[path] for path in found if found[path].others}


def namesake(db: sqlite3.Connection, path: RelPath) -> RelPath | None:
    """Another live path that some file system would take for this one, the first by its spelling; or None."""
    row = db.execute(
        "SELECT path FROM entries WHERE fold = ? AND head = 1 AND path != ? AND op NOT IN (?, ?) ORDER BY path LIMIT 1",
        (path.fold, path.text, Op.GONE, Op.DETACH),
    ).fetchone()
    return None if row is None else RelPath(row[0])


def with_namesakes(db: sqlite3.Connection, paths: Iterable[RelPath], *, gone: bool = False) -> set[RelPath]:
    """Those of these paths for which ``namesake`` finds another one; also among those that are ``gone``."""
    left_out = () if gone else (Op.GONE, Op.DETACH)
    folds: dict[str, list[RelPath]] = {}
    for path in paths:
        folds.setdefault(path.fold, []).append(path)
    found: set[RelPath] = set()
    for some in in_lots(folds):
        query = f"SELECT fold, path FROM entries WHERE fold IN ({marks(some)}) AND head = 1 AND op NOT IN ({marks(left_out)})"
        for fold, other in db.execute(query, (*some, *left_out)):
            found.update(path for path in folds[fold] if path.text != other)
    return found


def of_folds(db: sqlite3.Connection, folds: Iterable[str]) -> list[RelPath]:
    """The live paths with one of these folds."""
    rows = [
        row
        for fold in folds
        for row in db.execute("SELECT path FROM entries WHERE fold = ? AND head = 1 AND attaches = 0 AND op != ?", (fold, Op.GONE))
    ]
    return [RelPath(row[0]) for row in rows]


def history(db: sqlite3.Connection, path: RelPath | None) -> list[Version]:
    """Every entry about what ``path`` (or anything, for None) held, and about attaching it, newest accepted first."""
    where = "" if path is None else "WHERE e.path = ? OR (e.path > ? AND e.path < ?)"
    values = () if path is None else (path.text, path.text + "/", path.text + "0")
    rows = db.execute(
        f"SELECT {_COLUMNS}, r.device, r.time_ms, e.head FROM entries e JOIN records r ON r.id = e.record {where} ORDER BY e.n DESC", values
    )
    return [Version(*_entry(row[:11]), DeviceId(row[11]), row[12], bool(row[13])) for row in rows]


def latest(db: sqlite3.Connection, path: RelPath, most: int) -> list[Version]:
    """The last ``most`` entries about ``path`` and what is below it, and about attaching what it is in, newest accepted first."""
    rows = db.execute(
        f"SELECT {_COLUMNS}, r.device, r.time_ms, e.head FROM entries e JOIN records r ON r.id = e.record WHERE {_ABOUT}"
        " ORDER BY e.n DESC LIMIT ?",
        (*_about(path), most),
    )
    return [Version(*_entry(row[:11]), DeviceId(row[11]), row[12], bool(row[13])) for row in rows]


def how_many(db: sqlite3.Connection, path: RelPath) -> int:
    """How many entries ``latest`` would give in all."""
    return int(db.execute(f"SELECT count(*) FROM entries e WHERE {_ABOUT}", _about(path)).fetchone()[0])


def last_number(db: sqlite3.Connection, path: RelPath) -> int:
    """After how many entries the journal last said something about ``path`` or what is below it."""
    row = db.execute(
        "SELECT coalesce(max(n), 0) FROM entries WHERE path = ? OR (path > ? AND path < ?)", (path.text, path.text + "/", path.text + "0")
    ).fetchone()
    return int(row[0])


_ABOUT = "(e.path = ? OR (e.path > ? AND e.path < ?) OR (e.path = ? AND e.attaches = 1))"


def _about(path: RelPath) -> tuple[str, str, str, str]:
    return path.text, path.text + "/", path.text + "0", path.top


def parents(db: sqlite3.Connection, refs: Iterable[Ref]) -> dict[Ref, tuple[Ref, ...]]:
    """What each of these entries supersedes, which only the signed records say."""
    wanted = list(refs)
    said: dict[RecordId, list[Entry | None]] = {}
    for record in {ref.record for ref in wanted}:
        row = db.execute("SELECT raw FROM records WHERE id = ?", (record,)).fetchone()
        said[record] = entries_of(Record.parse(row[0]).body) if row else []
    found = {ref: said[ref.record][ref.index] if ref.index < len(said[ref.record]) else None for ref in wanted}
    return {ref: entry.parents for ref, entry in found.items() if entry is not None}


def version_of(db: sqlite3.Connection, ref: Ref) -> Version:
    """An entry that is known to exist, with its author and time."""
    row = db.execute(
        f"SELECT {_COLUMNS}, r.device, r.time_ms, e.head FROM entries e JOIN records r ON r.id = e.record WHERE e.record = ? AND e.idx = ?",
        (ref.record, ref.index),
    ).fetchone()
    return Version(*_entry(row[:11]), DeviceId(row[11]), row[12], bool(row[13]))


def referenced(db: sqlite3.Connection, digests: Iterable[bytes]) -> set[bytes]:
    """Those of the content digests that some entry of this mandate names."""
    return {d for d in digests if db.execute("SELECT 1 FROM entries WHERE digest = ? LIMIT 1", (d,)).fetchone()}


def _head(row: Sequence[Any]) -> Head:
    record, idx, op, digest, size, listing, executable, mtime = row[:8]
    state: State = Folder() if op == Op.FOLDER else Gone()
    if op == Op.FILE:
        state = File(Content(Digest(digest), size, Digest(listing)), bool(executable))
    return Head(Ref(RecordId(record), idx), state, mtime_ns=mtime)


def _entry(row: Sequence[object]) -> tuple[Ref, Entry]:
    record, idx, path, op, digest, size, listing, executable, mtime, act, by = row
    content = None
    if digest is not None:
        content = Content(Digest(digest), size, Digest(listing))  # type: ignore[arg-type]
    return (
        Ref(RecordId(record), idx),  # type: ignore[arg-type]
        Entry(Op(op), RelPath(path), content, bool(executable), mtime, (), Act(act), by),  # type: ignore[arg-type]
    )
