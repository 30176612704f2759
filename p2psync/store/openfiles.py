"""Is a file open in some program on this machine, and in which? The one place for what each platform knows about that.

Linux, three sources. A write lease (``fcntl(2)``, F_SETLEASE) is granted only when nobody else has the file open, whether to read, to
write or as a live mapping, also under another name; it asks in microseconds and is given back at once. Where leases are refused
(another user's file, network disks) the descriptors in /proc say what this account may see. Lock files speak for programs that read a
file and close it: LibreOffice's ``.~lock.NAME#``, Microsoft Office's ``~$NAME``. A crashed program leaves its lock file behind: one that
names this machine counts only while a LibreOffice runs here, where every process can be seen; of any other nobody can tell from here.

What nobody can tell counts as not open. Our own descriptors never count: peers may be served from a file that is about to be replaced.

macOS has no leases: there only the lock files speak (``proc_pidinfo`` would have to be asked). Windows needs none of this: it refuses
to replace an open file, and that refusal (ERROR_SHARING_VIOLATION) is to become the same ``OpenBy``.
"""

import enum
import errno
import fcntl
import os
import pwd
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from p2psync.engine.ignore import lock_names
from p2psync.store.faults import reading
from p2psync.store.root import FolderGone, Root, open_at, stamp_at
from p2psync.values.names import escaped

_LOCK_FILE = 1024
"""Bytes read of a lock file: those of LibreOffice and Office have about 150."""
_MOST_HOLDERS = 1000


@dataclass(frozen=True, slots=True)
class OpenBy:
    """Who has a file open: ``who`` fit for a sentence, if known; ``since_ms`` since 1970, if known; ``how`` it was noticed.

    ``lock`` is the name of the lock file that says so, if one does.
    """

    who: str | None
    since_ms: int | None
    how: Literal["open", "lock file"]
    lock: str | None = None

    def __str__(self) -> str:
        return f"open in {self.who}" if self.who else "open in another program"


class Lease(enum.Enum):
    """What the system answers to “nobody else may open this for a moment”."""

    GRANTED = "nobody else has it open"
    REFUSED = "somebody has it open"
    UNKNOWN = "this file or this platform has no leases"


def is_open(root: Root, parts: tuple[str, ...]) -> OpenBy | None:
    """Who has the file at ``parts`` open; None when nobody does, when nobody can tell, and when there is no such file.

    Raises:
        RootGone, LinkInTheWay, NoPlainFile, CannotRead, DiskFailing.
    """
    try:
        with root.dir_fd(parts[:-1]) as folder, reading(root.shown(parts)):
            return open_in(folder, parts[-1])
    except FolderGone:
        return None


def open_in(folder: int, name: str) -> OpenBy | None:
    """As ``is_open``, for ``name`` in the open ``folder``.

    Raises:
        NoPlainFile, OSError: it cannot be looked at.
    """
    try:
        fd = open_at(folder, name)
    except FileNotFoundError:
        return None
    except BlockingIOError:  # its holder has a lease of its own
        return OpenBy(None, None, "open")
    except PermissionError:
        return locked(folder, name)
    try:
        return descriptor(fd, name) or locked(folder, name)
    finally:
        os.close(fd)


def descriptor(fd: int, name: str) -> OpenBy | None:
    """Who else has the open file ``fd`` open, which stands on disk as ``name``."""
    with held(fd) as lease:
        pass
    if lease is Lease.GRANTED:
        return None
    holder, complete = _holder(os.fstat(fd), name)
    if holder is not None or lease is Lease.UNKNOWN:
        return holder
    if _ours(os.fstat(fd)) == 1:
        return OpenBy(None, None, "open")  # by somebody whom we may not see
    # We have it open ourselves, for a peer that is being served, say. Were everybody else visible, that would settle it.
    return None if complete else OpenBy("p2psync itself, which is still reading it", None, "open")


