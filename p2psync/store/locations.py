"""Where each attachment is on this machine's disk, and whether that is still the place that it was.

A folder is known by its device and inode as well as its path: a mount point whose disk is gone, a restored copy or another folder
of the same name are not it, and their emptiness deletes nothing.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from p2psync.store.paths import signed, unsigned
from p2psync.store.root import Root, RootGone
from p2psync.values.names import RelPath, escaped


@dataclass(frozen=True, slots=True)
class Location:
    """One attachment on this disk.

    ``identity`` is (st_dev, st_ino) of an attached folder, None until it was looked through once; ``halted`` a reason code, or None.
    """

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

    def open(self) -> Root:
        """Its root, which must be the folder that it was.

        Raises:
            RootGone, CannotRead, DiskFailing.
        """
        root = Root(self.root)
        if not self.single and root.identity != self.identity:
            raise RootGone(path=escaped(str(self.root)), why="another folder stands in its place")
        return root

    def covers(self, path: RelPath) -> bool:
        """Whether ``path``, which begins with this name, can be something of it: the file itself, or what is in the folder."""
        return (path == self.name) == self.single

    def parts(self, disk: tuple[str, ...]) -> tuple[str, ...]:
        """The names from ``root`` to a path of this attachment."""
        return (self.path.name,) if self.single else disk


def get_all(db: sqlite3.Connection) -> dict[RelPath, Location]:
    """Every attachment that has a place on this disk, by name."""
    found = {}
    for name, kind, location, device, inode, halted in db.execute("SELECT name, kind, location, device, inode, halted FROM places"):
        path = RelPath(name)
        found[path] = Location(path, kind, Path(location), None if device is None else (unsigned(device), unsigned(inode)), halted)
    return found


def put(db: sqlite3.Connection, location: Location) -> None:
    """Keep the place of an attachment."""
    device, inode = map(signed, location.identity) if location.identity else (None, None)
    db.execute(
        "INSERT OR REPLACE INTO places (name, kind, location, device, inode, halted) VALUES (?,?,?,?,?,?)",
        (location.name.text, location.kind, str(location.path), device, inode, location.halted),
    )


def forget(db: sqlite3.Connection, name: RelPath) -> None:
    """The attachment has no place here any more."""
    db.execute("DELETE FROM places WHERE name = ?", (name.text,))
