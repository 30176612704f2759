"""One daemon per home: a lock that the system itself releases when the process ends, however it ends.

``flock(2)`` on ``daemon.lock``, which holds the pid for people to read and is never removed (removing it would let two processes
each lock their own). Windows would need ``msvcrt.locking`` on the same file.
"""

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from p2psync.store.faults import write_fault
from p2psync.values.errors import UserError

_PID_BYTES = 32


class AlreadyRunning(UserError):
    """Another p2psync (process {pid}) already works on {home}. Stop that one first, or give this one its own --home."""


class HomeLock:
    """The right to work on the state directory ``home``; a context manager. Holding it is what makes stale sockets ours to remove.

    Raises:
        AlreadyRunning: another process holds it.
        DiskFull, CannotWrite: the lock file cannot be made.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / "daemon.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise write_fault(error, self.path) from error
        try:
            self._take(home)
        except BaseException:
            os.close(self._fd)
            raise

    def _take(self, home: Path) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                pid = os.pread(self._fd, _PID_BYTES, 0).decode("ascii", "replace").strip()
                raise AlreadyRunning(pid=pid if pid.isdecimal() else "unknown", home=home) from None
            raise write_fault(error, self.path) from error

    def release(self) -> None:
        """Gives the home free; harmless when done twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "HomeLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
