"""A busy office, from a seed: people who do anything to their files in any order, on machines whose records and chunks are carried by
hand, and the promises that hold all the while.

A machine may be killed in the middle of its work, and a person may save in the middle of it: both happen at the steps of ``STEPS``.
"""

import os
import random
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from p2psync.engine.ignore import is_by_work
from p2psync.store import (
    apply,
    attaching,
    carryout,
    copies,
    listings,
    locations,
    newcomers,
    paths,
    preparing,
    resolving,
    seeing,
    sharing,
    sources,
    swap,
    versions,
    work,
)
from p2psync.store.chunking import describe
from p2psync.store.vault import Vault
from p2psync.values.content import CHUNK_MAX, Content, File, Listing, State
from p2psync.values.digest import Digest
from p2psync.values.entry import Entry, entry_for
from p2psync.values.errors import UserError
from p2psync.values.names import RelPath
from tests.lan.desks import NOW, Desk

FILES = ["a", "b.txt", "sub/a", "sub/b.txt", "sub/deep/a", "other/b.txt", "folder"]
FOLDERS = ["sub", "sub/deep", "other", "folder", "a", "empty"]
SINGLES = ["compta.cre", "paie.db"]

STEPS: list[tuple[Any, str]] = [
    (carryout, "put_files"),
    (carryout, "put_file"),
    (carryout, "remove_file"),
    (carryout, "remove_folder"),
    (carryout, "sync_folder"),
    (swap, "rename_new"),
    (newcomers, "write_beside"),
    (paths, "put"),
    (paths, "put_all"),
    (copies, "put"),
    (copies, "forget"),
    (locations, "put"),
    (versions, "insert"),
    (versions, "heads"),
    (versions, "heads_of"),
    (seeing, "observe_in"),
    (Vault, "keep"),
]
"""Where somebody may be interrupted: (module or class, function)."""
LEASED = {"rename_new"}
"""Steps during which whoever opens the file waits for us, so that a person in the same thread would wait for ever."""


TEN_YEARS = 10 * 365 * 86_400_000


class Killed(BaseException):
    """The process is gone."""


