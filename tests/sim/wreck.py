"""What stands on the disk after a power cut, put together from what is there and from what was not durable."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.sim.real import real
from tests.sim.volatile import Image, Node, left_of

if TYPE_CHECKING:
    from tests.sim.device import Disk


@dataclass
class _Found:
    """All that stands below the root: the entries of each folder, where each node is, and its mode."""

    entries: dict[Node, dict[str, Node]] = field(default_factory=dict)
    paths: dict[Node, str] = field(default_factory=dict)
    modes: dict[Node, int] = field(default_factory=dict)


def rebuild(disk: Disk) -> None:
    """Replace everything below the root of the disk by what a power cut leaves of it."""
    found = _Found()
    root = _walk(disk, disk.root, found)
    databases = {path: _read(path) for node, path in found.paths.items() if node.is_database}
    for connection in list(disk.connections):
        connection.close()
    for change in disk.volatile.undone(disk.chance):
        for folder, name, before, _ in change.entries:
            there = found.entries.setdefault(folder, {})
            there.pop(name, None)
            if before is not None:
                there[name] = before
    lost = {node: _left(disk, node, found) for node in sorted(disk.volatile.dirty, key=lambda node: node.number)}
    new = f"{disk.root}.new"
    os_mkdir(new, 0o700)
    _Building(disk, found, databases, lost).folder(root, new)
    _swap_in(disk.root, new)
    for node in list(disk.volatile.dirty):
        disk.volatile.forget(node)


def os_mkdir(path: str, mode: int) -> None:
    real.mkdir(path)
    real.chmod(path, mode & 0o7777)


def _walk(disk: Disk, path: str, found: _Found) -> Node:
    status = real.lstat(path)
    node = disk.node(status)
    found.paths.setdefault(node, path)
    found.modes[node] = status.st_mode
    if stat.S_ISDIR(status.st_mode):
        below = found.entries[node] = {}
        for name in sorted(real.listdir(path)):
            if not name.endswith("-shm"):
                below[name] = _walk(disk, f"{path}/{name}", found)
        for name, one in below.items():
            base = below.get(name.removesuffix("-wal"))
            one.is_database = one.is_database or bool(base and base.is_database)
    return node


def _left(disk: Disk, node: Node, found: _Found) -> Image | None:
    """What is left of a file that was written to; None where nothing of it is known, since it had neither names nor a past."""
    path = found.paths.get(node)
    new = node.last if path is None else Image(_read(path), found.modes[node] & 0o7777, node.mtime)
    if node.old is None or new is None:
        return new
    return left_of(node.old, new, disk.chance)


@dataclass
class _Building:
    disk: Disk
    found: _Found
    databases: dict[str, bytes]
    lost: dict[Node, Image | None]
    built: dict[Node, str] = field(default_factory=dict)

    def folder(self, node: Node, path: str) -> None:
        """Put all entries of a folder into ``path``."""
        for name, one in sorted(self.found.entries.get(node, {}).items()):
            below = f"{path}/{name}"
            if one.is_folder:
                if one not in self.built:  # nothing has two places: such a disk is mended so
                    self.built[one] = below
                    os_mkdir(below, self.found.modes.get(one, 0o755))
                    self._is(below, one)
                    self.folder(one, below)
            elif one in self.built:  # a rename of which only the new name was written down: mended too, by a file of its own
                self._copy(one, below)
            else:
                self.built[one] = below
                self._file(one, below)

    def _file(self, node: Node, below: str) -> None:
        path = self.found.paths.get(node)
        image = self.lost.get(node)
        if image is None and path is not None and path in self.databases:
            image = Image(self.databases[path], self.found.modes[node] & 0o7777, node.mtime)
        if image is None and path is not None:
            real.rename(path, below)
            return
        image = image or node.last
        assert image is not None, below
        _write(image, below)
        node.mtime, node.seen = image.mtime, None
        self._is(below, node)

    def _copy(self, node: Node, below: str) -> None:
        first = self.built[node]
        mode = real.lstat(first).st_mode
        _write(Image(os.fsencode(real.readlink(first)) if stat.S_ISLNK(mode) else _read(first), mode, node.mtime), below)
        self.disk.new_node(real.lstat(below)).mtime = node.mtime

    def _is(self, path: str, node: Node) -> None:
        self.disk.nodes[real.lstat(path).st_ino] = node


def _write(image: Image, path: str) -> None:
    if stat.S_ISLNK(image.mode):
        real.symlink(image.data, path)
        return
    fd = real.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    real.write(fd, image.data)
    real.fchmod(fd, image.mode & 0o7777)
    real.close(fd)


def _swap_in(root: str, new: str) -> None:
    old = f"{root}.old"
    real.mkdir(old)
    for name in real.listdir(root):
        real.rename(f"{root}/{name}", f"{old}/{name}")
    for name in real.listdir(new):
        real.rename(f"{new}/{name}", f"{root}/{name}")
    real.rmdir(new)
    with suppress(OSError):
        shutil.rmtree(old)


def _read(path: str) -> bytes:
    if real.lstat(path).st_mode & 0o170000 != stat.S_IFREG:
        return b""
    fd = real.open(path, os.O_RDONLY)
    try:
        return bytes(real.read(fd, real.fstat(fd).st_size))
    finally:
        real.close(fd)
