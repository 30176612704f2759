"""The conflict copies on this disk: which version stands beside its path, under which name."""

import sqlite3
import time
from typing import NamedTuple

from p2psync.values.digest import Digest
from p2psync.values.entry import Ref
from p2psync.values.names import RecordId, RelPath


class Copy(NamedTuple):
    """One version kept beside its path: ``disk`` are its names below the root of the attachment."""

    ref: Ref
    path: RelPath
    disk: tuple[str, ...]
    digest: Digest


LONGEST = 240
"""Bytes of a copy's name: most disks take 255, and a staging file beside it has a name of its own."""


def of_path(db: sqlite3.Connection, path: RelPath) -> list[Copy]:
    """The copies beside ``path``."""
    return [_copy(row) for row in db.execute("SELECT record, idx, path, disk, digest FROM copies WHERE path = ?", (path.text,))]


def some(db: sqlite3.Connection) -> bool:
    """Whether there is any copy on this disk."""
    return db.execute("SELECT 1 FROM copies LIMIT 1").fetchone() is not None


def everything(db: sqlite3.Connection) -> list[Copy]:
    """All copies of the mandate on this disk."""
    return [_copy(row) for row in db.execute("SELECT record, idx, path, disk, digest FROM copies")]


def holding(db: sqlite3.Connection, digest: Digest) -> list[Copy]:
    """The copies of this content."""
    return [_copy(row) for row in db.execute("SELECT record, idx, path, disk, digest FROM copies WHERE digest = ?", (digest,))]


def put(db: sqlite3.Connection, copy: Copy) -> None:
    """Keep that a copy stands there."""
    row = (copy.ref.record, copy.ref.index, copy.path.text, "/".join(copy.disk), copy.digest)
    db.execute("INSERT OR REPLACE INTO copies (record, idx, path, disk, digest) VALUES (?,?,?,?,?)", row)


def forget(db: sqlite3.Connection, ref: Ref) -> None:
    """The copy is gone, or a file of its own now."""
    db.execute("DELETE FROM copies WHERE record = ? AND idx = ?", (ref.record, ref.index))


def rename(db: sqlite3.Connection, old: RecordId, new: RecordId) -> None:
    """What the record ``old`` said, ``new`` says from now on."""
    db.execute("UPDATE copies SET record = ? WHERE record = ?", (new, old))


def copy_name(name: str, person: str, time_ms: int, attempt: int = 1) -> str:
    """The name of a conflict copy: ``Bilan (Marie, 2026-11-24 14.05).xlsx``, with a number when that is taken."""
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    when = time.strftime("%Y-%m-%d %H.%M", time.localtime(time_ms / 1000))
    who = "".join("-" if c in '/\\:<>"|?*' else c for c in person)
    number = f" {attempt}" if attempt > 1 else ""
    extra = f" ({who}, {when}{number})"
    if len((extra + dot + ending).encode()) > LONGEST - 8:  # hardly an ending
        stem, dot, ending = name, "", ""
    room = LONGEST - len((extra + dot + ending).encode())
    return _cut(stem, room) + extra + dot + ending


def _cut(text: str, size: int) -> str:
    """``text``, cut to ``size`` bytes of UTF-8 between two characters."""
    return text.encode()[:size].decode(errors="ignore").rstrip(" ")


def numbered(name: str, number: int) -> str:
    """``Bilan.xlsx`` → ``Bilan (2).xlsx``."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem} ({number}).{ending}" if stem and dot else f"{name} ({number})"


def _copy(row: tuple[bytes, int, str, str, bytes]) -> Copy:
    record, idx, path, disk, digest = row
    return Copy(Ref(RecordId(record), idx), RelPath(path), tuple(disk.split("/")), Digest(digest))
