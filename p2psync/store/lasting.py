"""What people's programs saved survives a power cut before the ledger says that it is there.

Hardly any program waits for the disk when it saves. The system writes the bytes within half a minute, and a power cut meanwhile leaves the
old ones, none, or a mixture. Were the save in the journal by then, it would be on other machines, and after the restart this one would
take what the power cut left for a newer save and overwrite it everywhere. So what is about to be recorded is first made to last.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from p2psync.store.durable import start_writing, sync_disk, sync_file, sync_folder
from p2psync.store.faults import write_fault
from p2psync.store.root import FolderGone, Folders, NoPlainFile, Parts, Root, open_at
from p2psync.store.savefile import sync_parent
from p2psync.values.errors import P2psyncError, UserError

MANY = 64
"""Files for which the disk as a whole is made durable, at the price of waiting for what others have written to it."""
_UNKNOWN = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO}
"""The disk has no such promise to give, or it is not ours to ask for."""


def make_lasting(root: Root, changed: Iterable[Parts], gone: Iterable[Parts]) -> dict[Parts, UserError]:
    """Returns when what stands at ``changed`` and that nothing stands at ``gone`` would survive a power cut; what failed, and why.

    A disk that knows no such promise (some network disks) does not keep anything from being recorded.
    """
    changed, gone = list(changed), list(gone)
    failed: dict[Parts, UserError] = {}
    with Folders(root) as folders:
        if len(changed) + len(gone) >= MANY and _all_at_once(folders):
            return failed
        for sync in (start_writing, sync_file) if len(changed) > 1 else (sync_file,):
            for parts in changed:
                with _noting(failed, root, [parts]):
                    _file(folders, parts, sync)
        below: dict[Parts, list[Parts]] = {}
        for parts in (*changed, *gone):
            below.setdefault(parts[:-1], []).append(parts)
        for above, here in below.items():
            with _noting(failed, root, here):
                _folder(folders, above)
    return failed


@contextmanager
def _noting(failed: dict[Parts, UserError], root: Root, which: list[Parts]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNKNOWN:
            failed.update((parts, write_fault(error, root.shown(parts))) for parts in which)
    except UserError as error:
        failed.update((parts, error) for parts in which)


def _all_at_once(folders: Folders) -> bool:
    with suppress(OSError, P2psyncError):
        return sync_disk(folders(()))
    return False


def _file(folders: Folders, parts: Parts, sync: Callable[[int], None]) -> None:
    try:
        fd = open_at(folders(parts[:-1]), parts[-1])
    except (FolderGone, NoPlainFile, FileNotFoundError, BlockingIOError):  # a folder, or changed again: then it is looked at again
        return
    try:
        sync(fd)
    finally:
        os.close(fd)


def _folder(folders: Folders, parts: Parts) -> None:
    """The names in a folder; of one that is gone itself, its absence from the nearest that is there."""
    while True:
        try:
            return sync_folder(folders(parts))
        except FolderGone:
            parts = parts[:-1]


def sync_known(fd: int) -> None:
    """As ``sync_file``, where the disk knows such a promise."""
    try:
        sync_file(fd)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise


def make_place_lasting(path: Path) -> None:
    """Returns when the folders on the way to ``path`` would be there after a power cut: somebody may just have made them."""
    for one in (path, *path.parents[:-1]):
        with suppress(OSError):
            sync_parent(one)
