"""Stands where the functions of ``os`` stood: finds the disk that a path or descriptor belongs to, and has it take part in the call."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from tests.sim.device import Disk, Held, Killed
from tests.sim.real import real
from tests.sim.volatile import Image, Node

_CWD = None
_WRITES = os.O_WRONLY | os.O_RDWR


class Place:
    """A name on a disk: as the system is to be asked for it, and whole, as it is reported."""

    __slots__ = ("asked", "dir_fd", "disk", "name", "whole")

    def __init__(self, disk: Disk, name: str, dir_fd: int | None, whole: str, asked: str) -> None:
        self.disk, self.name, self.dir_fd, self.whole, self.asked = disk, name, dir_fd, whole, asked

    def status(self) -> os.stat_result | None:
        """The real status of what stands there."""
        try:
            found: os.stat_result = real.lstat(self.name, dir_fd=self.dir_fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found

    def above(self) -> Node:
        """The folder that it is in."""
        if self.dir_fd is not None and "/" not in self.name:
            return self.disk.fds[self.dir_fd].node
        return self.disk.node(real.stat(os.path.dirname(self.name), dir_fd=self.dir_fd))

    def below(self) -> str:
        """The path below the root of the disk."""
        return self.whole[len(self.disk.root) + 1 :]

    @property
    def last(self) -> str:
        """The name within that folder."""
        return self.name.rpartition("/")[2]


class Kernel:
    """The calls, with the signatures of ``os``. Descriptors are those of the system."""

    def __init__(self, disks: list[Disk]) -> None:
        self.disks = disks
        self.roots = tuple(disk.root for disk in disks)
        self.fds: dict[int, Held] = {}
        for disk in disks:
            disk.fds = self.fds

    # ---- whose is it?

    def of(self, path: Any, dir_fd: int | None = None) -> Place | None:
        """The place of a path; None: on no disk of ours."""
        name = path if type(path) is str else os.fsdecode(path)
        if dir_fd is not None and not name.startswith("/"):
            held = self.fds.get(dir_fd)
            if held is None:
                return None
            disk = self._alive(held).disk
            return Place(disk, disk.alias(name, dir_fd) if disk._folds else name, dir_fd, f"{held.whole}/{name}", name)
        if not name.startswith(self.roots):
            return None
        for disk in self.disks:
            if name.startswith(disk.root) and name[len(disk.root) :][:1] in ("", "/"):
                whole = disk.alias(name, None) if disk._folds else name
                return Place(disk, whole, None, whole, name)
        return None

    def disk_of(self, path: Any) -> Disk | None:
        """The disk that a path is on."""
        place = self.of(path)
        return None if place is None else place.disk

    def held(self, fd: Any) -> Held | None:
        """What the descriptor is of; None: of no disk of ours."""
        held = self.fds.get(fd)
        return None if held is None else self._alive(held)

    def _alive(self, held: Held) -> Held:
        if held.life != held.disk.life:
            if held.by_product:
                raise Killed
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), held.whole)
        if held.node.away:
            raise OSError(errno.EIO, os.strerror(errno.EIO), held.whole)
        return held

    # ---- descriptors

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        place = self.of(path, dir_fd)
        if place is None:
            return int(real.open(path, flags, mode, dir_fd=dir_fd))
        disk, created, before = place.disk, False, None
        if flags & (os.O_CREAT | os.O_TRUNC):
            before = place.status()
            created = before is None and bool(flags & os.O_CREAT)
        if created:
            disk.step("create", place.whole, grows=True)
        elif before is not None and flags & os.O_TRUNC and not flags & os.O_EXCL and before.st_size:
            disk.step("truncate", place.whole)
        elif not flags & os.O_PATH:
            disk.look("open", place.whole)
        if before is not None and flags & os.O_TRUNC and not flags & os.O_EXCL:
            fd = int(real.open(place.name, flags & ~os.O_TRUNC, mode, dir_fd=place.dir_fd))
            disk.written(disk.node(before), fd)
            real.ftruncate(fd, 0)
        else:
            fd = int(real.open(place.name, flags, mode, dir_fd=place.dir_fd))
        status = real.fstat(fd)
        node = disk.new_node(status) if created else disk.node(status)
        if created:
            disk.volatile.touch(node, disk.seconds(), Image(b"", status.st_mode & 0o7777, node.mtime))
            self._named(place, node)
        counts = not (flags & os.O_PATH or node.is_folder)
        writes = counts and bool(flags & (os.O_WRONLY | os.O_RDWR))
        self.fds[fd] = Held(disk, node, place.whole, disk.life, disk.serving, counts, writes)
        if created or (before is not None and flags & os.O_TRUNC):
            disk.done()
        return fd

    def close(self, fd: int) -> None:
        self.fds.pop(fd, None)
        real.close(fd)

    def _reading(name: str) -> Callable[..., Any]:  # type: ignore[misc]
        call = getattr(real, name)

        def read(self: Kernel, fd: int, *more: Any) -> Any:
            held = self.held(fd)
            if held is not None:
                held.disk.look("read", held.whole)
            return call(fd, *more)

        return read

    read, pread, preadv = _reading("read"), _reading("pread"), _reading("preadv")

    def _writing(name: str, kind: str = "write", grows: bool = True) -> Callable[..., Any]:  # type: ignore[misc]
        call = getattr(real, name)

        def write(self: Kernel, fd: int, *more: Any) -> Any:
            held = self.held(fd)
            if held is None:
                return call(fd, *more)
            disk = held.disk
            disk.step(kind, held.whole, grows)
            disk.written(held.node, fd)
            done = call(fd, *more)
            disk.done()
            return done

        return write

    write, writev, pwrite, pwritev = _writing("write"), _writing("writev"), _writing("pwrite"), _writing("pwritev")
    sendfile, ftruncate = _writing("sendfile"), _writing("ftruncate", "truncate", False)

    def truncate(self, path: Any, length: int) -> None:
        fd = path if isinstance(path, int) else self.open(path, os.O_WRONLY)
        try:
            self.ftruncate(fd, length)
        finally:
            if fd is not path:
                self.close(fd)

    def copy_file_range(self, src: int, dst: int, *more: Any) -> int:
        held = self.held(dst)
        if held is not None:
            held.disk.step("write", held.whole, True)
            held.disk.written(held.node, dst)
        return int(real.copy_file_range(src, dst, *more))

    def fsync(self, fd: int) -> None:
        held = self.held(fd)
        if held is None:
            real.fsync(fd)
            return
        disk = held.disk
        try:
            disk.step("fsync", held.whole)
        except OSError:
            held.node.lost = held.node.old is not None
            raise
        disk.volatile.sync(held.node)
        disk.done()

    fdatasync = fsync

    # ---- names

    def _named(self, place: Place, node: Node) -> None:
        """The place got a new file or folder."""
        above = place.above()
        place.disk.volatile.change(place.disk.seconds(), (above, place.last, None, node))
        above.mtime = above.ctime = place.disk.now_ns()

    def rename(self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        one, other = self.of(src, src_dir_fd), self.of(dst, dst_dir_fd)
        if one is None or other is None or one.disk is not other.disk:
            if one is not None or other is not None:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), src)
            real.rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            return
        one.disk.step("rename", f"{one.whole} -> {other.below()}")
        self.renamed(one, other)
        one.disk.done()

    def renamed(self, one: Place, other: Place) -> None:
        """Renames, over what stands there."""
        disk, status, over = one.disk, one.status(), other.status()
        if disk._folds and over is not None and status is not None and over.st_ino == status.st_ino:
            other.name = other.name[: len(other.name) - len(other.last)] + disk.kept(other.asked.rpartition("/")[2])
            over = other.status()
        if over is not None:
            disk.gone(disk.node(over), over, other.name, other.dir_fd)
        real.rename(one.name, other.name, src_dir_fd=one.dir_fd, dst_dir_fd=other.dir_fd)
        assert status is not None
        node = disk.node(status)
        if over is not None and over.st_ino == status.st_ino:
            return
        replaced = None if over is None else disk.node(over)
        source, target = one.above(), other.above()
        disk.volatile.change(disk.seconds(), (target, other.last, replaced, node), (source, one.last, node, None))
        self._moved(disk, source, target, node)

    def _moved(self, disk: Disk, *nodes: Node) -> None:
        now = disk.now_ns()
        for node in nodes[:2]:
            node.mtime = now
        for node in nodes:
            node.ctime = now

    def swapped(self, one: Place, other: Place, swap: Callable[[], bool]) -> bool:
        """Swaps two names by the call ``swap``."""
        disk, first, second = one.disk, one.status(), other.status()
        if not swap():
            return False
        assert first is not None and second is not None
        a, b, source, target = disk.node(first), disk.node(second), one.above(), other.above()
        disk.volatile.change(disk.seconds(), (source, one.last, a, b), (target, other.last, b, a))
        self._moved(disk, source, target, a, b)
        return True

    def link(
        self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> None:
        one, other = self.of(src, src_dir_fd), self.of(dst, dst_dir_fd)
        if one is None or other is None:
            real.link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
            return
        disk = one.disk
        disk.step("link", other.whole, grows=True)
        real.link(one.name, other.name, src_dir_fd=one.dir_fd, dst_dir_fd=other.dir_fd, follow_symlinks=follow_symlinks)
        status = other.status()
        assert status is not None
        self._named(other, disk.node(status))
        disk.node(status).ctime = disk.now_ns()
        disk.done()

    def symlink(self, src: Any, dst: Any, target_is_directory: bool = False, *, dir_fd: int | None = None) -> None:
        place = self.of(dst, dir_fd)
        if place is None:
            real.symlink(src, dst, target_is_directory, dir_fd=dir_fd)
            return
        place.disk.step("link", place.whole, grows=True)
        real.symlink(src, place.name, dir_fd=place.dir_fd)
        self._made(place)

    def _made(self, place: Place) -> None:
        status = place.status()
        assert status is not None
        self._named(place, place.disk.new_node(status))
        place.disk.done()

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        place = self.of(path, dir_fd)
        if place is None:
            real.mkdir(path, mode, dir_fd=dir_fd)
            return
        if place.status() is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place.whole)
        place.disk.step("mkdir", place.whole, grows=True)
        real.mkdir(place.name, mode, dir_fd=place.dir_fd)
        self._made(place)

    def _taking(name: str) -> Callable[..., None]:  # type: ignore[misc]
        call = getattr(real, name)

        def take(self: Kernel, path: Any, *, dir_fd: int | None = None) -> None:
            place = self.of(path, dir_fd)
            if place is None:
                call(path, dir_fd=dir_fd)
                return
            disk, status = place.disk, place.status()
            if status is not None:
                disk.step(name, place.whole)
                disk.gone(disk.node(status), status, place.name, place.dir_fd)
            call(place.name, dir_fd=place.dir_fd)
            assert status is not None
            above, node = place.above(), disk.node(status)
            disk.volatile.change(disk.seconds(), (above, place.last, node, None))
            node.ctime = above.mtime = above.ctime = disk.now_ns()
            disk.done()

        return take

    unlink, rmdir = _taking("unlink"), _taking("rmdir")

    # ---- permissions and times

    def _changing(name: str, kind: str) -> Callable[..., None]:  # type: ignore[misc]
        call = getattr(real, name)

        def change(self: Kernel, path: Any, *args: Any, dir_fd: int | None = None, **more: Any) -> None:
            held = self.held(path) if isinstance(path, int) else None
            place = None if isinstance(path, int) else self.of(path, dir_fd)
            if held is None and place is None:
                call(path, *args, **({"dir_fd": dir_fd} if dir_fd is not None else {}), **more)
                return
            disk, whole = (held.disk, held.whole) if held else (place.disk, place.whole)  # type: ignore[union-attr]
            disk.step(kind, whole)
            fd = path if held else real.open(place.name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=place.dir_fd)  # type: ignore[union-attr]
            try:
                node = disk.node(real.fstat(fd))
                disk.changing(node, fd)
                self._change(disk, node, fd, kind, args, more)
            finally:
                if not held:
                    real.close(fd)
            disk.done()

        return change

    def _change(self, disk: Disk, node: Node, fd: int, kind: str, args: Any, more: Any) -> None:
        if kind == "utime":
            now = disk.now_ns()
            ns = more.get("ns") or ([int(time * 1e9) for time in args[0]] if args and args[0] else (now, now))
            node.mtime = ns[1]
        elif kind == "chmod":
            mode = args[0] if args else more["mode"]
            real.fchmod(fd, mode & ~0o111 | stat.S_IMODE(real.fstat(fd).st_mode) & 0o111 if disk.traits.no_exec else mode)
        else:
            real.fchown(fd, *args)
        node.ctime = disk.now_ns()

    fchmod, chmod, fchown = _changing("fchmod", "chmod"), _changing("chmod", "chmod"), _changing("fchown", "chown")
    chown, utime = _changing("chown", "chown"), _changing("utime", "utime")

    # ---- looking

    def stat(self, path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if isinstance(path, int):
            return self.fstat(path)
        place = self.of(path, dir_fd)
        if place is None:
            found: os.stat_result = real.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
            return found
        return place.disk.shown(real.stat(place.name, dir_fd=place.dir_fd, follow_symlinks=follow_symlinks))

    def lstat(self, path: Any, *, dir_fd: int | None = None) -> os.stat_result:
        return self.stat(path, dir_fd=dir_fd, follow_symlinks=False)

    def fstat(self, fd: int) -> os.stat_result:
        held = self.fds.get(fd)
        found: os.stat_result = real.fstat(fd)
        return found if held is None else held.disk.shown(found)

    def _listed(self, path: Any) -> tuple[Disk | None, Any]:
        if isinstance(path, int):
            held = self.held(path)
            if held is not None:
                held.disk.look("list", held.whole)
            return (None if held is None else held.disk), path
        place = self.of(path)
        if place is None:
            return None, path
        place.disk.look("list", place.whole)
        return place.disk, place.name

    def listdir(self, path: Any = ".") -> list[str]:
        disk, path = self._listed(path)
        found: list[str] = real.listdir(path)
        return found if disk is None else sorted(found)

    def scandir(self, path: Any = ".") -> Any:
        disk, path = self._listed(path)
        return real.scandir(path) if disk is None else Entries(disk, path)

    def readlink(self, path: Any, *, dir_fd: int | None = None) -> Any:
        place = self.of(path, dir_fd)
        return real.readlink(path, dir_fd=dir_fd) if place is None else real.readlink(place.name, dir_fd=place.dir_fd)

    def access(self, path: Any, mode: int, *, dir_fd: int | None = None, **more: Any) -> bool:
        place = None if isinstance(path, int) else self.of(path, dir_fd)
        if place is None:
            return bool(real.access(path, mode, dir_fd=dir_fd, **more))
        return bool(real.access(place.name, mode, dir_fd=place.dir_fd, **more))

    def statvfs(self, path: Any) -> os.statvfs_result:
        held = self.held(path) if isinstance(path, int) else self.of(path)
        if held is None:
            found: os.statvfs_result = real.statvfs(path)
            return found
        if isinstance(held, Place) and held.status() is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), held.whole)
        return held.disk.statvfs()

    fstatvfs = statvfs


class Entries:
    """What ``os.scandir`` gives, in the order of the names."""

    def __init__(self, disk: Disk, path: Any) -> None:
        with real.scandir(path) as entries:
            self._entries = iter(sorted((Entry(disk, entry) for entry in entries), key=lambda one: one.name))

    def __iter__(self) -> Iterator[Entry]:
        return self._entries

    def __next__(self) -> Entry:
        return next(self._entries)

    def __enter__(self) -> Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


class Entry:
    """One of them."""

    __slots__ = ("_disk", "_real", "name", "path")

    def __init__(self, disk: Disk, real_entry: Any) -> None:
        self._disk, self._real, self.name, self.path = disk, real_entry, real_entry.name, real_entry.path

    def __fspath__(self) -> str:
        return str(self.path)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return self._disk.shown(self._real.stat(follow_symlinks=follow_symlinks))

    def inode(self) -> int:
        return self.stat(follow_symlinks=False).st_ino

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return bool(self._real.is_dir(follow_symlinks=follow_symlinks))

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return bool(self._real.is_file(follow_symlinks=follow_symlinks))

    def is_symlink(self) -> bool:
        return bool(self._real.is_symlink())
