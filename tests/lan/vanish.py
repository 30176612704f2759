"""The ways in which what is attached can vanish from a disk, each with the way back.

A ``Way`` is done to a ``Disk``: a directory that stands for a mounted disk, on which a file and a folder with folders in it are attached.
It says what the status must then show for either, and whether things come back just as they were.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager as Context
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2psync.store import root as root_module

MANY = 15
"""Files in the attached folder, besides those in the folders below it."""


@dataclass
class Disk:
    """A disk on which ``file`` and ``folder`` are attached."""

    path: Path

    @property
    def file(self) -> Path:
        return self.path / "compta.cre"

    @property
    def folder(self) -> Path:
        return self.path / "recus"

    @property
    def away(self) -> Path:
        return self.path.parent / "away"

    def fill(self) -> "Disk":
        self.path.mkdir(parents=True)
        self.file.write_text("compta 1")
        (self.folder / "2026" / "mars").mkdir(parents=True)
        for n in range(MANY):
            (self.folder / f"{n}.pdf").write_text(f"receipt {n}")
        (self.folder / "2026" / "a.pdf").write_text("a")
        (self.folder / "2026" / "mars" / "b.pdf").write_text("b")
        return self

    def files(self) -> dict[str, str]:
        """What a person finds there."""
        found = [path for path in sorted(self.path.rglob("*")) if path.is_file() and ".p2psync" not in path.name]
        return {str(path.relative_to(self.path)): path.read_text() for path in found}


@dataclass(frozen=True)
class Way:
    """``go`` makes it vanish and leaves by the way back; ``file`` and ``folder`` are the codes shown, None for one that is in order."""

    go: Callable[[Disk], Context[None]]
    file: str | None
    folder: str | None


def _moved(what: str, to: str, instead: Callable[[Path, Path], object] | None = None) -> Callable[[Disk], Context[None]]:
    """``what`` of the disk is renamed to ``to`` beside the disk or (with a slash) on it, and something is put ``instead``."""

    @contextmanager
    def go(disk: Disk) -> Iterator[None]:
        place: Path = getattr(disk, what)
        away = disk.path / to[1:] if to.startswith("/") else disk.path.parent / to
        away.parent.mkdir(parents=True, exist_ok=True)
        place.rename(away)
        if instead:
            instead(place, away)
        yield
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            place.unlink()
        elif place.exists():
            shutil.rmtree(place)
        away.rename(place)

    return go


def _each(*ways: Callable[[Disk], Context[None]]) -> Callable[[Disk], Context[None]]:
    """Several ways at once."""

    @contextmanager
    def go(disk: Disk) -> Iterator[None]:
        first, *more = ways
        with first(disk), _each(*more)(disk) if more else nullcontext():
            yield

    return go


def _other_content(place: Path, away: Path) -> None:
    place.mkdir()
    (place / "holiday.jpg").write_text("sun")


def _stubs(place: Path, away: Path) -> None:
    shutil.copytree(away, place)
    for path in list(place.rglob("*.pdf")):
        path.rename(path.with_suffix(".cloud"))


@contextmanager
def _emptied(disk: Disk) -> Iterator[None]:
    shutil.copytree(disk.path, disk.away)
    for path in sorted(disk.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    disk.file.unlink()
    yield
    shutil.copytree(disk.away, disk.path, dirs_exist_ok=True)


@contextmanager
def _stubbed(disk: Disk) -> Iterator[None]:
    """A cloud tool that takes the files and leaves others in the same folder, for ever."""
    for path in list(disk.folder.rglob("*.pdf")):
        path.rename(path.with_suffix(".away"))
        path.with_suffix(".away").rename(disk.path.parent / path.name)
        path.with_suffix(".cloud").write_text(f"{path.name} is in the cloud")
    yield
    for path in list(disk.folder.rglob("*.cloud")):
        (disk.path.parent / path.with_suffix(".pdf").name).rename(path.with_suffix(".pdf"))


@contextmanager
def _copied(disk: Disk) -> Iterator[None]:
    """Somebody copies the folder, and puts the copy in its place for good."""
    disk.folder.rename(disk.away)
    shutil.copytree(disk.away, disk.folder)
    yield


def _fails(number: int, *, opening: bool, listing: bool) -> Callable[[Disk], Context[None]]:
    """The system answers with an error for everything on the disk."""

    @contextmanager
    def go(disk: Disk) -> Iterator[None]:
        real_open, real_list = os.open, root_module.list_at
        inodes = {path.stat().st_ino for path in (disk.path, *disk.path.rglob("*")) if path.is_dir()}

        def open_(path: object, *args: object, **kwargs: object) -> int:
            if isinstance(path, Path) and (path == disk.path or disk.path in path.parents):
                raise OSError(number, os.strerror(number), str(path))
            return real_open(path, *args, **kwargs)  # type: ignore[arg-type]

        def list_(fd: int) -> object:
            if os.fstat(fd).st_ino in inodes:
                raise OSError(number, os.strerror(number))
            return real_list(fd)

        with pytest.MonkeyPatch.context() as patch:
            if opening:
                patch.setattr(os, "open", open_)
            if listing:
                patch.setattr("p2psync.store.root.list_at", list_)
                patch.setattr("p2psync.store.scan.list_at", list_)
            yield

    return go


@contextmanager
def _lists_partially(disk: Disk) -> Iterator[None]:
    """A network disk that leaves out half of the names, and has the files all the same."""
    real = root_module.list_at

    def list_(fd: int) -> object:
        return real(fd)[::2]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("p2psync.store.root.list_at", list_)
        patch.setattr("p2psync.store.scan.list_at", list_)
        yield


def _special(place: Path, kind: int) -> None:
    try:
        os.mknod(place, kind | 0o600, os.makedev(1, 3))
    except PermissionError:
        os.mkfifo(place)


WAYS: dict[str, Way] = {
    "the disk is unmounted, its mount point empty": Way(_moved("path", "away", lambda p, a: p.mkdir()), "missing-file", "missing-root"),
    "the disk is unmounted, its mount point gone": Way(_moved("path", "away"), "missing-root", "missing-root"),
    "the folder is a mount point, unmounted": Way(_moved("folder", "away", lambda p, a: p.mkdir()), None, "root-replaced"),
    "emptied": Way(_emptied, "missing-file", "many-deletions"),
    "a cloud tool replaces the files by others": Way(_stubbed, None, "many-deletions"),
    "another folder of a cloud tool": Way(_moved("folder", "away", _stubs), None, "root-replaced"),
    "deleted": Way(_each(_moved("folder", "away"), _moved("file", "gone")), "missing-file", "missing-root"),
    "renamed beside": Way(_each(_moved("folder", "/recus old"), _moved("file", "/old.cre")), "missing-file", "missing-root"),
    "renamed by case alone": Way(_each(_moved("folder", "/RECUS"), _moved("file", "/Compta.cre")), "missing-file", "missing-root"),
    "moved, and a link in its place": Way(
        _each(_moved("folder", "away", lambda p, a: p.symlink_to(a)), _moved("file", "f", lambda p, a: p.symlink_to(a))),
        "unreadable",
        None,
    ),
    "a link to another folder": Way(_moved("folder", "away", lambda p, a: p.symlink_to(p.parent.parent / "other")), None, "root-replaced"),
    "a dangling link": Way(
        _each(_moved("folder", "away", lambda p, a: p.symlink_to("nowhere")), _moved("file", "f", lambda p, a: p.symlink_to("nowhere"))),
        "unreadable",
        "missing-root",
    ),
    "another folder, other content": Way(_moved("folder", "away", _other_content), None, "root-replaced"),
    "another folder, the same content": Way(_copied, None, None),
    "a file in place of the folder, a folder in place of the file": Way(
        _each(_moved("folder", "away", lambda p, a: p.write_text("x")), _moved("file", "f", lambda p, a: p.mkdir())),
        "unreadable",
        "missing-root",
    ),
    "the folder above is renamed": Way(_moved("path", "renamed"), "missing-root", "missing-root"),
    "the permission is taken": Way(_fails(errno.EACCES, opening=True, listing=False), "unreadable", "unreadable"),
    "the disk fails": Way(_fails(errno.EIO, opening=True, listing=True), "unreadable", "unreadable"),
    "the disk fails when it is listed": Way(_fails(errno.EIO, opening=False, listing=True), None, "unreadable"),
    "a network disk whose server is gone": Way(_fails(errno.ESTALE, opening=True, listing=True), "missing-root", "missing-root"),
    "a network disk that lists half": Way(_lists_partially, None, None),
    "a FIFO in place of the file": Way(_moved("file", "f", lambda p, a: _special(p, stat.S_IFIFO)), "unreadable", None),
    "a device in place of the file": Way(_moved("file", "f", lambda p, a: _special(p, stat.S_IFCHR)), "unreadable", None),
}
