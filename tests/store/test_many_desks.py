"""Machines that do anything in any order, from a seed: in the end they agree, nothing that was recorded is lost, and then it is quiet."""

import os
import random
import shutil
from pathlib import Path

import pytest

from p2psync.values.content import EMPTY
from tests.lan.desks import Desk, fast_vanishing

SEEDS = [*range(int(os.environ.get("P2PSYNC_SEEDS", "14")))]
REGRESSIONS = [12, 21, 34]
NAMES = ["a.txt", "b.txt", "sub/c.txt", "sub/d.txt", "sub/deep/e.txt", "f"]


class Office:
    def __init__(self, root: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.counter = 0
        anna = Desk(root / "anna", "Anna").found()
        self.desks = [anna]
        for person in ("Marie", "Luc")[: self.chance.randint(1, 2)]:
            self.desks.append(Desk(root / person.lower(), person).join(anna, anna.invite(person)))
        files = root / "anna" / "files"
        (files / "folder" / "sub").mkdir(parents=True)
        (files / "folder" / "a.txt").write_text("first a")
        (files / "single.cre").write_text("first")
        anna.attach(files / "folder", files / "single.cre")
        self.quiet()

    def place(self, desk: Desk, name: str) -> Path:
        locations = {n.text: location.path for n, location in desk.books.locations().items()}
        return locations["single.cre"] if name == "single.cre" else locations["folder"] / name

    def step(self) -> None:
        desk = self.chance.choice(self.desks)
        act = self.chance.choice([self.save] * 5 + [self.rename, self.delete, self.make_folder, self.remove_tree, self.settle])
        act = self.chance.choice([act, act, self.learn, self.settle, self.restart] if self.chance.random() < 0.6 else [act])
        act(desk)

    def content(self) -> str:
        self.counter += 1
        return self.chance.choice(["same", "", f"version {self.counter}", f"version {self.counter} " + "x" * 3000])

    def save(self, desk: Desk) -> None:
        name = self.chance.choice([*NAMES, "single.cre", "single.cre"])
        where = self.place(desk, name)
        try:
            where.parent.mkdir(parents=True, exist_ok=True)
            if self.chance.random() < 0.5:
                where.write_text(self.content())
            else:
                new = where.with_name("save.tmp")
                new.write_text(self.content())
                new.replace(where)
        except (IsADirectoryError, NotADirectoryError, FileExistsError):
            for left in where.parent.glob("save.tmp"):
                left.unlink()

    def rename(self, desk: Desk) -> None:
        one, other = (self.place(desk, self.chance.choice(NAMES)) for _ in range(2))
        if one.exists() and other.parent.is_dir() and one != other and one not in other.parents:
            try:
                one.rename(other)
            except OSError:
                return

    def delete(self, desk: Desk) -> None:
        where = self.place(desk, self.chance.choice(NAMES))
        if where.is_file():
            where.unlink()

    def make_folder(self, desk: Desk) -> None:
        where = self.place(desk, self.chance.choice(["empty", "sub/empty", "f"]))
        if where.parent.is_dir() and not where.exists():
            where.mkdir()

    def remove_tree(self, desk: Desk) -> None:
        if self.chance.random() < 0.3:
            shutil.rmtree(self.place(desk, self.chance.choice(["sub", "sub/deep", "empty"])), ignore_errors=True)

    def settle(self, desk: Desk) -> None:
        desk.settle(*([d for d in self.desks if d is not desk] if self.chance.random() < 0.7 else []))

    def learn(self, desk: Desk) -> None:
        desk.learn(self.chance.choice([d for d in self.desks if d is not desk]))

    def restart(self, desk: Desk) -> None:
        desk.restart()

    def quiet(self) -> None:
        for _ in range(4):
            for desk in self.desks:
                for other in self.desks:
                    if other is not desk:
                        desk.learn(other)
                desk.settle(*[d for d in self.desks if d is not desk])

    def tree(self, desk: Desk) -> dict[str, str | None]:
        """What stands there, conflict copies left out."""
        folder = self.place(desk, "")
        found: dict[str, str | None] = {"single.cre": self.place(desk, "single.cre").read_text()}
        for path in sorted(folder.rglob("*")):
            if " (" not in path.name:
                found[str(path.relative_to(folder))] = path.read_text() if path.is_file() else None
        return found

    def recorded(self) -> set[bytes]:
        rows = self.desks[0].books.ledger.read().execute("SELECT DISTINCT digest FROM entries WHERE digest IS NOT NULL")
        return {row[0] for row in rows} - {EMPTY.digest}


@pytest.mark.parametrize("seed", dict.fromkeys([*REGRESSIONS, *SEEDS]))
def test_any_history_ends_in_agreement(tmp_path, monkeypatch, seed):
    fast_vanishing(monkeypatch)
    office = Office(tmp_path, seed)
    for _ in range(office.chance.randint(10, 40)):
        office.step()
    office.quiet()
    trees = [office.tree(desk) for desk in office.desks]
    assert all(tree == trees[0] for tree in trees)
    views = {desk.books.journal.view() for desk in office.desks}
    assert len(views) == 1
    for digest in office.recorded():
        assert any(desk.sources.chunk(digest) is not None for desk in office.desks), "a recorded version is lost"
    conflicts = [desk.conflicts() for desk in office.desks]
    assert all(c == conflicts[0] for c in conflicts)
    for desk in office.desks:
        assert not desk.settle().records
        desk.books.close()
