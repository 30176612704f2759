"""Where each attachment is on this machine's disk, and whether that is still the place that it was.

A folder is known by its device and inode as well as its path: a mount point whose disk is gone, a restored copy or another folder
of the same name are not it, and their emptiness deletes nothing.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from p2psync.values.names import RelPath


@dataclass(frozen=True, slots=True)
class Location:
    """One attachment on this disk. ``identity`` is (st_dev, st_ino) of an attached folder; ``halted`` a reason code, or None."""

    name: RelPath
    kind: Literal["file", "folder"]
    path: Path
    identity: tuple[int, int] | None = None
    halted: str | None = None

    @property
    def single(self) -> bool:
        """Whether this is a file attached by itself."""
        return self.kind == "file"

    @property
    def root(self) -> Path:
        """The directory below which all of it is: the folder itself, or the one that the file is in."""
        return self.path.parent if self.single else self.path

    def parts(self, disk: tuple[str, ...]) -> tuple[str, ...]:
        """The names from ``root`` to a path of this attachment."""
        return (self.path.name,) if self.single else disk


def get_all(db: sqlite3.Connection) -> dict[RelPath, Location]:
    """Every attachment that has a place on this disk, by name."""
    found = {}
    for name, kind, location, device, inode, halted in db.execute("SELECT name, kind, location, device, inode, halted FROM places"):
        path = RelPath(name)
        found[path] = Location(path, kind, Path(location), None if device is None else (device, inode), halted)
    return found


def put(db: sqlite3.Connection, location: Location) -> None:
    """Keep the place of an attachment."""
    device, inode = location.identity or (None, None)
    db.execute(
        "INSERT OR REPLACE INTO places (name, kind, location, device, inode, halted) VALUES (?,?,?,?,?,?)",
        (location.name.text, location.kind, str(location.path), device, inode, location.halted),
    )


def forget(db: sqlite3.Connection, name: RelPath) -> None:
    """The attachment has no place here any more."""
    db.execute("DELETE FROM places WHERE name = ?", (name.text,))