class Interruption:
    """Something that happens before the n-th step from now."""

    def __init__(self, monkeypatch: Any) -> None:
        self.left = 0
        self.act: Callable[[], None] | None = None
        self.deadly = False
        for owner, name in STEPS:
            monkeypatch.setattr(owner, name, self._before(name, getattr(owner, name)))

    def _before(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            if self.act is not None:
                self.left -= 1
                if self.left < 0 and (self.deadly or name not in LEASED):
                    act, self.act = self.act, None
                    act()
            return step(*args, **kwargs)

        return stepped

    def plan(self, steps: int, act: Callable[[], None], *, deadly: bool) -> None:
        self.left, self.act, self.deadly = steps, act, deadly

    def cancel(self) -> None:
        self.act = None


class BusyOffice:
    """Two or three machines that share a folder and two single files."""

    def __init__(self, root: Path, seed: int, monkeypatch: Any, *, kills: bool = True, races: bool = True) -> None:
        self.chance = random.Random(seed)
        self.vaulted = self.chance.choice([sources.VAULTED, sources.VAULTED, CHUNK_MAX])
        for module in (seeing, apply, preparing, sharing, work, sources):
            monkeypatch.setattr(module, "VAULTED", self.vaulted)
        self.kills, self.races = kills, races
        self.counter = self.entries = 0
        self.said: list[str] = []
        self.places: dict[str, dict[str, Path]] = {}
        self.written: set[bytes] = {b""}
        """Every whole content that a person ever saved."""
        anna = Desk(root / "anna", "Anna", self.chance).found()
        self.desks = [anna]
        for person in ("Marie", "Luc")[: self.chance.choice([1, 1, 2])]:
            self.desks.append(Desk(root / person.lower(), person, self.chance).join(anna, anna.invite(person)))
        files = root / "anna" / "files"
        (files / "recus" / "sub").mkdir(parents=True)
        for name in ("recus/a", "recus/sub/a", *SINGLES):
            self._write(files / name)
        self.interruption = Interruption(monkeypatch)
        monkeypatch.setattr(work, "entry_for", self._entry_for)
        anna.attach(files / "recus", *(files / single for single in SINGLES))
        self.exchange()

    def _entry_for(self, path: RelPath, state: State, *, mtime_ns: int = 0, **rest: Any) -> Entry:
        """As the real one, with times that are the same on every run: they are part of what a record's id is made of."""
        self.entries += 1
        return entry_for(path, state, mtime_ns=mtime_ns and 1_700_000_000_000_000_000 + self.entries, **rest)

    # ---- what people do

    def place(self, desk: Desk, name: str) -> Path:
        """Where a person finds something; they go on working on what was detached."""
        self.places[desk.person] = self.places.get(desk.person, {}) | {n.text: x.path for n, x in desk.books.locations().items()}
        found = self.places[desk.person]
        top = name if name in SINGLES else "recus"
        return found.get(top, desk.folder / top) / ("" if name in SINGLES else name)

    def content(self) -> bytes:
        self.counter += 1
        own = f"version {self.counter} ".encode()
        if self.chance.random() < (0.4 if self.vaulted == CHUNK_MAX else 0.1):
            own += self.chance.choice([3000 * b"x", self.chance.randbytes(CHUNK_MAX + 20_000)])
        return self.chance.choice([b"same", b"", own, own, own, own])

    def _write(self, where: Path) -> None:
        data = self.content()
        self.written.add(data)
        if self.chance.random() < 0.5:
            where.write_bytes(data)
            return
        new = where.with_name("~wrd0001.tmp")
        new.write_bytes(data)
        if self.chance.random() < 0.1:
            new.chmod(0o755)
        try:
            new.replace(where)
        except OSError:
            new.unlink()
            raise

    def save(self, desk: Desk) -> None:
        where = self.place(desk, self.chance.choice([*FILES, *SINGLES]))
        with suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            where.parent.mkdir(parents=True, exist_ok=True)
            self._write(where)

    def save_copy(self, desk: Desk) -> None:
        """Somebody works on in a conflict copy, or throws it away."""
        beside = [one for one in self.files(desk) if " (" in one.name]
        if beside:
            one = self.chance.choice(beside)
            self._write(one) if self.chance.random() < 0.6 else one.unlink()

    def rename(self, desk: Desk) -> None:
        one, other = (self.place(desk, self.chance.choice([*FILES, *FOLDERS])) for _ in range(2))
        if one.exists() and one != other and one not in other.parents:
            with suppress(OSError):
                one.rename(other)

    def delete(self, desk: Desk) -> None:
        where = self.place(desk, self.chance.choice(FILES))
        if where.is_file():
            where.unlink()

    def remove_single(self, desk: Desk) -> None:
        if self.chance.random() < 0.3:
            self.place(desk, self.chance.choice(SINGLES)).unlink(missing_ok=True)

    def permit(self, desk: Desk) -> None:
        """Somebody makes a file a program, or none any more."""
        where = self.place(desk, self.chance.choice(FILES))
        if where.is_file():
            where.chmod(where.stat().st_mode ^ 0o111)

    def make_folder(self, desk: Desk) -> None:
        with suppress(OSError):
            self.place(desk, self.chance.choice(FOLDERS)).mkdir()

    def remove_tree(self, desk: Desk) -> None:
        if self.chance.random() < 0.5:
            shutil.rmtree(self.place(desk, self.chance.choice(FOLDERS)), ignore_errors=True)

    def resolve(self, desk: Desk) -> None:
        for name in sorted(desk.conflicts()):
            with suppress(UserError):
                desk.resolve(name, self.chance.choice(["mine", "theirs", "both"]))

    def detach(self, desk: Desk) -> None:
        """Something is taken out of the mandate; somebody may put it back in later."""
        if self.chance.random() < 0.3:
            with suppress(UserError):
                attaching.detach(desk.books, self.chance.choice(["recus", *SINGLES]), "")

    def attach(self, desk: Desk, names: Sequence[str] = ("recus", *SINGLES)) -> None:
        for name in names:
            where = self.place(desk, name if name in SINGLES else "")
            if where.exists():
                with suppress(UserError):
                    attaching.attach(desk.books, [], desk.home.path, [where], "")

    # ---- what machines do

    def learn(self, desk: Desk) -> None:
        desk.learn(self.chance.choice([d for d in self.desks if d is not desk]))

    def work(self, desk: Desk) -> None:
        others = [d for d in self.desks if d is not desk]
        self.settle(desk, *others[: self.chance.randint(0, len(others))])

    def restart(self, desk: Desk) -> None:
        desk.restart()

    def kill(self, desk: Desk) -> None:
        """The machine dies in the middle of its work, and comes back."""

        def die() -> None:
            raise Killed

        if self.kills:
            self.interruption.plan(self.chance.randint(0, 40), die, deadly=True)
            with suppress(Killed):
                self.work(desk)
            self.interruption.cancel()
            desk.restart()

    def race(self, desk: Desk) -> None:
        """A person works on while the machine works."""
        if self.races:
            person = self.chance.choice([self.save, self.save, self.rename, self.delete])
            self.interruption.plan(self.chance.randint(0, 40), lambda: self._touching(person, desk), deadly=False)
            self.work(desk)
            self.interruption.cancel()

    def step(self) -> None:
        desk = self.chance.choice(self.desks)
        if self.chance.random() < 0.1:  # clocks decide nothing, and nobody keeps them right
            desk.clock = NOW + self.chance.choice([-TEN_YEARS, 0, TEN_YEARS])
        people = [self.save] * 8 + [
            self.rename,
            self.rename,
            self.delete,
            self.make_folder,
            self.remove_tree,
            self.permit,
            self.remove_single,
            self.save_copy,
        ]
        machines = (
            [self.work] * 4 + [self.learn] * 4 + [self.race, self.race, self.kill, self.restart, self.resolve, self.detach, self.attach]
        )
        act = self.chance.choice(self.chance.choice([people, people, machines, machines]))
        self.said.append(f"{desk.person}: {act.__name__}")
        act(desk)

    # ---- what holds all the while

    def files(self, desk: Desk) -> list[Path]:
        """All that stands on this machine's disk, our own files aside."""
        own = desk.root / "state"
        return sorted(p for p in desk.root.rglob("*") if p.is_file() and not (p.is_relative_to(own) or _is_by_work(p)))

    def standing(self, desk: Desk) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.files(desk)}

    def settle(self, desk: Desk, *others: Desk) -> None:
        """Let a machine work; whatever stood on its disk before is somewhere afterwards, and whatever stands there is whole."""
        self.at_stake = dict(self.standing(desk))
        try:
            desk.settle(*others)
        finally:
            self.check(desk, set(self.at_stake.values()))

    def _touching(self, person: Callable[[Desk], None], desk: Desk) -> None:
        """A person acts in the middle of a machine's work: what is lost by their own hand was not lost by the machine."""
        before = self.standing(desk)
        person(desk)
        after = self.standing(desk)
        for path in before.keys() | after.keys():
            if before.get(path) != after.get(path):
                self.at_stake.pop(path, None)
        self.at_stake |= {path: data for path, data in after.items() if before.get(path) != data}

    def check(self, desk: Desk, at_stake: set[bytes]) -> None:
        now = set(self.standing(desk).values())
        assert now <= self.written, f"torn content: {now - self.written}"
        for data in at_stake - now:
            assert not data or self.kept(data), f"lost: {data[:40]!r}"

    def kept(self, data: bytes) -> bool:
        """Whether the history of some machine, or some disk, has all of it."""
        chunks = {chunk.digest for chunk in _chunks(data)}
        held = {digest for desk in self.desks for digest in desk.books.vault.has(chunks)}
        return held == chunks or any(data in self.standing(desk).values() for desk in self.desks)

    # ---- the end

    def exchange(self) -> None:
        for desk in self.desks:
            for other in self.desks:
                if other is not desk:
                    desk.learn(other)
            self.settle(desk, *(d for d in self.desks if d is not desk))

    def quiet(self) -> None:
        """Carry everything to everybody until nobody has anything to say any more; what was taken out is put back in first."""
        self.exchange()
        for desk in self.desks:
            self.attach(desk, [name for name in ("recus", *SINGLES) if name not in desk.attached()])
            self.exchange()
        for _ in range(12):
            before = [desk.books.journal.view() for desk in self.desks]
            self.exchange()
            answered = [desk for desk in self.desks if self.answer(desk)]
            if not answered and before == [desk.books.journal.view() for desk in self.desks] and len(set(before)) == 1:
                self.exchange()
                return
        assert self.is_lost_by_hand(), "they never come to rest"

    def answer(self, desk: Desk) -> bool:
        """Whether the machine asked a person something, who says: what vanished is to be gone; a single file is to come back."""
        asked = False
        for name, location in list(desk.books.locations().items()):
            if location.halted:
                desk.look.confirm(name)
                asked = True
            elif location.single and not location.path.exists():
                asked = True
                with suppress(UserError):
                    _, touched = resolving.restore(desk.books, name.text, None, "")
                    desk.todo |= touched
        return asked

    def tree(self, desk: Desk) -> dict[str, tuple[bytes, bool] | None]:
        """What stands at the shared paths: bytes and permission of files, None for folders; conflict copies left out."""
        beside = {(copy.path.top, copy.disk) for copy in copies.everything(desk.books.ledger.read())}
        found: dict[str, tuple[bytes, bool] | None] = {}
        for name, location in desk.books.locations().items():
            for path in [location.path] if location.single else sorted(location.path.rglob("*")):
                below = path.relative_to(location.path).parts
                if (name.text, below) not in beside and not _is_by_work(path):
                    found["/".join((name.text, *below))] = _what(path)
        return found

    def is_lost_by_hand(self) -> bool:
        """Whether somebody did away with a large new version before any other machine had it: the one thing that nobody can mend."""
        rows = (
            self.desks[0]
            .books.ledger.read()
            .execute("SELECT DISTINCT digest, size, listing FROM entries WHERE size > ? AND head = 1", (self.vaulted,))
        )
        heads = [Content(Digest(row[0]), row[1], Digest(row[2])) for row in rows]
        return not all(any(_has(desk, content) for desk in self.desks) for content in heads)

    def assert_agreement(self) -> None:
        trees = [self.tree(desk) for desk in self.desks]
        for desk, tree in zip(self.desks, trees, strict=True):
            assert tree == trees[0], f"{desk.person}: {_difference(trees[0], tree)}"
            assert desk.conflicts() == self.desks[0].conflicts()
            assert desk.attached() == self.desks[0].attached()
        for content in self.recorded():
            assert any(_has(desk, content) for desk in self.desks), f"a recorded version of {content.size} bytes is lost"
        for desk in self.desks:
            self._assert_conflicts_are_shown(desk)

    def _assert_conflicts_are_shown(self, desk: Desk) -> None:
        db = desk.books.ledger.read()
        for path, heads in versions.conflicted(db).items():
            for head in heads.others:
                assert isinstance(head.state, File)
                shown = [copy for copy in copies.of_path(db, path) if copy.digest == head.state.content.digest]
                assert shown, f"{desk.person} has no copy of a version of {path}"

    def assert_silence(self) -> None:
        """Looking once more writes nothing: not in the journal, not on the disk."""
        for desk in self.desks:
            before = {path: path.lstat() for path in self.files(desk)}
            worked = desk.settle(*(d for d in self.desks if d is not desk))
            assert not worked.records
            assert not worked.wants
            assert {path: path.lstat() for path in self.files(desk)} == before
            left = [path for path in desk.root.rglob(".p2psync*") if path.suffix in (".part", ".gone")]
            assert not left, left

    def recorded(self) -> list[Content]:
        """All contents that the journal names and that must be somewhere: of large ones, what its own author saved over may be gone."""
        rows = (
            self.desks[0]
            .books.ledger.read()
            .execute("SELECT DISTINCT digest, size, listing FROM entries WHERE size BETWEEN 1 AND ?", (self.vaulted,))
        )
        return [Content(Digest(row[0]), row[1], Digest(row[2])) for row in rows]

    def close(self) -> None:
        for desk in self.desks:
            desk.arrivals.close()
            desk.books.close()


def _chunks(data: bytes) -> Listing:
    fd = os.memfd_create("chunks")
    try:
        os.write(fd, data)
        return describe(fd, len(data))[1]
    finally:
        os.close(fd)


def _has(desk: Desk, content: Content) -> bool:
    listing = listings.get(desk.books.ledger.read(), content)
    return listing is not None and all(desk.sources.chunk(chunk.digest) is not None for chunk in listing)


def _is_by_work(path: Path) -> bool:
    return is_by_work(path.name)


def _what(path: Path) -> tuple[bytes, bool] | None:
    if path.is_dir():
        return None
    return path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR)


def _difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    def short(value: Any) -> Any:
        return value if not isinstance(value, tuple) else (value[0][:30], value[1])

    return {
        k: (short(one.get(k, "-")), short(other.get(k, "-"))) for k in one.keys() | other.keys() if one.get(k, "-") != other.get(k, "-")
    }


def seeds(default: int) -> list[int]:
    """As many seeds as the environment asks for: P2PSYNC_SEEDS=200, or a range, 200-400."""
    first, _, last = os.environ.get("P2PSYNC_SEEDS", str(default)).partition("-")
    return list(range(int(first), int(last)) if last else range(int(first)))
