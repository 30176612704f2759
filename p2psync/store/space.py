"""How much room the disks have, how much of it is left alone, and a reserve with which p2psync can still write when somebody fills a disk.

Four lines, from the top. Below ``floor`` nothing is fetched: 1 GiB or a twentieth of the disk, whichever is more, and on a small disk a
tenth of it. Below ``tight``, a quarter of that, saves are still recorded, but not copied into the vault. Below ``reserve`` the vault takes
nothing at all. When next to nothing is left, the ``Reserve`` is given up, and the ledger can still be written: what a person saved is
recorded to the end.

Nothing of the history is dropped to make room but what its policy lets go anyway: what else may go is for a person to say.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from p2psync.store.faults import reading, writing
from p2psync.values.errors import UserError
from p2psync.values.names import escaped

FLOOR = 1024 * 1024 * 1024
FLOOR_SHARE = 20
SMALL_SHARE = 10
"""Of a disk of less than 10 GiB a tenth is left alone: 1 GiB would be half of a disk of 2 GiB."""
RESERVE = 64 * 1024 * 1024
"""Some hundred thousand entries of a journal; at most a thirty-second part of the disk."""

_UNITS = ("B", "KB", "MB", "GB", "TB")


class SpaceShort(UserError):
    """The disk that holds “{place}” has only {free} left of {total}, and below {floor} p2psync fetches nothing. Make room on it, and it
    goes on by itself.
    """


@dataclass(frozen=True, slots=True)
class Space:
    """A disk: bytes that may still be written, and bytes that it has in all."""

    free: int
    total: int

    @property
    def floor(self) -> int:
        """Bytes that what is fetched leaves free."""
        return min(max(FLOOR, self.total // FLOOR_SHARE), self.total // SMALL_SHARE)

    @property
    def reserve(self) -> int:
        """Bytes that are for the ledgers alone."""
        return min(RESERVE, self.total // 32)

    @property
    def tight(self) -> bool:
        """Whether even a copy of what was saved here would take what the ledger may need."""
        return self.free < self.floor // 4

    def check(self, shown: object, coming: int = 0) -> None:
        """Refuse to fetch ``coming`` bytes when they would leave less than the floor. Raises: SpaceShort."""
        if self.free - coming < self.floor:
            raise SpaceShort(place=escaped(str(shown)), free=said(self.free), total=said(self.total), floor=said(self.floor))


def of(place: Path) -> Space:
    """The disk that ``place`` is on, or will be when it is made. Raises: CannotRead, DiskFailing."""
    while True:
        try:
            with reading(place):
                status = os.statvfs(place)
        except UserError:
            if place.parent == place or place.exists():
                raise
            place = place.parent
            continue
        return Space(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)


def disks(places: Iterable[Path]) -> dict[Path, Space]:
    """The disks of these places, each once, under the first place on it; those that cannot be asked are left out."""
    found: dict[int, tuple[Path, Space]] = {}
    for place in places:
        with suppress(OSError, UserError):
            found.setdefault(place.stat().st_dev, (place, of(place)))
    return dict(found.values())


class Reserve:
    """A file of nothing in the state directory ``home``, whose room is for the ledgers when somebody else has filled the disk."""

    def __init__(self, home: Path) -> None:
        self.path = home / "reserve"
        self._home = home

    @property
    def held(self) -> bool:
        """Whether it is there."""
        return self.path.exists()

    def keep_up(self) -> bool:
        """Give it up when there is next to no room, make it (again) when there is; whether it is there then.

        Raises:
            CannotWrite, DiskFailing.
        """
        disk = of(self._home)
        size = disk.reserve
        there = self._size()
        if there and disk.free < size // 4:
            with writing(self.path):
                self.path.unlink(missing_ok=True)
            return False
        if there == size or disk.tight or disk.free < 2 * size:
            return there > 0
        return self._make(size)

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _make(self, size: int) -> bool:
        with writing(self.path):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.truncate(fd, 0)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(fd, 0, size)
                else:
                    _fill(fd, size)
            except OSError:
                self.path.unlink(missing_ok=True)
                raise
            finally:
                os.close(fd)
        return True


def _fill(fd: int, size: int) -> None:
    block = bytes(1024 * 1024)
    for at in range(0, size, len(block)):
        os.pwrite(fd, block[: size - at], at)


def said(count: int) -> str:
    """``count`` bytes for people, in steps of a thousand."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.5 else f"{value:.1f} {_UNITS[unit]}"
