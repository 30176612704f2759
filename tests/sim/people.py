"""People and their programs: whatever they do to the files of one machine, and what is remembered of it to judge the daemons by.

``Known`` is the reference. It knows what was written, where and by whom, and which version each save was made from; it knows nothing of
journals, heads or three views.
"""

from __future__ import annotations

import os
import random
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from tests.sim.machine import Machine

SINGLES = ("compta.cre", "paie.db")
FOLDER = "recus"
PLAIN = ("plain-1", "plain-2", "sub/plain-3")
"""Below FOLDER: files that are only ever saved, never renamed or deleted, so that their conflicts can be told exactly."""
PLAIN_NAMES = {f"{FOLDER}/{name}" for name in PLAIN} | set(SINGLES)
WILD = ("a", "b.txt", "sub/a", "sub/b.txt", "sub/deep/a", "other/b.txt", "folder", "B.TXT", "été.txt")
FOLDERS = ("sub/deep", "other", "folder", "a", "empty")
SAME = b"the same everywhere"


@dataclass
class Version:
    """One state of a plain path as a person made it: made from the versions ``parents``."""

    content: bytes
    parents: frozenset[int]


@dataclass
class Known:
    """What people did, everywhere."""

    whole: set[bytes] = field(default_factory=lambda: {b""})
    put: dict[str, set[tuple[str, bytes]]] = field(default_factory=dict)
    """By machine: (name, content) that somebody there put under that name."""
    named: set[tuple[str, bytes]] = field(default_factory=set)
    """The same of all machines."""
    alike: set[tuple[str, bytes]] = field(default_factory=set)
    """The same of all machines, under what names that differ in case have in common."""
    folded: set[tuple[str, bytes]] = field(default_factory=set)
    """The same of the machines whose disks take such names for one."""
    removed: set[str] = field(default_factory=set)
    """Names under which somebody somewhere took something away, folders included."""
    folders: set[str] = field(default_factory=set)
    """Names under which somebody somewhere had a folder."""
    inexact: set[str] = field(default_factory=set)
    """Names of plain files that somebody did something else to than saving them."""
    versions: dict[str, list[Version]] = field(default_factory=dict)
    """Of each plain name: all versions, in the order in which they were made."""
    deeds: list[str] = field(default_factory=list)
    """Who did what, and what they saw; of those at one instant any may come first."""
    only_on_disk: set[bytes] = field(default_factory=set)
    """What stood in the files of a machine while its history could take no copies, as it said: saved over, it is gone."""
    is_restored: bool = False
    """Somebody restored a backup."""

    def fresh(self, chance: random.Random) -> bytes:
        """A content that a program may write: the same one whatever others write before."""
        own = f"version {hash(chance.getstate()[1]) & 0xFFFFFFFF:08x} ".encode()
        if chance.random() < 0.08:
            own += chance.randbytes(chance.choice([3_000, 300_000]))
        content = own if chance.random() < 0.93 else chance.choice([SAME, b""])
        self.whole.add(content)
        return content

    def note_put(self, machine: str, name: str, content: bytes, *, casefold: bool = False) -> None:
        self.put.setdefault(machine, set()).add((name, content))
        self.named.add((name, content))
        self.alike.add((fold(name), content))
        if casefold:
            self.folded.add((fold(name), content))

    def was_put(self, name: str, content: bytes, *, casefold: bool) -> bool:
        """Whether somebody put this content under this name, or under one that is the same to that disk, or to this one (``casefold``)."""
        return (name, content) in self.named or (fold(name), content) in (self.alike if casefold else self.folded)

    def note_restored(self, machine: str, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> None:
        """Somebody restored a backup at a machine: what stands there now is as they want it, and versions may be known to nobody."""
        self.is_restored = True
        self.removed |= before.keys() - after.keys()
        for name, content in after.items():
            if content is not None:
                self.note_put(machine, name, content)

    def note_saved(self, name: str, before: bytes | None, after: bytes) -> None:
        """A plain file was saved by somebody who saw ``before``."""
        made = self.versions.setdefault(name, [])
        same = frozenset(number for number, one in enumerate(made) if one.content == before)
        if before != after:
            made.append(Version(after, same))

    def leaves(self, name: str) -> set[bytes]:
        """The contents of the versions of a plain name that nobody made another one from."""
        made = self.versions.get(name, [])
        used = {parent for one in made for parent in one.parents}
        return {one.content for number, one in enumerate(made) if number not in used}


@lru_cache(5_000)
def fold(name: str) -> str:
    """What names that differ in case or in how accents are written have in common."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def read(path: Path) -> bytes:
    """What a file holds."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
    finally:
        os.close(fd)


def write(path: Path, content: bytes) -> None:
    """Writes a file in place."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


class People:
    """The people at one machine."""

    def __init__(self, machine: Machine, known: Known) -> None:
        self.machine, self.known = machine, known
        self.places: dict[str, Path] = {}
        self.open: dict[Path, int] = {}
        self.say: Callable[[str], None] = lambda text: None
        self.acting: Callable[[], AbstractContextManager[None]] = nullcontext
        """Surrounds whatever they do to the disk."""

    # ---- where things are

    def look_up(self) -> dict[str, Path]:
        """Where the attachments lie; people know it also when the daemon does not run."""
        self.places |= self.machine.locations()
        return self.places

    def where(self, name: str) -> Path | None:
        """The path of a name such as “recus/sub/a”."""
        top, _, below = name.partition("/")
        place = self.look_up().get(top)
        if place is None or str(place) in self.machine.disk.away:
            return None
        return self.machine.disk.spelled(place / below if below else place)

    def spelled(self, name: str) -> str:
        """The name as it travels of what the disk has under this one."""
        where, top = self.where(name), name.partition("/")[0]
        if where is None:
            return name
        below = where.relative_to(self.machine.disk.spelled(self.places[top])).as_posix()
        return unicodedata.normalize("NFC", f"{top}/{below}" if below != "." else top)

    def names_below(self, path: Path, name: str) -> dict[str, bytes | None]:
        """What stands at and below a path: names to contents, None for folders."""
        return self.machine.disk.tree(str(path), name)

    def all(self) -> dict[str, bytes | None]:
        """Everything below the attachments, conflict copies as well: names to contents, None for folders."""
        found = [self.machine.disk.tree(str(place), top) for top, place in self.places.items()]
        return {name: content for tree in found for name, content in tree.items()}

    # ---- what they do

    def save(self, chance: random.Random, name: str, *, content: bytes | None = None) -> None:
        """A program saves a file as a whole: in place, or by renaming a new one over it."""
        name = self.spelled(name)
        where = self.where(name)
        if where is None or where in self.open:
            return
        content = self.known.fresh(chance) if content is None else content
        before = read(where) if where.is_file() else None
        try:
            where.parent.mkdir(parents=True, exist_ok=True)
            if chance.random() < 0.5:
                write(where, content)
            else:
                beside = where.with_name("~wrd0001.tmp")
                write(beside, content)
                try:
                    beside.replace(where)
                except OSError:
                    beside.unlink()
                    raise
        except OSError:
            return
        self._saved(name, before, content)
        self.machine.hear(where, "closed")

    def _did(self, what: str, seen: Mapping[str, bytes | None]) -> None:
        """Note an act, with what whoever did it had before their eyes: contents alone, since the names of conflict copies have dates."""
        self.say(f"{self.machine.person} {what}")
        held = sorted(b"" if content is None else content for content in seen.values())
        self.known.deeds.append(f"{self.machine.person} {what} of {sha256(repr(held).encode()).hexdigest()[:8]}")

    def _put(self, name: str, content: bytes) -> None:
        self.known.note_put(self.machine.person, name, content, casefold=self.machine.disk.traits.casefold)

    def _saved(self, name: str, before: bytes | None, content: bytes) -> None:
        self._did(f"saved {name}: {content[:20]!r}", {name: before})
        self.known.whole.add(content)
        self._put(name, content)
        if name.partition("/")[2] in PLAIN or name in SINGLES:
            self.known.note_saved(name, before, content)
            if content in (SAME, b""):  # whoever sees it cannot tell whose it is
                self.known.inexact.add(name)

    async def save_slowly(self, chance: random.Random, name: str) -> None:
        """As ``_save_slowly``; a power cut ends the program with the rest."""
        try:
            await self._save_slowly(chance, name)
        except OSError:
            where = self.where(name)
            with self.acting():
                if where is not None and where.is_file():  # what it had written by then is what it wrote
                    self.known.whole.add(read(where))
                    self._put(self.spelled(name), read(where))
                    self.known.inexact.add(self.spelled(name))

    async def _save_slowly(self, chance: random.Random, name: str) -> None:
        """A program truncates a file and writes it again in pieces, with pauses shorter than a moment's quiet."""
        name = self.spelled(name)
        where = self.where(name)
        if where is None or not where.is_file() or where in self.open:
            return
        content = self.known.fresh(chance)
        self._put(name, content)  # it may be found as a whole before the program has ended, or though it was killed
        with self.acting():
            before = read(where)
            fd = os.open(where, os.O_RDWR)
        with self._opened(where):
            for number in range(4):
                piece = content[number * len(content) // 4 : (number + 1) * len(content) // 4]
                with self.acting():
                    if number == 0:
                        os.ftruncate(fd, 0)
                    os.write(fd, piece)
                self.machine.hear(where, "touched")
                await trio.sleep(chance.choice([0.0, 0.01, 0.3]))
            with self.acting():
                there = os.fstat(fd).st_nlink and where.exists() and os.fstat(fd).st_ino == where.stat().st_ino
                os.close(fd)
                if there:
                    self._saved(name, before, content)
        self.machine.hear(where, "closed")

    async def keep_open(self, chance: random.Random, name: str) -> None:
        """A program has a file open for a while, and may save it at the end."""
        where = self.where(name)
        if where is None or not where.is_file() or where in self.open:
            return
        with self._opened(where):
            await trio.sleep(chance.choice([0.5, 5, 60]))
        if where.is_file() and chance.random() < 0.5:
            with self.acting():
                self.save(chance, name)
        self.machine.hear(where, "closed")

    def _opened(self, where: Path) -> _Opened:
        return _Opened(self, where)

    def rename(self, chance: random.Random) -> None:
        """Somebody renames or moves a file or a folder, perhaps over another file."""
        old, new = (self.spelled(f"{FOLDER}/{chance.choice([*WILD, *FOLDERS])}") for _ in range(2))
        one, other = self.where(old), self.where(new)
        if one is None or other is None or one == other or one in other.parents or not one.exists() or self._is_open(one, other):
            return
        moved = self.names_below(one, old)
        over = self.names_below(other, new)
        try:
            one.rename(other)
        except OSError:
            return
        self._did(f"renamed {old} to {new}", moved | over)
        self.known.removed |= moved.keys() | over.keys()
        for name, content in moved.items():
            if content is not None:
                self._put(new + name[len(old) :], content)
        for path in (one, other):
            self.machine.hear(path, "closed")

    def _is_open(self, *paths: Path) -> bool:
        return any(path == one or path in one.parents for path in paths for one in self.open)

    def delete(self, chance: random.Random) -> None:
        """Somebody deletes a file."""
        name = self.spelled(f"{FOLDER}/{chance.choice(WILD)}")
        where = self.where(name)
        if where is not None and where.is_file() and not self._is_open(where):
            self.known.removed.add(name)
            self._did(f"deleted {name}", {name: read(where)})
            where.unlink()
            self.machine.hear(where, "touched")

    def delete_single(self, chance: random.Random) -> None:
        """Somebody deletes a file that is attached by itself, which is to delete nothing elsewhere."""
        name = chance.choice(SINGLES)
        where = self.where(name)
        if where is not None and where.is_file() and not self._is_open(where):
            self.known.inexact.add(name)
            self._did(f"deleted {where.name}", {name: read(where)})
            where.unlink()
            self.machine.hear(where, "touched")

    def empty(self, chance: random.Random) -> None:
        """All that is in the attached folder goes at once."""
        where = self.where(FOLDER)
        if where is not None and where.is_dir() and not self._is_open(where) and chance.random() < 0.5:
            self.known.removed |= self.names_below(where, FOLDER).keys()
            self.known.inexact |= self.known.removed
            self._did(f"emptied {FOLDER}", self.names_below(where, FOLDER))
            for one in sorted(where.iterdir()):
                shutil.rmtree(one) if one.is_dir() else one.unlink()
            self.machine.hear(where, "touched")

    def delete_folder(self, chance: random.Random) -> None:
        """Somebody deletes a folder with all that is in it."""
        name = self.spelled(f"{FOLDER}/{chance.choice(FOLDERS)}")
        where = self.where(name)
        if where is not None and where.is_dir() and not self._is_open(where):
            self.known.removed |= self.names_below(where, name).keys()
            self._did(f"deleted {name}", self.names_below(where, name))
            shutil.rmtree(where)
            self.machine.hear(where, "touched")

    def clear(self, name: str) -> bool:
        """Somebody takes away what programs have left in the folder, if there is anything."""
        where = self.where(name)
        left = sorted(where.rglob("~wrd*")) if where is not None and where.is_dir() else []
        for one in left:
            one.unlink()
            self.machine.hear(one, "touched")
        return bool(left)

    def make_folder(self, chance: random.Random) -> None:
        """Somebody makes an empty folder."""
        where = self.where(f"{FOLDER}/{chance.choice(FOLDERS)}")
        if where is not None:
            with suppress(OSError):
                where.mkdir()
            self.machine.hear(where, "touched")

    def permit(self, chance: random.Random) -> None:
        """Somebody makes a file a program, or none any more."""
        name = self.spelled(f"{FOLDER}/{chance.choice(WILD)}")
        where = self.where(name)
        if where is not None and where.is_file():
            self._put(name, read(where))
            where.chmod(where.stat().st_mode ^ 0o111)
            self.machine.hear(where, "touched")


class _Opened:
    def __init__(self, people: People, where: Path) -> None:
        self.people, self.where = people, where

    def __enter__(self) -> None:
        self.people.open[self.where] = self.people.open.get(self.where, 0) + 1
        self.people.machine.disk.opened(self.where, "gestion")

    def __exit__(self, *_: object) -> None:
        self.people.open[self.where] -= 1
        if not self.people.open[self.where]:
            del self.people.open[self.where]
            self.people.machine.disk.closed(self.where)
