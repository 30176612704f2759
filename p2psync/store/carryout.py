"""Carrying out one step on the user's files, in this order: look, keep, make durable, look again, rename, make the names durable.

Promises: at every instant, and after a crash at any, a path holds the old version or the new one as a whole. What is replaced or taken
away is exactly what the plan was based on (``expected``), nobody has it open, and ``keep`` has had it first. Whatever fails, fails with
the user's file as it was and the new version still waiting beside it. Recording that a step was done is the caller's, afterwards.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from p2psync.store import openfiles
from p2psync.store.durable import sync_disk, sync_file, sync_folder
from p2psync.store.faults import write_fault, writing
from p2psync.store.root import Folders, NameTaken, NoPlainFile, Parts, Root, name_fault, open_at, stamp_at, stamp_of
from p2psync.store.staging import Sealed
from p2psync.store.swap import BusyFile, ChangedMeanwhile, put_new, put_over, same_file, take_away
from p2psync.values.content import Stamp
from p2psync.values.errors import BadName, MandateError, P2psyncError
from p2psync.values.names import PREFIX, escaped

__all__ = [
    "BusyFile",
    "ChangedMeanwhile",
    "Keep",
    "NameTaken",
    "Put",
    "StagedGone",
    "move_aside",
    "put_file",
    "put_files",
    "remove_file",
    "remove_folder",
]

Keep: TypeAlias = Callable[[int], None]
"""Is given the old file, open for reading, and returns when its content will not be lost with it."""

_MANY, _MANY_FOLDERS = 64, 8
"""Files, and folders with new names in them, for which the disk as a whole is made durable, at the price of waiting for what others have
written to it."""


class StagedGone(MandateError):
    """What was fetched for “{path}” is not where it was put. It is fetched again."""


@dataclass(frozen=True, slots=True)
class Put:
    """A whole version for a path, in place of what ``expected`` tells, or of nothing. ``keep`` is given the old file first.

    ``aside``: the old file stays, under this name in the root itself, where the disk can swap names (store/keptfiles).
    """

    parts: Parts
    sealed: Sealed
    expected: Stamp | None = None
    keep: Keep | None = None
    aside: str | None = None


def put_file(root: Root, parts: Parts, sealed: Sealed, expected: Stamp | None, keep: Keep | None = None) -> Stamp:
    """Puts one whole version in its place; the stamp of what now stands there.

    Raises:
        ChangedMeanwhile, BusyFile, StagedGone, RootGone, FolderGone, LinkInTheWay, CannotRead, CannotWrite, DiskFull, DiskFailing, and what
        ``keep`` raises: the path holds what it held before.
    """
    (outcome,) = put_files(root, [Put(parts, sealed, expected, keep)])
    if isinstance(outcome, Stamp):
        return outcome
    raise outcome


def put_files(root: Root, puts: Sequence[Put], kept: Callable[[], None] | None = None) -> list[Stamp | P2psyncError]:
    """As ``put_file`` for many paths, of which each succeeds or fails by itself; in their order, the stamp or the error.

    All are made durable, then all old files kept, then all renamed, then each folder made durable once. ``kept`` is called before the
    first rename, for a caller whose ``keep`` only collects. Fastest when the paths of one folder come together.

    Raises:
        Whatever ``kept`` raises: nothing has been renamed then.
    """
    steps = [_Step(put, root) for put in puts]
    with root.folders() as folders:
        _each(steps, _dress, folders)
        _each(steps, partial(_make_durable, _sync_disks(steps, folders)), folders)
        _each(steps, _keep_old, folders)
        if kept is not None:
            kept()
        _each(steps, _rename, folders)
        _sync_folders(steps, folders)
        _each(steps, _drop_old, folders)
    return [step.outcome() for step in steps]


def remove_file(root: Root, parts: Parts, expected: Stamp, keep: Keep | None = None) -> None:
    """Removes the file that ``expected`` tells, after ``keep`` has had it.

    Raises:
        As ``put_file``: the path then holds what it held before.
    """
    shown = root.shown(parts)
    with root.folders() as folders, writing(shown):
        folder = folders(parts[:-1])
        _look_and_keep(folders, parts, expected, keep)
        gone = f"{PREFIX}-{secrets.token_hex(16)}.gone"
        take_away(folder, parts[-1], gone, expected, shown)
        with suppress(OSError):  # what is left is swept away another time
            os.unlink(gone, dir_fd=folder)
        sync_folder(folder)


def move_aside(root: Root, parts: Parts, new_name: str, expected: Stamp) -> Stamp:
    """Renames the file that ``expected`` tells within its folder, never over anything; its stamp afterwards.

    Raises:
        NameTaken: something stands at ``new_name``. Otherwise as ``put_file``: the path then holds what it held before.
    """
    if name_fault(new_name):
        raise BadName(name=escaped(new_name), why="it is no single name")
    shown = root.shown(parts)
    with root.folders() as folders, writing(shown):
        folder = folders(parts[:-1])
        _look_and_keep(folders, parts, expected, None)
        try:
            take_away(folder, parts[-1], new_name, expected, shown)
        except FileExistsError:
            raise NameTaken(path=root.shown((*parts[:-1], new_name))) from None
        sync_folder(folder)
        now = stamp_at(folder, new_name)
        return now if now and same_file(now, expected) else expected


def remove_folder(root: Root, parts: Parts) -> bool:
    """Removes the folder, durably; False, and nothing done, when something is in it. One that is gone already is removed.

    Raises:
        RootGone, LinkInTheWay, CannotWrite, DiskFailing: nothing was removed.
    """
    with root.dir_fd(parts[:-1]) as folder, writing(root.shown(parts)):
        try:
            os.rmdir(parts[-1], dir_fd=folder)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        sync_folder(folder)
    return True


@dataclass(slots=True)
class _Step:
    """One ``Put`` on its way: what is known of it so far, or what went wrong with it."""

    put: Put
    root: Root
    ready: Stamp | None = None  # of the new version, when it was durable
    displaced: bool = False  # the old version stands under the name of the staged one
    stands: Stamp | None = None
    fault: P2psyncError | None = None

    @property
    def shown(self) -> str:
        return self.root.shown(self.put.parts)

    def outcome(self) -> Stamp | P2psyncError:
        result = self.fault or self.stands
        assert result is not None
        return result


def _each(steps: list[_Step], phase: Callable[[_Step, Folders], None], folders: Folders) -> None:
    for step in steps:
        if step.fault is None:
            try:
                phase(step, folders)
            except P2psyncError as error:
                step.fault = error
            except OSError as error:
                step.fault = write_fault(error, step.shown)


def _dress(step: _Step, folders: Folders) -> None:
    if step.put.sealed.dressed:
        return
    fd = _open_sealed(step, folders)
    try:
        old = _status(folders(step.put.parts[:-1]), step.put.parts[-1]) if step.put.expected else None
        dress(fd, step.put.sealed, os.fstat(fd), os.fstat(folders(step.put.parts[:-1])), old)
    finally:
        os.close(fd)


def dress(fd: int, sealed: Sealed, now: os.stat_result, around: os.stat_result, old: os.stat_result | None = None) -> None:
    """Gives the new version, whose status is ``now``, the permissions and the owner of the ``old`` one, or those that the folder suggests;
    and its date.
    """
    if old or os.geteuid() == 0:
        _change_owner(fd, now, old or around)
    mode = _mode_after(old, fd, around) if old else new_mode(around)
    mode = mode | (mode & 0o444) >> 2 if sealed.executable else mode & ~0o111
    if mode != stat.S_IMODE(now.st_mode):
        with suppress(PermissionError, NotImplementedError):  # FAT knows no permissions
            os.fchmod(fd, mode)
    if sealed.mtime_ns is not None:
        with suppress(OSError, OverflowError):  # a time that this disk cannot store
            os.utime(fd, ns=(sealed.mtime_ns, sealed.mtime_ns))


def new_mode(around: os.stat_result) -> int:
    """The permissions that a folder suggests for a new file in it that nobody runs."""
    return around.st_mode & 0o666 | 0o600


def _mode_after(old: os.stat_result, fd: int, around: os.stat_result) -> int:
    """The permissions of the old version; the group of a shared folder gets those of its owner, who is not the owner any more.

    Otherwise whoever saved the file last could not save it again.
    """
    mode = stat.S_IMODE(old.st_mode) & 0o777
    new = os.fstat(fd)
    if new.st_uid == old.st_uid or not around.st_mode & stat.S_IWGRP:
        return mode
    return mode | (mode & stat.S_IRWXU) >> 3 if new.st_gid == around.st_gid or _has_list(fd) else mode


def _has_list(fd: int) -> bool:
    """Whether the folder gave the file an access control list, of which the permissions of the group are the upper bound (acl(5))."""
    with suppress(OSError, AttributeError):  # AttributeError: macOS keeps its lists elsewhere
        return bool(os.getxattr(fd, "system.posix_acl_access"))
    return False


def _change_owner(fd: int, now: os.stat_result, like: os.stat_result) -> None:
    for uid, gid in ((like.st_uid, like.st_gid), (-1, like.st_gid)):
        if (now.st_uid if uid == -1 else uid, gid) == (now.st_uid, now.st_gid):
            return
        with suppress(OSError):  # only root may give a file away; its group may often be set
            os.fchown(fd, uid, gid)
            return


def _sync_disks(steps: list[_Step], folders: Folders) -> set[int]:
    """The disks (``st_dev``) that were made durable as a whole, which many files are worth."""
    done: set[int] = set()
    if len(steps) >= _MANY:
        for parts in {step.put.sealed.folder for step in steps if step.fault is None}:
            with suppress(P2psyncError):  # whoever needs the folder will meet the error again
                device = os.fstat(folders(parts)).st_dev
                if device not in done and sync_disk(folders(parts)):
                    done.add(device)
    return done


def _make_durable(synced: set[int], step: _Step, folders: Folders) -> None:
    sealed = step.put.sealed
    status = _status(folders(sealed.folder), sealed.name) if synced else None
    if status is not None and status.st_dev in synced and stat.S_ISREG(status.st_mode):
        _check_sealed(status, step)
        step.ready = stamp_of(status)
        return
    fd = _open_sealed(step, folders)
    try:
        sync_file(fd)
        step.ready = stamp_of(os.fstat(fd))
    finally:
        os.close(fd)


def _keep_old(step: _Step, folders: Folders) -> None:
    put = step.put
    if put.expected is not None:  # a new name is taken only where nothing stands
        _look_and_keep(folders, put.parts, put.expected, put.keep)


def _look_and_keep(folders: Folders, parts: Parts, expected: Stamp, keep: Keep | None) -> None:
    """Refuses what has changed or is open, and lets ``keep`` read the rest, which then must not have changed either."""
    folder, shown = folders(parts[:-1]), folders.root.shown(parts)
    if stamp_at(folder, parts[-1]) != expected:
        raise ChangedMeanwhile(path=shown)
    if by := openfiles.open_in(folder, parts[-1]):
        raise BusyFile(path=shown, by=by)
    if keep is None:
        return
    try:
        fd = folders.root.open_in(folder, parts)
    except (FileNotFoundError, BlockingIOError):
        raise ChangedMeanwhile(path=shown) from None
    try:
        keep(fd)
        if stamp_of(os.fstat(fd)) != expected:
            raise ChangedMeanwhile(path=shown)
    finally:
        os.close(fd)


def _rename(step: _Step, folders: Folders) -> None:
    put, sealed = step.put, step.put.sealed
    if sealed.folder == put.parts[:-1]:
        folder = folders(sealed.folder)
        _put_in_place(step, folder, folder)
        return
    with folders.root.dir_fd(sealed.folder) as source:
        _put_in_place(step, source, folders(put.parts[:-1]))


def _put_in_place(step: _Step, source: int, target: int) -> None:
    put, sealed = step.put, step.put.sealed
    found = stamp_at(source, sealed.name)
    if step.ready is None or found != step.ready:
        raise StagedGone(path=step.shown)
    if put.expected is None:
        put_new(source, sealed.name, target, put.parts[-1], step.shown)
    else:
        step.displaced = put_over(source, sealed.name, target, put.parts[-1], put.expected, step.shown)
    # Somebody may have saved over the new version already: then the stamp of the disk is not that of what was put there.
    stands = stamp_at(target, put.parts[-1])
    step.stands = stands if stands and same_file(stands, step.ready) else step.ready


def _sync_folders(steps: list[_Step], folders: Folders) -> None:
    done = [step for step in steps if step.fault is None]
    changed = dict.fromkeys(parts for step in done for parts in (step.put.parts[:-1], step.put.sealed.folder))
    synced = _sync_disks(done, folders) if len(changed) >= _MANY_FOLDERS else set()
    for parts in changed:
        try:
            with writing(folders.root.shown(parts)):
                folder = folders(parts)
                if os.fstat(folder).st_dev not in synced:
                    sync_folder(folder)
        except P2psyncError as error:
            for step in done:
                if parts in (step.put.parts[:-1], step.put.sealed.folder):
                    step.fault = error


def _drop_old(step: _Step, folders: Folders) -> None:
    if not step.displaced:
        return
    folder, old = folders(step.put.sealed.folder), step.put.sealed.name
    with suppress(OSError):  # what is left is swept away another time
        if step.put.aside is None:
            return os.unlink(old, dir_fd=folder)
        os.rename(old, step.put.aside, src_dir_fd=folder, dst_dir_fd=folders(()))
        sync_folder(folders(()))


def _open_sealed(step: _Step, folders: Folders) -> int:
    sealed = step.put.sealed
    try:
        fd = open_at(folders(sealed.folder), sealed.name)
    except (FileNotFoundError, BlockingIOError, NoPlainFile):
        raise StagedGone(path=step.shown) from None
    try:
        _check_sealed(os.fstat(fd), step)
    except StagedGone:
        os.close(fd)
        raise
    return fd


def _check_sealed(status: os.stat_result, step: _Step) -> None:
    """Refuses what is not, or not alone, the file that was sealed. Raises: StagedGone."""
    sealed = step.put.sealed
    if (status.st_ino, status.st_size, status.st_nlink) != (sealed.inode, sealed.content.size, 1):
        raise StagedGone(path=step.shown)


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
