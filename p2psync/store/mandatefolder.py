"""The folder in which a mandate's files appear on this machine: chosen when the mandate comes here, made when it is sure to.

A folder belongs to one mandate at most, is no part of what p2psync keeps for itself, and is tried before it is promised: a ticket is
not used up for a place that cannot be written to. The trial leaves nothing behind.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from p2psync.store.attaching import check_text
from p2psync.store.books import Books
from p2psync.store.savefile import sync_parent
from p2psync.values.errors import UserError
from p2psync.values.names import component_fault, escaped


class FolderTaken(UserError):
    """The folder “{folder}” belongs to the mandate “{mandate}” already. Choose another one with --folder; nothing was changed."""


class FolderAroundTaken(UserError):
    """The folder “{folder}” contains “{inner}” of the mandate “{mandate}”. Choose another one with --folder; nothing was changed."""


class FolderOwn(UserError):
    """The folder “{folder}” belongs to what p2psync keeps for itself, or contains it. Choose another one with --folder; nothing was
    changed.
    """


class FolderUnusable(UserError):
    """The folder “{folder}” cannot be used: {why}. Choose another one with --folder; nothing was changed."""


_WHY = {
    errno.EACCES: "p2psync's account may not write there",
    errno.EPERM: "the system does not allow to write there",
    errno.EROFS: "the disk is mounted read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.ENOTDIR: "something above it is a file",
    errno.EEXIST: "it is a file",
    errno.ENOENT: "it cannot be made there",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "links above it lead in a circle",
}


def default_place(name: str, folders: Path) -> Path:
    """Where the mandate ``name`` goes when nobody chose: a folder of its name below ``folders``, as every system can store it."""
    return folders / ("".join("-" if component_fault(c) and c not in " ." else c for c in name).rstrip(". ") or "mandate")


def check_place(folder: Path, own: Path, everything: Iterable[Books]) -> None:
    """See whether a mandate may have ``folder``, and whether it can be made and written to; it is not made.

    Raises:
        FolderOwn, FolderTaken, FolderAroundTaken, FolderUnusable, PathUnfit: why not.
    """
    check_text(folder)
    shown = escaped(str(folder))
    real, state = _real(folder), _real(own)
    if real == state or state in real.parents or real in state.parents:
        raise FolderOwn(folder=shown)
    for books in everything:
        for taken in (books.folder, *(location.path for location in books.locations().values() if not location.single)):
            theirs = _real(taken)
            if real == theirs or theirs in real.parents:
                raise FolderTaken(folder=shown, mandate=escaped(books.name))
            if real in theirs.parents:
                raise FolderAroundTaken(folder=shown, inner=escaped(str(taken)), mandate=escaped(books.name))
    for made in reversed(make_folder(folder)):
        made.rmdir()
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        readonly = os.statvfs(folder).f_flag & os.ST_RDONLY
        raise FolderUnusable(folder=shown, why=_WHY[errno.EROFS if readonly else errno.EACCES])


def make_folder(folder: Path) -> list[Path]:
    """Make ``folder`` and what is missing above it, durably; returns what was made, the outermost first.

    Raises:
        FolderUnusable: it cannot be made, with the reason; nothing was.
    """
    made: list[Path] = []
    try:
        for one in [folder, *folder.parents][::-1]:
            if not one.exists():
                one.mkdir()
                made.append(one)
                sync_parent(one)
        if not folder.is_dir():
            raise NotADirectoryError(errno.EEXIST, "")
    except OSError as e:
        for one in reversed(made):
            one.rmdir()
        raise FolderUnusable(folder=escaped(str(folder)), why=_WHY.get(e.errno or 0, e.strerror or "unknown reason")) from None
    return made


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
