"""New folders below a root, each of which lets in whom the one around it lets in; many of them are made durable together.

To make one folder durable takes as long as to make a hundred: a commit of the file system's journal, which the disk itself is waited for.
"""

import os
import stat
from collections.abc import Sequence

from p2psync.store.durable import sync_disk, sync_folder
from p2psync.store.faults import reading, write_fault, writing
from p2psync.store.root import LinkInTheWay, NameTaken, Parts, Root, stamp_at
from p2psync.values.errors import MandateError, UserError

_MANY = 8
"""Folders with new names in them, for which the disk as a whole is made durable."""


def make_folders(root: Root, parts: Parts) -> None:
    """Makes the folder at ``parts`` and those above it, where they are missing, durably.

    Raises:
        RootGone, NameTaken, LinkInTheWay, CannotWrite, DiskFull, DiskFailing: those that were made are taken away again.
    """
    keep_folders(root, begin_folders(root, parts))


def begin_folders(root: Root, parts: Parts) -> list[Parts]:
    """As ``make_folders``, but for the “durably”: those that were made, outermost first, are for ``keep_folders``, together with others."""
    made: list[Parts] = []
    try:
        for depth in range(1, len(parts) + 1):
            _make(root, parts[:depth], made)
    except BaseException:
        _unmake(root, made)
        raise
    return made


def keep_folders(root: Root, made: Sequence[Parts], found: Sequence[Parts] = ()) -> None:
    """Returns when these new folders, each of which comes after the one that it is in, are on the disk itself; and those that were
    ``found``, which an earlier run may have made and not have kept.

    Raises:
        RootGone, FolderGone, LinkInTheWay, CannotRead, CannotWrite, DiskFull, DiskFailing: those that were made are taken away again, or a
        file would be put into one, and both would be gone after a power cut as if somebody had deleted them.
    """
    around = dict.fromkeys(parts[:-1] for parts in (*made, *found))
    synced: set[int] = set()
    try:
        for parts in around:
            with root.dir_fd(parts) as folder, writing(root.shown(parts)):
                device = os.fstat(folder).st_dev
                if device in synced:
                    continue
                if len(around) >= _MANY and sync_disk(folder):
                    synced.add(device)
                else:
                    sync_folder(folder)
    except BaseException:
        _unmake(root, made)
        raise


def _make(root: Root, parts: Parts, made: list[Parts]) -> None:
    """Makes the folder, unless one stands there; from the moment that it stands there it is in ``made``."""
    with root.dir_fd(parts[:-1]) as around:
        mode = stat.S_IMODE(os.fstat(around).st_mode) & 0o777 | stat.S_IRWXU
        try:
            os.mkdir(parts[-1], mode, dir_fd=around)
        except FileExistsError:
            return _be_folder(root, around, parts)
        except OSError as error:
            raise write_fault(error, root.shown(parts)) from error
    made.append(parts)
    with root.dir_fd(parts) as new, writing(root.shown(parts)):
        own = stat.S_IMODE(os.fstat(new).st_mode)
        if own & 0o777 != mode:  # the process's umask took something away
            os.fchmod(new, own | mode)


def _be_folder(root: Root, around: int, parts: Parts) -> None:
    with reading(root.shown(parts)):
        found = stamp_at(around, parts[-1])
    if found and found.kind == "other":
        raise LinkInTheWay(path=root.shown(parts))
    if found and found.kind == "file":
        raise NameTaken(path=root.shown(parts))


def _unmake(root: Root, made: Sequence[Parts]) -> None:
    for parts in reversed(made):
        try:
            with root.dir_fd(parts[:-1]) as around:
                os.rmdir(parts[-1], dir_fd=around)
        except (OSError, MandateError, UserError):
            pass  # somebody has put something into it meanwhile, or the disk is gone: an empty folder harms nobody