def written(fd: int, name: str, *, fresh: bool) -> bool:
    """Whether somebody has the open file ``fd``, ``name`` on disk, open for writing, also as a live mapping; False when nobody can tell.

    It holds up nobody: readers do not come in the way of this lease, and it is given back at once. Where there are no leases, whoever has
    a file open that was written to just now (``fresh``) counts as who writes to it; to see that takes milliseconds.
    """
    lease = _take_lease(fd, for_reading=True)
    if lease is Lease.GRANTED:
        _give_back(fd)
    if lease is Lease.UNKNOWN and fresh:
        return _holder(os.fstat(fd), name)[0] is not None
    return lease is Lease.REFUSED


@contextmanager
def held(fd: int) -> Iterator[Lease]:
    """While this lasts, and was granted, nobody can open the file: their ``open`` waits. So it has to be short."""
    lease = _take_lease(fd)
    try:
        yield lease
    finally:
        if lease is Lease.GRANTED:
            _give_back(fd)


if sys.platform == "linux":
    _holders: dict[int, tuple[str]] = {}
    """Who was found to have a file open, by its inode. Only where to look first."""

    def _take_lease(fd: int, *, for_reading: bool = False) -> Lease:
        try:
            # Somebody who opens the file makes the kernel signal us, by default with SIGIO, which would end the process. SIGURG is
            # ignored where nobody asked for it.
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK if for_reading else fcntl.F_WRLCK)
        except OSError as error:
            return Lease.REFUSED if error.errno == errno.EAGAIN else Lease.UNKNOWN
        return Lease.GRANTED

    def _give_back(fd: int) -> None:
        with suppress(OSError):  # it was taken from us: we were slower than /proc/sys/fs/lease-break-time
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def awaited(fd: int) -> bool:
        """Whether somebody's ``open`` of the file already waits for the lease on ``fd`` that was granted."""
        try:
            return fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK
        except OSError:
            return False

    def _holder(wanted: os.stat_result, name: str) -> tuple[OpenBy | None, bool]:
        """The first process that has the file open, and whether every process could be looked at.

        The one that was found last time is asked first: what waits for a file asks again and again, and looking at all takes milliseconds.
        """
        complete = True
        for pid in [*_holders.get(wanted.st_ino, ()), *filter(str.isdecimal, os.listdir("/proc"))]:
            if int(pid) == os.getpid():
                continue
            try:
                if _has_open(pid, wanted, name):
                    if len(_holders) >= _MOST_HOLDERS:
                        _holders.clear()
                    _holders[wanted.st_ino] = (pid,)
                    return OpenBy(_program(pid), None, "open"), complete
            except PermissionError:
                complete = False
            except OSError:
                continue  # it has ended meanwhile
        return None, complete

    def _has_open(pid: str, wanted: os.stat_result, name: str) -> bool:
        # The names come first, since asking for the file behind a descriptor can hang on a dead network disk. Whoever opened the
        # file under another of its names goes unnamed, though not unnoticed.
        with suppress(FileNotFoundError):
            for entry in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{entry}"
                with suppress(FileNotFoundError):
                    if os.readlink(path).rpartition("/")[2] == name and _same_file(os.stat(path), wanted):
                        return True
            with open(f"/proc/{pid}/maps", "rb") as maps:
                mapped = (line.split(maxsplit=5) for line in maps)
                return any(len(row) == 6 and int(row[4]) == wanted.st_ino and _names(row[5], name) for row in mapped)
        return False

    def _names(path: bytes, name: str) -> bool:
        return path.rstrip(b"\n").rpartition(b"/")[2] == os.fsencode(name)

    def _ours(wanted: os.stat_result) -> int:
        """How many descriptors of this very process are of the file."""
        count = 0
        for entry in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                count += _same_file(os.fstat(int(entry)), wanted)
        return count

    def _runs(*programs: str) -> bool:
        """Whether a program whose name begins so runs on this machine; also when other users' processes are hidden from us."""
        if not os.path.exists("/proc/1/comm"):  # the first process is always there
            return True
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:
                if file.read().startswith(tuple(map(os.fsencode, programs))):
                    return True
        return False

    def _program(pid: str) -> str:
        """“soffice.bin (process 1234 of anna)”."""
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                program = escaped(file.read().strip())
            return f"{program} (process {pid} of {_user(os.stat(f'/proc/{pid}').st_uid)})"
        except OSError:
            return f"process {pid}"

