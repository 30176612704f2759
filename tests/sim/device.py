"""The disk beneath a simulated machine: real files of a memory disk, and a model of what of them a power cut would leave.

What a power cut leaves: names are durable once their folder was synced, bytes once their file was, each independent of the other. Of
what was not synced each part may be there or not (see ``volatile``). SQLite's files are durable as they stand: they are written with
synchronous=FULL, which is checked at each commit. ``WRITEBACK_S`` after a change the system has written it by itself.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.sim.backup import Backup, put, taken
from tests.sim.real import real
from tests.sim.volatile import Image, Node, Volatile
from tests.sim.wreck import rebuild

WRITEBACK_S = 30.0
_NANO = 1_000_000_000
_SIZE = 1 << 40
"""Bytes of every modelled disk; half of them are free until it is full."""


class Killed(BaseException):
    """The process is gone at this step, and perhaps the whole machine."""


@dataclass(frozen=True)
class Traits:
    """What kind of disk it is."""

    coarse_s: float = 0.0
    casefold: bool = False
    nfd: bool = False
    no_swap: bool = False
    no_noreplace: bool = False
    no_lease: bool = False
    no_exec: bool = False


@dataclass
class _Failing:
    error: int
    skip: int
    count: int
    only: str | None
    where: str | None


@dataclass(eq=False)
class Held:
    """An open descriptor: of what, by which life of the machine, by the product or by a program of people's."""

    disk: Disk
    node: Node
    whole: str
    life: int
    by_product: bool
    counts: bool
    """Whether it keeps others from a lease."""
    writes: bool = False
    """Whether it may be written to by this descriptor."""


@dataclass(eq=False)
class Program:
    """A program of somebody's that has a file open."""

    name: str
    pid: int
    fds: list[int]


