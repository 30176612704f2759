"""What a ledger and a vault claim, held against the disk: read from the files alone, by nothing of p2psync's.

``immediately`` after a kill, before anything is started again, from copies; ``settled`` when all is quiet.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import blake3


def immediately(state: Path) -> list[str]:
    """What is wrong in the home ``state`` of a daemon that was just killed; nothing is touched."""
    return [fault for mandate in _mandates(state) for fault in _claims(mandate, settled=False)]


def settled(state: Path) -> list[str]:
    """What is wrong in the home ``state`` while its daemon has nothing to do: then each claim is true to the letter."""
    return [fault for mandate in _mandates(state) for fault in _claims(mandate, settled=True)]


def _mandates(state: Path) -> list[Path]:
    folder = state / "mandates"
    return sorted(one for one in folder.iterdir() if (one / "ledger.db").exists() and len(one.name) == 64) if folder.is_dir() else []


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A copy of a SQLite file as it lies there, its log included."""
    with tempfile.TemporaryDirectory() as place:
        for suffix in ("", "-wal", "-journal"):
            lying = file.with_name(file.name + suffix)
            if lying.exists():
                shutil.copyfile(lying, Path(place, file.name + suffix))
        with closing(sqlite3.connect(Path(place, file.name))) as db:
            yield db


def _claims(mandate: Path, *, settled: bool) -> Iterator[str]:
    for name in ("ledger.db", "vault.db"):
        if (mandate / name).exists():
            with _opened(mandate / name) as db:
                said = db.execute("PRAGMA integrity_check").fetchall()
                if said != [("ok",)]:
                    yield f"{name}: {said[:3]}"
    with _opened(mandate / "ledger.db") as db:
        if db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'paths'").fetchone() == (0,):
            return  # it was just being made
        for row in db.execute(
            "SELECT path, disk, p.kind, size, mtime_ns, ctime_ns, p.inode, digest, agreed_digest, location"
            " FROM paths p JOIN places l ON path = name OR substr(path, 1, length(name) + 1) = name || '/'"
        ).fetchall():
            yield from _one(row, settled=settled)


def _one(row: tuple[Any, ...], *, settled: bool) -> Iterator[str]:
    shown, disk, kind, *stamp, digest, agreed, location = row
    path = Path(location, disk) if disk else Path(location)
    found = path.lstat() if path.exists() else None
    if kind == "file" and found is not None:
        same = stamp == [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        stands = blake3.blake3(path.read_bytes()).digest()
        if same and stands != digest:
            yield f"“{shown}” is claimed to hold {digest.hex()[:8]} by its very stamp, and holds {stands.hex()[:8]}"
        if settled and not same:
            yield f"“{shown}” has another stamp than the one that was observed"
        if settled and stands != agreed:
            yield f"“{shown}” is agreed to hold {agreed and agreed.hex()[:8]}, and holds {stands.hex()[:8]}"
    if settled and (found is None) != (kind is None):
        yield f"“{shown}” is said to be {kind or 'gone'}, and is {'there' if found else 'gone'}"