else:

    def _take_lease(fd: int, *, for_reading: bool = False) -> Lease:
        return Lease.UNKNOWN

    def _give_back(fd: int) -> None:
        raise AssertionError("no lease was granted")

    def awaited(fd: int) -> bool:
        """Whether somebody's ``open`` of the file already waits for the lease on ``fd`` that was granted."""
        raise AssertionError("no lease was granted")

    def _holder(wanted: os.stat_result, name: str) -> tuple[OpenBy | None, bool]:
        return None, False

    def _ours(wanted: os.stat_result) -> int:
        return 0

    def _runs(*programs: str) -> bool:
        """Whether such a program runs on this machine, which nobody can tell here."""
        return True


def _same_file(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _user(uid: int) -> str:
    try:
        return escaped(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return f"user {uid}"


def locked(folder: int, name: str) -> OpenBy | None:
    """Who says by a lock file that ``name`` in the open ``folder`` is open. What a lock file says is not checked, only bounded.

    Raises:
        OSError: it cannot be told.
    """
    libreoffice, *office = lock_names(name)
    found = _lock_file(folder, libreoffice)
    if found and not _left_behind(found):
        return _libreoffice(libreoffice, found)
    for lock in office:
        found = _lock_file(folder, lock)
        if found:
            return OpenBy(_office_owner(found.data) or "an Office program", found.written_ms, "lock file", lock)
    return None


@dataclass(frozen=True, slots=True)
class _Found:
    """The beginning of a lock file, when it was written (milliseconds since 1970), and whether surely no machine has it open now."""

    data: bytes
    written_ms: int
    closed: bool = False


def _lock_file(folder: int, name: str) -> _Found | None:
    try:
        stamp = stamp_at(folder, name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # then no program can have made it
            return None
        raise
    if stamp is None or stamp.kind != "file":
        return None
    try:
        fd = open_at(folder, name)
    except OSError:
        return _Found(b"", stamp.mtime_ns // 1_000_000)  # it may not be read, and is there all the same
    try:
        with held(fd) as lease:
            return _Found(os.pread(fd, _LOCK_FILE, 0), stamp.mtime_ns // 1_000_000, lease is Lease.GRANTED)
    finally:
        os.close(fd)


def _left_behind(lock: _Found) -> bool:
    """Whether LibreOffice made this lock file on this very machine (on a disk of its own, hence leases) and runs here no more."""
    _name, _user, host = (*_fields(lock.data.decode("utf-8", "replace")), "", "")[:3]
    return lock.closed and host == os.uname().nodename and not _runs("soffice", "oosplash")


def _libreoffice(lock: str, found: _Found) -> OpenBy:
    """From ``NAME,USER,HOST,DD.MM.YYYY HH:MM,PROFILE;`` (LibreOffice, svl/source/misc/lockfilecommon.cxx)."""
    fields = _fields(found.data.decode("utf-8", "replace"))
    name, user, host, since = (*fields, "", "", "", "")[:4]
    person, since_ms = name or user, found.written_ms
    who = "LibreOffice" + (f" by {escaped(person)}" if person else "") + (f" on {escaped(host)}" if host else "")
    with suppress(ValueError, OverflowError):
        since_ms = int(datetime.strptime(since, "%d.%m.%Y %H:%M").timestamp() * 1000)
    return OpenBy(who, since_ms, "lock file", lock)


def _fields(text: str) -> list[str]:
    """The fields before the first bare “;”, where a backslash takes the meaning from the character behind it."""
    fields, at = [""], 0
    while at < len(text) and text[at] != ";":
        if text[at] == ",":
            fields.append("")
        else:
            at += text[at] == "\\"
            fields[-1] += text[at : at + 1]
        at += 1
    return fields


def _office_owner(data: bytes) -> str:
    """The user's name: its length in the first byte, then so many bytes of the Windows code page of western Europe."""
    name = data[1 : 1 + data[0]] if data and data[0] <= 54 else b""
    return escaped(name.decode("cp1252", "replace").strip("\0 "))
