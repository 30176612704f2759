"""One program on its desks, running and sharing a folder, with what all works do with it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from measuring.peer import GaveUp, Peer, until
from measuring.process import Costs

MIB = 1 << 20
Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Size:
    """How much of each work."""

    big_mib: int
    inserted_mib: int
    small_files: int
    saves: int
    saving_s: float
    """A program that is slow to notice makes fewer saves than `saves`: it gets this long."""
    idle_s: float
    starts: int
    crowd: int
    """Members of W9."""
    attached: int
    members: int
    mandates: int
    """Of W11."""

    def words(self) -> list[str]:
        """What the works are, in these sizes, a line each."""
        return [
            f"W1 a new file of {self.big_mib} MiB; W4 4 KiB changed inside it; W8 as W1, the receiver killed half way and started again",
            f"W2 {self.small_files} new files of 4 KiB; W5 1 KiB inserted near the start of {self.inserted_mib} MiB",
            "W3 a file of 20 KiB saved (a: in place, b: by rename, c: during a bulk transfer): close() until its bytes can be read there",
            f"W6 an idle minute, {self.small_files} files and all the rest attached; W7 start until connected",
            f"W9 {self.inserted_mib} MiB to one other, and to {self.crowd - 1} others at once; W10 {self.attached} attached files",
            f"W11 {self.members} members with one mandate, and with {self.mandates}",
        ]


FULL = Size(1024, 256, 10_000, 30, 60, 60, 3, 8, 100_000, 4, 50)
QUICK = Size(256, 64, 2_000, 8, 5, 15, 1, 4, 10_000, 3, 10)


@dataclass(frozen=True)
class Session:
    """A program that is running: the shared folder on each desk, the first one's first, and the folder that holds all that is theirs."""

    peer: Peer
    folders: list[Path]
    home: Path

    @property
    def scratch(self) -> Path:
        """A folder on the same disk."""
        return self.home / "scratch"

    @property
    def here(self) -> Path:
        """The folder where things are saved."""
        return self.folders[0]

    @property
    def there(self) -> Path:
        """The folder where they are awaited."""
        return self.folders[1]

    def costs(self) -> Costs:
        """What is used on all desks inside a `with` block."""
        return Costs(self.peer.desks, [self.peer.pids(desk) for desk in self.peer.desks])


OpenSession = Callable[[int], AbstractContextManager[Session]]
"""Starts a program on so many desks."""


def fill(path: Path, mib: int) -> None:
    """Random bytes throughout, so that nothing can be left out as a repetition; durable, so that writing them back disturbs nobody."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def arrived(path: Path, size: int, limit_s: float = 900) -> float:
    """Wait until `path` has `size` bytes (all of these programs put a file into place whole); the instant, on time.monotonic()."""

    def there() -> bool:
        try:
            return path.stat().st_size == size
        except FileNotFoundError:
            return False

    until(there, limit_s, f"{path.name} arrives", 0.002)
    return time.monotonic()


def differences(session: Session) -> list[str]:
    """The names below the folders whose bytes are not the same on all desks; empty when all is well."""
    sides = [{path.relative_to(folder): path for path in _files(folder)} for folder in session.folders]
    names = set().union(*sides)
    return sorted(str(name) for name in names if len({_digest(side.get(name)) for side in sides}) > 1)


def confirm_same(session: Session) -> None:
    """Raises: GaveUp, when a byte differs between the desks after a moment's patience."""
    try:
        until(lambda: not differences(session), 30, "the same bytes everywhere", 0.5)
    except GaveUp as late:
        different = differences(session)
        raise GaveUp(f"{len(different)} files differ between the desks, the first is {different[:1]}") from late


def _files(folder: Path) -> Iterator[Path]:
    """The files below `folder` without hidden ones, which the programs keep for themselves."""
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(where, name) for name in names if not name.startswith("."))


def _digest(path: Path | None) -> bytes:
    if path is None:
        return b"absent"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha1").digest()
    except FileNotFoundError:
        return b"absent"