class Disk:
    """The disk with everything below ``root``. ``seconds`` tells when writing back is due, ``now_ns`` the wall clock."""

    _devices = 0

    def __init__(self, root: Path, chance: random.Random, traits: Traits | None = None) -> None:
        self.root, self.chance, self.traits = os.path.realpath(root), chance, traits or Traits()
        self.steps = 0
        self.on_step: Callable[[str, str], None] | None = None
        self.now_ns: Callable[[], int] = time.time_ns
        self.seconds: Callable[[], float] = time.monotonic
        self.device = 0x1000 + sum(map(ord, self.root[-3:]))
        self.dead = False
        self.changes = 0
        """Grows with each change outside of the daemon's state, by whomever it is made."""
        self.serving = True
        self.life = 0
        self.volatile = Volatile()
        self.nodes: dict[int, Node] = {}
        self.fds: dict[int, Held] = {}
        self.programs: dict[str, Program] = {}
        self.connections: set[Any] = set()
        self.numbers = 100
        self._kill: tuple[int, bool] | None = None
        self._failing: list[_Failing] = []
        self._is_full = False
        self.away: dict[str, str] = {}
        self._state = f"{self.root}/state/"
        self._folds = self.traits.casefold or self.traits.nfd
        self._coarse = int(self.traits.coarse_s * _NANO) or 1

    # ---- what a run asks of it

    def kill_at(self, step: int | None, *, after: bool = False) -> None:
        """Be killed at the ``step``-th step from now (0: the next one), before or after it is done; None: not at all."""
        self._kill = None if step is None else (self.steps + step, after)

    def fail(self, error: int, *, at: int, count: int = 1, only: str | None = None, where: Path | None = None) -> None:
        """From the ``at``-th call from now (0: the next one), ``count`` calls fail; of the kind ``only``, else of any, reading included;
        those at the path ``where``, else anywhere.
        """
        self._failing.append(_Failing(error, at, count, only, None if where is None else str(where)))

    def mend(self, where: Path) -> None:
        """Calls at this path do not fail any more."""
        self._failing = [failing for failing in self._failing if failing.where != str(where)]

    def full(self, yes: bool) -> None:
        """There is no room any more, or there is again."""
        self._is_full = yes

    def free(self) -> int:
        """Bytes that may still be written."""
        return 0 if self._is_full else _SIZE // 2

    def heal(self) -> None:
        """Nothing fails any more, nobody is killed, what was unmounted is back."""
        self._kill, self._failing, self._is_full = None, [], False
        for path in list(self.away):
            self.mount(Path(path))

    def settle(self) -> None:
        """Everything has reached the disk."""
        self.volatile.settle(float("inf"))

    @contextmanager
    def program(self) -> Iterator[None]:
        """What happens within the block is done by people's programs: no step, and nothing fails."""
        before, self.serving = self.serving, False
        try:
            yield
        finally:
            self.serving = before

    looking = program
    """Within the block somebody looks from outside of the run."""

    def opened(self, path: Path, program: str) -> None:
        """A program opens the file, and keeps it open."""
        known = self.programs.setdefault(str(path), Program(program, 7000 + len(self.programs), []))
        known.fds.append(real.open(path, os.O_RDONLY))

    def closed(self, path: Path) -> None:
        """It closes it."""
        known = self.programs.pop(str(path), None)
        for fd in known.fds if known else ():
            real.close(fd)

    def crash(self) -> None:
        """A power cut: below the root then stands what one may leave. The process is gone; people open again what they had open."""
        programs = {path: program.name for path, program in self.programs.items()}
        for path in programs:
            self.closed(Path(path))
        self.volatile.settle(self.seconds() - WRITEBACK_S)
        rebuild(self)
        self.relist()
        for path, name in programs.items():
            with suppress(OSError):
                self.opened(Path(path), name)
        self._start_anew(everybody=True)

    def lose_process(self) -> None:
        """The process is gone, the system is not: what was written stays."""
        for connection in list(self.connections):
            connection.close()
        self._start_anew(everybody=False)

    def unmount(self, path: Path) -> None:
        """The disk that is mounted at ``path`` goes away; the empty mount point is of another disk; what is open fails."""
        hidden = f"{self.root}.away-{len(self.away)}"
        gone = self._nodes_below(str(path))
        self.volatile.settle_below(gone)
        for node in gone:
            node.away = True
        real.rename(path, hidden)
        real.mkdir(path)
        self.relist()
        self.node(real.stat(path)).device = self.device + 0x10000
        self.away[str(path)] = hidden

    def mount(self, path: Path) -> None:
        """It comes back, over whatever was put into the mount point meanwhile."""
        hidden = self.away.pop(str(path), None)
        if hidden is None:
            return
        with self.program():
            shutil.rmtree(path)
        self.volatile.settle(float("inf"))
        real.rename(hidden, path)
        self.relist()
        for node in self._nodes_below(str(path)):
            node.away = False

    def copy(self) -> Backup:
        """A backup of all."""
        return taken(self.root)

    def restore(self, backup: Backup, *, only: str | None = None) -> None:
        """Everything, or all below the folder ``only``, is replaced by what the backup holds; nobody may be at work meanwhile."""
        self.volatile.settle(float("inf"))
        with self.program():
            put(backup, self.root, only or "")
        self.volatile.settle(float("inf"))

    # ---- each call

    def step(self, kind: str, whole: str, grows: bool = False) -> None:
        """Before something is changed or made durable. Raises: Killed, OSError."""
        changes = not whole.startswith(self._state)
        if not self.serving:
            self.changes += changes
            return
        if self.dead:
            raise Killed
        self.steps += 1
        if self._failing or (grows and self._is_full):
            self._fail(kind, whole, grows)
        if self.on_step is not None:
            self.on_step(kind, whole[len(self.root) + 1 :])
        if self._kill is not None and self.steps > self._kill[0] and not self._kill[1]:
            self._die()
        self.changes += changes  # last: who looked at what was there before has not seen this

    def done(self) -> None:
        """After it is done."""
        if self._kill is not None and self.serving and self.steps > self._kill[0]:
            self._die()

    def look(self, kind: str, whole: str) -> None:
        """Before something is only read. Raises: Killed, OSError."""
        if self.serving:
            if self.dead:
                raise Killed
            if self._failing:
                self._fail(kind, whole, False)

    def _die(self) -> None:
        self.dead, self._kill = True, None
        raise Killed

    def _fail(self, kind: str, whole: str, grows: bool) -> None:
        if grows and self._is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), whole)
        for failing in list(self._failing):
            if (failing.only is not None and failing.only != kind) or (failing.where is not None and failing.where != whole):
                continue
            if failing.skip > 0:
                failing.skip -= 1
                continue
            failing.count -= 1
            if failing.count <= 0:
                self._failing.remove(failing)
            raise OSError(failing.error, os.strerror(failing.error), whole)

    # ---- files and their times

    def node(self, status: os.stat_result) -> Node:
        """What is known of the file with this real status."""
        found = self.nodes.get(status.st_ino)
        return found if found is not None else self.new_node(status)

    def new_node(self, status: os.stat_result) -> Node:
        """The same for a file that was just made: another one may have had its inode before."""
        self.numbers += 1
        made = self.nodes[status.st_ino] = Node(self.numbers, status.st_mode, self.now_ns())
        return made

    def written(self, node: Node, fd: int) -> None:
        """The open file is about to be written to."""
        self.changing(node, fd)
        node.mtime = node.ctime = self.now_ns()
        node.seen = None

    def changing(self, node: Node, fd: int) -> None:
        """The content, the permissions or the times of the open file are about to change."""
        if node.old is None and not node.is_folder and not node.is_database:
            status = real.fstat(fd)
            self.volatile.touch(node, self.seconds(), Image(content(fd, status.st_size), status.st_mode & 0o7777, node.mtime))

    def gone(self, node: Node, status: os.stat_result, name: Any, dir_fd: int | None) -> None:
        """The plain file is about to lose the name; with its last one its content would be gone as well."""
        if stat.S_ISLNK(status.st_mode):
            node.last = Image(os.fsencode(real.readlink(name, dir_fd=dir_fd)), status.st_mode, node.mtime)
        elif status.st_nlink == 1 and not node.is_folder:
            with suppress(OSError):
                fd = real.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)
                node.last = Image(content(fd, status.st_size), status.st_mode & 0o7777, node.mtime)
                real.close(fd)

    def shown(self, status: os.stat_result) -> os.stat_result:
        """The status as this disk shows it."""
        node = self.nodes.get(status.st_ino) or self.new_node(status)
        coarse = self._coarse
        mtime, ctime = node.mtime - node.mtime % coarse, node.ctime - node.ctime % coarse
        mode = status.st_mode
        if self.traits.no_exec and not node.is_folder:
            mode |= (mode & 0o444) >> 2
        return os.stat_result((
            mode, node.number, node.device or self.device, status.st_nlink, status.st_uid, status.st_gid, status.st_size,
            mtime // _NANO, mtime // _NANO, ctime // _NANO, mtime / 1e9, mtime / 1e9, ctime / 1e9, mtime, mtime, ctime,
            4096, status.st_blocks, 0,
        ))  # fmt: skip

    def statvfs(self) -> os.statvfs_result:
        """The room that there is, as ``os.statvfs`` tells it."""
        free = self.free() // 4096
        return os.statvfs_result((4096, 4096, _SIZE // 4096, free, free, 1 << 30, 1 << 29, 1 << 29, 0, 255))

    # ---- names

    def spelled(self, path: Path) -> Path:
        """The path with the names that the disk has, or would give it."""
        return Path(self.alias(str(path), None))

    def alias(self, name: str, dir_fd: int | None) -> str:
        """The name, or whole path, under which the disk has what is asked for, or would make it."""
        if not self._folds:
            return name
        if not name.startswith("/"):
            return self._alias(dir_fd, name)
        whole = self.root
        for part in name[len(self.root) :].split("/"):
            whole = f"{whole}/{self._alias(whole, part)}" if part else whole
        return whole

    def _alias(self, folder: Any, name: str) -> str:
        try:
            there = real.listdir(f"/proc/self/fd/{folder}" if isinstance(folder, int) else folder)
        except OSError:
            there = []
        if name in there or name in (".", ".."):
            return name
        wanted = self._folded(name)
        found = next((one for one in sorted(there) if self._folded(one) == wanted), None)
        return found or self.kept(name)

    def kept(self, name: str) -> str:
        """The form in which the disk keeps a new name."""
        return unicodedata.normalize("NFD", name) if self.traits.nfd else name

    def _folded(self, name: str) -> str:
        plain = unicodedata.normalize("NFC", name)
        return unicodedata.normalize("NFC", plain.casefold()) if self.traits.casefold else plain

    def relist(self) -> None:
        """What stands where has changed in a way that no call tells of."""
        self.changes += 1
        for node in self.nodes.values():
            node.listed = None

    def tree(self, path: str, name: str) -> dict[str, bytes | None]:
        """What stands at and below a path, as people see it: names, composed, to contents; None for folders."""
        try:
            status = real.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found: dict[str, bytes | None] = {}
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            self._collect(self.node(status), path, name, found)
        return found

    def _collect(self, node: Node, path: str, name: str, found: dict[str, bytes | None]) -> None:
        if not node.is_folder:
            found[name] = self._seen(node, path)
            return
        found[name] = None
        if node.listed is None:
            node.listed = self._list(path)
        for one, shown, below in node.listed:
            self._collect(below, f"{path}/{one}", f"{name}/{shown}", found)

    def _list(self, path: str) -> list[tuple[str, str, Node]]:
        found = []
        for one in sorted(real.listdir(path)):
            status = real.lstat(f"{path}/{one}")
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                found.append((one, unicodedata.normalize("NFC", one), self.node(status)))
        return found

    def _seen(self, node: Node, path: str) -> bytes:
        if node.seen is None or node.is_database:
            fd = real.open(path, os.O_RDONLY)
            node.seen = content(fd, real.fstat(fd).st_size)
            real.close(fd)
        return node.seen

    # ---- the end of a life

    def _start_anew(self, *, everybody: bool) -> None:
        self.dead, self._kill = False, None
        self.changes += 1
        before, self.life = self.life, self.life + 1
        self.connections.clear()
        for fd, held in self.fds.items():
            if held.disk is not self:
                continue
            if held.by_product:
                with suppress(OSError):
                    real.flock(fd, 8)
            elif not everybody and held.life == before:
                held.life = self.life

    def _nodes_below(self, path: str) -> set[Node]:
        found = {self.node(real.lstat(path))}
        with real.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found |= self._nodes_below(entry.path)
                else:
                    found.add(self.node(real.lstat(entry.path)))
        return found


def content(fd: int, size: int) -> bytes:
    """The first ``size`` bytes of the open file, which need not be open for reading."""
    try:
        return bytes(real.pread(fd, size, 0)) if size else b""
    except OSError:
        again = real.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        try:
            return bytes(real.pread(again, size, 0))
        finally:
            real.close(again)
