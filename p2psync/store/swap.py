"""The one moment when a name of the user changes hands: looked at last before it, and once more after it.

Before: the file is still what the plan was based on, and a lease makes everybody who opens it wait. Then the two names are swapped in
one step, so that the old file is not destroyed but stands under our name. After: if it is not the one that was looked at, or if
somebody who had been waiting has it open now, the names are swapped back and nothing has happened.

No file changes hands while the log or the journal of a database stands beside its name that SQLite would apply to the file put there:
it would destroy it.
"""

import errno
import os
import secrets
from collections.abc import Callable
from typing import TypeAlias

from p2psync.store import openfiles, sqlitefile
from p2psync.store.openfiles import Lease, OpenBy
from p2psync.store.renaming import rename_new, swap
from p2psync.store.root import NameTaken, NoPlainFile, open_at, stamp_at
from p2psync.values.content import Stamp
from p2psync.values.errors import MandateError


class ChangedMeanwhile(MandateError):
    """“{path}” changed at the very moment when it was to be replaced. It stays as it is and is looked at again."""


class BusyFile(MandateError):
    """“{path}” is {by}. It is left alone, and what is to be done with it waits until it is closed."""

    @property
    def by(self) -> OpenBy:
        """Who has it open."""
        by = self.facts["by"]
        assert isinstance(by, OpenBy)
        return by


def same_file(one: Stamp | None, other: Stamp) -> bool:
    """Whether two stamps are of one file with one content; unlike equality this survives a rename, which moves the ctime."""
    return one is not None and one.but_for_ctime == other.but_for_ctime


def put_new(source: int, staged: str, target: int, name: str, shown: str) -> None:
    """Gives ``staged`` in the open folder ``source`` its ``name`` in ``target``, where nothing may stand.

    Raises:
        ChangedMeanwhile: something does by now. NameTaken: what a database left there stands beside it. OSError.
    """
    if half := sqlitefile.hot_half(target, name):
        raise NameTaken(path=shown.removesuffix(name) + half)
    try:
        rename_new(source, staged, target, name)
    except FileExistsError:
        raise ChangedMeanwhile(path=shown) from None


def put_over(source: int, staged: str, target: int, name: str, expected: Stamp, shown: str) -> bool:
    """As ``put_new`` in place of the file that ``expected`` tells; True when that one now stands under ``staged``, False when it is gone.

    Raises:
        ChangedMeanwhile, BusyFile: nothing was changed. OSError.
    """
    new = stamp_at(source, staged)

    def forth() -> _Place | None:
        if swap(source, staged, target, name):
            return source, staged
        # RACE: without a swap, a save that falls between the last look and this line is lost to the name (only on FAT, network disks).
        os.rename(staged, name, src_dir_fd=source, dst_dir_fd=target)
        return None

    def back() -> None:
        # RACE: whoever opened the new version in these microseconds now has it open under our name.
        swap(source, staged, target, name)
        if new and not same_file(stamp_at(source, staged), new):
            swap(source, staged, target, name)  # somebody saved over the new version meanwhile: that save stays

    return _act(target, name, expected, shown, forth, back)


def take_away(folder: int, name: str, aside: str, expected: Stamp, shown: str) -> None:
    """Renames the file that ``expected`` tells from ``name`` to ``aside``, where nothing may stand, in the same open folder.

    Raises:
        ChangedMeanwhile, BusyFile: nothing was changed. FileExistsError: something stands at ``aside``. OSError.
    """

    def forth() -> _Place:
        rename_new(folder, name, folder, aside)
        return folder, aside

    def back() -> None:
        try:
            rename_new(folder, aside, folder, name)
        except FileExistsError:  # somebody saved under the name meanwhile: that save stays, and the one before it stands visibly beside it
            rename_new(folder, aside, folder, f"{secrets.token_hex(4)} {name}")

    _act(folder, name, expected, shown, forth, back)


_Place: TypeAlias = tuple[int, str]
"""An open folder and a name in it."""


def _act(folder: int, name: str, expected: Stamp, shown: str, forth: Callable[[], _Place | None], back: Callable[[], None]) -> bool:
    """Does ``forth``, which tells where the old file then stands, between the two looks; ``back`` undoes it."""
    fd = _opened(folder, name, shown)
    try:
        with openfiles.held(fd) as lease:
            moved = _look_and_do(fd, folder, name, expected, shown, forth, lease) if lease is not Lease.REFUSED else None
        if lease is Lease.REFUSED:
            if by := openfiles.descriptor(fd, name):
                raise BusyFile(path=shown, by=by)
            moved = _look_and_do(fd, folder, name, expected, shown, forth, lease)  # only we ourselves have it open, to serve it
        if moved is None:
            return False
        by = openfiles.descriptor(fd, moved[1]) if lease is Lease.GRANTED else None
        if by or not same_file(stamp_at(*moved), expected):
            back()
            raise BusyFile(path=shown, by=by) if by else ChangedMeanwhile(path=shown)
        return True
    finally:
        os.close(fd)


def _opened(folder: int, name: str, shown: str) -> int:
    try:
        return open_at(folder, name)
    except BlockingIOError:
        raise BusyFile(path=shown, by=OpenBy(None, None, "open")) from None
    except (FileNotFoundError, NoPlainFile):
        raise ChangedMeanwhile(path=shown) from None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link by now
            raise ChangedMeanwhile(path=shown) from None
        raise


def _look_and_do(
    fd: int, folder: int, name: str, expected: Stamp, shown: str, forth: Callable[[], _Place | None], lease: Lease
) -> _Place | None:
    if stamp_at(folder, name) != expected or os.fstat(fd).st_ino != expected.inode:
        raise ChangedMeanwhile(path=shown)
    if sqlitefile.hot_half(folder, name):  # it was written to by way of its log since it was looked at
        raise ChangedMeanwhile(path=shown)
    if lease is Lease.GRANTED and openfiles.awaited(fd):  # doing it and taking it back would show the new version for a moment
        raise BusyFile(path=shown, by=OpenBy(None, None, "open"))
    return forth()
