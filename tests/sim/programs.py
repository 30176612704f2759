"""The programs that have files open, as the system tells of them: leases are refused, and /proc names who has a file open."""

from __future__ import annotations

import errno
import fcntl
import io
import os
from collections.abc import Callable
from typing import Any

from tests.sim.device import Program
from tests.sim.kernel import Kernel
from tests.sim.real import real

_UID = 54321


class Processes:
    """What /proc shows: ourselves, and the programs that were told of."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def _programs(self) -> dict[str, Program]:
        found: dict[str, Program] = {}
        for number, disk in enumerate(self.kernel.disks):
            found |= {str(program.pid + 100 * number): program for program in disk.programs.values()}
        return found

    def listdir(self, path: Any = ".") -> list[str]:
        if not isinstance(path, str) or not path.startswith("/proc"):
            return self.kernel.listdir(path)
        if path == "/proc":
            return [str(os.getpid()), *self._programs()]
        if path in ("/proc/self/fd", f"/proc/{os.getpid()}/fd"):
            return [str(fd) for fd, held in self.kernel.fds.items() if held.by_product]
        program = self._program(path)
        return self.kernel.listdir(path) if program is None else [str(fd) for fd in program.fds]

    def readlink(self, path: Any, *, dir_fd: int | None = None) -> Any:
        fd = self._descriptor(path)
        return self.kernel.readlink(path, dir_fd=dir_fd) if fd is None else real.readlink(f"/proc/self/fd/{fd}")

    def stat(self, path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if type(path) is not str or not path.startswith("/proc/"):
            return self.kernel.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        fd = self._descriptor(path)
        if fd is not None:
            status = real.fstat(fd)
            disk = next(disk for disk in self.kernel.disks if status.st_ino in disk.nodes)
            return disk.shown(status)
        if self._program(path) is not None:
            return os.stat_result((0o040555, 1, 3, 1, _UID, _UID, 0, 0, 0, 0))
        return self.kernel.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    def opening(self, opened: Callable[..., Any]) -> Callable[..., Any]:
        def open_(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            program = self._program(file) if type(file) is str and file.startswith("/proc/") else None
            if program is None:
                return opened(file, mode, *args, **more)
            text = {"comm": program.name, "maps": ""}[file.rpartition("/")[2]]
            return io.BytesIO(text.encode()) if "b" in mode else io.StringIO(text)

        return open_

    def _program(self, path: str) -> Program | None:
        return self._programs().get(path.split("/")[2])

    def _descriptor(self, path: Any) -> int | None:
        parts = path.split("/") if type(path) is str and path.startswith("/proc/") else []
        if len(parts) == 5 and parts[3] == "fd" and parts[2] in self._programs():
            return int(parts[4])
        return None

    # ---- leases

    def fcntl(self, fd: Any, command: int, arg: Any = 0) -> Any:
        held = self.kernel.fds.get(fd) if command in (fcntl.F_SETLEASE, fcntl.F_GETLEASE, fcntl.F_SETSIG) else None
        if held is None:
            return real.fcntl(fd, command, arg)
        if command == fcntl.F_GETLEASE:
            return fcntl.F_WRLCK
        if command == fcntl.F_SETLEASE and arg in (fcntl.F_WRLCK, fcntl.F_RDLCK):
            if held.disk.traits.no_lease:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            others = (one for number, one in self.kernel.fds.items() if number != fd and one.node is held.node)
            hinders = [one for one in others if one.life == one.disk.life and (one.writes if arg == fcntl.F_RDLCK else one.counts)]
            if hinders or (arg == fcntl.F_WRLCK and self._is_open(fd)):
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return 0

    def _is_open(self, fd: int) -> bool:
        inode = real.fstat(fd).st_ino
        programs = [program for disk in self.kernel.disks for program in disk.programs.values()]
        return any(real.fstat(one).st_ino == inode for program in programs for one in program.fds)
